"""A study as its files tell it, read without a lock and without writing anything.

The trials are known three times over: in `study.db`, in each trial's own files (`trial.json` says what was asked,
`outcome.json` how it ended), and in `result.json`. Where the database is lost or says something else than the others,
the study is damaged, and nothing is made from it until it has been rebuilt.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finestep.disk import read_object, refuse_special, write_whole
from finestep.errors import BadInput, StudyDamaged
from finestep.ready import Ready
from finestep.store.records import read_lines
from finestep.study import StudySpec
from finestep.study_layout import (
    CHECKPOINTS,
    CLAIM,
    DATABASE,
    EVALUATIONS,
    OUTCOME,
    READY,
    RESULT,
    SPEC,
    STEPS,
    TRIALS,
    trial_folder,
)
from finestep.trial import EvalRecord, Outcome, StepRecord, Trial

Record = TypeVar("Record", bound=BaseModel)
BUSY_S = 5.0


class StudyFile(BaseModel):
    """`study.json`: what is studied, and under which conditions. `spec` may be one of another version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    spec: dict[str, object] = Field(default_factory=dict)
    fingerprint: dict[str, str] = Field(default_factory=dict, description="Hashes of data and model, and versions.")
    id: str | None = None
    key: str | None = Field(None, description="The name of the study in its storage.")
    storage: str | None = Field(None, description="Set where the trials are kept in another storage.")


class StudyFiles:
    """The folder of a study, for reading.

    Args:
        folder: the study's folder.
        spec: what is studied.
        known: its trials, if they are known from elsewhere; None: those of `study.db`.
    """

    def __init__(self, folder: Path, spec: StudySpec, *, known: Sequence[Trial] | None = None):
        self.folder, self.spec, self._known = folder, spec, known

    def trials(self) -> list[Trial]:
        """All trials in order of creation.

        Raises:
            StudyDamaged: `study.db` is lost, cannot be read, or says something else than the trials' own files.
        """
        if self._known is None:
            self._known = read_database(self.folder / DATABASE, study_key(self.folder) or self.spec.name)
        return list(self._known)

    def known_ready(self) -> Ready | None:
        """What the trainer found at its last start; None when it never started, or when the file is damaged."""
        return read_ready(self.folder)

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its files."""
        return trial_folder(self.folder, number)

    def steps(self, number: int) -> list[StepRecord]:
        """Step records in order; of steps that were repeated after a resume, the last."""
        return read_records(self.trial_folder(number) / STEPS, StepRecord)

    def evaluations(self, number: int) -> list[EvalRecord]:
        """Evaluations in order."""
        return read_records(self.trial_folder(number) / EVALUATIONS, EvalRecord)


def write_claim(folder: Path, trial: Trial, study_id: str) -> None:
    """Say whose a trial's folder is and what it was asked to run."""
    write_whole(folder / CLAIM, json.dumps({"study": study_id, "trial": json.loads(trial.model_dump_json())}))


def read_claim(folder: Path) -> tuple[str, Trial] | None:
    """(study, trial as it was asked) of a trial's folder; None when nobody has claimed it."""
    found = read_object(folder / CLAIM) or {}
    try:
        return str(found.get("study", "")), Trial.model_validate_json(json.dumps(found.get("trial")))
    except ValidationError:
        return None


def read_ready(study: Path) -> Ready | None:
    """What the trainer of a study found at its last start; None when the folder is no study, or the file is damaged."""
    found = read_object(study / READY)
    if not found or "card" not in found:
        return None
    try:
        return Ready.model_validate(found)
    except ValidationError:
        return None


def read_outcome(folder: Path) -> Outcome | None:
    """What the worker wrote about the end of a trial; None when it has not ended, or when the file is damaged."""
    try:
        return Outcome.model_validate_json((folder / OUTCOME).read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None


def has_begun(folder: Path) -> bool:
    """True when something was trained in a trial's folder."""
    return any((folder / name).exists() for name in (OUTCOME, STEPS, CHECKPOINTS, "exit_code", "output.log"))


def numbered_folders(folder: Path) -> dict[int, Path]:
    """The folders of trials by number."""
    try:
        inside = sorted((folder / TRIALS).iterdir())
    except OSError:
        return {}
    return {int(path.name): path for path in inside if path.name.isdecimal() and path.is_dir()}


def read_database(path: Path, name: str) -> list[Trial]:
    """The trials in a study's SQLite file, without Optuna, a lock or a write: also on a read-only disk, and while it is in use.

    Raises:
        StudyDamaged: it is lost or cannot be read.
    """
    if not path.is_file():
        raise damaged(path.parent, f"{path.name} is lost")
    try:
        rows = _rows(path, name)
        trials = [Trial.model_validate_json(json.loads(value)) for _, value in rows]
    except (sqlite3.Error, ValidationError, ValueError, TypeError, OSError) as error:
        text = str(error).split("\n")[0][:100]
        raise damaged(path.parent, f"{path.name} is damaged ({type(error).__name__}: {text})") from None
    if [trial.number for trial in trials] != list(range(len(trials))) or [n for n, _ in rows] != list(range(len(rows))):
        raise damaged(path.parent, f"{path.name} is damaged (its trials are not numbered in turn)")
    return trials


def _rows(path: Path, name: str) -> list[tuple[int, str]]:
    query = (
        "select t.number, a.value_json from trials t join studies s on t.study_id = s.study_id left join trial_user_attributes a "
        "on a.trial_id = t.trial_id and a.key = 'trial' where s.study_name = ? order by t.number"
    )
    for mode in ("mode=ro", "immutable=1"):  # a read-only disk allows no lock; then nobody can be writing either
        database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?{mode}", uri=True, timeout=BUSY_S)
        try:
            if not database.execute("select 1 from studies where study_name = ?", (name,)).fetchone():
                raise ValueError(f"it holds no study {name!r}")
            return database.execute(query, (name,)).fetchall()
        except sqlite3.OperationalError as error:
            if mode == "immutable=1" or not any(
                word in str(error) for word in ("unable to open", "readonly", "locking")
            ):
                raise
        finally:
            database.close()
    return []


def find_damage(folder: Path, trials: Sequence[Trial], result: Mapping[str, object] | None = None) -> str | None:
    """What the other files of a study know better than its database; None when they agree.

    Args:
        trials: those of the database.
        result: the parsed `result.json`.
    """
    told = told_trials(result)
    missing = sorted(
        number for number, path in numbered_folders(folder).items() if number >= len(trials) and has_begun(path)
    )
    if missing:
        return f"the database knows {len(trials)} trials, and the folder of trial {missing[-1]} holds a further one"
    if len(told) > len(trials):
        return f"the database knows {len(trials)} trials, and {RESULT} {len(told)}"
    for trial in trials:
        path = trial_folder(folder, trial.number)
        claim, own = read_claim(path), read_outcome(path)
        before = told.get(trial.number)
        witnesses = [
            None if claim is None else claim[1].hash == trial.hash,
            None if before is None else _tells_asked(before, trial),
        ]
        if False in witnesses and True not in witnesses:
            return f"trial {trial.number} is another one in the database than in its own files"
        if trial.outcome is None:
            if before is not None and before.get("state") != "running":
                return f"trial {trial.number} had ended, and the database says that it runs"
            continue
        witnesses = [
            None if own is None or own.recipe_hash not in (None, trial.hash) else _same_end(own.said(), trial),
            None if before is None or before.get("state") == "running" else _tells_end(before, trial),
        ]
        if False in witnesses and True not in witnesses:
            return f"the end of trial {trial.number} is another one in the database than in its own files"
    return None


def told_trials(result: Mapping[str, object] | None) -> dict[int, Mapping[str, object]]:
    """The trials of `result.json` by number; what has another form is left out."""
    listed = (result or {}).get("trials")
    rows = listed if isinstance(listed, list) else []
    return {row["trial"]: row for row in rows if isinstance(row, dict) and type(row.get("trial")) is int}


def _same_end(own: Outcome, trial: Trial) -> bool:
    assert trial.outcome is not None
    return own.state == trial.outcome.state and _finite(own.eval_loss) == _finite(trial.outcome.eval_loss)


def _tells_asked(row: Mapping[str, object], trial: Trial) -> bool:
    asked = (trial.recipe.learning_rate, trial.recipe.effective_batch_size, trial.fidelity)
    return (row.get("learning_rate"), row.get("effective_batch_size"), row.get("fidelity")) == asked


def _tells_end(row: Mapping[str, object], trial: Trial) -> bool:
    assert trial.outcome is not None
    return row.get("state") == trial.state and row.get("eval_loss") == _finite(trial.outcome.eval_loss)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def damaged(folder: Path, what: str) -> StudyDamaged:
    """The error for a study whose database is lost or damaged."""
    return StudyDamaged(
        f"this study is damaged: {what}; nothing was changed",
        place=str(folder),
        next_step=f"`finestep report --rebuild {folder}` makes it again from the trials' own files",
    )


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Records of a JSON-lines file by step; a torn or damaged line is left out."""
    found: dict[int, Record] = {}
    for line in read_lines(path):
        try:
            record = kind.model_validate_json(line)
        except ValidationError:
            continue
        found[record.step] = record  # type: ignore[attr-defined]
    return [found[step] for step in sorted(found)]


def read_study_file(folder: Path) -> StudyFile:
    """What `study.json` says: `spec`, `fingerprint`, `id`, `key`.

    Raises:
        BadInput: the folder is no study.
    """
    refuse_special(folder / SPEC)
    try:
        found = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    except FileNotFoundError:
        step = "give the folder of a study, which `--out` has named"
        raise BadInput("this folder holds no study (no study.json)", value=str(folder), next_step=step) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput("study.json cannot be read", value=type(error).__name__, place=str(folder)) from None
    try:
        return StudyFile.model_validate(found)
    except ValidationError:
        raise BadInput("study.json does not describe a study", value=type(found).__name__, place=str(folder)) from None


def study_key(folder: Path) -> str | None:
    """The name of the study in its storage, as its folder keeps it; None for a folder without a study."""
    if not (folder / SPEC).exists():
        return None
    found = read_study_file(folder)
    name = found.key or found.spec.get("name")
    return name if isinstance(name, str) else None


def read_spec(folder: Path) -> StudySpec:
    """What a folder studies.

    Raises:
        BadInput: it holds no study, or one of another version.
    """
    return spec_in(read_study_file(folder), folder)


def spec_in(found: StudyFile, folder: Path) -> StudySpec:
    """The specification in the values of `study.json`."""
    try:
        return StudySpec.model_validate(found.spec)
    except ValueError:
        raise BadInput("study.json does not describe a study of this version", place=str(folder)) from None
