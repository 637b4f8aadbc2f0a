"""The data of a study: read, split and tokenised once for all trials. Batches of it are made by `batch.py`."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from finestep.errors import BadInput
from finestep.facts import DataFacts
from finestep.ready import DataCard
from finestep.study import DataSpec
from finestep.survey.split import Split, accuracy_error, split_data
from finestep.train.template import PLAIN_TEMPLATE
from finestep.train.template_fields import TemplateFields
from finestep.train.token_rows import CutRows, TokenRows, cut_rows
from finestep.train.tokenising import (
    Told,
    check_length,
    cut_labels,
    default_length,
    takes_pairs,
    tokenise,
    tokenise_labels,
)
from finestep.train.tokenizer import Tokenizer


@dataclass(frozen=True)
class TrainingData:
    """Everything that training needs of the data, identical for all trials of a study."""

    train: TokenRows
    evaluation: TokenRows
    label_names: tuple[str, ...]
    max_length: int
    pad_id: int
    card: DataCard = field(default_factory=DataCard)

    @property
    def task(self) -> str:
        return "classification" if self.label_names else "causal"


def prepare_data(
    spec: DataSpec, tokenizer: Tokenizer, *, context_length: int | None, longest: int | None = None
) -> TrainingData:
    """Read, split and tokenise; the answer carries a card with everything worth telling about the data.

    Args:
        longest: tokens of the longest row that memory allows, for the default of `max_length`; None: no more than usual.

    Raises:
        BadInput: nothing is left to train on, or nothing carries loss.
    """
    check_length(spec, context_length)
    split = split_data(spec)
    limits = (context_length, longest)
    return (
        _prepare_labels(split, tokenizer, limits, spec)
        if split.format == "labels"
        else _prepare_text(split, tokenizer, limits, spec)
    )


def _prepare_text(
    split: Split, tokenizer: Tokenizer, limits: tuple[int | None, int | None], spec: DataSpec
) -> TrainingData:
    """Rows whose text is trained: conversations, pairs of prompt and answer, plain text."""
    notes = list(split.notes)
    if split.format == "text":
        spec = spec.model_copy(update={"template": "raw"})
    elif tokenizer.chat_template is None and spec.template == "auto":
        tokenizer.chat_template = PLAIN_TEMPLATE
        notes.append("the tokenizer has no chat template: rows read `### Instruction: ... ### Response: ...`")
    told = Told(TemplateFields() if spec.template == "raw" else TemplateFields.of(tokenizer))
    whole = tokenise(split.train, tokenizer, spec, told)
    max_length = default_length(whole.lengths, spec, *limits, goes_on=split.format == "text")
    train = cut_rows(whole, max_length, goes_on=split.format == "text")
    evaluation = cut_rows(tokenise(split.evaluation, tokenizer, spec, told), max_length, goes_on=split.format == "text")
    _check_trained(train.rows, evaluation.rows, spec, max_length)
    if lost := evaluation.num_left_out:
        notes.append(
            f"{lost:,} validation rows are left out: nothing of their answer lies within {max_length:,} tokens"
        )
    card = _card(split, train, evaluation.rows, spec, notes + told.notes(), max_length=max_length)
    card = card.model_copy(update={"sample": _sample(train.rows, tokenizer)})
    return TrainingData(train.rows, evaluation.rows, (), max_length, _pad_id(tokenizer), card)


def _prepare_labels(
    split: Split, tokenizer: Tokenizer, limits: tuple[int | None, int | None], spec: DataSpec
) -> TrainingData:
    counts = Counter(str(row.label) for row in split.train)
    names = tuple(sorted(counts, key=_label_order))
    if len(names) < 2:
        raise BadInput("classification needs at least two labels", value=list(names), place=spec.path)
    known = set(names)
    unknown = sorted({str(row.label) for row in split.evaluation} - known)
    kept = [row for row in split.evaluation if str(row.label) in known]
    notes = list(split.notes)
    if unknown:
        notes.append(
            f"labels that never occur in training were left out of the validation rows: {', '.join(unknown[:5])}"
        )
    if split.train[0].pair is not None and not takes_pairs(tokenizer):
        notes.append("the tokenizer has no mark between two texts: a line break stands there")
    whole = tokenise_labels(split.train, tokenizer, names)
    max_length = default_length(whole.lengths, spec, *limits, goes_on=False)
    train = cut_labels(whole, split.train, tokenizer, names, max_length)
    evaluation = tokenise_labels(kept, tokenizer, names, max_length=max_length)
    card = _card(split, train, evaluation, spec, notes, max_length=max_length)
    first = split.train[0]
    shown = first.text if first.pair is None else f"{first.text}  |  {first.pair}"
    card = card.model_copy(
        update={
            "labels": dict(counts.most_common()),
            "accuracy_error": accuracy_error(len(evaluation)),
            "sample": ((shown, False), (f"  ->  {first.label}", True)),
        }
    )
    return TrainingData(train.rows, evaluation, names, max_length, _pad_id(tokenizer), card)


def _label_order(name: str) -> tuple[int, float, str]:
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


def _pad_id(tokenizer: Tokenizer) -> int:
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
    split: Split, train: CutRows, evaluation: TokenRows, spec: DataSpec, notes: list[str], *, max_length: int
) -> DataCard:
    rows, true_lengths = train.rows, train.true_lengths
    lengths = rows.lengths
    facts = DataFacts(
        name=spec.path,
        format=split.format,
        task="classification" if rows.classes is not None else "causal",
        num_rows=len(rows),
        num_eval_rows=len(evaluation),
        num_tokens=int(lengths.sum()),
        num_trained_tokens=len(rows) if rows.classes is not None else int(rows.trained.sum()),
        length_p50=int(np.percentile(lengths, 50)),
        length_p95=int(np.percentile(lengths, 95)),
        length_max=int(lengths.max()),
        num_labels=len({row.label for row in split.train}) if rows.classes is not None else None,
    )
    return DataCard(
        facts=facts,
        lengths={f"p{p}": int(np.percentile(true_lengths, p)) for p in (5, 25, 50, 75, 95, 99)},
        longest=int(true_lengths.max()),
        max_length=max_length,
        num_cut=train.num_cut,
        num_tokens_cut=train.num_tokens_cut,
        num_continued=train.num_continued,
        num_left_out=train.num_left_out,
        num_duplicates=split.num_duplicates,
        unused=split.unused,
        notes=tuple(notes),
    )


def _sample(rows: TokenRows, tokenizer: Tokenizer) -> tuple[tuple[str, bool], ...]:
    """One row of about the median length as (text, carries loss) pieces, decoded."""
    row = int(np.argsort(rows.lengths, kind="stable")[len(rows) // 2])
    start, end = int(rows.offsets[row]), int(rows.offsets[row + 1])
    flags, ids = rows.trained[start:end], rows.ids[start:end]
    edges = [0, *(np.flatnonzero(np.diff(flags.astype(np.int8))) + 1).tolist(), end - start]
    return tuple((tokenizer.decode(ids[a:b].tolist()), bool(flags[a])) for a, b in itertools.pairwise(edges))
