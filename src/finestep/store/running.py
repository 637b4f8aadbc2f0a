"""What the process that runs a study says of itself: its command and its budget; valid while it holds the study's lock."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from finestep.disk import read_object, write_whole
from finestep.study import Budget
from finestep.study_layout import RUNNING


def write_running(folder: Path, *, command: str, budget: Budget) -> None:
    """Say who runs the study, with which budget, since when."""
    told = {"pid": os.getpid(), "command": command, "budget": budget.model_dump(), "began": time.time()}
    write_whole(folder / RUNNING, json.dumps(told))


def read_running(folder: Path) -> dict[str, object]:
    """What the process that runs it, or ran it last, has said; empty when none did."""
    return read_object(folder / RUNNING) or {}
