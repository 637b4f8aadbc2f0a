"""The loss of a saved model on rows that the training engine has measured, and its answers to a few of them.

Shapes: S tokens of a row, V vocabulary, C labels.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from finestep.plain_text import shortened
from finestep.saved.load import Loaded, load_saved
from finestep.saved_model import CheckRows, Sample, SavedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_NEW_TOKENS = 48
SHOWN_CHARACTERS = 300


def check(folder: Path, saved: SavedModel, rows: CheckRows, *, device: str) -> dict[str, object]:
    """The loss of the reloaded model on the rows, what it answers, and how long it took."""
    from transformers import AutoTokenizer

    began = time.monotonic()
    model = load_saved(folder, saved)
    if saved.method != "qlora":
        model = model.to(device)
    loaded = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=saved.loading.trust_remote_code)
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=saved.loading.autocast):
        if rows.classes:
            loss, answers = _check_labels(model, tokenizer, rows, saved.labels)
        else:
            loss = sum(_row_sum(model, rows, row) for row in range(len(rows.ids))) / max(sum(rows.units), 1)
            answers = [_answer(model, tokenizer, rows, sample) for sample in rows.samples]
    now = time.monotonic()
    return {"loss": loss, "answers": answers, "load_s": round(loaded - began, 2), "compute_s": round(now - loaded, 2)}


def _ids(model: Loaded, ids: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([ids], device=model.device)


def _row_sum(model: Loaded, rows: CheckRows, row: int) -> float:
    """Sum of the negative log-likelihoods of the tokens that carry loss."""
    ids_1S = _ids(model, rows.ids[row])
    logits_SV = model(input_ids=ids_1S, use_cache=False).logits[0, :-1].float()
    flags_S = torch.tensor(rows.trained[row][1:], device=ids_1S.device)
    each_S = F.cross_entropy(logits_SV, ids_1S[0, 1:], reduction="none")
    return each_S[flags_S].sum().item()


def _check_labels(
    model: Loaded, tokenizer: PreTrainedTokenizerBase, rows: CheckRows, labels: tuple[str, ...]
) -> tuple[float, list[dict[str, str]]]:
    total, predicted = 0.0, []
    for ids, true in zip(rows.ids, rows.classes, strict=True):
        ids_1S = _ids(model, ids)
        logits_1C = model(input_ids=ids_1S, attention_mask=torch.ones_like(ids_1S)).logits.float()
        total += F.cross_entropy(logits_1C, torch.tensor([true], device=ids_1S.device)).item()
        predicted.append(int(logits_1C.argmax(-1)))
    answers = [
        {
            "text": _shown(tokenizer, rows.ids[sample.row]),
            "predicted": shortened(labels[predicted[sample.row]], SHOWN_CHARACTERS),
            "true": shortened(labels[rows.classes[sample.row]], SHOWN_CHARACTERS),
        }
        for sample in rows.samples
    ]
    return total / max(len(rows.ids), 1), answers


def _answer(model: Loaded, tokenizer: PreTrainedTokenizerBase, rows: CheckRows, sample: Sample) -> dict[str, str]:
    """What the model writes after the prompt of a row, always its likeliest token."""
    ids = rows.ids[sample.row]
    prompt, expected = ids[: sample.prompt_end], ids[sample.prompt_end : sample.answer_end]
    ids_1S = _ids(model, prompt)
    known = getattr(model.generation_config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])} - {None}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    out = model.generate(
        input_ids=ids_1S,
        attention_mask=torch.ones_like(ids_1S),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
    )[0, len(prompt) :].tolist()
    ended = bool(ends & set(out)) or len(out) < MAX_NEW_TOKENS
    return {
        "prompt": _shown(tokenizer, prompt),
        "answer": _shown(tokenizer, out) + ("" if ended else " …"),
        "expected": _shown(tokenizer, expected),
    }


def _shown(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    return shortened(str(tokenizer.decode(list(ids), skip_special_tokens=True)), SHOWN_CHARACTERS)
