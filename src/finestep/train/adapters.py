"""LoRA adapters of several trials on one frozen base: a trial is a row of flat buffers, and no trial touches another's row.

The layout follows PEFT's names, so that values come from PEFT's own initialisation and go back into PEFT's own files.

Shapes: K trials, P values of one trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from finestep.train.adapter_layout import layout_of, place_of
from finestep.train.devices import ALONE, Devices
from finestep.train.installed_layers import Installed, Seats
from finestep.train.row_buffers import RowBuffers
from finestep.train.row_optimizer import RowOptimizer
from finestep.train.trial_rows import Values
from finestep.train.update import StepFigures, UpdatePlan


class AdapterRows:
    """The trials of a pack on one base. Rows of a batch are grouped by trial, in the order of `keys`.

    Joining and leaving copies rows; gradients of a step that is half done are copied too.

    Args:
        dtype: the precision of the pass; values, gradients of a step and moments are float32 in any case.
        room: trials to make room for at once, so that addresses stay the same while they come and go.
        devices: those that share the rows of a step; each has all adapters.
    """

    def __init__(
        self,
        base: torch.nn.Module,
        device: torch.device,
        *,
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
        room: int = 1,
        devices: Devices = ALONE,
    ):
        self.keys: list[int] = []
        self.buffers = RowBuffers(device, dtype=dtype, room=room)
        self._seats = Seats(self.buffers, dropout=dropout)
        self._installed = Installed(base, self._seats)
        self._optimizer = RowOptimizer(self.buffers, devices=devices)

    # ---- trials come and go

    def join(self, key: int, values: Values, *, scale: float, moments: Values | None = None) -> None:
        """Add a trial as the last row, with the tensors of a PEFT adapter."""
        for name in values:
            self._installed.check(place_of(name)[0])
        rank = next(value.shape[0] for name, value in values.items() if name.endswith("lora_A.default.weight"))
        layout = layout_of(values, max(rank, self.buffers.least_rank))
        named = {"value": values, **_moments_by_buffer(moments, [piece.name for piece in layout])}
        self.buffers.add(named, layout, rank=rank, scale=scale)
        self.keys.append(key)
        self.install()

    def leave(self, key: int) -> None:
        """Drop a trial's row; the others keep theirs to the bit."""
        place = self.keys.index(key)
        del self.keys[place]
        self.buffers.remove(place)
        self.install() if self.keys else self.uninstall()

    # ---- a trial's tensors

    def values(self, key: int) -> dict[str, torch.Tensor]:
        """Copies of a trial's trained tensors by PEFT's names, in its own rank."""
        return self.buffers.unpacked(self.keys.index(key), ["value"])["value"]

    def gradients(self, key: int) -> dict[str, torch.Tensor]:
        """Copies of a trial's gradients by PEFT's names, in its own rank."""
        self.after_pass()
        return self.buffers.unpacked(self.keys.index(key), ["grad"])["grad"]

    def load(self, key: int, values: Values) -> None:
        """Write tensors by PEFT's names into a trial's row."""
        self.buffers.rows("value")[self.keys.index(key)] = self.buffers.packed(values)
        self.buffers.refresh()

    def moments(self, key: int) -> dict[str, torch.Tensor]:
        """Copies of Adam's moments by `name.exp_avg` and `name.exp_avg_sq`."""
        found = self.buffers.unpacked(self.keys.index(key), ["first", "second"])
        first = {f"{name}.exp_avg": value for name, value in found["first"].items()}
        return first | {f"{name}.exp_avg_sq": value for name, value in found["second"].items()}

    def load_moments(self, key: int, moments: Values) -> None:
        """Write Adam's moments of a trial."""
        names = [piece.name for piece in self.buffers.layout]
        for buffer, named in _moments_by_buffer(moments, names).items():
            self.buffers.rows(buffer)[self.keys.index(key)] = self.buffers.packed(named)

    def num_values(self, key: int) -> int:
        """Trained numbers of a trial, with what pads a smaller rank."""
        return self.buffers.layout[-1].end

    # ---- a step

    def after_pass(self) -> None:
        """Take up the gradients of a backward pass; also after a pass that was timed or tried."""
        self.buffers.collect()

    def notice_changes(self) -> None:
        """Take up what an optimizer of PyTorch has done to the parameters: changed values, dropped gradients."""
        self.buffers.refresh()
        for bound in self._installed.bound():
            bound.renew_gradient()

    def add_losses(self, losses: torch.Tensor) -> None:
        """Add the losses of a pass to those of the steps in the making, [K]."""
        self.buffers.loss().add_(losses)

    def zero_grad(self, key: int) -> None:
        """Clear a trial's gradients, and the loss of its step in the making."""
        self.buffers.clear([self.keys.index(key)])

    def make_room(self, plan: UpdatePlan) -> None:
        """Nothing: the rows have it."""

    def update(self, plans: Mapping[int, UpdatePlan]) -> dict[int, StepFigures]:
        """One optimizer step of the planned trials. Their gradients are cleared, and the pass sees the new values."""
        places = [place for place, key in enumerate(self.keys) if key in plans]
        figures = self._optimizer.step(places, [plans[self.keys[place]] for place in places])
        return {self.keys[place]: found for place, found in zip(places, figures, strict=True)}

    # ---- the base

    @property
    def serves_all(self) -> bool:
        """False while a pass serves one trial alone."""
        return self._seats.only is None

    @contextmanager
    def only(self, key: int) -> Iterator[None]:
        """Inside, a forward pass serves this trial alone."""
        before, self._seats.only = self._seats.only, self.keys.index(key)
        try:
            yield
        finally:
            self._seats.only = before

    def install(self) -> None:
        """Put the packed modules into the base and make them see the rows as they are now."""
        self._optimizer.forget_cuts()
        self.buffers.refresh()
        self._installed.bind(self.buffers)

    def uninstall(self) -> None:
        """Put the base's own modules back."""
        self._installed.undo()


def _moments_by_buffer(moments: Values | None, names: Sequence[str]) -> dict[str, Values]:
    """Adam's moments of a checkpoint, {} where Adam begins."""
    if not moments:
        return {}
    kinds = {"first": "exp_avg", "second": "exp_avg_sq"}
    return {buffer: {name: moments[f"{name}.{kind}"] for name in names} for buffer, kind in kinds.items()}
