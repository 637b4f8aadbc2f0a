"""A study that exists: its figures and its page, from what is on disk alone; nothing better is ever replaced by something worse."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finestep.disk import read_object
from finestep.errors import EnvironmentFault
from finestep.flows.result import Writes, write_results
from finestep.flows.strategies import make_judge
from finestep.search.answer import Answer
from finestep.store.rebuilding import knowable_trials, rebuild
from finestep.store.study_files import RESULT, StudyFiles, damaged, find_damage, read_study_file, spec_in
from finestep.store.study_folder import is_locked
from finestep.study import Budget
from finestep.trial import Trial


def show_study(folder: Path, *, rebuild_it: bool = False) -> dict[str, Any]:
    """The results of a study, written again where that is possible, from its files.

    It takes no lock, so that a study can be shown while it is worked on, and on a disk that cannot be written.

    Args:
        rebuild_it: make the database again from the trials' own files before.

    Raises:
        StudyDamaged: its database is lost or damaged; nothing was changed.
    """
    found = read_study_file(folder)
    spec = spec_in(found, folder)
    before = read_object(folder / RESULT) or {}
    said = rebuild(folder, spec, found, before) if rebuild_it else []
    files = StudyFiles(folder, spec)
    if found.get("storage"):
        files = StudyFiles(folder, spec, known=knowable_trials(folder, spec, before)[0])
        said.append("its trials are kept in another storage: this is what their own files say")
    trials = files.trials()
    if (fault := find_damage(folder, trials, before)) is not None:
        raise damaged(folder, fault)
    writes, note = _may_write(folder)
    told: dict[str, Any] = {
        "command": _text(before.get("command")) or f"finestep report {folder}",
        "budget": _budget(before),
        "card": _known_card(files),
        "facts": _scalars(before.get("facts")),
        "answer": _last_answer(before, trials) or _new_answer(files, trials),
    }
    try:
        result = write_results(files, writes=writes, **told)
    except EnvironmentFault as full:
        result, note = write_results(files, writes=Writes.NOTHING, **told), f"the page was not written: {full.what}"
    result["shown"] = [*said, *([note] if note else [])]
    return result


def _known_card(files: StudyFiles) -> dict[str, Any]:
    """What was found in the data, as the trainer kept it; empty when it never started."""
    card = files.known_ready().get("card") or {}
    return card if isinstance(card.get("facts"), dict) else {}


def _may_write(folder: Path) -> tuple[Writes, str]:
    """What may be written into a study's folder now, and what to say about the rest."""
    if not os.access(folder, os.W_OK):
        return Writes.NOTHING, "its folder cannot be written: nothing was changed, and the page is as it was"
    if is_locked(folder):
        return Writes.PAGE, "another process works on this study: this is how it stands now"
    return Writes.ALL, ""


def _budget(before: Mapping[str, Any]) -> Budget:
    spent = before.get("spent")
    runs = spent.get("budget_full_runs") if isinstance(spent, dict) else None
    try:
        return Budget(full_runs=runs) if runs else Budget()
    except ValidationError:
        return Budget()


def _last_answer(before: Mapping[str, Any], trials: list[Trial]) -> Answer | None:
    """What the search said at the end; None when trials have come since, or when it cannot be read."""
    said, rows = before.get("answer"), before.get("trials")
    if not said or not isinstance(rows, list) or len(rows) != len(trials):
        return None
    try:
        return Answer.model_validate(said)
    except ValidationError:
        return None


def _new_answer(files: StudyFiles, trials: list[Trial]) -> Answer | None:
    """What the search makes of the trials, for a study that a search ran."""
    card = files.known_ready().get("card")
    if files.spec.strategy in ("sweep", "single") or not card or not isinstance(card.get("facts"), dict):
        return None
    return make_judge(files.spec, card).answer(trials)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _scalars(value: object) -> dict[str, Any]:
    table = value if isinstance(value, dict) else {}
    return {str(name): one for name, one in table.items() if isinstance(one, str | int | float)}
