"""The training loop: one for all methods. A pack of trials rides one forward and backward pass; an ordinary run is a pack of one.

Every optimizer step of a trial sees the next rows of its order, cut into micro-batches; its loss is a sum over all of them, divided
once by its tokens that carry loss, so that 1 x 16, 4 x 4 and 16 x 1 are the same step. The pass is shared, everything else is the
trial's own: rows, learning rate, effective batch, clipping, optimizer clock, evaluations, end. Plain records go out through `emit`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from finestep.errors import EnvironmentFault, FinestepError
from finestep.protocol import Emit, EventKind, Record, TrialRequest
from finestep.train.agreed import Result, agreed
from finestep.train.evaluate import StopRequested
from finestep.train.faults import is_device_lost, logged_cause, raise_machine_fault
from finestep.train.lane import Lane
from finestep.train.membership import Fallen, Membership
from finestep.train.memory import is_out_of_memory, release_memory
from finestep.train.resident import Resident
from finestep.train.shared_pass import SharedPass, common_window
from finestep.train.shortage import NO_ROW_FITS, make_smaller
from finestep.train.trial_rows import TrialRows
from finestep.train.update import StepFigures


class Pack:
    """Trials in training on one base.

    Args:
        take: the next request that waits, or None; asked whenever there is room.
        is_stopped: true for a trial that the user has stopped.
        num_lanes: at most this many trials share a forward pass.
        rows_together: rows of each trial in a shared pass; None: its micro-batch.
        row_limit: rows of a forward pass that memory is known to allow.
        end_to_end: lay the texts of a trial end to end instead of padding them, where the base allows it.
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
        end_to_end: bool = False,
    ):
        self.resident, self.emit, self.should_stop, self.take = resident, emit, should_stop, take
        self.metrics, self.is_stopped = metrics, is_stopped
        self.members = Membership(
            resident, self._lane, num_lanes=num_lanes, rows_together=rows_together, row_limit=row_limit
        )
        self._pass = SharedPass(resident, note=self._note, end_to_end=end_to_end and resident.why_padded() is None)

    @property
    def lanes(self) -> list[Lane]:
        """The trials that train."""
        return self.members.lanes

    @property
    def _trial_rows(self) -> TrialRows:
        assert self.members.rows is not None
        return self.members.rows

    def run(self) -> Iterator[Lane | Fallen]:
        """Train until nothing waits any more; yields each trial as it ends, still holding its row.

        What raises in one trial ends that trial alone.

        Raises:
            FinestepError: something that a user can act on; all trials have written their checkpoints before.
        """
        try:
            while self.members.fill(self.take) or self.members.fallen:
                try:
                    if self.should_stop():
                        raise StopRequested
                    for lane in self.lanes:
                        self._guarded(lane, lane.between_steps) if not lane.step_in_making.num_micro_batches else None
                except StopRequested:
                    self._interrupt(with_half_steps=True)
                # A trial that has ended keeps its row until the caller has saved it; no pass may change the row meanwhile.
                if self.lanes and not any(lane.outcome or lane.interrupted for lane in self.lanes):
                    self._micro_step()
                yield from self._ended()
        except FinestepError:
            self._interrupt()
            yield from self._ended()
            raise

    def _guarded(self, lane: Lane, act: Callable[[], object], *, is_agreed: bool = False) -> None:
        """Do something for one trial; what it raises ends this trial, unless the whole process is concerned.

        Args:
            is_agreed: it raises on all devices of the trial or on none. Elsewhere the others know nothing of it and would wait.
        """
        try:
            act()
        except (StopRequested, FinestepError):
            raise
        except Exception as error:
            raise_machine_fault(error, lane.folder)
            if is_device_lost(error) or (self.resident.devices.world > 1 and not is_agreed):
                raise
            if is_out_of_memory(error):
                lane.fail(NO_ROW_FITS, state="out_of_memory")
            else:
                lane.fail(logged_cause(error))

    def _ended(self) -> Iterator[Lane | Fallen]:
        fallen, self.members.fallen = self.members.fallen, []
        yield from fallen
        for lane in [lane for lane in self.lanes if lane.outcome or lane.interrupted]:
            yield lane
            self.members.drop_ended(lane)

    def _interrupt(self, *, with_half_steps: bool = False) -> None:
        """Checkpoints for all that train or wait half done; what never began is only told. After a fault the gradients of a step that
        is half done are not to be trusted, and the step comes again."""
        for lane in [*self.lanes, *self.members.waiting]:
            if isinstance(lane, TrialRequest):
                self.emit("interrupted", {"step": 0}, trial=lane.number)
            elif lane.outcome is None:
                # the fault that is told is the first; the last checkpoint stays
                with contextlib.suppress(EnvironmentFault):
                    # After a fault of one device the others give no parts for a checkpoint.
                    if with_half_steps or not self.resident.devices.is_sharded:
                        lane.interrupt(with_half_step=with_half_steps)
                lane.interrupted = True
        self.members.waiting.clear()

    # ---- one forward and backward pass

    def _micro_step(self) -> None:
        """One pass for the next micro-batch of every trial, and an optimizer step for those whose batch is complete."""
        began = time.monotonic()
        losses = self._together(self._forward_backward, self.lanes)
        if losses is None:
            return
        self._trial_rows.add_losses(losses)
        due = [lane for lane in self.lanes if lane.step_in_making.add()]
        # Seconds of a shared pass are divided, so that times of trials add up to the time of the study.
        share = (time.monotonic() - began) / len(self.lanes)
        for lane in self.lanes:
            lane.progress.elapsed_s += share
        if due:
            self._step(due)

    def _together(self, compute: Callable[[list[Lane]], Result], lanes: list[Lane]) -> Result | None:
        """What `compute` gives for trials together; None when the pack was made smaller, and the same step comes again."""
        try:
            found = agreed(self.resident.devices, compute, lanes)
        except FinestepError:
            raise
        except Exception as error:
            self._single_out(error)
            return None
        if found is None:
            self._take_less_memory()
        return found

    def _take_less_memory(self) -> None:
        """Give up what only saves time first; the same steps are made again."""
        if self._pass.release():
            self.members.rewind()
            release_memory(self.resident.placement.device)
        else:
            make_smaller(self.members, self.resident)

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
        # Gradients of the pass that raised are of no use, and each try below must begin without any.
        self.members.rewind()
        for lane in self.lanes:
            with self._trial_rows.only(lane.number):
                self._guarded(lane, partial(self._try_step, lane), is_agreed=True)
            self.members.rewind()
        if not any(lane.outcome for lane in self.lanes):
            cause = logged_cause(error)
            self.members.park_all_but(1)
            text = f"trials that share a pass fail ({cause}), and each alone does not: one at a time from now on"
            self.lanes[0].emit("note", {"text": text})

    def _try_step(self, lane: Lane) -> None:
        """What comes before an optimizer step, of one trial."""
        if agreed(self.resident.devices, self._forward_backward, [lane]) is None:
            raise MemoryError(NO_ROW_FITS)

    def _forward_backward(self, lanes: Sequence[Lane]) -> torch.Tensor:
        """Gradients of each trial's part of its own mean loss; the parts, [lanes]."""
        return self._pass.forward_backward(
            lanes,
            self._trial_rows,
            micro_batch_size=self.members.micro_batch_size(),
            window=common_window(self.lanes),
            may_draw=len(self.lanes) == 1,
        )

    def _step(self, due: list[Lane]) -> None:
        """One optimizer step of the trials whose effective batch is complete, then each one's own answer to it."""
        began = time.monotonic()
        if self.resident.devices.world > 1 and self._together(self._make_room, due) is None:
            return
        figures = self._together(self._update, due)
        if figures is None:
            return
        waited = time.monotonic() - began
        for lane in due:
            began = time.monotonic()
            lane.progress.elapsed_s += waited / len(due)
            self._guarded(lane, partial(lane.step, figures[lane.number]))
            lane.progress.elapsed_s += time.monotonic() - began

    def _make_room(self, due: list[Lane]) -> bool:
        """What the optimizer will hold is allocated apart: in the step itself all devices speak, and none may fall silent."""
        for lane in due:
            self._trial_rows.make_room(lane.update_plan())
        return True

    def _update(self, due: list[Lane]) -> dict[int, StepFigures]:
        return self._trial_rows.update({lane.number: lane.update_plan() for lane in due})

    def _lane(self, request: TrialRequest) -> Lane:
        return Lane(
            self.resident,
            request,
            emit=self._send,
            should_stop=self.should_stop,
            is_stopped=self.is_stopped,
            metrics=self.metrics,
            row_limit=self.members.row_limit,
        )

    def _note(self, text: str) -> None:
        self.lanes[0].emit("note", {"text": text})

    def _send(self, kind: EventKind, data: Record, *, trial: int) -> None:
        self.emit(kind, data, trial=trial)
