"""Looking at the validation rows during training: when it is due, what the best weights are, and when to stop early."""

from __future__ import annotations

import math
import time

import numpy as np

from finestep.diagnosis.early_stopping import is_progress
from finestep.finding import Finding
from finestep.train.evaluate import Evaluation, evaluate_rows
from finestep.train.run_state import RunState
from finestep.train.saved_files import checked_rows
from finestep.trial import KL_TO_BASE, EvalRecord


class Validation:
    """The evaluations of one trial."""

    def __init__(self, state: RunState):
        self._state = state
        rows = state.data.evaluation
        self._units = [rows.num_loss_units([row]) for row in range(len(rows))]

    def of_base(self) -> None:
        """The loss before the first step, which says later whether training was worth it."""
        run, progress = self._state, self._state.progress
        if not math.isnan(progress.base_loss) or progress.step:
            return
        loss, metrics, _ = run.resident.base_evaluation(run.recipe, self._measure)
        progress.base_loss = loss
        record = EvalRecord(step=0, num_tokens=0, eval_loss=loss, metrics=metrics, elapsed_s=progress.elapsed_s)
        run.emit("evaluation", record)
        run.tell(run.guard.look(record)[0])

    @property
    def is_due(self) -> bool:
        """True when this step is one of the planned evaluations and was not evaluated yet."""
        run, number = self._state, self._state.recipe.evaluation.num_evaluations
        due = {round(part * run.num_steps / number) for part in range(1, number + 1)} - {0}
        return run.progress.step in due and run.progress.evaluated_step < run.progress.step

    def look(self, *, is_last: bool = False) -> tuple[bool, Finding | None]:
        """Evaluate and keep the best weights; (is it time to stop early, what sends the run back to its start).

        Args:
            is_last: the trial ends with what it has, so that nothing sends it back.
        """
        run, progress = self._state, self._state.progress
        loss, metrics, row_sums = self._measure()
        progress.evaluated_step, progress.kl_now = progress.step, metrics.get(KL_TO_BASE)
        record = EvalRecord(
            step=progress.step,
            num_tokens=progress.num_tokens,
            eval_loss=loss,
            metrics=metrics,
            elapsed_s=round(progress.elapsed_s, 4),
        )
        run.emit("evaluation", record)
        findings, trouble = run.guard.look(record)
        run.tell(findings)
        if trouble is not None and not is_last:
            return False, trouble
        if loss < progress.best_loss and self._is_within_budget(metrics):
            progress.best_loss, progress.best_step, progress.best_metrics = loss, progress.step, metrics
            progress.best_sums = row_sums[checked_rows(len(row_sums))].tolist()
            # The last step's weights are in the row anyway.
            if progress.step < run.num_steps:
                run.best = {name: value.detach().to("cpu", copy=True) for name, value in run.seat.values().items()}
        return self._is_stalled(row_sums), None

    def _is_stalled(self, row_sums: np.ndarray) -> bool:
        """Count evaluations without a gain beyond noise, judged on the same rows; True when patience is at its end."""
        progress, group = self._state.progress, self._state.recipe.evaluation
        if is_progress(progress.reference, row_sums.tolist(), self._units, min_gain=group.min_gain):
            progress.reference, progress.evaluations_without_gain = row_sums.tolist(), 0
            return False
        progress.evaluations_without_gain += 1
        return group.patience is not None and progress.evaluations_without_gain >= group.patience

    def _measure(self) -> Evaluation:
        run, began = self._state, time.monotonic()
        with run.seat.only():
            measured = evaluate_rows(
                run.resident.base,
                run.data,
                run.resident.token_loss,
                rows=run.data.evaluation,
                should_stop=run.should_stop,
                devices=run.resident.devices,
            )
        measured.metrics.update(run.resident.forgetting(run.seat.rows, run.seat.number))
        run.progress.elapsed_s += time.monotonic() - began
        return measured

    def _is_within_budget(self, metrics: dict[str, float]) -> bool:
        """False for a state that has moved further from the base than `max_forgetting` allows."""
        limit = self._state.resident.max_forgetting
        return limit is None or metrics[KL_TO_BASE] <= limit
