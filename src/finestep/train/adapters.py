"""LoRA adapters of several trials on one frozen base: a trial is a row of flat buffers, and no trial touches another's row.

The layout follows PEFT's names, so that values come from PEFT's own initialisation and go back into PEFT's own files.

Shapes: K trials, P values of one trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from finestep.train.adapter_layout import Piece, layout_of, place_of
from finestep.train.devices import ALONE, Devices
from finestep.train.installed_layers import Installed, Seats
from finestep.train.optimizer import ParameterRow, Slice, parameter_table
from finestep.train.row_buffers import RowBuffers
from finestep.train.trial_rows import Values
from finestep.train.update import StepFigures, UpdatePlan, apply_adamw, decide, norms_of, read_figures

LOSS = "loss"
"""Beside the names of gradients: the loss of a step that is half done."""


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
        base: Any,
        device: torch.device,
        *,
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
        room: int = 1,
        devices: Devices = ALONE,
    ):
        self.keys: list[int] = []
        self._devices = devices
        self.buffers = RowBuffers(device, dtype=dtype, room=room)
        self._seats = Seats(self.buffers, dropout=dropout)
        self._installed = Installed(base, self._seats)
        self._cuts: dict[int, list[tuple[int, int, float, float]]] = {}

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

    def half_step(self, key: int) -> dict[str, torch.Tensor]:
        """Copies of a trial's gradients by PEFT's names, in its own rank, and the loss so far of the step in the making."""
        loss = self.buffers.loss()[self.keys.index(key)]
        return self.gradients(key) | {LOSS: loss.cpu().clone()}

    def load_half_step(self, key: int, half: Values) -> None:
        """Write what `half_step` gave."""
        place = self.keys.index(key)
        self.buffers.rows("grad")[place] = self.buffers.packed({name: half[name] for name in half if name != LOSS})
        self.buffers.loss()[place] = half[LOSS]

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

    @torch.no_grad()
    def update(self, plans: Mapping[int, UpdatePlan]) -> dict[int, StepFigures]:
        """One optimizer step of the planned trials. Their gradients are cleared, and the pass sees the new values."""
        places = [place for place, key in enumerate(self.keys) if key in plans]
        planned = [plans[self.keys[place]] for place in places]
        self._share_gradients(places)
        slices = [self._slices(place, plan) for place, plan in zip(places, planned, strict=True)]
        decision = decide(
            _chosen(self.buffers.loss(), places),
            norms_of([[one.grad for one in each] for each in slices]),
            planned,
        )
        wants = any(plan.wants_norms or plan.wants_descent for plan in planned)
        # The update is measured as what it changed: cheaper than from the moments for many trials, and right for any optimizer.
        before = _chosen(self.buffers.rows("value"), places).clone() if wants else None
        for number, (pieces, plan) in enumerate(zip(slices, planned, strict=True)):
            apply_adamw(pieces, plan, decision, number)
        change = None if before is None else before.sub_(_chosen(self.buffers.rows("value"), places))
        figures = read_figures(decision, **self._norms(change, places, planned))
        self.buffers.clear(places)
        self.buffers.refresh()
        return {self.keys[place]: found for place, found in zip(places, figures, strict=True)}

    def _share_gradients(self, places: Sequence[int]) -> None:
        """Sums over the devices: of all trials that step, or of one after the other where some are in the middle of a step."""
        grads, losses = self.buffers.rows("grad"), self.buffers.loss()
        if len(places) == len(grads):
            self._devices.add_up([grads, losses])
        else:
            self._devices.add_up([one for place in places for one in (grads[place], losses[place : place + 1])])

    def _norms(
        self, change: torch.Tensor | None, places: Sequence[int], plans: Sequence[UpdatePlan]
    ) -> dict[str, torch.Tensor]:
        """Norms of updates and weights, and the descent, where some trial wants them; [L] each."""
        if change is None:
            return {}
        values = _chosen(self.buffers.rows("value"), places)
        both = norms_of([[row] for row in (*change.unbind(), *values.unbind())])
        found = {"update_norm": both[: len(places)], "weight_norm": both[len(places) :]}
        if any(plan.wants_descent for plan in plans):
            found["descent"] = change.mul_(_chosen(self.buffers.rows("grad"), places)).sum(1)
        return found

    def _slices(self, place: int, plan: UpdatePlan) -> list[Slice]:
        """A trial's row cut where learning-rate factor or weight decay change; as few pieces as possible."""
        key = self.keys[place]
        if key not in self._cuts:
            self._cuts[key] = _cut(
                self.buffers.layout, parameter_table(self.values(key), plan.settings, list(plan.new_names))
            )
        buffers = {name: self.buffers.rows(name)[place] for name in ("value", "grad", "first", "second")}
        return [
            Slice(
                **{name: row[start:end] for name, row in buffers.items()},
                lr_factor=factor,
                weight_decay=decay,
            )
            for start, end, factor, decay in self._cuts[key]
        ]

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
        self._cuts = {}
        self.buffers.refresh()
        self._installed.bind(self.buffers)

    def uninstall(self) -> None:
        """Put the base's own modules back."""
        self._installed.undo()


def _cut(layout: Sequence[Piece], table: Sequence[ParameterRow]) -> list[tuple[int, int, float, float]]:
    """(start, end, learning-rate factor, weight decay) of stretches of a row that are treated alike, as few as possible."""
    cuts: list[tuple[int, int, float, float]] = []
    for piece, row in zip(layout, table, strict=True):
        if cuts and cuts[-1][2:] == (row.lr_factor, row.weight_decay):
            cuts[-1] = (cuts[-1][0], piece.end, row.lr_factor, row.weight_decay)
        else:
            cuts.append((piece.start, piece.end, row.lr_factor, row.weight_decay))
    return cuts


def _chosen(rows: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Some rows; without a copy where they are all."""
    return rows if len(places) == len(rows) else torch.stack([rows[place] for place in places])


def _moments_by_buffer(moments: Values | None, names: Sequence[str]) -> dict[str, Values]:
    """Adam's moments of a checkpoint, {} where Adam begins."""
    if not moments:
        return {}
    kinds = {"first": "exp_avg", "second": "exp_avg_sq"}
    return {buffer: {name: moments[f"{name}.{kind}"] for name in names} for buffer, kind in kinds.items()}
