"""Rows of token ids, end to end in one array, how they grow, and how over-long ones are cut; it knows no tokenizer.

Shapes: N rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class TokenRows:
    """Rows of token ids, end to end, with the tokens that carry loss."""

    ids: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    classes: np.ndarray | None = None
    types: np.ndarray | None = None
    """For two texts of a classifier: which of them a token belongs to."""

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
        return int(self.trained_per_row[np.asarray(rows, dtype=np.int64)].sum())

    @cached_property
    def trained_per_row(self) -> np.ndarray:
        """Tokens that carry loss in each row without its first, [N]."""
        counts = np.zeros(len(self), dtype=np.int64)
        filled = np.flatnonzero(self.lengths > 0)
        for rows in np.array_split(filled, len(filled) // ROWS_AT_ONCE + 1):
            if len(rows):
                # A part at a time: sums of numbers make a copy of eight bytes for each flag.
                start, end = self.offsets[rows[0]], self.offsets[rows[-1] + 1]
                starts = self.offsets[rows] - start
                flags = self.trained[start:end]
                counts[rows] = np.add.reduceat(flags, starts, dtype=np.int64) - flags[starts]
        return counts

    def only(self, chosen: np.ndarray) -> TokenRows:
        """The rows of a mask [N]."""
        if chosen.all():
            return self
        kept = np.repeat(chosen, self.lengths)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[chosen])]).astype(np.int64)
        return self._kept(kept, offsets, None if self.classes is None else self.classes[chosen])

    def _kept(self, kept: np.ndarray, offsets: np.ndarray, classes: np.ndarray | None) -> TokenRows:
        types = None if self.types is None else self.types[kept]
        return TokenRows(self.ids[kept], self.trained[kept], offsets, classes, types)


class TokenBuffer:
    """Rows as they come; three bytes a token (five after an id above 65,535), where lists of numbers would take forty."""

    def __init__(self) -> None:
        self._ids, self._trained, self._offsets = array("H"), bytearray(), array("q", [0])
        self._types: bytearray | None = None

    def add(self, ids: Sequence[int], *, trained: bool = False, types: Sequence[int] | None = None) -> None:
        """More tokens of the row that is being written."""
        length = len(self._ids)
        try:
            self._ids.extend(ids)
        except OverflowError:
            del self._ids[length:]
            self._ids = array("i", self._ids)
            self._ids.extend(ids)
        self._trained += (b"\1" if trained else b"\0") * len(ids)
        if types is not None:
            self._types = bytearray() if self._types is None else self._types
            self._types += bytes(types)

    def end_row(self) -> None:
        """The row is whole."""
        self._offsets.append(len(self._ids))

    def rows(self, *, classes: np.ndarray | None = None) -> TokenRows:
        """All rows; the buffer must not grow any more."""
        return TokenRows(
            np.frombuffer(self._ids, dtype=self._ids.typecode) if self._ids else np.empty(0, dtype=np.int32),
            np.frombuffer(self._trained, dtype=bool) if self._trained else np.empty(0, dtype=bool),
            np.frombuffer(self._offsets, dtype=np.int64),
            classes,
            None if self._types is None else np.frombuffer(self._types, dtype=np.uint8),
        )


@dataclass(frozen=True)
class CutRows:
    """Rows within the longest length, and what that cost."""

    rows: TokenRows
    true_lengths: np.ndarray
    num_cut: int = 0
    num_tokens_cut: int = 0
    num_continued: int = 0
    num_left_out: int = 0


def cut_rows(whole: TokenRows, max_length: int, *, goes_on: bool) -> CutRows:
    """Cut rows at `max_length`: plain text goes on in further rows, anything else ends; rows without loss are left out."""
    long = whole.lengths > max_length
    rows = _continued(whole, max_length) if goes_on else _ended(whole, max_length, long)
    carries_loss = rows.trained_per_row > 0
    lost = int((whole.lengths[long] - max_length).sum())
    return CutRows(
        rows.only(carries_loss),
        whole.lengths,
        num_cut=0 if goes_on else int(long.sum()),
        num_tokens_cut=0 if goes_on else lost,
        num_continued=int(long.sum()) if goes_on else 0,
        num_left_out=int((~carries_loss).sum()),
    )


def _ended(whole: TokenRows, max_length: int, long: np.ndarray) -> TokenRows:
    if not long.any():
        return whole
    kept = np.ones(len(whole.ids), dtype=bool)
    for row in np.flatnonzero(long):
        kept[whole.offsets[row] + max_length : whole.offsets[row + 1]] = False
    offsets = np.concatenate([[0], np.cumsum(np.minimum(whole.lengths, max_length))]).astype(np.int64)
    return whole._kept(kept, offsets, whole.classes)


def _continued(whole: TokenRows, max_length: int) -> TokenRows:
    parts = np.maximum(-(-whole.lengths // max_length), 1)
    first = np.repeat(np.cumsum(parts) - parts, parts)
    starts = np.repeat(whole.offsets[:-1], parts) + (np.arange(parts.sum()) - first) * max_length
    offsets = np.concatenate([starts, whole.offsets[-1:]]).astype(np.int64)
    return TokenRows(whole.ids, whole.trained, offsets)
