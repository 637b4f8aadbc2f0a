"""Checkpoints of one trial: when one is due, what is in it, and how a run is taken up from the newest that is whole."""

from __future__ import annotations

import time
from pathlib import Path

from finestep.disk import remove_leftovers
from finestep.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from finestep.train.progress import Progress
from finestep.train.run_state import RunState
from finestep.train.trial_rows import Values


class Resuming:
    """Writes and reads the checkpoints of one trial."""

    def __init__(self, state: RunState):
        self._state = state
        self._folder = Path(state.request.folder)
        self._saved, self._saved_step = time.monotonic(), 0

    def save_if_due(self) -> None:
        """Write a checkpoint when steps or time say so, and the trial has moved since the last."""
        request, step = self._state.request, self._state.progress.step
        every = request.checkpoint_every_steps
        by_step = every is not None and step % every == 0
        by_time = time.monotonic() - self._saved >= request.checkpoint_every_s
        if step != self._saved_step and (by_step or by_time):
            self.save()

    def save(self) -> None:
        """Write a checkpoint now."""
        run = self._state
        state = {**vars(run.progress), "guard": run.guard.state(), "optimizer_steps": run.num_updates}
        tensors = {"weights": run.seat.values(), "optimizer": run.seat.moments(), "best": run.best}
        save_checkpoint(self._folder / "checkpoints", step=run.progress.step, state=state, tensors=tensors)
        self._saved, self._saved_step = time.monotonic(), run.progress.step
        run.emit("checkpoint", {"step": run.progress.step})

    def take_up(self) -> tuple[Values, Values]:
        """(values, moments) of the newest valid checkpoint, saying which ones were skipped; or the initial ones."""
        run = self._state
        remove_leftovers(self._folder)
        checkpoint, skipped = newest_checkpoint(self._folder / "checkpoints")
        for fault in skipped:
            run.emit("note", {"text": f"checkpoint skipped: {fault}"})
        values: Values = run.resident.initial_values(run.recipe)
        moments: Values = {}
        if checkpoint is not None:
            state, tensors = load_checkpoint(checkpoint)
            values, moments = tensors["weights"], tensors.get("optimizer", {})
            run.num_updates = state.pop("optimizer_steps")
            run.best = tensors.get("best", {})
            run.guard.restore(state.pop("guard"))
            run.progress = Progress(**state)
            self._saved_step = run.progress.step
        return values, moments
