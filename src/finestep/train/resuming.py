"""Checkpoints of one trial: when one is due, what is in it, and how a run is taken up from the newest that is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from finestep.disk import remove_leftovers
from finestep.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from finestep.train.current_step import CurrentStep, HalfStep
from finestep.train.progress import Progress
from finestep.train.rollback import GuardState
from finestep.train.run_state import RunState
from finestep.train.trial_rows import Values

GRADIENTS = "gradients"
_PROGRESS = TypeAdapter(Progress)


class _Kept(BaseModel):
    """What a checkpoint keeps in JSON beside the fields of `Progress`."""

    guard: GuardState
    optimizer_steps: int
    half_step: HalfStep | None = None


class Resuming:
    """Writes and reads the checkpoints of one trial."""

    def __init__(self, state: RunState, step: CurrentStep):
        self._state, self._step = state, step
        self._folder = Path(state.request.folder)
        self._devices = state.resident.devices
        self._saved, self._saved_step = self._devices.now(), 0
        self._half: tuple[HalfStep, Values] | None = None

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
        kept = _Kept(guard=run.guard.state(), optimizer_steps=run.num_updates)
        tensors = {"weights": run.seat.values(), "optimizer": run.seat.moments(), "best": run.best}
        if (
            with_half_step
            and devices.world == 1
            and self._step.is_half_done
            and (gradients := run.seat.half_step_in_company())
        ):
            kept.half_step, tensors[GRADIENTS] = self._step.state(), gradients
        whole = {stem: devices.whole(named) for stem, named in tensors.items()}
        if devices.rank == 0:
            state = {**vars(run.progress), **kept.model_dump(exclude=set() if kept.half_step else {"half_step"})}
            save_checkpoint(self._folder / "checkpoints", step=run.progress.step, state=state, tensors=whole)
        self._saved, self._saved_step = devices.now(), run.progress.step
        run.emit("checkpoint", {"step": run.progress.step})

    def go_on_in_step(self) -> None:
        """Take up the step that was half done, once the trial has its row."""
        if self._half is not None:
            half, gradients = self._half
            self._half = None
            self._state.seat.load_half_step(gradients)
            self._step.restore(self._state.progress.step + 1, half)

    def take_up(self, planned: Mapping[str, int]) -> tuple[Values, Values]:
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
            kept = _Kept.model_validate(state)
            run.num_updates = kept.optimizer_steps
            run.best = tensors.get("best", {})
            run.guard.restore(kept.guard)
            is_own = GRADIENTS in tensors and self._devices.world == 1
            self._half = (kept.half_step, tensors[GRADIENTS]) if is_own and kept.half_step is not None else None
            run.progress = _PROGRESS.validate_python(state)
            self._saved_step = run.progress.step
        run.emit("started", {**planned, "from_step": run.progress.step})
        return values, moments
