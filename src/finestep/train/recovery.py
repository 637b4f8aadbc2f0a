"""What a trial does about trouble: it ends, or goes back to its last good state and on with what the evidence asks for.

`diagnosis.guard` decides from records and a few forward passes; here are these passes, and the way back.
"""

from __future__ import annotations

from finestep.diagnosis.guard import Decision, Probes
from finestep.finding import Finding
from finestep.train.current_step import CurrentStep
from finestep.train.ending import Ending
from finestep.train.rollback import Snapshot, onset_of
from finestep.train.run_state import RunState
from finestep.train.validation import Validation
from finestep.trial import StepRecord


class Recovery:
    """The way back of one trial."""

    def __init__(self, state: RunState, current: CurrentStep, validation: Validation, ending: Ending):
        self._state, self._current = state, current
        self._validation, self._ending = validation, ending

    def keep_good_state(self) -> None:
        """Remember the trial as it is now, where the run is guarded."""
        run = self._state
        if run.guard.on_trouble != "rollback":
            return
        run.guard.keep(
            Snapshot(
                step=run.progress.step,
                values=run.seat.kept(run.seat.values()),
                moments=run.seat.kept(run.seat.moments()),
                optimizer_steps=run.num_updates,
                progress=run.progress.copied(),
                monitor=run.guard.monitor.state(),
            )
        )

    def answer(self, trouble: Finding, record: StepRecord) -> None:
        """End the trial, or go back and on."""
        run = self._state
        if run.guard.on_trouble == "stop":
            clause = trouble.meaning.removeprefix(f"At step {record.step} ")
            self._ending.end("diverged", f"step {record.step}: {clause}")
            return
        onset = onset_of(trouble, record)
        good = run.guard.good_state(onset)
        order = self._current.order
        fixed, troubled = order.rows_of_step(1), order.rows_of_step(onset)
        # The same rows before and after going back: only so does the difference tell about the weights.
        now = float(run.losses.of(fixed).mean())
        self._go_back(good)
        # After going back, the same rows tell bad data from bad weights: a batch that is bad now as well is bad in itself.
        rows = run.losses.of(troubled)
        probes = Probes(
            probe_loss_good=float(run.losses.of(fixed).mean()),
            probe_loss_now=now,
            replay_loss=float(rows.mean()),
            row_losses=tuple(rows.tolist()),
        )
        self._go_on(run.guard.decide(onset, probes), onset, good)

    def start_over(self, trouble: Finding) -> None:
        """Back to the first state, with a lower rate."""
        onset = self._state.progress.step
        first, decision = self._state.guard.start_over(trouble)
        if decision.action != "stop":
            self._go_back(first)
        self._go_on(decision, onset, first)

    def _go_on(self, decision: Decision, onset: int, good: Snapshot) -> None:
        done = self._state.guard.go_on(decision, onset=onset, back_to=good)
        text = f"trouble at step {onset}: back to step {good.step}, {done.action.replace('_', ' ')}: {done.reason}"
        self._state.emit("note", {"text": text, "intervention": done.model_dump()})
        if decision.action == "stop":
            self._give_up(done.reason)

    def _go_back(self, good: Snapshot) -> None:
        run = self._state
        run.seat.load(good.values, good.moments)
        run.num_updates = good.optimizer_steps
        run.progress = run.progress.gone_back_to(good.progress)

    def _give_up(self, reason: str) -> None:
        """End a run that cannot be saved with the best weights that it had."""
        run = self._state
        if not run.progress.best_step and run.progress.evaluated_step < run.progress.step:
            _, trouble = self._validation.look()
            if trouble is not None:
                self.start_over(trouble)
        if run.outcome is None:
            self._ending.finish("stopped", reason)
