"""Steering: what the user asks of a study through command files, carried out between the events of the tuning loop, each once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from finestep.search.strategy import Proposal, apply_proposal
from finestep.store.commands import Command, Done, drop, read_steering, waiting, write_steering
from finestep.store.study_store import StudyStore
from finestep.study import Budget
from finestep.trial import Trial

LOOK_EVERY_S = 0.25
USERS_STAGE = "added by hand"


class Steering:
    """The commands of one study while its controller runs.

    Attributes:
        paused: nothing is trained until the user says so.
        stops: the study shall end, as after Ctrl-C.
        stopping: trials that shall end.
    """

    def __init__(self, store: StudyStore):
        self._store, self._known = store, read_steering(store.folder)
        self._looked = 0.0
        self._full_runs = 0.0
        self.stops = False

    @property
    def paused(self) -> bool:
        return self._known.paused

    @property
    def stopping(self) -> tuple[int, ...]:
        return self._known.stopping

    @property
    def done_ids(self) -> set[str]:
        return {done.id for done in self._known.done}

    def budget(self, budget: Budget) -> Budget:
        """The budget with what `extend` has set: never less than the command says."""
        whole = extended(budget, self._known.full_runs)
        self._full_runs = whole.full_runs
        return whole

    def forget(self, number: int) -> None:
        """A trial has ended."""
        if number in self._known.stopping:
            left = tuple(one for one in self._known.stopping if one != number)
            self._keep(stopping=left)

    def carry_out(self, *, stop_trial: Callable[[int], None], at_start: bool = False) -> Iterator[str]:
        """Carry out what waits; a sentence for each.

        Args:
            stop_trial: ends a trial that is under way.
            at_start: the study was just started, which a stop of the time before does not undo.
        """
        if not at_start and time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._looked, done = time.monotonic(), self.done_ids
        for command_id, command in waiting(self._store.folder):
            if command_id not in done:
                said = "refused: this file holds no command" if command is None else ""
                said = said or self._one(command_id, command, stop_trial, at_start=at_start)  # type: ignore[arg-type]
                kind = command.kind if command is not None else "?"
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self._keep(done=(*self._known.done, Done(id=command_id, kind=kind, said=said, at=now)))
                yield said
            drop(self._store.folder, command_id)

    def _one(self, command_id: str, command: Command, stop_trial: Callable[[int], None], *, at_start: bool) -> str:
        match command.kind:
            case "stop":
                self.stops = not at_start
                return (
                    "stopping, as asked" if self.stops else "an earlier wish to stop: the study was started again since"
                )
            case "stop_trial":
                return self._stop_trial(command, stop_trial)
            case "pause":
                self._keep(paused=True)
                return "pausing, as asked"
            case "resume":
                self._keep(paused=False)
                return "going on, as asked"
            case "add":
                return self._add(command_id, command)
            case "extend":
                return self._extend(command)

    def _stop_trial(self, command: Command, stop_trial: Callable[[int], None]) -> str:
        found = next((trial for trial in self._store.trials() if trial.number == command.trial), None)
        if found is None:
            return f"refused: there is no trial {command.trial}"
        if found.state != "running":
            return f"trial {found.number} had ended before ({found.state})"
        self._keep(stopping=tuple(dict.fromkeys((*self._known.stopping, found.number))))
        stop_trial(found.number)
        return f"trial {found.number} is stopped by hand"

    def _add(self, command_id: str, command: Command) -> str:
        """A trial of the user's; it carries the id of its command, so that it is made once."""
        spec, trials = self._store.spec, self._store.trials()
        if spec.search.strategy == "single":
            return "refused: one training run has no trials to add"
        if command.learning_rate is None:
            return "refused: a trial needs a learning rate"
        made = next((trial for trial in trials if trial.command == command_id), None)
        if made is None:
            try:
                made = self._made(command_id, command)
            except (ValidationError, ValueError) as error:
                return f"refused: {str(error).splitlines()[0]}"
        return f"added by hand: {_words(made)}"

    def _made(self, command_id: str, command: Command) -> Trial:
        start = self._store.spec.recipe
        proposal = Proposal(
            learning_rate=command.learning_rate or start.learning_rate,
            effective_batch_size=command.effective_batch_size or start.effective_batch_size,
            fidelity=command.fidelity,
            stage=USERS_STAGE,
            why="you asked for it",
        )
        recipe = apply_proposal(start, proposal)
        return self._store.add(
            recipe, fidelity=proposal.fidelity, stage=proposal.stage, why=proposal.why, command=command_id
        )

    def _extend(self, command: Command) -> str:
        if command.full_runs is None:
            return "refused: how many full runs?"
        if command.full_runs < self._full_runs:
            return f"refused: the budget is {self._full_runs:g} full runs already, and can only be made larger"
        self._keep(full_runs=command.full_runs)
        return f"the budget is {command.full_runs:g} full runs from now on"

    def _keep(self, **changes: object) -> None:
        self._known = self._known.model_copy(update=changes)
        write_steering(self._store.folder, self._known)


def extended(budget: Budget, full_runs: float | None) -> Budget:
    """A budget with what the user has set by `extend`: the larger of the two."""
    return budget if full_runs is None else budget.model_copy(update={"full_runs": max(full_runs, budget.full_runs)})


def known_budget(folder: Path, budget: Budget) -> Budget:
    """The budget of a study that is started (again), with what `extend` set before."""
    return extended(budget, read_steering(folder).full_runs)


def _words(trial: Trial) -> str:
    from finestep.search.search import length_words  # it loads the whole search

    recipe = trial.recipe
    pair = f"{recipe.learning_rate:.2g} x {recipe.effective_batch_size}"
    return f"trial {trial.number}, {pair} at {length_words(trial.fidelity)}"
