"""`diagnose` from Python: log files, or the history that a Trainer holds in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from finestep.errors import BadInput
from finestep.flows.diagnose import DiagnoseResult, diagnose_paths

STATE_FILE = "trainer_state.json"
IN_MEMORY = "the history"


def diagnose(
    logs: str | Path | Sequence[object] | object,
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
    judge = partial(diagnose_paths, method=method, model=model, rank=rank)
    if isinstance(logs, str | Path):
        return judge([str(logs)])
    state = getattr(logs, "state", logs)
    history: object = getattr(state, "log_history", state)
    if not isinstance(history, Sequence) or not history:
        raise BadInput(
            "this is no training log", value=type(logs).__name__, next_step="give a path, or trainer.state.log_history"
        )
    if all(isinstance(row, str | Path) for row in history):
        return judge([str(row) for row in history])
    if not all(isinstance(row, Mapping) for row in history):
        raise BadInput("a history is a list of dicts", value=type(history[0]).__name__)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STATE_FILE
        path.write_text(_state_text(history, state), encoding="utf-8")
        found = judge([str(path)])
    return replace(found, reports=tuple(replace(report, path=IN_MEMORY) for report in found.reports))


def _state_text(history: Sequence[Mapping[str, object]], state: object) -> str:
    """The state file that a Trainer would have written."""
    whole = {
        name: value
        for name in ("max_steps", "global_step", "num_train_epochs", "train_batch_size")
        if isinstance(value := getattr(state, name, None), int | float)
    }
    return json.dumps({**whole, "log_history": list(history)}, default=float)
