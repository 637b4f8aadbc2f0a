"""The optimizer step of rows of adapters: which stretches of a row are treated alike, and one AdamW for several trials at once.

Shapes: K trials, P values of one trial, L trials that step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from finestep.train.adapter_layout import Piece
from finestep.train.devices import Devices
from finestep.train.optimizer import ParameterRow, Slice, parameter_table
from finestep.train.row_buffers import RowBuffers
from finestep.train.update import StepFigures, UpdatePlan, apply_adamw, decide, norms_of, read_figures

Cut = tuple[int, int, float, float]
"""(start, end, learning-rate factor, weight decay) of a stretch of a row."""


class RowOptimizer:
    """Steps over the rows of some buffers.

    Args:
        devices: those that share the rows of a step, whose gradients are summed.
    """

    def __init__(self, buffers: RowBuffers, *, devices: Devices):
        self._buffers, self._devices = buffers, devices
        self._cuts: dict[int, list[Cut]] = {}

    def forget_cuts(self) -> None:
        """Rows have come or gone: what is known of them by place holds no longer."""
        self._cuts = {}

    @torch.no_grad()
    def step(self, places: Sequence[int], plans: Sequence[UpdatePlan]) -> list[StepFigures]:
        """One step of the rows at these places. Their gradients are cleared, and the pass sees the new values."""
        self._share_gradients(places)
        slices = [self._slices(place, plan) for place, plan in zip(places, plans, strict=True)]
        decision = decide(
            _chosen(self._buffers.loss(), places),
            norms_of([[one.grad for one in each] for each in slices]),
            plans,
        )
        wants = any(plan.wants_norms or plan.wants_descent for plan in plans)
        # The update is measured as what it changed: cheaper than from the moments for many trials, and right for any optimizer.
        before = _chosen(self._buffers.rows("value"), places).clone() if wants else None
        for number, (pieces, plan) in enumerate(zip(slices, plans, strict=True)):
            apply_adamw(pieces, plan, decision, number)
        change = None if before is None else before.sub_(_chosen(self._buffers.rows("value"), places))
        figures = read_figures(decision, **self._norms(change, places, plans))
        self._buffers.clear(places)
        self._buffers.refresh()
        return figures

    def _share_gradients(self, places: Sequence[int]) -> None:
        """Sums over the devices: of all trials that step, or of one after the other where some are in the middle of a step."""
        grads, losses = self._buffers.rows("grad"), self._buffers.loss()
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
        values = _chosen(self._buffers.rows("value"), places)
        both = norms_of([[row] for row in (*change.unbind(), *values.unbind())])
        found = {"update_norm": both[: len(places)], "weight_norm": both[len(places) :]}
        if any(plan.wants_descent for plan in plans):
            found["descent"] = change.mul_(_chosen(self._buffers.rows("grad"), places)).sum(1)
        return found

    def _slices(self, place: int, plan: UpdatePlan) -> list[Slice]:
        """A trial's row cut where learning-rate factor or weight decay change; as few pieces as possible."""
        if place not in self._cuts:
            values = self._buffers.unpacked(place, ["value"])["value"]
            table = parameter_table(values, plan.settings, list(plan.new_names))
            self._cuts[place] = _cut(self._buffers.layout, table)
        buffers = {name: self._buffers.rows(name)[place] for name in ("value", "grad", "first", "second")}
        return [
            Slice(
                **{name: row[start:end] for name, row in buffers.items()},
                lr_factor=factor,
                weight_decay=decay,
            )
            for start, end, factor, decay in self._cuts[place]
        ]


def _cut(layout: Sequence[Piece], table: Sequence[ParameterRow]) -> list[Cut]:
    """(start, end, learning-rate factor, weight decay) of stretches of a row that are treated alike, as few as possible."""
    cuts: list[Cut] = []
    for piece, row in zip(layout, table, strict=True):
        if cuts and cuts[-1][2:] == (row.lr_factor, row.weight_decay):
            cuts[-1] = (cuts[-1][0], piece.end, row.lr_factor, row.weight_decay)
        else:
            cuts.append((piece.start, piece.end, row.lr_factor, row.weight_decay))
    return cuts


def _chosen(rows: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Some rows; without a copy where they are all."""
    return rows if len(places) == len(rows) else torch.stack([rows[place] for place in places])
