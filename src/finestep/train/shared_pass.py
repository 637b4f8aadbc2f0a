"""One forward and backward pass for the next micro-batch of every trial of a pack. It updates no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from finestep.rules.recorded_passes import bucket
from finestep.train.adapters import AdapterRows
from finestep.train.batch import Batch, collate_end_to_end, collate_lanes
from finestep.train.checkpointing import checkpointable_layers, is_checkpointed
from finestep.train.lane import Lane
from finestep.train.recorded_pass import RecordedPasses
from finestep.train.resident import Resident
from finestep.train.trial_rows import TrialRows


class SharedPass:
    """The pass of a pack on one base.

    Args:
        note: told in words what a user should know.
        end_to_end: lay the texts of a trial end to end instead of padding them to one length; the base must allow it.
    """

    def __init__(self, resident: Resident, *, note: Callable[[str], None], end_to_end: bool = False):
        self._resident, self._note, self._end_to_end = resident, note, end_to_end
        self._recorded: RecordedPasses | None = None

    def forward_backward(
        self,
        lanes: Sequence[Lane],
        trial_rows: TrialRows,
        *,
        micro_batch_size: int,
        window: int | None,
        may_draw: bool,
    ) -> torch.Tensor:
        """Gradients of each trial's part of its own mean loss; the parts, [lanes].

        Args:
            window: rows are sorted by length within windows of so many; None: within the step.
            may_draw: only a trial that is alone may draw random numbers (dropout).
        """
        resident = self._resident
        rows = [lane.next_rows(micro_batch_size, window) for lane in lanes]
        self._seed_dropout(lanes[0], may_draw=may_draw)
        is_recorded = self._may_record(trial_rows)
        batch = self._batch(lanes, rows, rounded=self._bucket if is_recorded else None)

        def compute(batch: Batch) -> torch.Tensor:
            assert batch.units_L is not None
            # A sum over all trials, although each has its own loss: their rows share no trained number, so that the gradient of the
            # sum is in each row the gradient of its own trial alone.
            sums = resident.token_loss.lane_sums(resident.base, batch, [0] * len(lanes))
            losses = sums / batch.units_L
            losses.sum().backward()
            trial_rows.after_pass()
            return losses.detach()

        if is_recorded and isinstance(trial_rows, AdapterRows):
            self._recorded = self._recorded or RecordedPasses(resident.placement.device, note=self._note)
            return self._recorded.losses(batch, trial_rows, compute)
        return compute(batch)

    def release(self) -> bool:
        """Give memory back that makes passes faster and no more; False when there is none."""
        return self._recorded is not None and self._recorded.release()

    def _batch(
        self, lanes: Sequence[Lane], rows: Sequence[np.ndarray], *, rounded: Callable[[int], int] | None
    ) -> Batch:
        data, units = self._resident.data, [lane.step_in_making.num_units for lane in lanes]
        device = self._resident.placement.device
        if self._end_to_end:
            return collate_end_to_end(data.train, rows, pad_id=data.pad_id, device=device, units=units)[0]
        return collate_lanes(data.train, rows, pad_id=data.pad_id, device=device, units=units, rounded=rounded)[0]

    def _bucket(self, tokens: int) -> int:
        """Rounded up, but never beyond the longest row: a table of positions may end there."""
        return min(bucket(tokens), max(tokens, self._resident.data.max_length))

    def _may_record(self, trial_rows: TrialRows) -> bool:
        """Recordings need fixed addresses and fixed work: no random draws, no layers that are computed twice."""
        resident = self._resident
        return (
            resident.placement.device.type == "cuda"
            and isinstance(trial_rows, AdapterRows)
            and trial_rows.serves_all
            and not self._end_to_end
            and not resident.devices.is_sharded
            and not resident.data.label_names
            and not resident.base.training
            and not resident.token_loss.one_length_at_a_time
            and not any(is_checkpointed(layer) for layer in checkpointable_layers(resident.base))
        )

    def _seed_dropout(self, lane: Lane, *, may_draw: bool) -> None:
        """Draws depend on the seed and the place in the run alone, so that a resumed run draws the same."""
        model = self._resident.base
        draws = may_draw and self._resident.why_random(lane.recipe) is not None
        if model.training != draws:
            model.train(draws)
        if draws:
            place = lane.step_in_making.seed_place()
            torch.manual_seed((lane.recipe.seed * 1_000_003 + lane.progress.step + 1) * 1_009 + place)


def common_window(lanes: Sequence[Lane]) -> int | None:
    """Rows within which trials of a pack sort by length, so that all of them see the same micro-batches.

    It is the smallest effective batch, and None where all have the same.
    """
    batches = {lane.recipe.effective_batch_size for lane in lanes}
    return min(batches) if len(batches) > 1 else None
