"""The numbers of a pack of adapters: one row a trial in each of a few flat buffers. It knows no model.

Values, gradients and Adam's moments are float32. Where the pass computes in bfloat16 there are two more buffers: the values as the
pass sees them (cast once a step, with the scale of the adapter folded in) and the gradients of one pass. A trial of smaller rank is
padded with zeros, which is a fixed point of the update.

Shapes: C rows that there is room for, K rows in use, P values of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch

from finestep.train.adapter_layout import Piece, num_scaled
from finestep.train.trial_rows import Values

NAMES = ("value", "grad", "first", "second")
_GENERATIONS = itertools.count(1)
"""Of all buffers of the process: those of a later pack must not pass for those of an earlier one, whose memory is gone."""


class RowBuffers:
    """Rows that come and go. The rows in use are always the first, in the order in which they came.

    Addresses stay the same while the layout and the room do: a pass that was recorded for K rows can be played again after one of
    them has left and another has come. `generation` counts the changes of addresses.

    Args:
        dtype: the precision in which the pass computes.
        room: rows to make room for at once.
    """

    def __init__(self, device: torch.device, *, dtype: torch.dtype, room: int = 1):
        self.device, self.dtype, self._room = device, dtype, room
        self.layout: tuple[Piece, ...] = ()
        self.ranks: list[int] = []
        self.scales: list[float] = []
        self.generation = 0
        self._tensors: dict[str, torch.Tensor] = {}
        self._low = self._low_grad = self._loss = self._scale = torch.zeros(0, device=device)

    def __len__(self) -> int:
        return len(self.ranks)

    @property
    def least_rank(self) -> int:
        """The rank below which the layout must not fall: that of the rows in use, and, where addresses are to stay, its own."""
        own = max((piece.shape[0] for piece in self.layout if piece.kind == "A"), default=0)
        return own if self._room > 1 and self.ranks else max(self.ranks, default=0)

    @property
    def is_low(self) -> bool:
        """True where the pass computes in another precision than float32."""
        return self.dtype is not torch.float32

    @property
    def factors(self) -> torch.Tensor | None:
        """The scale of each row in use, [K]; None where it is folded into the values that the pass sees."""
        return None if self.is_low else self._scale[: len(self)]

    def rows(self, name: str) -> torch.Tensor:
        """One of the float32 buffers (`value`, `grad`, `first`, `second`), rows in use, [K, P]."""
        return self._tensors[name][: len(self)]

    def low(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(values as the pass sees them, where it adds their gradients), [K, P]; in float32 the buffers themselves."""
        if not self.is_low:
            return self.rows("value"), self.rows("grad")
        return self._low[: len(self)], self._low_grad[: len(self)]

    def loss(self) -> torch.Tensor:
        """The loss so far of each row's step in the making, [K]."""
        return self._loss[: len(self)]

    def add(self, named: Mapping[str, Values], layout: tuple[Piece, ...], *, rank: int, scale: float) -> None:
        """A new row at the end, with the tensors of each buffer by name; what is not named is zero."""
        old = None
        # A larger rank moves every piece of every row: they are unpacked in their own ranks and packed anew.
        if self.ranks and layout != self.layout:
            old = [self.unpacked(place) for place in range(len(self))]
        if old is not None or len(self) >= self._capacity() or layout != self.layout:
            self._allocate(layout, old)
        self.ranks.append(rank)
        self.scales.append(scale)
        place = len(self) - 1
        for name, tensors in self._tensors.items():
            tensors[place] = self.packed(named.get(name, {}))
        self._loss[place] = 0.0
        self._scale[place] = scale
        if self.is_low:
            self._low_grad[place] = 0.0

    def remove(self, place: int) -> None:
        """Drop a row; those behind it move up, and keep their values to the bit."""
        later = range(place + 1, len(self))
        for tensors in (*self._tensors.values(), self._loss, self._scale, *((self._low_grad,) if self.is_low else ())):
            # One row after the other and in this order: source and target of a larger copy would overlap.
            for row in later:
                tensors[row - 1] = tensors[row]
        del self.ranks[place], self.scales[place]

    def refresh(self) -> None:
        """Let the pass see the values as they are now: one cast, whatever the number of layers and micro-batches."""
        if not self.is_low or not self.ranks:
            return
        low, values, end = self._low[: len(self)], self.rows("value"), num_scaled(self.layout)
        torch.mul(values[:, :end], self._scale[: len(self), None], out=low[:, :end])
        low[:, end:].copy_(values[:, end:])

    def collect(self) -> None:
        """Add the gradients of the last pass to those of the step, in float32.

        The pass saw A times its scale, so that the gradient of A is that of what it saw, times the scale.
        """
        if not self.is_low or not self.ranks:
            return
        seen, grads, end = self._low_grad[: len(self)], self.rows("grad"), num_scaled(self.layout)
        grads[:, :end].addcmul_(seen[:, :end], self._scale[: len(self), None])
        grads[:, end:].add_(seen[:, end:])
        # Cleared here and not before the next pass: a pass that raised must not leave half of its gradients behind unseen.
        seen.zero_()

    def clear(self, places: Sequence[int]) -> None:
        """Forget the gradients and the loss of steps that are made, or begun and given up."""
        tensors = [self.rows("grad"), self.loss(), *((self._low_grad[: len(self)],) if self.is_low else ())]
        for tensor in tensors:
            if len(places) == len(self):
                tensor.zero_()
            else:
                for place in places:
                    tensor[place].zero_()

    def packed(self, values: Values) -> torch.Tensor:
        """A row [P] of tensors by PEFT's names; `A` is kept as [R, I] and `B` as [R, O]."""
        row = torch.zeros(self.layout[-1].end, device=self.device)
        for piece in self.layout:
            if piece.name not in values:
                continue
            value = values[piece.name].to(self.device, torch.float32)
            place = piece.view(row)
            if piece.kind == "A":
                place[: value.shape[0]] = value
            elif piece.kind == "B":
                place[: value.shape[1]] = value.T
            else:
                place.copy_(value)
        return row

    def unpacked(self, place: int, names: Sequence[str] = NAMES) -> dict[str, dict[str, torch.Tensor]]:
        """Copies of a row's tensors by buffer and by PEFT's names, in its own rank."""
        return {name: self._unpack(self._tensors[name][place], self.ranks[place]) for name in names}

    def _unpack(self, row: torch.Tensor, rank: int) -> dict[str, torch.Tensor]:
        out = {}
        for piece in self.layout:
            value = piece.view(row)
            cut = {"A": value[:rank], "B": value[:rank].T}.get(piece.kind, value) if value.ndim == 2 else value
            out[piece.name] = cut.clone(memory_format=torch.contiguous_format)
        return out

    def _capacity(self) -> int:
        return next((len(tensor) for tensor in self._tensors.values()), 0)

    def _allocate(self, layout: tuple[Piece, ...], old: Sequence[Mapping[str, Values]] | None) -> None:
        """Buffers of another layout or with more room; rows in use are copied over, or packed anew from `old`."""
        capacity, kept = max(self._room, len(self) + 1), self._tensors
        loss, scale, low_grad = self._loss, self._scale, self._low_grad
        same_layout = layout == self.layout
        self.layout = layout
        self._tensors = {name: torch.zeros(capacity, layout[-1].end, device=self.device) for name in NAMES}
        self._loss, self._scale = (torch.zeros(capacity, device=self.device) for _ in range(2))
        if self.is_low:
            shape = (capacity, layout[-1].end)
            self._low, self._low_grad = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        self.generation = next(_GENERATIONS)
        self._loss[: len(self)], self._scale[: len(self)] = loss[: len(self)], scale[: len(self)]
        for name, tensors in self._tensors.items():
            for place in range(len(self)):
                tensors[place] = self.packed(old[place][name]) if old is not None else kept[name][place]
        if self.is_low and same_layout and len(self):
            self._low_grad[: len(self)] = low_grad[: len(self)]
