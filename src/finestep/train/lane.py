"""One trial of a pack, put together from its parts: the step in the making, evaluations, recovery, checkpoints, its end.

The forward pass is the pack's (`loop.py`); here is what belongs to one trial alone, and when each part has its turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from finestep.protocol import Emit, EventKind, Record, TrialRequest
from finestep.recipe import Recipe
from finestep.train.current_step import CurrentStep
from finestep.train.ending import Ending
from finestep.train.order import Order
from finestep.train.progress import Progress
from finestep.train.recovery import Recovery
from finestep.train.resident import Resident, lora_scale
from finestep.train.resuming import Resuming
from finestep.train.rollback import Guard
from finestep.train.run_state import RunState
from finestep.train.seat import Seat
from finestep.train.stepping import Stepping
from finestep.train.trial_rows import TrialRows, Values
from finestep.train.update import StepFigures, UpdatePlan
from finestep.train.validation import Validation
from finestep.trial import Outcome, TrialState


class Lane:
    """One trial in training.

    Attributes:
        interrupted: it was stopped from outside, with a checkpoint.
    """

    def __init__(
        self,
        resident: Resident,
        request: TrialRequest,
        *,
        emit: Emit,
        should_stop: Callable[[], bool],
        is_stopped: Callable[[int], bool],
        metrics: tuple[str, ...],
        row_limit: int | None,
    ):
        order = Order(resident.data.train.lengths, request.recipe, fidelity=request.fidelity)
        self._state = RunState(
            resident,
            request,
            emit,
            should_stop,
            num_steps=order.num_steps,
            guard=_guard(resident, request, order.num_steps),
            seat=Seat(request.number, scale=lora_scale(request.recipe)),
            progress=Progress(micro_batch_size=_first_micro_batch(request.recipe, row_limit)),
        )
        self.step_in_making = CurrentStep(resident.data.train, order, devices=resident.devices)
        self._stepping = Stepping(self._state, self.step_in_making)
        self._validation, self._ending = Validation(self._state), Ending(self._state, metrics=metrics)
        self._recovery = Recovery(self._state, self.step_in_making, self._validation, self._ending)
        self._resuming = Resuming(self._state, self.step_in_making)
        self._is_stopped = is_stopped
        self.interrupted = False

    # ---- who it is, for those who keep what it leaves

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self._state.request.number

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(self._state.request.folder)

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        return self._state.recipe

    @property
    def resident(self) -> Resident:
        """The base on which it is trained."""
        return self._state.resident

    @property
    def progress(self) -> Progress:
        """Where it is."""
        return self._state.progress

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or None while it has not."""
        return self._state.outcome

    def values(self) -> Values:
        """The trained tensors as they are now."""
        return self._state.seat.values()

    def emit(self, kind: EventKind, data: Record) -> None:
        """Send a record of this trial."""
        self._state.emit(kind, data)

    # ---- its row

    def join(self, rows: TrialRows) -> None:
        """Take a row: with what was parked, from the newest valid checkpoint, or at the start."""
        seat = self._state.seat
        seat.take(rows, None if seat.is_parked else self._resuming.take_up(self._stepping.planned()))
        self._resuming.go_on_in_step()
        self._recovery.keep_good_state()

    def park(self) -> None:
        """Give up the row for now, and keep what is needed to take another later."""
        self._state.seat.park()
        self.step_in_making.rewind()
        self.leave()

    def leave(self) -> None:
        """Give up the row for good."""
        self._state.seat.leave()

    # ---- a step

    def next_rows(self, micro_batch_size: int, window: int | None) -> np.ndarray:
        """Rows of the next micro-batch."""
        step = self.progress.step + 1
        return self.step_in_making.next_rows(step, micro_batch_size=micro_batch_size, window=window)

    def update_plan(self) -> UpdatePlan:
        """What the optimizer shall do when the effective batch is complete."""
        return self._stepping.plan()

    def step(self, figures: StepFigures) -> None:
        """Record a step that was made, and answer trouble."""
        run = self._state
        record, ratio_of_step = self._stepping.made(figures)
        self.emit("step", record)
        findings, trouble = run.guard.watch(record, was_updated=figures.was_updated)
        if ratio_of_step is not None:
            findings += run.guard.probed(record.step, ratio_of_step)
        run.tell(findings)
        if trouble is not None:
            self._recovery.answer(trouble, record)
        elif run.guard.snapshot_due(record.step):
            self._recovery.keep_good_state()

    # ---- between steps

    def between_steps(self) -> None:
        """What is due between two steps: evaluations, the end, a checkpoint.

        Raises:
            StopRequested: an evaluation was told to stop.
        """
        if self._is_stopped(self.number):
            self._end_by_hand()
            return
        self._validation.of_base()
        if self._is_stopped_early():
            patience = self.recipe.evaluation.patience
            self._ending.finish("stopped", f"no gain in {patience} evaluations")
        elif self.outcome is not None:
            return
        elif self.progress.step >= self._state.num_steps:
            self._ending.finish("completed", f"all {self._state.num_steps} steps")
        else:
            self._resuming.save_if_due()

    def _is_stopped_early(self) -> bool:
        if not self._validation.is_due:
            return False
        is_stalled, trouble = self._validation.look()
        if trouble is not None:
            self._recovery.start_over(trouble)
        return is_stalled

    def _end_by_hand(self) -> None:
        """End with what the trial has shown: the validation rows are looked at once more, unless no step was made."""
        step = self.progress.step
        if step == 0:
            self._ending.end("stopped", "stopped by hand before its first step")
        else:
            if self.progress.evaluated_step < step:
                self._validation.look(is_last=True)
            self._ending.finish("stopped", f"stopped by hand at step {step} of {self._state.num_steps}")
        if self.outcome is not None and self.outcome.state == "stopped":
            self._state.outcome = self.outcome.model_copy(update={"by_hand": True})

    def interrupt(self, *, with_half_step: bool) -> None:
        """Write a checkpoint and end without an outcome. A trial that waits its turn says so itself: no pack will."""
        self._resuming.save(with_half_step=with_half_step)
        self.interrupted = True
        if self._state.seat.is_parked:
            self.emit("interrupted", {"step": self.progress.step})

    def fail(self, reason: str, *, state: TrialState = "failed") -> None:
        """End the trial: something in it raised, and would raise again; or not even one row fits into memory."""
        self._ending.end(state, reason)


def _guard(resident: Resident, request: TrialRequest, num_steps: int) -> Guard:
    num_labels = len(resident.data.label_names)
    choices = num_labels or resident.base.config.get_text_config().vocab_size
    chance_loss = math.log(choices)
    return Guard(request.on_trouble, chance_loss=chance_loss, num_steps=num_steps, is_of_labels=num_labels > 0)


def _first_micro_batch(recipe: Recipe, limit: int | None) -> int:
    wanted = recipe.first_micro_batch()
    return max(1, min(wanted, limit or wanted))
