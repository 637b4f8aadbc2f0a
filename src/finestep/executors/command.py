"""Another trainer as a command: each trial is one run of the user's own command line, and its result is read from what it prints.

It knows processes and text, and nothing of what the command does. A command whose controller died goes on alone; the
next controller finds it by the lock that it still holds, waits for it, and never runs a finished one again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import shlex
import signal
import string
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finestep.disk import IN_OUTPUT, is_full, make_folder, open_anew, remove, set_aside, write_whole, writing
from finestep.errors import BadInput, EnvironmentFault, did_you_mean
from finestep.executors.in_turn import InTurn
from finestep.facts import DataFacts
from finestep.protocol import Event, TrialRequest
from finestep.ready import DataCard, Machine, Ready
from finestep.recipe import Recipe
from finestep.study import EXTERNAL, CommandSpec
from finestep.study_layout import OUTCOME
from finestep.trial import Outcome, TrialState, recipe_hash

OUTPUT, EXIT_CODE, LOCK, SCRIPT = "output.log", "exit_code", "command.lock", "command.sh"
POLL_S = 0.05
IDLE_S = 0.5
BY_HAND = "stopped by hand"
GRACE_S = 10.0
READ_BYTES = 4_000_000
"""Of a long output, the last so many bytes are searched for the result."""
READ_LAST = 4000
"""Characters at the end of an output in which a fault of the machine is looked for."""
LENGTH_FIELDS = frozenset({"num_steps", "num_epochs", "fidelity", "num_rows"})
"""Fields by which a command can be told to run for a shorter time."""
BATCH_FIELDS = frozenset({"effective_batch_size", "micro_batch_size", "accumulation_steps"})
OUT_OF_MEMORY = re.compile(r"out of memory|cudaErrorMemoryAllocation|OutOfMemoryError|MemoryError", re.I)
NOT_FINITE = r"\W{0,6}(nan|-?inf(inity)?)\b"


class CommandExecutor:
    """Runs trials as commands, one after the other.

    Args:
        trainer: the command and how its result is read.
    """

    def __init__(self, trainer: CommandSpec):
        self._trainer = trainer
        self._process: subprocess.Popen[bytes] | None = None
        self._turns = InTurn(self._run)

    def start(self) -> Ready:
        """Nothing to load: the size of the data as the user said it."""
        self._turns.begin()
        card = DataCard(facts=DataFacts(name=EXTERNAL, num_rows=self._trainer.num_rows))
        return Ready(card=card, machine=Machine(command=self._trainer.command))

    def submit(self, request: TrialRequest) -> None:
        """Take a trial."""
        self._turns.submit(request)

    def events(self) -> Iterator[Event]:
        """Run the submitted trials; each ends with `finished` or `interrupted`."""
        return self._turns.events()

    def stop(self) -> None:
        """End the running command; its trial is interrupted. Safe in a signal handler."""
        self._turns.stop()

    def pause(self) -> None:
        """Start no further command until the next `start`. The one that runs goes on: it could not be taken up where it was."""
        self._turns.pause()

    def stop_trial(self, number: int) -> None:
        """End the command of one trial; what it has printed is its result."""
        self._turns.stopped.add(number)

    def kill(self) -> None:
        """End the running command now."""
        self._turns.stop()
        if self._process is not None and self._process.poll() is None:
            _signal_group(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Nothing stays open between trials."""

    def _run(self, request: TrialRequest) -> Iterator[Event]:
        folder = Path(request.folder)
        make_folder(folder)
        values = field_values(request, num_rows=self._trainer.num_rows)
        self._set_aside_another(folder, values)
        steps = int(str(values.get("num_steps", 0)))
        yield Event(kind="started", trial=request.number, data={"num_steps": steps, "from_step": 0})
        if request.number in self._turns.stopped and not (folder / EXIT_CODE).exists() and not _is_locked(folder):
            outcome = Outcome(state="stopped", reason=f"{BY_HAND} before it began", by_hand=True)
            yield self._ended(request, outcome)
            return
        if not (folder / EXIT_CODE).exists() and not _is_locked(folder):
            self._launch(folder, values)
        elif _is_locked(folder):
            text = "its command is still running since an earlier session; waiting for it"
            yield Event(kind="note", trial=request.number, data={"text": text})
        reason = yield from self._wait(folder, request.number)
        if reason is None:
            yield Event(kind="interrupted", trial=request.number, data={"step": 0})
            return
        outcome = self._outcome(folder, values, reason)
        if reason == BY_HAND:
            outcome = self._stopped(folder, values, outcome)
        if outcome.state == "failed" and not reason and (fault := _machine_fault(folder)) is not None:
            remove(folder / EXIT_CODE)  # so that the command runs again
            yield Event(kind="error", data={"error": fault.kind, "text": str(fault), "place": fault.place})
            return
        yield self._ended(request, outcome)

    def _ended(self, request: TrialRequest, outcome: Outcome) -> Event:
        """The end of a trial, on disk before it is told."""
        outcome = outcome.model_copy(update={"recipe_hash": recipe_hash(request.recipe, request.fidelity)})
        write_whole(Path(request.folder) / OUTCOME, outcome.model_dump_json())
        return Event(kind="finished", trial=request.number, data=outcome.model_dump())

    def _launch(self, folder: Path, values: Mapping[str, object]) -> None:
        """Start the command in a process group of its own; the group holds the lock for as long as it lives."""
        write_whole(folder / SCRIPT, self._script(folder, values))
        lock = open_anew(folder / LOCK)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open_anew(folder / OUTPUT) as output, writing(folder):
            self._process = subprocess.Popen(
                ["sh", str(folder / SCRIPT)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        with writing(folder / LOCK):
            lock.write(str(self._process.pid).encode())
            lock.close()

    def _script(self, folder: Path, values: Mapping[str, object]) -> str:
        line = filled(self._trainer.command, values)
        script = f"({line}\n)\necho $? > {shlex.quote(str(folder / (EXIT_CODE + '.partial')))}\n"
        return (
            script
            + f"mv {shlex.quote(str(folder / (EXIT_CODE + '.partial')))} {shlex.quote(str(folder / EXIT_CODE))}\n"
        )

    def _set_aside_another(self, folder: Path, values: Mapping[str, object]) -> None:
        """What another command left here is no result of this one."""
        try:
            is_own = (folder / SCRIPT).read_text(encoding="utf-8") == self._script(folder, values)
        except (OSError, ValueError):
            is_own = False
        if not is_own and not _is_locked(folder):
            for name in (EXIT_CODE, OUTPUT, SCRIPT):
                if (folder / name).exists():
                    set_aside(folder / name, "stale")

    def _wait(self, folder: Path, number: int) -> Generator[Event, None, str | None]:
        """Wait for the command's end: "" when it ended by itself, a reason when it was ended, None when we were stopped."""
        began, said = (folder / SCRIPT).stat().st_mtime, time.monotonic()
        while not (folder / EXIT_CODE).exists() and _is_locked(folder):
            if self._turns.is_stopping:
                self._end_group(folder)
                return None
            if number in self._turns.stopped:
                self._end_group(folder)
                return BY_HAND
            if time.monotonic() - said > IDLE_S:
                said = time.monotonic()
                yield Event(kind="idle")
            if self._trainer.timeout_s is not None and time.time() - began > self._trainer.timeout_s:
                self._end_group(folder)
                return f"ended after {self._trainer.timeout_s:g} s (--timeout)"
            if self._process is not None:
                self._process.poll()
            time.sleep(POLL_S)
        self._reap()
        return None if self._turns.is_stopping and not (folder / EXIT_CODE).exists() else ""

    def _stopped(self, folder: Path, values: Mapping[str, object], outcome: Outcome) -> Outcome:
        """The end of a trial that the user has stopped: with the last result that it has told, if any."""
        told = {}
        for result in self._trainer.results:
            name, place = _split(result)
            value = _value(name, place, folder, values, _tail(folder / OUTPUT))
            if value is not None and math.isfinite(value):
                told[name] = value
        loss = told.pop("eval_loss", None)
        metrics = told if loss is not None else {}
        changes = {"state": "stopped", "reason": BY_HAND, "eval_loss": loss, "metrics": metrics, "by_hand": True}
        return outcome.model_copy(update=changes)

    def _end_group(self, folder: Path) -> None:
        """Ask the command to end, and make it."""
        leader = int((folder / LOCK).read_text(encoding="utf-8") or 0)
        for number in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + GRACE_S
            if leader:
                _signal_group(leader, number)
            while _is_locked(folder) and time.monotonic() < end:
                if self._process is not None:
                    self._process.poll()
                time.sleep(POLL_S)
        self._reap()
        (folder / EXIT_CODE).unlink(missing_ok=True)

    def _reap(self) -> None:
        """Wait for the ended command, if it was started here, so that no zombie stays."""
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _outcome(self, folder: Path, values: Mapping[str, object], ended: str) -> Outcome:
        output = _tail(folder / OUTPUT)
        code = _exit_code(folder)
        elapsed = max((folder / OUTPUT).stat().st_mtime - (folder / SCRIPT).stat().st_mtime, 0.0)
        state, reason, found = _judge(self._trainer.results, folder, values, output=output, code=code, ended=ended)
        loss = found.pop("eval_loss", None)
        return Outcome(
            state=state,
            reason=reason,
            eval_loss=loss if state == "completed" else None,
            metrics=found if state == "completed" else {},
            num_steps=int(str(values.get("num_steps", 0))),
            elapsed_s=round(elapsed, 3),
            micro_batch_size=int(str(values["micro_batch_size"])),
        )


def check_command(trainer: CommandSpec) -> None:
    """Raise BadInput for a command that cannot be filled in, or a result that cannot be read, before anything runs."""
    known = field_values(TrialRequest(number=0, recipe=Recipe(), folder="."), num_rows=1)
    names = fields_of(trainer.command)
    for name in names:
        if name not in known:
            raise BadInput(
                f"`--command` has an unknown field{did_you_mean(name, known)}",
                value="{" + name + "}",
                next_step="known: " + ", ".join(sorted(known)) + "; write {{ for a brace",
            )
    if "learning_rate" not in names:
        raise BadInput(
            "`--command` must take the learning rate", value=trainer.command, next_step="add {learning_rate}"
        )
    if "num_steps" in names and trainer.num_rows is None:
        raise BadInput("the number of steps follows from the number of rows", next_step="give data, or --rows N")
    if not any(_split(result)[0] == "eval_loss" for result in trainer.results):
        raise BadInput(
            "one `--result` must be `eval_loss`, something to minimise",
            value=list(trainer.results),
            next_step="e.g. --result 'eval_loss=eval loss: ([0-9.]+)'; give a metric as a further --result",
        )
    for result in trainer.results:
        _check_result(result)


def fields_of(command: str) -> set[str]:
    """Names in braces.

    >>> sorted(fields_of("train {learning_rate} {num_steps} {{literal}}"))
    ['learning_rate', 'num_steps']
    """
    try:
        return {name.strip() for _, name, _, _ in string.Formatter().parse(command) if name is not None}
    except ValueError as error:
        raise BadInput(
            f"`--command` cannot be read: {error}", value=command, next_step="write {{ for a brace"
        ) from None


def field_values(request: TrialRequest, *, num_rows: int | None) -> dict[str, object]:
    """What a command may ask for. Epochs, rows and steps are those of this trial, its shorter length included."""
    recipe = request.recipe
    micro = recipe.first_micro_batch()
    values: dict[str, object] = {
        "learning_rate": f"{recipe.learning_rate:.6g}",
        "effective_batch_size": recipe.effective_batch_size,
        "micro_batch_size": micro,
        "accumulation_steps": recipe.accumulation_steps(micro),
        "num_devices": recipe.num_devices,
        "num_epochs": f"{recipe.num_epochs * request.fidelity:.6g}",
        "fidelity": f"{request.fidelity:.6g}",
        "seed": recipe.seed,
        "schedule": recipe.schedule.name,
        "warmup_ratio": 0.05 if recipe.schedule.warmup_ratio is None else recipe.schedule.warmup_ratio,
        "weight_decay": recipe.optimizer.weight_decay,
        "beta2": recipe.optimizer.beta2,
        "layerwise_decay": recipe.optimizer.layerwise_decay,
        "head_lr_multiplier": recipe.optimizer.head_lr_multiplier,
        "rank": recipe.lora.rank,
        "alpha": f"{recipe.lora.alpha:g}",
        "dropout": recipe.lora.dropout,
        "trial": request.number,
        "output_dir": request.folder,
    }
    if num_rows is not None:
        seen = max(1, round(num_rows * recipe.num_epochs * request.fidelity))
        values |= {"num_rows": seen, "num_steps": math.ceil(seen / recipe.effective_batch_size)}
    return values


def filled(text: str, values: Mapping[str, object]) -> str:
    """The command with its fields filled in, each quoted for the shell."""
    return text.format(**{name: shlex.quote(str(value)) for name, value in values.items()})


def _split(result: str) -> tuple[str, str]:
    name, _, place = result.partition("=")
    return name.strip(), place.strip()


def _json_place(place: str) -> tuple[str, list[str]] | None:
    """(file, keys) for `file.json` or `file.json:a.b`; None for a regular expression."""
    file, dot, keys = place.partition(".json")
    if not dot or (keys and not keys.startswith(":")):
        return None
    return file + dot, [key for key in keys[1:].split(".") if key]


def _check_result(result: str) -> None:
    name, place = _split(result)
    if not name or not place:
        raise BadInput(
            "`--result` takes name=regular expression or name=file.json",
            value=result,
            next_step="e.g. 'eval_loss=eval loss: ([0-9.]+)'",
        )
    if _json_place(place) is not None:
        return
    try:
        groups = re.compile(place).groups
    except re.error as error:
        raise BadInput(f"`--result` holds no regular expression: {error}", value=place) from None
    if groups != 1:
        raise BadInput("the regular expression of `--result` needs one group, the number", value=place)


def _judge(
    results: Sequence[str], folder: Path, values: Mapping[str, object], *, output: str, code: int | None, ended: str
) -> tuple[TrialState, str, dict[str, float]]:
    """(state, reason, values by name) of a command that is over."""
    if ended:
        return "failed", ended, {}
    if code != 0:
        memory = OUT_OF_MEMORY.search(output)
        last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), f"nothing in {OUTPUT}")
        how = f"exit code {code}" if code is not None else "it was killed"
        return "out_of_memory" if memory else "failed", f"{how}: {last[-200:]}", {}
    found: dict[str, float] = {}
    for result in results:
        name, place = _split(result)
        value = _value(name, place, folder, values, output)
        if value is None:
            return "failed", f"`{name}` was not found in its {'file' if _json_place(place) else 'output'} ({place})", {}
        if not math.isfinite(value):
            return "diverged", f"`{name}` is {value}", {}
        found[name] = value
    return "completed", "the command ended", found


def _value(name: str, place: str, folder: Path, values: Mapping[str, object], output: str) -> float | None:
    """The last value in the output, or the one in the file; NaN when the output says so; None when there is none."""
    file = _json_place(place)
    if file is not None:
        return _json_value(name, file, folder, values)
    matches = re.findall(place, output)
    not_finite = re.findall(re.escape(name) + NOT_FINITE, output, re.I)
    if not matches:
        return math.nan if not_finite else None
    try:
        return float(matches[-1])
    except ValueError:
        return None


def _json_value(name: str, file: tuple[str, list[str]], folder: Path, values: Mapping[str, object]) -> float | None:
    path = Path(file[0].format(**{key: str(value) for key, value in values.items()}))
    try:
        found: Any = json.loads((path if path.is_absolute() else folder / path).read_text(encoding="utf-8"))
        for key in file[1] or [name]:
            found = found[key]
        return float(found)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _machine_fault(folder: Path) -> EnvironmentFault | None:
    """The machine's fault behind a command that failed: it said so, or its disk is full."""
    said = IN_OUTPUT.search(_tail(folder / OUTPUT)[-READ_LAST:])
    if said is None and not is_full(folder):
        return None
    what = (
        f"the command failed, and says: {said[0]}" if said else "the command failed, and no space is left on the disk"
    )
    return EnvironmentFault(what, place=str(folder / OUTPUT), next_step="mend this, and the same command goes on")


def _exit_code(folder: Path) -> int | None:
    try:
        return int((folder / EXIT_CODE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_locked(folder: Path) -> bool:
    """True while a process of the command's group is alive."""
    try:
        with (folder / LOCK).open("r+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - READ_BYTES))
            return file.read().decode("utf-8", errors="replace").replace("\r", "\n")
    except OSError:
        return ""
