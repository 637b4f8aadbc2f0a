"""The optimizer's side of a trial's steps: what an update shall do, and the record of what came of it. It answers no trouble."""

from __future__ import annotations

import numpy as np

from finestep.rules.schedule import learning_rate_at
from finestep.rules.warmup import warmup_steps
from finestep.train.current_step import CurrentStep
from finestep.train.memory import peak_memory_bytes
from finestep.train.run_state import RunState
from finestep.train.update import StepFigures, UpdatePlan
from finestep.trial import StepRecord

NORMS_EVERY_STEP_BELOW = 2_000_000
NORMS_EVERY = 10


class Stepping:
    """Plans and records the steps of one trial."""

    def __init__(self, state: RunState, current: CurrentStep):
        self._state, self._current = state, current
        self._warmup = warmup_steps(state.recipe.schedule, state.num_steps)

    def planned(self) -> dict[str, int]:
        """What is told when the trial starts."""
        return {
            "num_steps": self._state.num_steps,
            "from_step": self._state.progress.step,
            "warmup_steps": self._warmup,
            "num_train_rows": self._current.order.num_rows_to_see,
        }

    def plan(self) -> UpdatePlan:
        """What the optimizer shall do when the effective batch is complete."""
        run, step = self._state, self._state.progress.step + 1
        is_small = run.seat.rows.num_values(run.request.number) <= NORMS_EVERY_STEP_BELOW
        return UpdatePlan(
            self._state.recipe.optimizer,
            tuple(self._state.resident.new_names),
            num_steps=run.num_updates + 1,
            learning_rate=self._rate(step),
            highest_loss=run.guard.highest_loss(step),
            wants_norms=is_small or step % NORMS_EVERY == 0,
            wants_descent=self._probe_due(step),
        )

    def made(self, figures: StepFigures) -> tuple[StepRecord, float | None]:
        """(the record of a step that was made, its step ratio where a probe was due); counts the step."""
        run, step = self._state, self._state.progress.step + 1
        rows, rate = self._current.rows, 0.0
        if figures.was_updated:
            rate, run.num_updates = self._rate(step), run.num_updates + 1
            run.guard.note_update(step)
        run.progress.step = step
        run.progress.num_tokens += int(run.data.train.lengths[rows].sum())
        ratio = self._step_ratio(figures)
        self._current.rewind()
        return self._record(figures, rows, rate), ratio

    def _record(self, figures: StepFigures, rows: np.ndarray, rate: float) -> StepRecord:
        update, weights = (figures.update_norm, figures.weight_norm) if figures.was_updated else (None, None)
        return StepRecord(
            step=self._state.progress.step,
            loss=figures.loss,
            learning_rate=rate,
            grad_norm=figures.grad_norm,
            clipped=figures.was_clipped,
            update_norm=update,
            update_ratio=update / weights if update is not None and weights else None,
            num_tokens=int(self._state.data.train.lengths[rows].sum()),
            num_loss_tokens=self._state.data.train.num_loss_units(rows),
            elapsed_s=round(self._state.progress.elapsed_s, 4),
            peak_memory_bytes=peak_memory_bytes(self._state.resident.placement.device),
        )

    def _probe_due(self, step: int) -> bool:
        every = self._state.recipe.evaluation.probe_every_steps
        return every is not None and step % every == 0

    def _step_ratio(self, figures: StepFigures) -> float | None:
        """Drop of the batch's loss over the drop that its gradient predicts: 1 - rate / critical rate (science notes 7.2 E1).

        It costs one forward pass over the batch. None when no probe is due, and when the step was no descent, e.g. by momentum.
        """
        if not figures.was_updated or figures.descent is None or not self._probe_due(self._state.progress.step):
            return None
        limit = self._state.recipe.optimizer.max_grad_norm
        # The descent was computed with clipped gradients, the loss falls along the whole one.
        scale = limit / figures.grad_norm if figures.was_clipped and limit is not None else 1.0
        rows, data = self._current.rows, self._state.data.train
        units = np.array([data.num_loss_units([row]) for row in rows])
        after = float((self._state.losses.of(rows) * units).sum() / max(units.sum(), 1))
        return (figures.loss - after) * scale / figures.descent if figures.descent > 0 else None

    def _rate(self, step: int) -> float:
        planned = learning_rate_at(
            step,
            peak=self._state.recipe.learning_rate,
            num_steps=self._state.num_steps,
            warmup=self._warmup,
            schedule=self._state.recipe.schedule,
        )
        return planned * self._state.guard.rate_factor
