"""The packed layers of a pack inside its base: put in, bound to the rows, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from finestep.train.packed_layers import Bound, PackedHead, PackedLinear, check_linear
from finestep.train.row_buffers import RowBuffers


class Seats:
    """What a packed layer asks about the rows while it computes.

    Attributes:
        only: the place of the one trial that the pass at hand serves; None: it serves all.
    """

    def __init__(self, buffers: RowBuffers, *, dropout: float):
        self._buffers, self.dropout = buffers, dropout
        self.only: int | None = None

    @property
    def factors(self) -> torch.Tensor | None:
        """What each trial's adapter is multiplied by, [K]; None where the values that the pass sees have it in them."""
        return self._buffers.factors

    def shown(self, stacked: torch.Tensor) -> torch.Tensor:
        """All trials, or the one that `only` has chosen."""
        return stacked if self.only is None else stacked[self.only : self.only + 1]


class Installed:
    """Packed layers in the place of a base's own."""

    def __init__(self, base: torch.nn.Module, seats: Seats):
        self._base, self._seats = base, seats
        self._original: dict[str, torch.nn.Module] = {}

    def check(self, path: str) -> None:
        """Raise BadInput for a layer that cannot carry adapters in rows."""
        check_linear(self._base, path)

    def bind(self, buffers: RowBuffers) -> None:
        """Put packed layers where there are none yet, and let all of them see the rows in use."""
        self._base.requires_grad_(False)
        if not len(buffers):
            return
        low, low_grad = buffers.low()
        modules: dict[str, dict[str, Bound]] = {}
        for piece in buffers.layout:
            parameter = torch.nn.Parameter(piece.view(buffers.rows("value")))
            total = parameter.grad = piece.view(buffers.rows("grad"))
            bound = Bound(parameter, piece.view(low), piece.view(low_grad), total)
            modules.setdefault(piece.path, {})[piece.kind] = bound
        for path, pieces in modules.items():
            self._packed(path, is_adapter="A" in pieces).bind(pieces)

    def bound(self) -> Iterator[Bound]:
        """The trained tensors of all packed layers."""
        for path in self._original:
            layer = self._base.get_submodule(path)
            assert isinstance(layer, PackedLinear | PackedHead)
            yield from layer.bound

    def undo(self) -> None:
        """Put the base's own layers back."""
        for path, module in self._original.items():
            _put(self._base, path, module)
        self._original = {}

    def _packed(self, path: str, *, is_adapter: bool) -> PackedLinear | PackedHead:
        module = self._base.get_submodule(path)
        if isinstance(module, PackedLinear | PackedHead):
            return module
        self._original[path] = module
        packed: PackedLinear | PackedHead
        if is_adapter:
            packed = PackedLinear(module, self._seats)
        else:
            assert isinstance(module, torch.nn.Linear)
            packed = PackedHead(module, self._seats)
        _put(self._base, path, packed)
        return packed


def _put(model: torch.nn.Module, path: str, module: torch.nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module
