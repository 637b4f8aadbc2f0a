"""How a framework is started: its program in its own environment, the folder that it starts in, and what its environment says."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import sys
from pathlib import Path

from finestep.errors import BadInput
from finestep.study import FrameworkSpec
from finestep.trainers.framework import Framework

ALWAYS = {"PYTHONUNBUFFERED": "1", "WANDB_MODE": "disabled"}
"""Rows must reach the log when they are printed, and a search of many trials must not fill somebody's dashboard."""
_FIELD = re.compile(r"\{(config|python|args)\}")


def check_launcher(spec: FrameworkSpec) -> None:
    """Raise BadInput when the program that the launcher names is not there, before anything runs."""
    words = shlex.split(spec.launch.launcher)
    if "{config}" not in spec.launch.launcher:
        raise BadInput(
            "`--launcher` must take the file of a trial",
            value=spec.launch.launcher,
            next_step="write {config} where it goes",
        )
    if words and not words[0].startswith("{") and program_path(words[0], spec.launch.python) is None:
        raise BadInput(
            f"`{words[0]}` was not found beside the interpreter or on the PATH",
            value=spec.launch.python or sys.executable,
            next_step="give the interpreter of its environment: --python ENVIRONMENT/bin/python",
        )


def program_path(name: str, python: str | None) -> str | None:
    """Where a program is: beside the interpreter of its environment first."""
    beside = Path(python or sys.executable).absolute().parent / name
    if beside.is_file():
        return str(beside)
    return shutil.which(name) if "/" not in name else name


def script_of(framework: Framework, spec: FrameworkSpec, config: Path, text: str) -> str:
    """A shell script that runs one trial. It names the file's content, so that another content is another script."""
    words = shlex.split(spec.launch.launcher)
    python = spec.launch.python or sys.executable
    filled = [
        _FIELD.sub(lambda found: {"config": str(config), "python": python}.get(found[1], ""), word) for word in words
    ]
    if filled and not words[0].startswith("{"):
        filled[0] = program_path(filled[0], spec.launch.python) or filled[0]
    environment = {**ALWAYS, **framework.environment, **spec.launch.environment}
    lines = [
        f"# {hashlib.sha256(text.encode()).hexdigest()[:16]}",
        f"cd {shlex.quote(spec.launch.working_dir)} || exit 1",
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())),
        *_path_line(spec),
        f"({shlex.join(filled)}\n)",
    ]
    return "\n".join(lines) + "\n"


def _path_line(spec: FrameworkSpec) -> list[str]:
    """The environment's own programs first: some launchers start others by their bare names."""
    folder = Path(spec.launch.python or sys.executable).absolute().parent
    return [f"export PATH={shlex.quote(str(folder))}:$PATH"]
