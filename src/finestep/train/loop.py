"""The training loop: one for all methods. A pack of trials rides one forward and backward pass; an ordinary run is a pack of one.

Every optimizer step of a trial sees the next rows of its order, cut into micro-batches; its loss is a sum over all of them, divided
once by its tokens that carry loss, so that 1 x 16, 4 x 4 and 16 x 1 are the same step. The pass is shared, everything else is the
trial's own: rows, learning rate, effective batch, clipping, optimizer clock, evaluations, end. Plain records go out through `emit`.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from finestep.errors import EnvironmentFault, FinestepError
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.train.evaluate import StopRequested
from finestep.train.faults import is_device_lost, logged_cause, raise_machine_fault
from finestep.train.lane import Emit, Lane
from finestep.train.levers import relieve
from finestep.train.memory import is_out_of_memory, release_memory, unless_out_of_memory
from finestep.train.optimizer import Slice, gradient_norms
from finestep.train.resident import Resident, Rows
from finestep.train.tokens import collate_lanes
from finestep.trial import Outcome

Found = TypeVar("Found")
FEW_ROWS = 4
"""Micro-batches smaller than this waste a device more than computing layers twice does."""


@dataclass(frozen=True)
class Fallen:
    """A trial that failed before it had a row of the pack."""

    number: int
    folder: Path
    outcome: Outcome


class Pack:
    """Trials in training on one base.

    Args:
        take: the next request that waits, or None; asked whenever there is room.
        is_stopped: true for a trial that the user has stopped.
        num_lanes: at most this many trials share a forward pass.
        rows_together: rows of each trial in a shared pass; None: its micro-batch.
        row_limit: rows of a forward pass that memory is known to allow.
    """

    def __init__(
        self,
        resident: Resident,
        *,
        emit: Emit,
        should_stop: Callable[[], bool],
        take: Callable[[], TrialRequest | None],
        is_stopped: Callable[[int], bool] = lambda number: False,
        metrics: tuple[str, ...] = (),
        num_lanes: int = 1,
        rows_together: int | None = None,
        row_limit: int | None = None,
    ):
        self.resident, self.emit, self.should_stop, self.take = resident, emit, should_stop, take
        self.is_stopped = is_stopped
        self.metrics, self.num_lanes, self.row_limit = metrics, num_lanes, row_limit
        self.rows_together = rows_together
        self.lanes: list[Lane] = []
        self._waiting: deque[TrialRequest | Lane] = deque()
        self._fallen: list[Fallen] = []
        self._rows: Rows

    def run(self) -> Iterator[Lane | Fallen]:
        """Train until nothing waits any more; yields each trial as it ends, still holding its row.

        What raises in one trial ends that trial alone.

        Raises:
            FinestepError: something that a user can act on; all trials have written their checkpoints before.
        """
        try:
            while self._fill() or self._fallen:
                try:
                    if self.should_stop():
                        raise StopRequested
                    for lane in self.lanes:
                        self._guarded(lane, lane.settle) if not lane.num_micro_batches else None
                except StopRequested:
                    self._interrupt()
                if self.lanes and not any(lane.outcome or lane.interrupted for lane in self.lanes):
                    self._micro_step()
                yield from self._ended()
        except FinestepError:
            self._interrupt()
            yield from self._ended()
            raise

    def _guarded(self, lane: Lane, act: Callable[[], object]) -> None:
        """Do something for one trial; what it raises ends this trial, unless the whole process is concerned."""
        try:
            act()
        except (StopRequested, FinestepError):
            raise
        except Exception as error:
            raise_machine_fault(error, lane.folder)
            if is_out_of_memory(error):
                lane.run_out_of_memory()
            elif is_device_lost(error):
                raise
            else:
                lane.fail(logged_cause(error))

    def _ended(self) -> Iterator[Lane | Fallen]:
        fallen, self._fallen = self._fallen, []
        yield from fallen
        for lane in [lane for lane in self.lanes if lane.outcome or lane.interrupted]:
            yield lane
            self.lanes.remove(lane)
            lane.leave()

    def _interrupt(self) -> None:
        """Checkpoints for all that train or wait half done; what never began is only told."""
        for lane in [*self.lanes, *self._waiting]:
            if isinstance(lane, TrialRequest):
                self.emit("interrupted", {"step": 0}, trial=lane.number)
            elif lane.outcome is None:
                with contextlib.suppress(
                    EnvironmentFault
                ):  # the fault that is told is the first; the last checkpoint stays
                    lane.interrupt()
                lane.interrupted = True
        self._waiting.clear()

    # ---- one forward and backward pass

    def _micro_step(self) -> None:
        """One pass for the next micro-batch of every trial, and an optimizer step for those whose batch is complete."""
        began = time.monotonic()
        losses = self._together(self._forward_backward, self.lanes)
        if losses is None:
            return
        due = [lane for lane, loss in zip(self.lanes, losses.unbind(), strict=True) if lane.add(loss)]
        share = (time.monotonic() - began) / len(self.lanes)
        for lane in self.lanes:
            lane.spend(share)
        if due:
            self._step(due)

    def _together(self, compute: Callable[[list[Lane]], Found], lanes: list[Lane]) -> Found | None:
        """What `compute` gives for trials together; None when the pack was made smaller, and the same step comes again."""
        try:
            found = unless_out_of_memory(compute, lanes)
        except FinestepError:
            raise
        except Exception as error:
            self._single_out(error)
            return None
        if found is None:
            self._shrink()
        return found

    def _single_out(self, error: Exception) -> None:
        """The shared pass raised: try each trial alone, and fail those in which it raises again. The others go on.

        Where none of them raises alone, it is the company that fails: from then on they train one after the other.
        """
        if is_device_lost(error):
            raise error
        raise_machine_fault(error, self.lanes[0].folder)
        if len(self.lanes) == 1:
            self.lanes[0].fail(logged_cause(error))
            return
        self._rewind()
        for lane in self.lanes:
            with self._rows.only(lane.number):
                self._guarded(lane, partial(self._try_step, lane))
            self._rewind()
        if not any(lane.outcome for lane in self.lanes):
            cause = logged_cause(error)
            self._park_all_but(1)
            text = f"trials that share a pass fail ({cause}), and each alone does not: one at a time from now on"
            self.lanes[0].emit("note", {"text": text})

    def _try_step(self, lane: Lane) -> None:
        """What comes before an optimizer step, of one trial."""
        self._forward_backward([lane])
        _slices_and_norms([lane])

    def _forward_backward(self, lanes: Sequence[Lane]) -> torch.Tensor:
        """Gradients of each trial's part of its own mean loss; the parts, [lanes]."""
        resident, model = self.resident, self.resident.base
        micro = self._micro_batch_size()
        rows = [lane.next_rows(micro, self._window()) for lane in lanes]
        self._seed_dropout()
        batch, units = collate_lanes(
            resident.data.train, rows, pad_id=resident.data.pad_id, device=resident.placement.device
        )
        sums = resident.token_loss.lane_sums(model, batch, units)
        losses = sums / torch.tensor([lane.num_units for lane in lanes], device=sums.device)
        losses.sum().backward()
        return losses.detach()

    def _step(self, due: list[Lane]) -> None:
        began = time.monotonic()
        found = self._together(_slices_and_norms, due)
        if found is None:
            return
        slices, norms = found
        losses = torch.stack([lane.loss for lane in due]).tolist()
        waited = time.monotonic() - began
        for lane, pieces, loss, norm in zip(due, slices, losses, norms, strict=True):
            began = time.monotonic()
            lane.spend(waited / len(due))
            self._guarded(lane, partial(lane.step, pieces, loss, norm))
            lane.spend(time.monotonic() - began)

    def _micro_batch_size(self) -> int:
        return self._rows_in_company() if len(self.lanes) > 1 else self.lanes[0].progress.micro_batch_size

    def _rows_in_company(self) -> int:
        allowed = min(lane.progress.micro_batch_size for lane in self.lanes)
        return min(allowed, self.rows_together or allowed)

    def _window(self) -> int | None:
        """Rows are sorted by length within the smallest effective batch, so that trials of a pack see the same micro-batches."""
        batches = {lane.recipe.effective_batch_size for lane in self.lanes}
        return min(batches) if len(batches) > 1 else None

    def _seed_dropout(self) -> None:
        """Draws that depend on the seed and the place in the run alone; only a trial that is alone may draw."""
        model = self.resident.base
        draws = len(self.lanes) == 1 and self.resident.why_random(self.lanes[0].recipe) is not None
        if model.training != draws:
            model.train(draws)
        if draws:
            lane = self.lanes[0]
            torch.manual_seed((lane.recipe.seed * 1_000_003 + lane.progress.step + 1) * 1_009 + lane.num_micro_batches)

    # ---- who is in the pack

    def _fill(self) -> bool:
        """Take in what waits while there is room; False when nothing is left to train."""
        while (request := self.take()) is not None:
            self._waiting.append(request)
        while len(self.lanes) < self._room():
            candidate = next((one for one in self._waiting if self._may_join(one)), None)
            if candidate is None:
                break
            self._waiting.remove(candidate)
            self._admit(candidate)
        return bool(self.lanes)

    def _room(self) -> int:
        if not self.lanes or self.row_limit is None:
            return self.num_lanes
        return min(self.num_lanes, max(1, self.row_limit // self._rows_in_company()))

    def _may_join(self, candidate: TrialRequest | Lane) -> bool:
        return not self.lanes or (
            _family(self.lanes[0].recipe) == _family(candidate.recipe)
            and all(self.resident.why_alone(recipe) is None for recipe in (self.lanes[0].recipe, candidate.recipe))
        )

    def _admit(self, candidate: TrialRequest | Lane) -> None:
        """Give a trial its row; what raises on the way ends this trial alone."""
        try:
            if not self.lanes:
                self._rows = self.resident.open_rows(candidate.recipe)
            lane = self._lane(candidate)
            lane.join(self._rows)
        except FinestepError:
            raise
        except Exception as error:
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            raise_machine_fault(error, Path(candidate.folder))
            outcome = Outcome(state="failed", reason=logged_cause(error))
            if candidate.number in getattr(getattr(self, "_rows", None), "keys", ()):
                self._rows.leave(candidate.number)
            self._fallen.append(Fallen(candidate.number, Path(candidate.folder), outcome))
            return
        self.lanes.append(lane)

    def _lane(self, candidate: TrialRequest | Lane) -> Lane:
        return (
            candidate
            if isinstance(candidate, Lane)
            else Lane(
                self.resident,
                candidate,
                emit=self.emit,
                should_stop=self.should_stop,
                is_stopped=self.is_stopped,
                metrics=self.metrics,
                row_limit=self.row_limit,
            )
        )

    # ---- when memory is short

    def _shrink(self) -> None:
        """Fewer trials a pass, then a loss in chunks, fewer rows, layers computed twice: the cheapest way first.

        The steps in the making begin anew, so trajectories stay the same.
        """
        self._rewind()
        release_memory(self.resident.placement.device)
        if len(self.lanes) > 1:
            self._park_half()
            return
        lane = self.lanes[0]
        micro = lane.progress.micro_batch_size
        if words := relieve(self.resident, recompute=micro <= FEW_ROWS):
            lane.emit("note", {"text": f"out of memory: {words}; the same step again"})
        elif micro == 1:
            lane.run_out_of_memory()
        else:
            self._halve_micro_batch(lane)

    def _rewind(self) -> None:
        """Forget the steps in the making, with their gradients."""
        for lane in self.lanes:
            lane.rewind()
            self._rows.zero_grad(lane.number)

    def _park_all_but(self, kept: int) -> None:
        """From now on so many trials share a pass; the others wait."""
        self.num_lanes = kept
        for lane in reversed(self.lanes[kept:]):
            lane.park()
            self._waiting.appendleft(lane)
        del self.lanes[kept:]

    def _park_half(self) -> None:
        kept = len(self.lanes) // 2
        self._park_all_but(kept)
        self.row_limit = kept * self._micro_batch_size()
        self.lanes[0].emit(
            "note", {"text": f"out of memory: {kept} trials share a pass from now on; the others wait, no step is lost"}
        )

    def _halve_micro_batch(self, lane: Lane) -> None:
        micro = lane.progress.micro_batch_size = lane.progress.micro_batch_size // 2
        self.row_limit = micro
        lane.emit(
            "note",
            {
                "text": f"out of memory: micro-batch {micro}, accumulation {lane.recipe.accumulation_steps(micro)}; "
                "the same step again",
                "micro_batch_limit": micro,
            },
        )


def _slices_and_norms(lanes: list[Lane]) -> tuple[list[list[Slice]], list[float]]:
    """Tensors and gradient norm of each trial; the first time it makes room for Adam's moments of a whole model."""
    slices = [lane.slices() for lane in lanes]
    return slices, gradient_norms(slices)


def _family(recipe: Recipe) -> object:
    """Trials of one family adapt the same layers of the same base."""
    return (recipe.method, recipe.lora.target_modules)
