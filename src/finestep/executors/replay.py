"""The twin of a worker: it plays recorded trials back, so that everything above it can be tried without torch.

Only what was recorded is played: a trial that is not in the recording fails with that reason, and nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from finestep.disk import append_line, make_folder
from finestep.executors.in_turn import InTurn
from finestep.executors.turns import BY_HAND, TurnsExecutor, finished
from finestep.protocol import Event, TrialRequest
from finestep.ready import DataCard, Machine, Ready, SharePlan
from finestep.recipe import Recipe
from finestep.study_layout import EVALUATIONS, STEPS
from finestep.trial import Cost, EvalRecord, Outcome, StepRecord

Recording = Callable[[Recipe, float], list[float] | None]
"""(recipe, fidelity) -> validation losses in order, NaN for a diverged end; None when it was never recorded."""


class ReplayExecutor(TurnsExecutor):
    """Plays recordings of validation losses, with the events that a worker would send."""

    def __init__(
        self,
        recording: Recording,
        *,
        card: DataCard | None = None,
        num_train_rows: int = 1600,
        at_once: int = 1,
    ):
        self._recording, self._card, self._num_rows = recording, card or DataCard(), num_train_rows
        self._at_once = at_once
        super().__init__(InTurn(self._play))
        self.num_started = 0

    def start(self) -> Ready:
        """Nothing to load."""
        self._turns.begin()
        return Ready(card=self._card, machine=Machine(device="replay"), sharing=SharePlan(num_lanes=self._at_once))

    def kill(self) -> None:
        """Like `stop`: there is no process."""
        self._turns.stop()

    def close(self) -> None:
        """Nothing to end."""

    def _play(self, request: TrialRequest) -> Iterator[Event]:
        self.num_started += 1
        losses = self._recording(request.recipe, request.fidelity)
        if losses is None:
            yield self._end(request, Outcome(state="failed", reason="this trial was never recorded"))
            return
        rows = max(1, round(self._num_rows * request.recipe.num_epochs * request.fidelity))
        num_steps = math.ceil(rows / request.recipe.effective_batch_size)
        yield Event(
            kind="started", trial=request.number, data={"num_steps": num_steps, "from_step": 0, "num_train_rows": rows}
        )
        played: list[float] = []
        for part, loss in enumerate(losses, start=1):
            if request.number in self._turns.stopped:
                yield self._end(request, _stopped(played, num_steps=num_steps * len(played) // len(losses)))
                return
            played.append(loss)
            step = max(1, round(num_steps * part / len(losses)))
            yield self._written(request, "step", STEPS, self._step(request, step, loss))
            record = EvalRecord(step=step, num_tokens=step * request.recipe.effective_batch_size, eval_loss=loss)
            yield self._written(request, "evaluation", EVALUATIONS, record)
        best = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
        diverged = not math.isfinite(losses[-1])
        outcome = (
            Outcome(state="diverged", reason="the loss is nan", cost=Cost(num_steps=num_steps))
            if diverged
            else Outcome(
                state="completed",
                reason="recorded",
                eval_loss=best,
                best_step=num_steps,
                cost=Cost(num_steps=num_steps, num_train_tokens=rows),
            )
        )
        yield self._end(request, outcome)

    def _step(self, request: TrialRequest, step: int, loss: float) -> StepRecord:
        return StepRecord(
            step=step,
            loss=loss,
            learning_rate=request.recipe.learning_rate,
            grad_norm=1.0,
            clipped=False,
            num_tokens=request.recipe.effective_batch_size,
            num_loss_tokens=1,
            elapsed_s=float(step),
        )

    def _written(self, request: TrialRequest, kind: object, name: str, record: StepRecord | EvalRecord) -> Event:
        """Write a record where the worker would, and say so."""
        folder = Path(request.folder)
        make_folder(folder)
        append_line(folder / name, record.model_dump_json())
        return Event(kind=kind, trial=request.number, data=record.model_dump())

    def _end(self, request: TrialRequest, outcome: Outcome) -> Event:
        make_folder(Path(request.folder))
        return finished(request, outcome)


def _stopped(played: list[float], *, num_steps: int) -> Outcome:
    """The end of a trial that the user has stopped."""
    best = min((loss for loss in played if math.isfinite(loss)), default=None)
    reason = f"{BY_HAND} at step {num_steps}"
    return Outcome(state="stopped", reason=reason, eval_loss=best, cost=Cost(num_steps=num_steps), by_hand=True)
