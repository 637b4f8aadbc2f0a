"""One forward and backward pass for the next micro-batch of every trial of a pack. It updates no weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from finestep.train.lane import Lane
from finestep.train.resident import Resident
from finestep.train.tokens import collate_lanes


class SharedPass:
    """The pass of a pack on one base."""

    def __init__(self, resident: Resident):
        self._resident = resident

    def forward_backward(
        self, lanes: Sequence[Lane], *, micro_batch_size: int, window: int | None, may_draw: bool
    ) -> torch.Tensor:
        """Gradients of each trial's part of its own mean loss; the parts, [lanes].

        Args:
            window: rows are sorted by length within windows of so many; None: within the step.
            may_draw: only a trial that is alone may draw random numbers (dropout).
        """
        resident, model = self._resident, self._resident.base
        rows = [lane.next_rows(micro_batch_size, window) for lane in lanes]
        self._seed_dropout(lanes[0], may_draw=may_draw)
        batch, units = collate_lanes(
            resident.data.train, rows, pad_id=resident.data.pad_id, device=resident.placement.device
        )
        sums = resident.token_loss.lane_sums(model, batch, units)
        losses = sums / torch.tensor([lane.step_in_making.num_units for lane in lanes], device=sums.device)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def _seed_dropout(self, lane: Lane, *, may_draw: bool) -> None:
        """Draws depend on the seed and the place in the run alone, so that a resumed run draws the same."""
        model = self._resident.base
        draws = may_draw and self._resident.why_random(lane.recipe) is not None
        if model.training != draws:
            model.train(draws)
        if draws:
            place = lane.step_in_making.num_micro_batches
            torch.manual_seed((lane.recipe.seed * 1_000_003 + lane.progress.step + 1) * 1_009 + place)


def common_window(lanes: Sequence[Lane]) -> int | None:
    """Rows within which trials of a pack sort by length, so that all of them see the same micro-batches.

    It is the smallest effective batch, and None where all have the same.
    """
    batches = {lane.recipe.effective_batch_size for lane in lanes}
    return min(batches) if len(batches) > 1 else None
