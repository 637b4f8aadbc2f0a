"""From examples to token ids, and the longest row that is kept; prompts carry no loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypedDict

import numpy as np

from finestep.errors import BadInput
from finestep.study import DataSpec
from finestep.survey.example import Example
from finestep.train.sandbox import each_in_child
from finestep.train.template import PLAIN_TEMPLATE, Piece, pieces_of
from finestep.train.template_fields import TemplateFields, template_refusal
from finestep.train.token_rows import CutRows, TokenBuffer, TokenRows
from finestep.train.tokenizer import Tokenizer

USUAL_LENGTH, MOST_LENGTH = 1024, 32_768
MOST_CUT_SHARE = 0.01
"""The default length cuts at most this share of the rows, where context and memory allow."""
NO_CONTEXT = 10**6
"""Configs that know no limit write very large numbers."""
TOKENISE_AT_ONCE = 512
MOST_UNRENDERED = 0.5
RENDER_CPU_S = 60.0
"""Seconds of processor time that a template may take for so many rows."""
MOST_STUCK = 3
"""Rows that may break this limit, or that of memory, before the template is given up: each costs as long."""


class _Rendered(TypedDict):
    """What the process that renders chat templates answers of a row: it in pieces (or nothing), and what it had to say."""

    pieces: list[list[Piece]]
    folded: dict[str, int]
    refusal: list[str | None] | None


@dataclass
class Told:
    """What turning examples into tokens has to tell: fields written as text, and rows that the template refuses."""

    fields: TemplateFields
    num_unrendered: int = 0
    num_stuck: int = 0
    """Of these, rows at which the template took more time or memory than it may."""
    first_refusal: BadInput | None = None

    def refused(self, error: BadInput) -> None:
        """Count a row that the template cannot render."""
        self.num_unrendered += 1
        self.first_refusal = self.first_refusal or error

    def notes(self) -> list[str]:
        """In words."""
        notes = self.fields.notes()
        if self.first_refusal is not None:
            cause = f"{self.first_refusal.law}; {self.first_refusal.value}"
            notes.append(f"{self.num_unrendered:,} rows were left out: {cause}")
        return notes


def check_length(spec: DataSpec, context_length: int | None) -> None:
    """Raise BadInput for a length that the model cannot read."""
    context = known_context(context_length)
    if spec.max_length and context and spec.max_length > context:
        raise BadInput(
            f"`max_length` must be at most the model's context of {context:,} tokens",
            value=f"{spec.max_length:,}",
            place="--max-length, or `max_length` of the recipe",
            next_step=f"set max_length to at most {context}, or leave it out",
        )


def known_context(context_length: int | None) -> int | None:
    """The model's context, or None where its config knows no limit."""
    return context_length if context_length and context_length < NO_CONTEXT else None


def default_length(
    lengths: np.ndarray, spec: DataSpec, context_length: int | None, longest: int | None, *, goes_on: bool
) -> int:
    """What the user asked for; else 1,024, or as many times twice that as leave at most 1 % of the rows cut.

    Args:
        longest: what memory allows; None: no more than 1,024.
        goes_on: what is cut off goes on in a further row, so that nothing is lost.
    """
    if spec.max_length:
        return spec.max_length
    context = known_context(context_length)
    usual = min(context or USUAL_LENGTH, USUAL_LENGTH)
    most = max(usual, min(context or MOST_LENGTH, longest or usual, MOST_LENGTH))
    length = usual
    while not goes_on and length < most and np.mean(lengths > length) > MOST_CUT_SHARE:
        length = min(2 * length, most)
    return length


def tokenise(examples: Sequence[Example], tokenizer: Tokenizer, spec: DataSpec, told: Told) -> TokenRows:
    """All rows at their full length.

    Raises:
        BadInput: the chat template refuses most of the rows.
    """
    raw = spec.template == "raw"
    add_bos = _adds_bos(tokenizer) and (raw or tokenizer.chat_template == PLAIN_TEMPLATE)
    buffer = TokenBuffer()
    refused_before = told.num_unrendered
    for start in range(0, len(examples), TOKENISE_AT_ONCE):
        rows = examples[start : start + TOKENISE_AT_ONCE]
        pieces = _pieces(rows, tokenizer, spec, told) if raw else _pieces_in_child(rows, tokenizer, spec, told)
        _add(buffer, pieces, tokenizer, add_bos=add_bos)
    if told.first_refusal is not None and told.num_unrendered - refused_before > MOST_UNRENDERED * len(examples):
        raise told.first_refusal
    return buffer.rows()


def _pieces(rows: Sequence[Example], tokenizer: Tokenizer, spec: DataSpec, told: Told) -> list[list[Piece]]:
    """The rows as pieces of text; what the template refuses is counted and left out."""
    pieces: list[list[Piece]] = []
    raw = spec.template == "raw"
    for row in rows:
        try:
            pieces.append(pieces_of(row, tokenizer, train_on_prompt=spec.train_on_prompt, raw=raw, fields=told.fields))
        except BadInput as error:
            told.refused(error)
    return pieces


def _pieces_in_child(rows: Sequence[Example], tokenizer: Tokenizer, spec: DataSpec, told: Told) -> list[list[Piece]]:
    """The same where somebody else's template has its say: many rows at once, in a process with limits. A row that breaks them is
    left out as one that the template refuses, and another process goes on behind it.

    Raises:
        BadInput: the template takes too much time or memory at its first row, or too often.
    """
    left = list(rows)
    pieces: list[list[Piece]] = []
    while left:
        found, fault = each_in_child(partial(_each, left, tokenizer, spec, told), cpu_s=RENDER_CPU_S)
        for answer in found:
            pieces += _taken(answer, told)
        if fault is None:
            break
        refusal = template_refusal(fault, f"row {left[len(found)].row}" if len(found) < len(left) else "the rows")
        if not pieces or told.num_stuck == MOST_STUCK:
            raise refusal
        told.num_stuck += 1
        told.refused(refusal)
        left = left[len(found) + 1 :]
    return pieces


def _each(rows: Sequence[Example], tokenizer: Tokenizer, spec: DataSpec, told: Told) -> Iterator[_Rendered]:
    """In the child: row by row the pieces, the fields that were folded into text, and why the template refused it."""
    for row in rows:
        own = Told(replace(told.fields, folded=Counter()))
        pieces, first = _pieces([row], tokenizer, spec, own), own.first_refusal
        yield {
            "pieces": pieces,
            "folded": own.fields.folded,
            "refusal": None
            if first is None
            else [first.law, None if first.value is None else str(first.value), first.next_step],
        }


def _taken(answer: _Rendered, told: Told) -> list[list[Piece]]:
    """The pieces of a row that the child has rendered, or none; what it has to tell is told."""
    told.fields.folded.update(answer["folded"])
    if answer["refusal"]:
        law, value, next_step = answer["refusal"]
        told.refused(BadInput(str(law), value=value, next_step=next_step))
    return [[(text, carries) for text, carries in row] for row in answer["pieces"]]


def tokenise_labels(
    examples: Sequence[Example], tokenizer: Tokenizer, names: tuple[str, ...], *, max_length: int | None = None
) -> TokenRows:
    """Rows of a classifier, one text or two; with `max_length` the longer text is cut, special tokens stay."""
    number = {name: place for place, name in enumerate(names)}
    is_pair = takes_pairs(tokenizer)
    special = tokenizer.num_special_tokens_to_add(pair=is_pair)
    cut = {} if max_length is None else {"truncation": True, "max_length": max(max_length, special + 1)}
    buffer = TokenBuffer()
    classes = np.empty(len(examples), dtype=np.int64)
    for start in range(0, len(examples), TOKENISE_AT_ONCE):
        rows = examples[start : start + TOKENISE_AT_ONCE]
        encoded = tokenizer(*_texts(rows, is_pair), add_special_tokens=True, return_attention_mask=False, **cut)
        types = encoded.get("token_type_ids") if any(row.pair is not None for row in rows) and is_pair else None
        for place, ids in enumerate(encoded["input_ids"]):
            buffer.add(ids, types=None if types is None else types[place])
            buffer.end_row()
            classes[start + place] = number[str(rows[place].label)]
    return buffer.rows(classes=classes)


def cut_labels(
    whole: TokenRows, examples: Sequence[Example], tokenizer: Tokenizer, names: tuple[str, ...], max_length: int
) -> CutRows:
    """The rows of a classifier within `max_length`."""
    long = whole.lengths > max_length
    rows = tokenise_labels(examples, tokenizer, names, max_length=max_length) if long.any() else whole
    lost = int((whole.lengths[long] - max_length).sum())
    return CutRows(rows, whole.lengths, num_cut=int(long.sum()), num_tokens_cut=lost)


def takes_pairs(tokenizer: Tokenizer) -> bool:
    """True when the tokenizer puts a mark between two texts; without one they are joined by a line break."""
    return bool(tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False))


def _texts(rows: Sequence[Example], is_pair: bool) -> tuple[list[str], ...]:
    if all(row.pair is None for row in rows):
        return ([row.text for row in rows],)
    if is_pair:
        return [row.text for row in rows], [row.pair or "" for row in rows]
    return ([f"{row.text}\n{row.pair}" if row.pair else row.text for row in rows],)


def _add(buffer: TokenBuffer, rows: list[list[Piece]], tokenizer: Tokenizer, *, add_bos: bool) -> None:
    texts = [text for pieces in rows for text, _ in pieces]
    if not texts:
        return
    encoded = iter(tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"])
    for pieces in rows:
        if add_bos and tokenizer.bos_token_id is not None:
            buffer.add([tokenizer.bos_token_id])
        for _, carries_loss in pieces:
            buffer.add(next(encoded), trained=carries_loss)
        buffer.end_row()


def _adds_bos(tokenizer: Tokenizer) -> bool:
    if tokenizer.bos_token_id is None:
        return False
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
