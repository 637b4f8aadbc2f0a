"""Tokenised rows, and batches of them; the prompt carries no loss. It never shuffles: `order.py` says which rows come when.

Shapes: N rows, S tokens of the longest row in a batch.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from finestep.errors import BadInput
from finestep.facts import DataFacts
from finestep.study import DataSpec
from finestep.survey.formats import Example
from finestep.survey.split import Split, split_data
from finestep.train.template import PLAIN_TEMPLATE, Piece, pieces_of

DEFAULT_MAX_LENGTH = 1024
TOKENISE_AT_ONCE = 512


@dataclass(frozen=True)
class TokenRows:
    """Rows of token ids, end to end, with the tokens that carry loss."""

    ids: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    classes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens a row, [N]."""
        return np.diff(self.offsets)

    def num_loss_units(self, rows: Sequence[int] | np.ndarray) -> int:
        """What the loss of these rows is divided by: trained tokens, or rows for labels.

        The first token of a causal row is never predicted, so it does not count.
        """
        if self.classes is not None:
            return len(rows)
        return int(self._trained_per_row[np.asarray(rows, dtype=np.int64)].sum())

    @cached_property
    def _trained_per_row(self) -> np.ndarray:
        before = np.concatenate([[0], np.cumsum(self.trained)])
        return before[self.offsets[1:]] - before[np.minimum(self.offsets[:-1] + 1, self.offsets[1:])]


@dataclass(frozen=True)
class Batch:
    """Padded tensors; `labels_NS` is -100 where there is no loss (already in place, shifted by the loss)."""

    ids_NS: torch.Tensor
    attention_NS: torch.Tensor
    labels_NS: torch.Tensor | None
    classes_N: torch.Tensor | None


@dataclass(frozen=True)
class TrainingData:
    """Everything that training needs of the data, identical for all trials of a study."""

    train: TokenRows
    evaluation: TokenRows
    label_names: tuple[str, ...]
    max_length: int
    pad_id: int
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return "classification" if self.label_names else "causal"


def collate(rows: TokenRows, chosen: Sequence[int] | np.ndarray, *, pad_id: int, device: torch.device) -> Batch:
    """Pad the chosen rows on the right to the longest of them."""
    longest = int(max(rows.offsets[row + 1] - rows.offsets[row] for row in chosen))
    ids_NS = np.full((len(chosen), longest), pad_id, dtype=np.int64)
    attention_NS = np.zeros((len(chosen), longest), dtype=np.int64)
    labels_NS = None if rows.classes is not None else np.full((len(chosen), longest), -100, dtype=np.int64)
    for place, row in enumerate(chosen):
        start, end = rows.offsets[row], rows.offsets[row + 1]
        ids_NS[place, : end - start] = rows.ids[start:end]
        attention_NS[place, : end - start] = 1
        if labels_NS is not None:
            labels_NS[place, : end - start] = np.where(rows.trained[start:end], rows.ids[start:end], -100)
    classes_N = None if rows.classes is None else torch.from_numpy(rows.classes[np.asarray(chosen)]).to(device)
    return Batch(
        torch.from_numpy(ids_NS).to(device),
        torch.from_numpy(attention_NS).to(device),
        None if labels_NS is None else torch.from_numpy(labels_NS).to(device),
        classes_N,
    )


def collate_lanes(
    rows: TokenRows, lanes: Sequence[np.ndarray], *, pad_id: int, device: torch.device
) -> tuple[Batch, list[int]]:
    """(one batch of the rows of all lanes, lane after lane; how many loss units each lane has in it).

    Every lane gets as many rows as the longest; what is filled up carries no loss.
    """
    most = max(len(chosen) for chosen in lanes)
    filled = np.concatenate([np.resize(chosen, most) for chosen in lanes])
    batch = collate(rows, filled, pad_id=pad_id, device=device)
    spare = np.concatenate([np.arange(most) >= len(chosen) for chosen in lanes])
    if spare.any():
        batch = _without_loss(batch, torch.from_numpy(spare).to(device))
    return batch, [rows.num_loss_units(chosen) for chosen in lanes]


def _without_loss(batch: Batch, spare_N: torch.Tensor) -> Batch:
    if batch.classes_N is not None:
        return replace(batch, classes_N=batch.classes_N.masked_fill(spare_N, -100))
    return replace(batch, labels_NS=batch.labels_NS.masked_fill(spare_N[:, None], -100))  # type: ignore[union-attr]


def prepare_data(spec: DataSpec, tokenizer: Any, *, context_length: int | None) -> TrainingData:
    """Read, split and tokenise; the answer carries a card with everything worth telling about the data.

    Raises:
        BadInput: nothing is left to train on, or nothing carries loss.
    """
    split = split_data(spec)
    max_length = _max_length(spec, context_length)
    if split.format == "labels":
        return _prepare_labels(split, tokenizer, max_length, spec)
    if split.format == "text":
        spec = spec.model_copy(update={"template": "raw"})
    notes = list(split.notes)
    if tokenizer.chat_template is None and spec.template == "auto":
        tokenizer.chat_template = PLAIN_TEMPLATE
        notes.append("the tokenizer has no chat template: rows read `### Instruction: ... ### Response: ...`")
    train, dropped, cut = _tokenise(split.train, tokenizer, spec, max_length)
    evaluation, _, _ = _tokenise(split.evaluation, tokenizer, spec, max_length)
    _check_trained(train, evaluation, spec, max_length)
    card = _card(split, train, evaluation, spec, notes, dropped=dropped, cut=cut, max_length=max_length)
    card["sample"] = _sample(train, tokenizer)
    return TrainingData(train, evaluation, (), max_length, _pad_id(tokenizer), card)


def _prepare_labels(split: Split, tokenizer: Any, max_length: int, spec: DataSpec) -> TrainingData:
    names = tuple(sorted({str(row.label) for row in split.train}, key=_label_order))
    if len(names) < 2:
        raise BadInput("classification needs at least two labels", value=list(names), place=spec.path)
    unknown = sorted({str(row.label) for row in split.evaluation} - set(names))
    kept = [row for row in split.evaluation if str(row.label) not in unknown]
    notes = list(split.notes)
    if unknown:
        notes.append(
            f"labels that never occur in training were left out of the validation rows: {', '.join(unknown[:5])}"
        )
    train, cut = _tokenise_labels(split.train, tokenizer, names, max_length)
    evaluation, _ = _tokenise_labels(kept, tokenizer, names, max_length)
    card = _card(split, train, evaluation, spec, notes, dropped=0, cut=cut, max_length=max_length)
    counts = Counter(str(row.label) for row in split.train)
    card["labels"] = dict(counts.most_common())
    card["sample"] = [[split.train[0].text, False], [f"  ->  {split.train[0].label}", True]]
    return TrainingData(train, evaluation, names, max_length, _pad_id(tokenizer), card)


def _label_order(name: str) -> tuple[int, float, str]:
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


def _max_length(spec: DataSpec, context_length: int | None) -> int:
    context = context_length if context_length and context_length < 10**6 else None
    if spec.max_length and context and spec.max_length > context:
        raise BadInput(f"`max_length` must be at most the model's context of {context} tokens", value=spec.max_length)
    return spec.max_length or min(context or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)


def _tokenise(examples: list[Example], tokenizer: Any, spec: DataSpec, max_length: int) -> tuple[TokenRows, int, int]:
    """(rows, rows left out because their prompt fills `max_length`, rows that were cut)."""
    raw = spec.template == "raw"
    add_bos = _adds_bos(tokenizer) and (raw or tokenizer.chat_template == PLAIN_TEMPLATE)
    rows: list[tuple[list[int], list[bool]]] = []
    dropped = cut = 0
    for start in range(0, len(examples), TOKENISE_AT_ONCE):
        pieces = [
            pieces_of(row, tokenizer, train_on_prompt=spec.train_on_prompt, raw=raw)
            for row in examples[start : start + TOKENISE_AT_ONCE]
        ]
        for ids, trained in _ids_of(pieces, tokenizer, add_bos=add_bos):
            for part_ids, part_trained in _fit(ids, trained, max_length, keep_all=not examples[0].turns):
                cut += len(ids) > max_length
                if any(part_trained[1:]):
                    rows.append((part_ids, part_trained))
                else:
                    dropped += 1
    return _flat(rows), dropped, cut


def _ids_of(rows: list[list[Piece]], tokenizer: Any, *, add_bos: bool) -> list[tuple[list[int], list[bool]]]:
    texts = [text for pieces in rows for text, _ in pieces]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else iter(())
    out = []
    for pieces in rows:
        ids: list[int] = [tokenizer.bos_token_id] if add_bos else []
        trained = [False] * len(ids)
        for _, carries_loss in pieces:
            part = next(encoded)
            ids += part
            trained += [carries_loss] * len(part)
        out.append((ids, trained))
    return out


def _fit(ids: list[int], trained: list[bool], max_length: int, *, keep_all: bool) -> list[tuple[list[int], list[bool]]]:
    """Cut a row at `max_length`; plain text goes on in further rows, a conversation ends."""
    if len(ids) <= max_length or not keep_all:
        return [(ids[:max_length], trained[:max_length])]
    return [(ids[at : at + max_length], trained[at : at + max_length]) for at in range(0, len(ids), max_length)]


def _tokenise_labels(
    examples: list[Example], tokenizer: Any, names: tuple[str, ...], max_length: int
) -> tuple[TokenRows, int]:
    number = {name: place for place, name in enumerate(names)}
    encoded = tokenizer([row.text for row in examples], add_special_tokens=True)["input_ids"]
    special = tokenizer.num_special_tokens_to_add()
    cut = sum(len(ids) > max_length for ids in encoded)
    if cut:
        limit = max(max_length, special + 1)
        encoded = tokenizer([row.text for row in examples], truncation=True, max_length=limit)["input_ids"]
    rows = _flat([(ids, [False] * len(ids)) for ids in encoded])
    classes = np.array([number[str(row.label)] for row in examples], dtype=np.int64)
    return TokenRows(rows.ids, rows.trained, rows.offsets, classes), cut


def _flat(rows: list[tuple[list[int], list[bool]]]) -> TokenRows:
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in rows], dtype=np.int64)]).astype(np.int64)
    ids = np.array([token for row, _ in rows for token in row], dtype=np.int32)
    trained = np.array([flag for _, row in rows for flag in row], dtype=bool)
    return TokenRows(ids, trained, offsets)


def _adds_bos(tokenizer: Any) -> bool:
    if tokenizer.bos_token_id is None:
        return False
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def _pad_id(tokenizer: Any) -> int:
    for token in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _check_trained(train: TokenRows, evaluation: TokenRows, spec: DataSpec, max_length: int) -> None:
    for rows, name in ((train, "training"), (evaluation, "validation")):
        if not len(rows) or not rows.trained.any():
            raise BadInput(
                f"no {name} token carries loss: every prompt fills the whole {max_length} tokens",
                place=spec.path,
                next_step="raise --max-length, or check the columns",
            )


def _card(
    split: Split,
    train: TokenRows,
    evaluation: TokenRows,
    spec: DataSpec,
    notes: list[str],
    *,
    dropped: int,
    cut: int,
    max_length: int,
) -> dict[str, Any]:
    lengths = train.lengths
    facts = DataFacts(
        name=spec.path,
        format=split.format,
        task="classification" if train.classes is not None else "causal",
        num_rows=len(train),
        num_eval_rows=len(evaluation),
        num_tokens=int(lengths.sum()),
        num_trained_tokens=len(train) if train.classes is not None else int(train.trained.sum()),
        length_p50=int(np.percentile(lengths, 50)),
        length_p95=int(np.percentile(lengths, 95)),
        length_max=int(lengths.max()),
        num_labels=len({row.label for row in split.train}) if train.classes is not None else None,
    )
    return {
        "facts": facts.model_dump(),
        "lengths": {f"p{p}": int(np.percentile(lengths, p)) for p in (5, 25, 50, 75, 95, 99)},
        "max_length": max_length,
        "num_cut": cut,
        "num_left_out": dropped,
        "num_duplicates": split.num_duplicates,
        "notes": notes,
    }


def _sample(rows: TokenRows, tokenizer: Any) -> list[list[Any]]:
    """One row of about the median length as [text, carries loss] pieces, decoded."""
    row = int(np.argsort(rows.lengths, kind="stable")[len(rows) // 2])
    start, end = int(rows.offsets[row]), int(rows.offsets[row + 1])
    flags, ids = rows.trained[start:end], rows.ids[start:end]
    edges = [0, *(np.flatnonzero(np.diff(flags.astype(np.int8))) + 1).tolist(), end - start]
    return [[tokenizer.decode(ids[a:b].tolist()), bool(flags[a])] for a, b in itertools.pairwise(edges)]
