"""The study on disk: trials in an Optuna storage that the controller alone writes, and the records of the worker beside it.

Layout of a study's folder:
    study.json           what is studied, and the fingerprint of data, model and versions
    study.db             Optuna's SQLite storage (unless another one is named)
    ready.json           what the trainer found before the first trial: data card, facts, packing
    trials/0003/         steps.jsonl, evaluations.jsonl, outcome.json, checkpoints/, model/
A process that is killed at any line leaves a study that the next one can take up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from finestep.errors import BadInput, StudyBusy, StudyChanged
from finestep.recipe import Recipe
from finestep.store.records import read_lines, write_whole
from finestep.study import StudySpec
from finestep.trial import EvalRecord, Outcome, StepRecord, Trial

Record = TypeVar("Record", bound=BaseModel)
SPEC, OPTUNA_FILE, LOCK, READY = "study.json", "study.db", "study.lock", "ready.json"
FORMAT_VERSION = 1
MAY_CHANGE = {"name", "num_threads"}


class StudyStore:
    """One open study.

    Args:
        folder: the study's folder.
        spec: what is studied.
        fingerprint: hashes and versions that must stay the same while a study goes on.
        storage_url: another Optuna storage (PostgreSQL, MySQL ...); None: a SQLite file in the folder.

    Raises:
        StudyBusy: another process has the study open.
        StudyChanged: the study on disk was made under other conditions.
    """

    def __init__(
        self, folder: Path, spec: StudySpec, fingerprint: Mapping[str, str], *, storage_url: str | None = None
    ):
        self.folder, self.spec = folder, spec
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self._study = _open_optuna(folder, _name_on_disk(folder) or spec.name, storage_url)
            _agree(folder / SPEC, spec, fingerprint, is_new=not self.trials())
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let others open the study."""
        self._lock.release()

    def trials(self) -> list[Trial]:
        """All trials in order of creation."""
        frozen = self._study.get_trials(deepcopy=False)
        return [Trial.model_validate_json(trial.user_attrs["trial"]) for trial in frozen if "trial" in trial.user_attrs]

    def add(self, recipe: Recipe, *, fidelity: float, stage: str, why: str) -> Trial:
        """Create a running trial; it is in the store as a whole or not at all."""
        import optuna
        from optuna.distributions import FloatDistribution, IntDistribution

        number = len(self._study.get_trials(deepcopy=False))
        trial = Trial(number=number, recipe=recipe, fidelity=fidelity, stage=stage, why=why)
        self.trial_folder(number).mkdir(parents=True, exist_ok=True)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params={"learning_rate": recipe.learning_rate, "effective_batch_size": recipe.effective_batch_size},
                distributions={
                    "learning_rate": FloatDistribution(1e-9, 10.0, log=True),
                    "effective_batch_size": IntDistribution(1, 65536, log=True),
                },
                user_attrs={"trial": trial.model_dump_json(), "stage": stage, "fidelity": fidelity, "state": "running"},
            )
        )
        return trial

    def finish(self, number: int, outcome: Outcome) -> Trial:
        """Record how a trial ended; once ended, it stays so."""
        current = next(trial for trial in self.trials() if trial.number == number)
        if current.state != "running":
            return current
        outcome = outcome.said()
        done = current.model_copy(update={"state": outcome.state, "outcome": outcome})
        storage, key = self._study._storage, self._trial_id(number)
        storage.set_trial_user_attr(key, "trial", done.model_dump_json())
        storage.set_trial_user_attr(key, "state", outcome.state)
        storage.set_trial_user_attr(key, "reason", outcome.reason)
        for name, value in outcome.metrics.items():
            storage.set_trial_user_attr(key, name, value)
        storage.set_trial_state_values(key, *_optuna_end(done))
        return done

    def mend(self) -> None:
        """Close trials whose end was recorded by half: the outcome is in our record but Optuna's state is not set."""
        import optuna

        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == optuna.trial.TrialState.RUNNING and "trial" in frozen.user_attrs:
                trial = Trial.model_validate_json(frozen.user_attrs["trial"])
                if trial.outcome is not None:
                    self._study._storage.set_trial_state_values(frozen._trial_id, *_optuna_end(trial))

    def keep_ready(self, found: Mapping[str, Any]) -> None:
        """Remember what the trainer found at its start."""
        write_whole(self.folder / READY, json.dumps(found))

    def known_ready(self) -> dict[str, Any]:
        """What the trainer found at its last start; empty when it never started."""
        try:
            return json.loads((self.folder / READY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its files."""
        return self.folder / "trials" / f"{number:04d}"

    def written_outcome(self, number: int) -> Outcome | None:
        """The outcome that the worker wrote, whether or not anybody heard of it."""
        try:
            return Outcome.model_validate_json((self.trial_folder(number) / "outcome.json").read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def hear_step(self, data: Mapping[str, Any]) -> StepRecord:
        """A step that the worker has made and written down."""
        return StepRecord.model_validate(data)

    def hear_evaluation(self, number: int, data: Mapping[str, Any]) -> EvalRecord:
        """An evaluation that the worker has written down; it is shown to Optuna's tools as an intermediate value."""
        record = EvalRecord.model_validate(data)
        if math.isfinite(record.eval_loss):
            self._study._storage.set_trial_intermediate_value(self._trial_id(number), record.step, record.eval_loss)
        return record

    def steps(self, number: int) -> list[StepRecord]:
        """Step records in order; of steps that were repeated after a resume, the last."""
        return read_records(self.trial_folder(number) / "steps.jsonl", StepRecord)

    def evaluations(self, number: int) -> list[EvalRecord]:
        """Evaluations in order."""
        return read_records(self.trial_folder(number) / "evaluations.jsonl", EvalRecord)

    def _trial_id(self, number: int) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def _optuna_end(trial: Trial) -> tuple[Any, list[float] | None]:
    """Optuna's state and value of a trial that ended: `best_trial` counts what is complete, so that a short run, and one that
    forgot too much, is pruned."""
    from optuna.trial import TrialState

    if not trial.ranks or trial.outcome is None or trial.outcome.eval_loss is None:
        return TrialState.FAIL, None
    may_win = trial.is_choosable and trial.fidelity == 1.0
    return TrialState.COMPLETE if may_win else TrialState.PRUNED, [trial.outcome.eval_loss]


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


def read_study_file(folder: Path) -> dict[str, Any]:
    """What `study.json` says: `spec`, `fingerprint`.

    Raises:
        BadInput: the folder is no study.
    """
    try:
        return json.loads((folder / SPEC).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput("this folder holds no study (no study.json)", value=str(folder)) from None
    except (OSError, ValueError) as error:
        raise BadInput("study.json cannot be read", value=type(error).__name__, place=str(folder)) from None


def _agree(path: Path, spec: StudySpec, fingerprint: Mapping[str, str], *, is_new: bool) -> None:
    """Write `study.json`, or check that the one on disk says the same; a study without trials is free to change."""
    wanted = {"format": FORMAT_VERSION, "spec": json.loads(spec.model_dump_json()), "fingerprint": dict(fingerprint)}
    if is_new:
        write_whole(path, json.dumps(wanted, indent=1))
        return
    found = read_study_file(path.parent)
    for name, old, new in _differences(found, wanted):
        raise StudyChanged(
            f"the study in {path.parent} was made with {name} = {_short(old)}, and now it is {_short(new)}; "
            "give the old value, or another folder with --out"
        )


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, old, new) of what differs. A version that is not known now trains nothing, so it cannot disagree."""
    old = {**_flat(_filled(found.get("spec", {}))), **_flat(found.get("fingerprint", {}))}
    new = {**_flat(wanted["spec"]), **_flat(wanted["fingerprint"])}
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if name not in MAY_CHANGE
        and old.get(name) != new.get(name)
        and not (name.startswith("version_") and name not in new)
    ]


def _filled(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The specification on disk with the fields that there were not yet when it was written, at their defaults."""
    try:
        return json.loads(StudySpec.model_validate(spec).model_dump_json())
    except ValidationError:
        return spec


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:28] + "..." + text[-28:]


def _lock(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / LOCK))
    try:
        lock.acquire(timeout=1.0)
    except Timeout:
        raise StudyBusy(
            f"another finestep process works on {folder}; wait for it, or give another folder with --out"
        ) from None
    return lock


def _name_on_disk(folder: Path) -> str | None:
    return read_study_file(folder).get("spec", {}).get("name") if (folder / SPEC).exists() else None


def _open_optuna(folder: Path, name: str, storage_url: str | None) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage_url or f"sqlite:///{(folder / OPTUNA_FILE).resolve()}"
    try:
        return optuna.create_study(study_name=name, storage=url, direction="minimize", load_if_exists=True)
    except (ImportError, ValueError, OSError) as error:
        raise BadInput("the storage cannot be opened", value=str(error).split("\n")[0][:160], place=url) from None
    except Exception as error:
        if type(error).__module__.startswith(("sqlalchemy", "optuna")):
            raise BadInput("the storage cannot be opened", value=str(error).split("\n")[0][:160], place=url) from None
        raise
