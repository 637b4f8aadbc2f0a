"""A study that exists: its figures and its page, from what is on disk alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finestep.errors import BadInput
from finestep.flows.result import RESULT, write_results
from finestep.search.answer import Answer
from finestep.store.study_store import StudyStore, read_study_file
from finestep.study import Budget, StudySpec


def show_study(folder: Path) -> dict[str, Any]:
    """Write the results of a study again and answer with them; a study that is being worked on is refused."""
    found = read_study_file(folder)
    try:
        spec = StudySpec.model_validate(found["spec"])
    except (KeyError, ValueError):
        raise BadInput("study.json does not describe a study of this version", place=str(folder)) from None
    before = _last_result(folder)
    store = StudyStore(folder, spec, found.get("fingerprint", {}))
    try:
        budget = Budget(full_runs=before.get("spent", {}).get("budget_full_runs") or Budget().full_runs)
        return write_results(
            store,
            command=before.get("command", f"finestep report {folder}"),
            budget=budget,
            card={},
            facts=before.get("facts", {}),
            answer=_last_answer(before, num_trials=len(store.trials())),
        )
    finally:
        store.close()


def _last_answer(before: dict[str, Any], *, num_trials: int) -> Answer | None:
    """What the search said at the end; None when trials have come since."""
    said = before.get("answer")
    return Answer.model_validate(said) if said and len(before.get("trials", [])) == num_trials else None


def _last_result(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
