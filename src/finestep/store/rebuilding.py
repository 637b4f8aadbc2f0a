"""A study's database made again: from the trials' own files, and from what can be read of the old one and of `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from finestep.disk import set_aside
from finestep.errors import BadInput, FinestepError, StudyDamaged
from finestep.store.study_files import (
    StudyFile,
    has_begun,
    numbered_folders,
    read_claim,
    read_database,
    read_outcome,
    study_key,
    told_trials,
)
from finestep.store.study_folder import lock_study
from finestep.store.study_store import StudyStore
from finestep.study import StudySpec
from finestep.study_layout import DATABASE
from finestep.trial import Outcome, Trial


def rebuild(folder: Path, spec: StudySpec, found: StudyFile, before: Mapping[str, object]) -> list[str]:
    """Put the old database aside and write a new one with every trial that can be known; what to say about it.

    Args:
        found: the parsed `study.json`.
        before: the parsed `result.json`.

    Raises:
        BadInput: no trial can be known.
    """
    trials, lost = knowable_trials(folder, spec, before)
    if not trials:
        raise BadInput(
            "a study is rebuilt from its trials' own files, and there are none",
            place=str(folder),
            next_step="start it anew in another folder",
        )
    said, database = [], folder / DATABASE
    lock_study(folder).release()
    for path in (database, database.with_name(database.name + "-journal")):
        if path.exists() or path.is_symlink():
            said.append(f"the old {path.name} is kept as {set_aside(path, 'damaged').name}")
    store = StudyStore(folder, spec, found.fingerprint, known=trials)
    store.close()
    said.insert(0, f"rebuilt: {len(trials) - len(lost)} of {len(trials)} trials from their own files")
    if lost:
        said.append(f"nothing is known of trials {', '.join(map(str, lost))}: they count as failed")
    return said


def knowable_trials(folder: Path, spec: StudySpec, before: Mapping[str, object]) -> tuple[list[Trial], list[int]]:
    """(all trials by number, those of which nothing is known)."""
    known: dict[int, Trial] = {}
    told = told_trials(before)
    try:
        for trial in read_database(folder / DATABASE, study_key(folder) or spec.name):
            known[trial.number] = trial
    except StudyDamaged:
        pass
    for number, row in told.items():
        asked = None if number in known else _told_trial(spec, number, row)
        if asked is not None:
            known[number] = asked
    for number, path in numbered_folders(folder).items():
        claim = read_claim(path)
        if claim is not None and (has_begun(path) or number in known):
            known[number] = claim[1]
        outcome = read_outcome(path)
        if number in known and outcome is not None and outcome.recipe_hash in (None, known[number].hash):
            said = outcome.said()
            known[number] = known[number].model_copy(update={"state": said.state, "outcome": said})
        elif number in known and number in told and known[number].outcome is None:
            known[number] = _ended_as_told(known[number], told[number])
    lost = [number for number in range(max(known, default=-1) + 1) if number not in known]
    for number in lost:
        ended = Outcome(state="failed", reason="its files were lost")
        known[number] = Trial(number=number, recipe=spec.recipe, stage="lost", state="failed", outcome=ended)
    return [known[number] for number in sorted(known)], lost


def _told_trial(spec: StudySpec, number: int, row: Mapping[str, object]) -> Trial | None:
    """A trial as `result.json` tells it."""
    tuned = row.get("tuned")
    fields = {name: row.get(name) for name in ("learning_rate", "effective_batch_size")}
    fields |= tuned if isinstance(tuned, dict) else {}
    try:
        recipe = spec.recipe.with_fields({name: value for name, value in fields.items() if value is not None})
        asked = Trial(
            number=number,
            recipe=recipe,
            fidelity=row.get("fidelity", 1.0),
            stage=str(row.get("stage", "")),
        )
    except (ValidationError, FinestepError, TypeError):
        return None
    return _ended_as_told(asked, row)


def _ended_as_told(trial: Trial, row: Mapping[str, object]) -> Trial:
    """The trial with the end that `result.json` tells; as it is when that cannot be read."""
    if row.get("state") in (None, "running"):
        return trial
    names = ("state", "reason", "eval_loss", "metrics", "base_eval_loss", "kl_at_end", "num_train_tokens", "log")
    told = {name: row[name] for name in names if row.get(name) is not None}
    micro = row.get("micro_batch_size")
    try:
        outcome = Outcome.model_validate(
            {**told, "elapsed_s": row.get("seconds", 0.0), "micro_batch_size": micro}
        ).said()
    except ValidationError:
        return trial
    return trial.model_copy(update={"state": outcome.state, "outcome": outcome})
