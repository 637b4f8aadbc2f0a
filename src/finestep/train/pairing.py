"""Does an answer depend on its prompt? Validation answers are given to other prompts, and the loss must get worse.

It does not when labels were shuffled or columns mixed up: the loss then falls to what answers look like in general, and no curve
shows it. It trains nothing, and costs one forward pass over at most 64 rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from finestep.train.token_rows import TokenRows

MAX_PAIRS = 64
MIN_PAIRS = 16


class Exchanged(NamedTuple):
    """Some rows, and the same prompts with the answer of another of them.

    Attributes:
        chosen: the rows, by number.
        rows: their prompts, each with the answer of its partner.
        partner: whose answer each prompt was given, by place in `chosen`.
    """

    chosen: np.ndarray
    rows: TokenRows
    partner: np.ndarray


def exchanged(rows: TokenRows) -> Exchanged | None:
    """Validation answers given to other prompts; None when rows are no pairs of prompt and answer."""
    if rows.classes is not None:
        return None
    cuts = {row: start for row in range(len(rows)) if (start := _answer_start(rows, row)) is not None}
    chosen = np.array(sorted(cuts)[:MAX_PAIRS], dtype=np.int64)
    answers = [tuple(rows.ids[cuts[row] : rows.offsets[row + 1]]) for row in chosen]
    partner = _partners(answers)
    if len(chosen) < MIN_PAIRS or partner is None:
        return None
    ids, trained, lengths = [], [], []
    for row, other in zip(chosen, partner, strict=True):
        prompt = rows.ids[rows.offsets[row] : cuts[row]]
        ids += [prompt, np.array(answers[other], dtype=rows.ids.dtype)]
        trained += [np.zeros(len(prompt), dtype=bool), np.ones(len(answers[other]), dtype=bool)]
        lengths.append(len(prompt) + len(answers[other]))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(rows.offsets.dtype)
    mixed = TokenRows(np.concatenate(ids), np.concatenate(trained), offsets)
    return Exchanged(chosen, mixed, np.array(partner, dtype=np.int64))


def _answer_start(rows: TokenRows, row: int) -> int | None:
    """Where the answer begins, when all of the row's loss lies on one last stretch behind a prompt."""
    start, end = int(rows.offsets[row]), int(rows.offsets[row + 1])
    flags = rows.trained[start:end]
    first = int(np.argmax(flags)) if flags.any() else 0
    return start + first if first > 1 and bool(flags[first:].all()) else None


def _partners(answers: list[tuple[int, ...]]) -> list[int] | None:
    """For each row the next one with another answer."""
    count = len(answers)
    partners = []
    for row in range(count):
        other = next((k % count for k in range(row + 1, row + count) if answers[k % count] != answers[row]), None)
        if other is None:
            return None
        partners.append(other)
    return partners
