"""Losses and metrics of our own: sums over tokens in fp32, divided once, so that no batch size changes the result."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from finestep.errors import BadInput, cause_words
from finestep.train.batch import collate
from finestep.train.devices import ALONE, Devices
from finestep.train.loss import TokenLoss
from finestep.train.memory import in_parts_that_fit
from finestep.train.token_rows import TokenRows
from finestep.train.tokenizer import Tokenizer
from finestep.train.tokens import TrainingData

EVAL_BATCH_SIZE = 32
GENERATED_ROWS = 128
MAX_NEW_TOKENS = 256
BUILT_IN_METRICS = ("exact_match",)


class StopRequested(Exception):
    """Raised inside an evaluation when the trial is asked to stop."""


class Evaluation(NamedTuple):
    """Validation loss in nats a token (or row, for labels), metrics, and the sums of the rows behind it."""

    loss: float
    metrics: dict[str, float]
    row_sums: np.ndarray


def evaluate(
    model: torch.nn.Module,
    data: TrainingData,
    token_loss: TokenLoss,
    *,
    batch_size: int = EVAL_BATCH_SIZE,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[float, dict[str, float]]:
    """(loss over all validation rows in nats a token or row, metrics): perplexity, or accuracy and macro-F1.

    Raises:
        StopRequested: `should_stop` became true on the way.
    """
    return evaluate_rows(model, data, token_loss, rows=data.evaluation, batch_size=batch_size, should_stop=should_stop)[
        :2
    ]


@torch.no_grad()
def evaluate_rows(
    model: torch.nn.Module,
    data: TrainingData,
    token_loss: TokenLoss,
    *,
    rows: TokenRows,
    batch_size: int = EVAL_BATCH_SIZE,
    should_stop: Callable[[], bool] = lambda: False,
    devices: Devices = ALONE,
) -> Evaluation:
    """The evaluation of any rows that are tokenised like `data`; raises as `evaluate` does. Devices share the rows."""
    was_training = model.training
    model.eval()
    row_sums = np.zeros(len(rows))
    predicted = np.zeros(len(rows), dtype=np.int64)
    device = token_loss.placement.device

    def losses_of(chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        if should_stop():
            raise StopRequested
        batch = collate(rows, chosen, pad_id=data.pad_id, device=device)
        if rows.classes is None:
            return token_loss.each(model, batch), None
        logits_NC = token_loss.class_logits(model, batch)
        return F.cross_entropy(logits_NC, batch.classes_N, reduction="none"), logits_NC.argmax(-1)  # type: ignore[arg-type]

    try:
        shares = [devices.mine(chosen) for chosen in _batches_by_length(rows, batch_size * devices.world)]
        for chosen, (each, labels) in in_parts_that_fit(losses_of, [one for one in shares if len(one)], device):
            if labels is None:
                row_sums[chosen] = _sums_by_row(each, [rows.num_loss_units([row]) for row in chosen])
            else:
                row_sums[chosen], predicted[chosen] = each.cpu().numpy(), labels.cpu().numpy()
        if devices.is_sharded and len(shares) and not len(shares[-1]):
            losses_of(
                np.zeros(1, dtype=np.int64)
            )  # the others need this device for the pass, which has no row of its own left
    finally:
        model.train(was_training)
    # Each row was looked at by one device, so that the sums are the same to the bit, however many devices there are.
    row_sums, predicted = devices.total(row_sums), devices.total(predicted)
    loss = float(row_sums.sum()) / rows.num_loss_units(np.arange(len(rows)))
    metrics = _label_metrics(rows, predicted) if rows.classes is not None else {"perplexity": _perplexity(loss)}
    return Evaluation(loss, metrics, row_sums)


def extra_metrics(
    names: tuple[str, ...], model: torch.nn.Module, tokenizer: Tokenizer, data: TrainingData, token_loss: TokenLoss
) -> dict[str, float]:
    """`exact_match` and the user's `module:function` metrics, on greedy answers or predicted labels.

    A user's function takes (predictions, references), two lists of text, and returns a number or a mapping of numbers.
    """
    if not names:
        return {}
    predictions, references = predict(model, tokenizer, data, token_loss)
    out: dict[str, float] = {}
    for name in names:
        if name == "exact_match":
            hits = [a.strip() == b.strip() for a, b in zip(predictions, references, strict=True)]
            out[name] = sum(hits) / len(hits)
        else:
            out |= _user_metric(name, predictions, references)
    return out


def check_metrics(names: tuple[str, ...]) -> None:
    """Raise BadInput for a metric that cannot be found, before anything is trained."""
    for name in names:
        if name not in BUILT_IN_METRICS:
            _user_function(name)


@torch.no_grad()
def predict(
    model: torch.nn.Module, tokenizer: Tokenizer, data: TrainingData, token_loss: TokenLoss
) -> tuple[list[str], list[str]]:
    """(answers of the model, answers of the data) for up to 128 validation rows; the last answer of a conversation."""
    rows = data.evaluation
    chosen = np.arange(min(len(rows), GENERATED_ROWS))
    was_training = model.training
    model.eval()
    try:
        if rows.classes is not None:
            return _predict_labels(model, data, token_loss)
        return _generate(model, tokenizer, rows, chosen, token_loss)
    finally:
        model.train(was_training)


def _batches_by_length(rows: TokenRows, batch_size: int) -> list[np.ndarray]:
    order = np.argsort(-rows.lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def _sums_by_row(each: torch.Tensor, units: list[int]) -> np.ndarray:
    return np.bincount(
        np.repeat(np.arange(len(units)), units), weights=each.double().cpu().numpy(), minlength=len(units)
    )


def _label_metrics(rows: TokenRows, predicted: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(rows.classes, predicted)),
        "macro_f1": float(f1_score(rows.classes, predicted, average="macro", zero_division=0)),
    }


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def _predict_labels(model: torch.nn.Module, data: TrainingData, token_loss: TokenLoss) -> tuple[list[str], list[str]]:
    rows = data.evaluation
    predicted = np.zeros(len(rows), dtype=np.int64)
    for chosen in _batches_by_length(rows, EVAL_BATCH_SIZE):
        batch = collate(rows, chosen, pad_id=data.pad_id, device=token_loss.placement.device)
        predicted[chosen] = token_loss.class_logits(model, batch).argmax(-1).cpu().numpy()
    names = data.label_names
    return [names[i] for i in predicted], [names[i] for i in rows.classes]  # type: ignore[union-attr]


def _generate(
    model: torch.nn.Module, tokenizer: Tokenizer, rows: TokenRows, chosen: np.ndarray, token_loss: TokenLoss
) -> tuple[list[str], list[str]]:
    cut = {int(row): prompt_and_answer(rows, int(row)) for row in chosen}
    predictions: dict[int, str] = {}
    order = sorted(cut, key=lambda row: len(cut[row][0]))
    for at in range(0, len(order), EVAL_BATCH_SIZE):
        group = order[at : at + EVAL_BATCH_SIZE]
        longest = max(len(cut[row][1]) for row in group)
        texts = _generate_group(
            model, tokenizer, [cut[row][0] for row in group], token_loss, min(2 * longest + 8, MAX_NEW_TOKENS)
        )
        predictions |= dict(zip(group, texts, strict=True))
    references = [tokenizer.decode(cut[int(row)][1], skip_special_tokens=True) for row in chosen]
    return [predictions[int(row)] for row in chosen], references


def _generate_group(
    model: torch.nn.Module, tokenizer: Tokenizer, prompts: list[list[int]], token_loss: TokenLoss, max_new: int
) -> list[str]:
    longest = max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=token_loss.placement.device)
    attention = torch.tensor(
        [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=token_loss.placement.device
    )
    with token_loss.computing():
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=attention,
            max_new_tokens=max_new,
            do_sample=False,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
    texts: list[str] = tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
    return texts


def prompt_and_answer(rows: TokenRows, row: int) -> tuple[list[int], list[int]]:
    """Ids of what comes before the last answer of a row, and of this answer."""
    start, end = int(rows.offsets[row]), int(rows.offsets[row + 1])
    flags = rows.trained[start:end]
    last = int(np.flatnonzero(flags)[-1])
    before = np.flatnonzero(~flags[: last + 1])
    first = int(before[-1]) + 1 if len(before) else 1
    return rows.ids[start : start + first].tolist(), rows.ids[start + first : start + last + 1].tolist()


def _user_function(name: str) -> Callable[[list[str], list[str]], object]:
    module, colon, function = name.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError) as error:
        raise BadInput("the metric cannot be imported", value=f"{name}: {error}") from None
    if not callable(found):
        raise BadInput("a metric is `exact_match` or `module:function`", value=name)
    metric: Callable[[list[str], list[str]], object] = found
    return metric


def _user_metric(name: str, predictions: list[str], references: list[str]) -> dict[str, float]:
    try:
        value = _user_function(name)(predictions, references)
    except Exception as error:
        raise RuntimeError(f"the metric `{name}` raised {cause_words(error)}") from error
    named = value if isinstance(value, dict) else {name.partition(":")[2]: value}
    try:
        return {str(key): float(number) for key, number in named.items()}  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadInput("a metric must return a number, or a mapping of numbers", value=value, place=name) from None
