"""A study that exists: its figures and its page, from what is on disk alone; nothing better is ever replaced by something worse."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from finestep.answer import Answer
from finestep.disk import read_object
from finestep.errors import EnvironmentFault
from finestep.result import StudyResult, read_result
from finestep.search.traits import traits_of
from finestep.store.rebuilding import knowable_trials, rebuild
from finestep.store.study_files import StudyFiles, damaged, find_damage, read_study_file, spec_in
from finestep.store.study_folder import is_locked
from finestep.studies.files import Writes, write_results
from finestep.studies.strategies import make_judge
from finestep.study import Budget
from finestep.study_layout import RESULT
from finestep.trial import Trial


def show_study(folder: Path, *, rebuild_it: bool = False) -> StudyResult:
    """The results of a study, written again where that is possible, from its files.

    It takes no lock, so that a study can be shown while it is worked on, and on a disk that cannot be written.

    Args:
        rebuild_it: make the database again from the trials' own files before.

    Raises:
        StudyDamaged: its database is lost or damaged; nothing was changed.
    """
    found = read_study_file(folder)
    spec = spec_in(found, folder)
    told, before = read_object(folder / RESULT) or {}, read_result(folder)
    said = rebuild(folder, spec, found, told) if rebuild_it else []
    files = StudyFiles(folder, spec)
    if found.storage:
        files = StudyFiles(folder, spec, known=knowable_trials(folder, spec, told)[0])
        said.append("its trials are kept in another storage: this is what their own files say")
    trials = files.trials()
    if (fault := find_damage(folder, trials, told)) is not None:
        raise damaged(folder, fault)
    writes, note = _may_write(folder)
    write = partial(
        write_results,
        files,
        command=(before.command if before else "") or f"finestep report {folder}",
        budget=_budget(before),
        ready=files.known_ready(),
        facts=before.facts if before else {},
        answer=_last_answer(before, trials) or _new_answer(files, trials),
    )
    try:
        result = write(writes=writes)
    except EnvironmentFault as full:
        result, note = write(writes=Writes.NOTHING), f"the page was not written: {full.what}"
    return result.model_copy(update={"shown": (*said, *([note] if note else []))})


def _may_write(folder: Path) -> tuple[Writes, str]:
    """What may be written into a study's folder now, and what to say about the rest."""
    if not os.access(folder, os.W_OK):
        return Writes.NOTHING, "its folder cannot be written: nothing was changed, and the page is as it was"
    if is_locked(folder):
        return Writes.PAGE, "another process works on this study: this is how it stands now"
    return Writes.ALL, ""


def _budget(before: StudyResult | None) -> Budget:
    runs = before.spent.budget_full_runs if before is not None else None
    return Budget(full_runs=runs) if runs and runs > 0 else Budget()


def _last_answer(before: StudyResult | None, trials: list[Trial]) -> Answer | None:
    """What the search said at the end; None when trials have come since, or when it cannot be read."""
    return before.answer if before is not None and len(before.trials) == len(trials) else None


def _new_answer(files: StudyFiles, trials: list[Trial]) -> Answer | None:
    """What the search makes of the trials, for a study that a search ran."""
    ready = files.known_ready()
    if ready is None or not traits_of(files.spec.search.strategy).believes:
        return None
    return make_judge(files.spec, ready.card).answer(trials)
