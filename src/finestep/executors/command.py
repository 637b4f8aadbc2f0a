"""Another trainer as a command: each trial is one run of the user's own command line, and its result is read from what it prints.

It knows nothing of what the command does. Its log, where one can be read, must say the rate that was asked for.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

from finestep.disk import make_folder
from finestep.errors import FinestepError
from finestep.executors.detached import EXIT_CODE, POLL_S, Detached
from finestep.executors.endings import last_line, machine_fault, memory_ran_out
from finestep.executors.in_turn import InTurn
from finestep.executors.memory_limit import MemoryLimit
from finestep.executors.turns import BY_HAND, IDLE_S, TurnsExecutor, finished, given_back, noted
from finestep.executors.twins import Seen, refuse_twins, remember
from finestep.facts import DataFacts
from finestep.protocol import Event, TrialRequest
from finestep.ready import DataCard, Machine, Ready
from finestep.study import EXTERNAL, CommandSpec
from finestep.trainers.command_fields import field_values, filled, may_take_fewer_rows
from finestep.trainers.command_log import refuse_another_rate
from finestep.trainers.command_results import json_place, name_and_place, result_value
from finestep.trial import Cost, Outcome, TrialState


class CommandExecutor(TurnsExecutor):
    """Runs trials as commands, one after the other.

    Args:
        trainer: the command and how its result is read.
        folder: of the study, where the rows that memory allows are remembered.
    """

    def __init__(self, trainer: CommandSpec, *, folder: Path):
        self._trainer = trainer
        self._memory = MemoryLimit(folder)
        self._can_take_fewer = may_take_fewer_rows(trainer.command)
        self._command: Detached | None = None
        super().__init__(InTurn(self._run))

    def start(self) -> Ready:
        """Nothing to load: the size of the data as the user said it."""
        self._turns.begin()
        card = DataCard(facts=DataFacts(name=EXTERNAL, num_rows=self._trainer.num_rows))
        return Ready(card=card, machine=Machine(command=self._trainer.command))

    def kill(self) -> None:
        """End the running command now."""
        self._turns.stop()
        if self._command is not None:
            self._command.kill()

    def close(self) -> None:
        """Nothing stays open between trials."""

    def _run(self, request: TrialRequest) -> Iterator[Event]:
        make_folder(Path(request.folder))
        steps = int(str(self._values(request).get("num_steps", 0)))
        yield Event(kind="started", trial=request.number, data={"num_steps": steps, "from_step": 0})
        while rows := (yield from self._attempt(request)):
            yield noted(request.number, Path(request.folder), self._memory.ran_out_at(rows))

    def _values(self, request: TrialRequest) -> dict[str, object]:
        limit = self._memory.rows if self._can_take_fewer else None
        return field_values(request, num_rows=self._trainer.num_rows, micro_limit=limit)

    def _attempt(self, request: TrialRequest) -> Generator[Event, None, int]:
        """One run of a trial's command: 0 when the trial has ended, or the rows of a pass for which memory was too small."""
        folder, values = Path(request.folder), self._values(request)
        script = self._script(folder, values)
        command = self._command = Detached(folder)
        command.set_aside_another(script)
        if request.number in self._turns.stopped and not command.is_over and not command.is_running():
            yield finished(request, Outcome(state="stopped", reason=f"{BY_HAND} before it began", by_hand=True))
            return 0
        if command.is_running():
            text = "its command is still running since an earlier session; waiting for it"
            yield Event(kind="note", trial=request.number, data={"text": text})
        elif not command.is_over:
            command.launch(script)
        reason = yield from self._wait(command, request.number)
        if reason is None:
            yield given_back(request)
            return 0
        outcome = self._outcome(command, values, reason)
        if reason == BY_HAND:
            outcome = self._stopped(command, values, outcome)
        if (refusal := self._refusal(command, request, outcome, reason)) is not None:
            command.forget_end()  # so that it runs again once this is fixed
            yield refusal
            return 0
        rows = outcome.cost.micro_batch_size or 1
        if outcome.state == "out_of_memory" and rows > 1 and self._can_take_fewer:
            return rows
        yield finished(request, outcome)
        return 0

    def _refusal(self, command: Detached, request: TrialRequest, outcome: Outcome, ended: str) -> Event | None:
        """What ends the study instead of the trial: a fault of the machine, or a rate that was not used."""
        if outcome.state == "failed" and not ended and (fault := machine_fault(command.tail(), command.folder)):
            return Event(kind="error", data={"error": fault.kind, "text": str(fault), "place": fault.place})
        if outcome.state != "completed" or not self._trainer.check_log:
            return None
        asked = request.recipe.learning_rate
        try:
            losses = refuse_another_rate(command.folder, asked, output=command.tail(), since=command.began())
            remember(command.folder, Seen(learning_rate=asked, losses=tuple(losses), eval_loss=outcome.eval_loss))
            refuse_twins(command.folder)
        except FinestepError as error:
            return Event(kind="error", data={"error": error.kind, "text": str(error), "place": error.place})
        return None

    def _script(self, folder: Path, values: Mapping[str, object]) -> str:
        line = filled(self._trainer.command, values)
        return f"({line}\n)\n{exit_code_lines(folder)}"

    def _wait(self, command: Detached, number: int) -> Generator[Event, None, str | None]:
        """Wait for the command's end: "" when it ended by itself, a reason when it was ended, None when we were stopped."""
        began, limit, said = command.began(), self._trainer.timeout_s, time.monotonic()
        while not command.is_over and command.is_running():
            if self._turns.is_stopping:
                command.end()
                return None
            if number in self._turns.stopped:
                command.end()
                return BY_HAND
            if time.monotonic() - said > IDLE_S:
                said = time.monotonic()
                yield Event(kind="idle")
            if limit is not None and time.time() - began > limit:
                command.end()
                return f"ended after {limit:g} s (--timeout)"
            time.sleep(POLL_S)
        command.reap()
        return None if self._turns.is_stopping and not command.is_over else ""

    def _stopped(self, command: Detached, values: Mapping[str, object], outcome: Outcome) -> Outcome:
        """The end of a trial that the user has stopped: with the last result that it has told, if any."""
        told, output = {}, command.tail()
        for result in self._trainer.results:
            name, place = name_and_place(result)
            value = result_value(name, place, command.folder, values, output)
            if value is not None and math.isfinite(value):
                told[name] = value
        loss = told.pop("eval_loss", None)
        metrics = told if loss is not None else {}
        changes = {"state": "stopped", "reason": BY_HAND, "eval_loss": loss, "metrics": metrics, "by_hand": True}
        return outcome.model_copy(update=changes)

    def _outcome(self, command: Detached, values: Mapping[str, object], ended: str) -> Outcome:
        state, reason, found = _judge(self._trainer.results, command, values, ended=ended)
        loss = found.pop("eval_loss", None)
        return Outcome(
            state=state,
            reason=reason,
            eval_loss=loss if state == "completed" else None,
            metrics=found if state == "completed" else {},
            cost=Cost(
                num_steps=int(str(values.get("num_steps", 0))),
                elapsed_s=round(command.seconds(), 3),
                micro_batch_size=int(str(values["micro_batch_size"])),
            ),
        )


def exit_code_lines(folder: Path) -> str:
    """The end of a script: its exit code in a file, whole or absent."""
    code, partial = (shlex.quote(str(folder / name)) for name in (EXIT_CODE, EXIT_CODE + ".partial"))
    return f"echo $? > {partial}\nmv {partial} {code}\n"


def _judge(
    results: Sequence[str], command: Detached, values: Mapping[str, object], *, ended: str
) -> tuple[TrialState, str, dict[str, float]]:
    """(state, reason, values by name) of a command that is over."""
    if ended:
        return "failed", ended, {}
    output, code = command.tail(), command.exit_code()
    if code != 0:
        how = f"exit code {code}" if code is not None else "it was killed"
        return "out_of_memory" if memory_ran_out(output) else "failed", f"{how}: {last_line(output)}", {}
    found: dict[str, float] = {}
    for result in results:
        name, place = name_and_place(result)
        value = result_value(name, place, command.folder, values, output)
        if value is None:
            return "failed", f"`{name}` was not found in its {'file' if json_place(place) else 'output'} ({place})", {}
        if not math.isfinite(value):
            return "diverged", f"`{name}` is {value}", {}
        found[name] = value
    return "completed", "the command ended", found
