"""What a user asks of a study while it runs or waits: one file a command, and what was made of them.

Anybody who may write into the study's folder may put a command there, whole or not at all (`commands/*.json`). The controller
alone reads them, carries each out, notes it in `steering.json`, and only then takes the file away. Killed anywhere between,
it finds the file again, and either the note or what was done: nothing is done twice.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finestep.disk import make_folder, remove, write_whole
from finestep.study_layout import COMMANDS, STEERING

MOST_BYTES = 64 * 1024
MOST_DONE = 500
"""So many of the last commands are remembered; one that is forgotten has no file any more."""

Kind = Literal["stop", "stop_trial", "pause", "resume", "add", "extend"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Command(_Value):
    """One thing that the user wants of a study."""

    kind: Kind
    trial: int | None = Field(None, ge=0, description="stop_trial: which one.")
    learning_rate: float | None = Field(None, gt=0, le=10, description="add: its peak learning rate.")
    effective_batch_size: int | None = Field(None, ge=1, le=65536, description="add: rows of an optimizer step.")
    fidelity: float = Field(1.0, gt=0, le=1, description="add: share of a full run.")
    full_runs: float | None = Field(None, gt=0, le=1e6, description="extend: the whole budget from now on.")


class Done(_Value):
    """A command that was carried out or refused, and what was made of it."""

    id: str
    kind: str
    said: str
    at: str = Field("", description="When, as ISO 8601 in UTC.")


class Steering(_Value):
    """What the user has decided about a study so far."""

    paused: bool = False
    full_runs: float | None = Field(None, description="The budget that `extend` has set; None: that of the command.")
    stopping: tuple[int, ...] = Field((), description="Trials that shall end, and have not yet.")
    done: tuple[Done, ...] = ()


def ask(folder: Path, command: Command) -> str:
    """Put a command before a study; its id."""
    name = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
    make_folder(folder / COMMANDS)
    write_whole(folder / COMMANDS / f"{name}.json", command.model_dump_json(exclude_defaults=True))
    return name


def waiting(folder: Path) -> list[tuple[str, Command | None]]:
    """(id, command) of what waits, in the order of asking; None for a file that holds no command."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder / COMMANDS) if entry.name.endswith(".json"))
    except OSError:
        return []
    return [(name.removesuffix(".json"), _read(folder / COMMANDS / name)) for name in names if name[0] != "."]


def drop(folder: Path, command_id: str) -> None:
    """Take away a command that was carried out."""
    remove(folder / COMMANDS / f"{command_id}.json")


def read_steering(folder: Path) -> Steering:
    """What the user has decided so far; a file that is lost or damaged decides nothing."""
    try:
        return Steering.model_validate_json((folder / STEERING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Steering()


def write_steering(folder: Path, steering: Steering) -> None:
    """Keep it, whole or not at all."""
    kept = steering.model_copy(update={"done": steering.done[-MOST_DONE:]})
    write_whole(folder / STEERING, kept.model_dump_json(indent=1))


def _read(path: Path) -> Command | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return Command.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None
