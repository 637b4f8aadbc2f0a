"""LoRA adapters of several trials on one frozen base: a trial is a row of flat buffers, and no trial touches another's row.

The layout follows PEFT's names, so that values come from PEFT's own initialisation and go back into PEFT's own files.

Shapes: K trials, P values of one trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from finestep.recipe import OptimizerGroup
from finestep.train.adapter_layout import Piece, layout_of, place_of
from finestep.train.optimizer import ParameterRow, Slice, parameter_table
from finestep.train.packed_layers import PackedHead, PackedLinear, check_linear
from finestep.train.trial_rows import Values


class AdapterRows:
    """The rows of a pack: values, gradients and Adam's two moments, each [K, P], fp32.

    Rows of a batch are grouped by trial, in the order of `keys`. A trial of smaller rank is padded with zeros, which is a fixed
    point of the update. Joining and leaving copies rows; gradients of a step that is half done are copied too.
    """

    def __init__(self, base: Any, device: torch.device, *, dropout: float = 0.0):
        self.base, self.device, self.dropout = base, device, dropout
        self.keys: list[int] = []
        self.layout: tuple[Piece, ...] = ()
        self._buffers = {name: torch.zeros(0, 0, device=device) for name in ("value", "grad", "first", "second")}
        self._ranks: list[int] = []
        self._scale_list: list[float] = []
        self.scales = torch.zeros(0, device=device)
        self._only: int | None = None
        self._cuts: dict[int, list[tuple[int, int, float, float]]] = {}
        self._original: dict[str, torch.nn.Module] = {}

    def join(self, key: int, values: Values, *, scale: float, moments: Values | None = None) -> None:
        """Add a trial as the last row, with the tensors of a PEFT adapter."""
        for name in values:
            check_linear(self.base, place_of(name)[0])
        rank = next(value.shape[0] for name, value in values.items() if name.endswith("lora_A.default.weight"))
        layout = layout_of(values, max([rank, *self._ranks]))
        old: list[Mapping[str, Values]] | None = None
        if self.keys and layout != self.layout:
            old = [self._unpacked(place) for place in range(len(self.keys))]
        self.keys.append(key)
        self._ranks.append(rank)
        self._scale_list.append(scale)
        self.layout = layout
        new: dict[str, Values] = {
            "value": values,
            "grad": {},
            "first": {piece.name: moments[f"{piece.name}.exp_avg"] for piece in layout} if moments else {},
            "second": {piece.name: moments[f"{piece.name}.exp_avg_sq"] for piece in layout} if moments else {},
        }
        for buffer, rows in self._buffers.items():
            kept = list(rows) if old is None else [self._packed_row(row[buffer]) for row in old]
            self._buffers[buffer] = torch.stack([*kept, self._packed_row(new[buffer])])
        self.install()

    def leave(self, key: int) -> None:
        """Drop a trial's row; the others keep theirs to the bit."""
        place = self.keys.index(key)
        for listed in (self.keys, self._ranks, self._scale_list):
            del listed[place]
        kept = [other for other in range(len(self.keys) + 1) if other != place]
        self._buffers = {name: rows[kept].clone() for name, rows in self._buffers.items()}
        self.install() if self.keys else self.uninstall()

    def values(self, key: int) -> dict[str, torch.Tensor]:
        """Copies of a trial's trained tensors by PEFT's names, in its own rank."""
        return self._unpack(self._buffers["value"], self.keys.index(key))

    def gradients(self, key: int) -> dict[str, torch.Tensor]:
        """Copies of a trial's gradients by PEFT's names, in its own rank."""
        return self._unpack(self._buffers["grad"], self.keys.index(key))

    def load(self, key: int, values: Values) -> None:
        """Write tensors by PEFT's names into a trial's row."""
        self._buffers["value"][self.keys.index(key)] = self._packed_row(values)

    def moments(self, key: int) -> dict[str, torch.Tensor]:
        """Copies of Adam's moments by `name.exp_avg` and `name.exp_avg_sq`."""
        place = self.keys.index(key)
        first, second = (self._unpack(self._buffers[name], place) for name in ("first", "second"))
        return {f"{name}.exp_avg": value for name, value in first.items()} | {
            f"{name}.exp_avg_sq": value for name, value in second.items()
        }

    def load_moments(self, key: int, moments: Values) -> None:
        """Write Adam's moments of a trial."""
        place = self.keys.index(key)
        for buffer, kind in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            named = {piece.name: moments[f"{piece.name}.{kind}"] for piece in self.layout}
            self._buffers[buffer][place] = self._packed_row(named)

    def slices(self, key: int, settings: OptimizerGroup, new_names: list[str]) -> list[Slice]:
        """A trial's row cut where learning-rate factor or weight decay change; as few pieces as possible."""
        if key not in self._cuts:
            self._cuts[key] = self._cut(parameter_table(self.values(key), settings, new_names))
        place = self.keys.index(key)
        return [
            Slice(
                **{name: rows[place, start:end] for name, rows in self._buffers.items()},
                lr_factor=factor,
                weight_decay=decay,
            )
            for start, end, factor, decay in self._cuts[key]
        ]

    def _cut(self, table: Sequence[ParameterRow]) -> list[tuple[int, int, float, float]]:
        cuts: list[tuple[int, int, float, float]] = []
        for piece, row in zip(self.layout, table, strict=True):
            if cuts and cuts[-1][2:] == (row.lr_factor, row.weight_decay):
                cuts[-1] = (cuts[-1][0], piece.end, row.lr_factor, row.weight_decay)
            else:
                cuts.append((piece.start, piece.end, row.lr_factor, row.weight_decay))
        return cuts

    def zero_grad(self, key: int) -> None:
        """Clear a trial's gradients."""
        self._buffers["grad"][self.keys.index(key)].zero_()

    def shown(self, stacked: torch.Tensor) -> torch.Tensor:
        """All trials, or the one that `only` has chosen."""
        return stacked if self._only is None else stacked[self._only : self._only + 1]

    @contextmanager
    def only(self, key: int) -> Iterator[None]:
        """Inside, a forward pass serves this trial alone."""
        before, self._only = self._only, self.keys.index(key)
        try:
            yield
        finally:
            self._only = before

    def install(self) -> None:
        """Put the packed modules into the base and make them see the rows as they are now."""
        self.base.requires_grad_(False)
        self._cuts = {}
        if not self.keys:
            return
        self.scales = torch.tensor(self._scale_list, device=self.device)
        modules: dict[str, dict[str, torch.nn.Parameter]] = {}
        for piece in self.layout:
            parameter = torch.nn.Parameter(piece.view(self._buffers["value"]))
            parameter.grad = piece.view(self._buffers["grad"])
            modules.setdefault(piece.path, {})[piece.kind] = parameter
        for path, parameters in modules.items():
            self._packed(path, is_adapter="A" in parameters).bind(parameters)

    def uninstall(self) -> None:
        """Put the base's own modules back."""
        for path, module in self._original.items():
            _put(self.base, path, module)
        self._original = {}

    def _packed(self, path: str, *, is_adapter: bool) -> PackedLinear | PackedHead:
        module = self.base.get_submodule(path)
        if isinstance(module, PackedLinear | PackedHead):
            return module
        self._original[path] = module
        packed = PackedLinear(module, self) if is_adapter else PackedHead(module, self)  # type: ignore[arg-type]
        _put(self.base, path, packed)
        return packed

    def _unpacked(self, place: int) -> dict[str, dict[str, torch.Tensor]]:
        return {name: self._unpack(rows, place) for name, rows in self._buffers.items()}

    def _unpack(self, rows: torch.Tensor, place: int) -> dict[str, torch.Tensor]:
        rank = self._ranks[place]
        out = {}
        for piece in self.layout:
            value = piece.view(rows[place])
            cut = {"A": value[:rank], "B": value[:rank].T}.get(piece.kind, value) if value.ndim == 2 else value
            out[piece.name] = cut.clone(memory_format=torch.contiguous_format)
        return out

    def _packed_row(self, values: Values) -> torch.Tensor:
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


def _put(model: Any, path: str, module: torch.nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module
