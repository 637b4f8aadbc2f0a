"""Checkpoints of one trial: when one is due, what is in it, and how a run is taken up from the newest that is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finestep.disk import remove_leftovers
from finestep.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from finestep.train.current_step import CurrentStep
from finestep.train.progress import Progress
from finestep.train.run_state import RunState
from finestep.train.trial_rows import Values

HALF_STEP, GRADIENTS = "half_step", "gradients"


class Resuming:
    """Writes and reads the checkpoints of one trial."""

    def __init__(self, state: RunState, step: CurrentStep):
        self._state, self._step = state, step
        self._folder = Path(state.request.folder)
        self._devices = state.resident.devices
        self._saved, self._saved_step = self._devices.now(), 0
        self._half: tuple[dict[str, Any], Values] | None = None

    def save_if_due(self) -> None:
        """Write a checkpoint when steps or time say so, and the trial has moved since the last."""
        request, step = self._state.request, self._state.progress.step
        every = request.checkpoint_every_steps
        by_step = every is not None and step % every == 0
        by_time = self._devices.now() - self._saved >= request.checkpoint_every_s
        if step != self._saved_step and (by_step or by_time):
            self.save()

    def save(self, *, with_half_step: bool = False) -> None:
        """Write a checkpoint now; with a step that is half done where trials share the pass, so that they go on side by side as they
        were: in other company products round otherwise. Half a step of several devices is made anew: each holds a part of it."""
        run, devices = self._state, self._devices
        state = {**vars(run.progress), "guard": run.guard.state(), "optimizer_steps": run.num_updates}
        tensors = {"weights": run.seat.values(), "optimizer": run.seat.moments(), "best": run.best}
        if (
            with_half_step
            and devices.world == 1
            and self._step.is_half_done
            and (gradients := run.seat.half_step_in_company())
        ):
            state[HALF_STEP], tensors[GRADIENTS] = self._step.state(), gradients
        whole = {stem: devices.whole(named) for stem, named in tensors.items()}
        if devices.rank == 0:
            save_checkpoint(self._folder / "checkpoints", step=run.progress.step, state=state, tensors=whole)
        self._saved, self._saved_step = devices.now(), run.progress.step
        run.emit("checkpoint", {"step": run.progress.step})

    def go_on_in_step(self) -> None:
        """Take up the step that was half done, once the trial has its row."""
        if self._half is not None:
            state, gradients = self._half
            self._half = None
            self._state.seat.load_half_step(gradients)
            self._step.restore(self._state.progress.step + 1, state)

    def take_up(self, planned: dict[str, Any]) -> tuple[Values, Values]:
        """(values, moments) of the newest valid checkpoint, saying which ones were skipped; or the initial ones.

        Args:
            planned: what is told when the trial starts; the step from which it starts is added.
        """
        run = self._state
        if self._devices.rank == 0:
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
            half = state.pop(HALF_STEP, None)
            is_own = half and GRADIENTS in tensors and self._devices.world == 1
            self._half = (half, tensors[GRADIENTS]) if is_own else None
            run.progress = Progress(**state)
            self._saved_step = run.progress.step
        run.emit("started", {**planned, "from_step": run.progress.step})
        return values, moments
