"""Layouts whose grammar is their own: their lines are rewritten to `name: value`, which the reader of pairs knows.

Composer, Marian, ESPnet, flair, flax, timm, torchvision, mmengine, DeepSpeed-Chat, and logs in other languages. It opens no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TRIGGER = re.compile(
    r"batch=\d|skipped=\d|micro_step=|Eval "
    r"|Ep\. \d|epoch results: \[|\.\.\. ?\(\d|(?:DEV|TEST) ?: |(?:Train|Epoch): ?\[?\d+\]? +\[|Iter\(\w+\)|^ppl: "
    r"|\*{4}|\bvalidate step|after step:|│|[À-ÿ]|[\u0400-\u04ff]|[\u3040-\u30ff]|[\u4e00-\u9fff]|[\uac00-\ud7a3]"
)
"""What every idiom holds, so that any other line costs one search."""

_WORDS = (
    ("训练", "train_"), ("验证集", "val_"), ("验证", "val_"), ("测试集", "test_"), ("测试", "test_"), ("平均", ""), ("当前", ""),
    ("损失值", "loss"), ("损失", "loss"), ("学习率", "learning_rate"), ("准确率", "accuracy"), ("精度", "accuracy"),
    ("困惑度", "perplexity"), ("梯度范数", "grad_norm"), ("步数", "step"), ("轮次", "epoch"), ("：", ": "), ("，", ", "),
    ("훈련", "train_"), ("학습률", "learning_rate"), ("학습", "train_"), ("검증", "val_"), ("손실", "loss"), ("정확도", "accuracy"),
    ("에포크", "epoch"), ("에폭", "epoch"), ("스텝", "step"),
    ("学習率", "learning_rate"), ("訓練", "train_"), ("学習", "train_"), ("検証", "val_"), ("損失", "loss"), ("精度", "accuracy"),
    ("エポック", "epoch"), ("ステップ", "step"),
    ("эпоха", "epoch"), ("шаг", "step"), ("потери", "loss"), ("лосс", "loss"), ("обучения", "train_"), ("валидации", "val_"),
    ("época", "epoch"), ("époque", "epoch"), ("pérdida", "loss"), ("perte", "loss"), ("validación", "val_"), ("validação", "val_"),
    ("entrenamiento", "train_"), ("treinamento", "train_"), ("entraînement", "train_"), ("précision", "accuracy"),
    ("│", "|"),
)  # fmt: skip
"""Words of logs in other languages, and their names; longer words stand before those that they hold."""
_CROSS_ENTROPY = re.compile(r"(?:Language|Masked)?CrossEntropy$|^total$")


def plain(line: str) -> str:
    """The line in the grammar of pairs; a line without an idiom comes back as it is, one that would mislead comes back empty.

    >>> plain("[batch=50/200]:"), plain(" Eval metrics/eval/LanguageCrossEntropy: 2.1")
    ('step: 50/200', 'eval/loss: 2.1')
    >>> plain("[valid] Ep. 1 : Up. 500 : perplexity : 12.5 : new best")
    'epoch: 1, step: 500, eval/perplexity: 12.5'
    """
    if _TRIGGER.search(line) is None:
        return line
    for pattern, rewrite in _IDIOMS:
        found = pattern.search(line)
        if found:
            return rewrite(found)
    return _in_english(line) if any(word in line.lower() for word, _ in _WORDS) else line


def _composer_step(found: re.Match[str]) -> str:
    epoch = f"epoch: {found['epoch']}, " if found["epoch"] else ""
    # Without a slash, as in `[batch=50]`, the length of the run is not known.
    return f"{epoch}step: {found['batch']}{found['of'] or ''}{found['rest'].lstrip(':')}"


def _composer_evaluation(found: re.Match[str]) -> str:
    label, metric, value = found["label"], found["metric"], found["value"]
    if _CROSS_ENTROPY.search(metric):
        return f"eval/loss: {value}" if label == "eval" else f"eval/{label}_loss: {value}"
    if label != "eval":
        return ""
    return f"eval/{'perplexity' if metric.endswith('Perplexity') else metric}: {value}"


def _marian(found: re.Match[str]) -> str:
    counters = f"epoch: {found['epoch']}, step: {found['update'].replace(',', '')}"
    rest = found["rest"]
    if found["valid"]:
        # Its cross entropy is that of whole sentences; the perplexity is that of words.
        measured = re.search(r"\b(perplexity|bleu\S*|chrf|ce-mean-words) : ([\d.]+)", rest)
        name = measured[1].replace("ce-mean-words", "loss") if measured else ""
        return f"{counters}, eval/{name}: {measured[2]}" if measured else ""
    values = [(name, re.search(rf"{word} ([\d.e+-]+)", rest))
              for name, word in (("loss", "Cost"), ("grad_norm", "gNorm"), ("learning_rate", r"L\.r\."))]  # fmt: skip
    return ", ".join([counters, *(f"{name}: {value[1]}" for name, value in values if value)])


def _espnet(found: re.Match[str]) -> str:
    trained, _, validated = found["rest"].partition("[valid]")
    pairs = [f"{name}: {value}" for name, value in re.findall(r"\b(loss|optim0_lr0|grad_norm)=([\w.+-]+)", trained)]
    pairs += [f"eval/{name}: {value}" for name, value in re.findall(r"\b(loss|acc|cer|wer)=([\w.+-]+)", validated)]
    return ", ".join([f"epoch: {found['epoch']}", *pairs]).replace("optim0_lr0", "learning_rate")


def _flair(found: re.Match[str]) -> str:
    # Scores on the test set are no validation.
    return "" if found["split"] == "TEST" else f"eval/loss: {found['loss']}, eval/score: {found['score']}"


def _iteration(found: re.Match[str]) -> str:
    """mmengine's lines by iteration: those of validation count their own batches."""
    if found["split"] == "train":
        return f"step: {found['step']}, {found['rest']}"
    return re.sub(r"\b(\w*loss\w*|acc\w*): ", r"eval/\1: ", found["rest"])


def _counters_in_brackets(found: re.Match[str]) -> str:
    return f"epoch: {found['epoch']}, step: {found['step']}, {found['rest']}"


def _in_english(line: str) -> str:
    line = re.sub(r"第 ?(\d+) ?(?:/ ?\d+ ?)?(?:轮|个? ?epoch|代|エポック)", r"epoch: \1, ", line).lower()
    line = re.sub(r"第 ?(\d+) ?步", r"step: \1, ", line)
    for word, name in _WORDS:
        line = line.replace(word, name)
    line = re.sub(r"\b(loss|accuracy) (?:de |du |d')?(train|val)_", r"\2_\1", line)
    return re.sub(r"(train|val|test)_ *(epoch|step)?", lambda found: found[2] or f"{found[1]}_", line)


def _as_evaluation(found: re.Match[str]) -> str:
    step = f"step: {found['step']}, " if found.groupdict().get("step") else ""
    return step + re.sub(r"\b(loss|ppl|perplexity|accuracy)\b", r"eval/\1", found["rest"])


def _deepspeed(found: re.Match[str]) -> str:
    """DeepSpeed says the rates of its parameter groups on a line of its own; the loss of the same step stands on another."""
    return f"step: {found['step']}, learning_rate: {found['rate']}"


def _nothing(found: re.Match[str]) -> str:
    return ""


_IDIOMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\bstep=(?P<step>\d+), skipped=\d+, lr=\[(?P<rate>[\d.e+-]+)"), _deepspeed),
    (re.compile(r"\bmicro_step=\d+/global_step=\d+, RunningAvg"), _nothing),
    (re.compile(r"\[Eval batch=[^\]]*\](?! *\w+ metrics/)"), _nothing),
    (
        re.compile(r"(?:\[epoch=(?P<epoch>\d+)(?:/\d+)?\])?\[batch=(?P<batch>\d+)(?P<of>/\d+)?\](?P<rest>.*)"),
        _composer_step,
    ),
    (
        re.compile(r"\bEval (?:metrics|loss)/(?P<label>[\w.-]+)/(?P<metric>\w+): *(?P<value>[\w.+-]+)"),
        _composer_evaluation,
    ),
    (re.compile(r"(?P<valid>\[valid\] )?Ep\. (?P<epoch>\d+) : Up\. (?P<update>[\d,]+) : (?P<rest>.*)"), _marian),
    (re.compile(r"(?P<epoch>\d+)epoch results: \[train\](?P<rest>.*)"), _espnet),
    (re.compile(r"(?P<split>DEV|TEST) ?: loss (?P<loss>[\d.einfa+-]+) - .*?(?P<score>\d\.\d+)\s*$"), _flair),
    (re.compile(r"Iter\((?P<split>\w+)\) *\[ *(?P<step>\d+(?:/ *\d+)?)\](?P<rest>.*)"), _iteration),
    (
        re.compile(r"\bTrain: (?P<epoch>\d+) \[ *(?P<step>\d+/ *\d+) *(?:\([^)]*\))?\](?P<rest>.*)"),
        _counters_in_brackets,
    ),
    (re.compile(r"\bEpoch: ?\[(?P<epoch>\d+)\] +\[ *(?P<step>\d+/ *\d+)\](?P<rest>.*)"), _counters_in_brackets),
    (
        re.compile(r"\.\.\. ?\((?P<step>\d+(?:/ ?\d+)?) \|(?P<rest>.*)"),
        lambda found: f"step: {found['step']}, {found['rest']}",
    ),
    (re.compile(r"\bvalidate step: *(?P<step>\d+) (?P<rest>.*)"), _as_evaluation),
    (re.compile(r"^eval metrics after step: (?P<step>\d+)(?P<rest>.*)"), _as_evaluation),
    (re.compile(r"^(?P<rest>ppl: [\d.]+, loss: [\d.]+)"), _as_evaluation),
    (re.compile(r"^\W*\*{4,}.*\*{4,}\s*$"), _nothing),
)
