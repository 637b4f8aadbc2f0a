"""`diagnose` from Python: log files, or the history that a Trainer holds in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finestep.errors import BadInput
from finestep.flows.diagnose import DiagnoseResult, diagnose_paths

STATE_FILE = "trainer_state.json"


def diagnose(
    logs: str | Path | Sequence[Any] | Any,
    *,
    method: str | None = None,
    model: str | None = None,
    rank: int | None = None,
) -> DiagnoseResult:
    """What a training log says: a verdict, findings with their evidence, and one next step.

    Args:
        logs: a file, folder or glob, several of them, a list of dicts as `trainer.state.log_history`, or a `Trainer`.
        method, model, rank: what was trained and how, where nothing beside the log says it.

    Raises:
        BadInput: nothing is found, or what is found is no log.

    >>> finestep.diagnose(trainer.state.log_history).verdict.meaning  # doctest: +SKIP
    """
    known: dict[str, Any] = {"method": method, "model": model, "rank": rank}
    if isinstance(logs, str | Path):
        return diagnose_paths([str(logs)], **known)
    state = getattr(logs, "state", logs)
    history: Any = getattr(state, "log_history", state)
    if not isinstance(history, Sequence) or not history:
        raise BadInput(
            "this is no training log", value=type(logs).__name__, next_step="give a path, or trainer.state.log_history"
        )
    if all(isinstance(row, str | Path) for row in history):
        return diagnose_paths([str(row) for row in history], **known)
    if not all(isinstance(row, Mapping) for row in history):
        raise BadInput("a history is a list of dicts", value=type(history[0]).__name__)
    return _of_history(history, state, known)


def _of_history(history: Sequence[Mapping[str, Any]], state: Any, known: dict[str, Any]) -> DiagnoseResult:
    """Read as the state file that a Trainer would have written."""
    whole = {
        name: value
        for name in ("max_steps", "global_step", "num_train_epochs", "train_batch_size")
        if isinstance(value := getattr(state, name, None), int | float)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STATE_FILE
        path.write_text(json.dumps({**whole, "log_history": list(history)}, default=float), encoding="utf-8")
        return diagnose_paths([str(path)], **known)
