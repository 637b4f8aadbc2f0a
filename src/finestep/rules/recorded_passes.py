"""Which passes are worth recording on a GPU, and which recordings are kept: pure counting, no device.

A recorded pass (a CUDA graph) is played again without its launches, which are what a short row costs. It holds for one shape alone, so
lengths are rounded up to a few buckets, and only shapes that come back are recorded.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

BUCKETS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Lengths that rows are padded to: steps of a half and a third, so that at most a third of a row is padding."""
MOST_RECORDINGS = 8
"""Each takes memory for the intermediate results of its shape."""
SEEN_BEFORE_RECORDING = 4
"""A recording costs about three passes (two to warm up, one to record), and is checked by one more."""

Action = Literal["plain", "record", "play"]


class PassKey(NamedTuple):
    """The shape of a pass.

    Attributes:
        generation: of the row buffers: other addresses are another pass.
    """

    lanes: int
    rows: int
    length: int
    loss_tokens: int
    generation: int = 0


def bucket(tokens: int) -> int:
    """The length that a row of so many tokens is padded to; itself beyond the largest bucket.

    >>> [bucket(n) for n in (1, 64, 65, 128, 130, 9000)]
    [64, 64, 96, 128, 192, 9000]
    """
    return next((size for size in BUCKETS if tokens <= size), tokens)


@dataclass
class Recordings:
    """Decides pass by pass, and forgets the recording that was not used for longest.

    Attributes:
        refused: shapes that could not be recorded, or whose recording was not equal to a plain pass.
    """

    most: int = MOST_RECORDINGS
    seen: dict[PassKey, int] = field(default_factory=dict)
    kept: OrderedDict[PassKey, int] = field(default_factory=OrderedDict)
    refused: set[PassKey] = field(default_factory=set)
    free_bytes: int | None = None
    """Memory that recordings may take together; None: not limited."""

    def action(self, key: PassKey, *, needed_bytes: int = 0) -> Action:
        """What to do with a pass of this shape: compute it plainly, record it now, or play its recording."""
        self._forget_other_addresses(key.generation)
        if key in self.kept:
            self.kept.move_to_end(key)
            return "play"
        self.seen[key] = self.seen.get(key, 0) + 1
        if key in self.refused or self.seen[key] < SEEN_BEFORE_RECORDING or not self._fits(needed_bytes):
            return "plain"
        return "record"

    def keep(self, key: PassKey, *, num_bytes: int = 0) -> list[PassKey]:
        """A recording is there and was found equal to a plain pass; the recordings that must go for it."""
        self.kept[key] = num_bytes
        gone = []
        while len(self.kept) > self.most or (len(self.kept) > 1 and not self._fits(0)):
            gone.append(self.kept.popitem(last=False)[0])
        return gone

    def refuse(self, key: PassKey) -> None:
        """This shape is computed plainly from now on."""
        self.refused.add(key)
        self.kept.pop(key, None)

    def drop_all(self) -> None:
        """Give all recordings back, e.g. when memory is short; shapes count anew."""
        self.kept.clear()
        self.seen.clear()

    def _fits(self, further: int) -> bool:
        return self.free_bytes is None or sum(self.kept.values()) + further <= self.free_bytes

    def _forget_other_addresses(self, generation: int) -> None:
        for key in [key for key in self.kept if key.generation != generation]:
            del self.kept[key]
