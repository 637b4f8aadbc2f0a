"""The study on disk: trials in an Optuna storage that the controller alone writes, and the records of the worker beside it.

Layout of a study's folder:
    study.json           what is studied, and the fingerprint of data, model and versions
    study.db             Optuna's SQLite storage (unless another one is named)
    ready.json           what the trainer found before the first trial: the data, the machine, how trials share it
    trials/0003/         steps.jsonl, evaluations.jsonl, outcome.json, checkpoints/, model/
A process that is killed at any line leaves a study that the next one can take up.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from finestep.disk import (
    json_text,
    make_folder,
    read_object,
    remove_leftovers,
    set_aside,
    write_whole,
)
from finestep.errors import BadInput
from finestep.ready import Ready
from finestep.recipe import Recipe
from finestep.store.database import Database, FileDatabase, ServerDatabase
from finestep.store.storage_url import VARIABLE, StorageUrl
from finestep.store.study_files import (
    StudyFiles,
    damaged,
    find_damage,
    has_begun,
    read_outcome,
    read_study_file,
    study_key,
    write_claim,
)
from finestep.store.study_folder import agree, check_folder, lock_study
from finestep.study import StudySpec
from finestep.study_layout import READY, RESULT, SPEC
from finestep.trial import EvalRecord, Outcome, StepRecord, Trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState


Answer = TypeVar("Answer")


class StudyStore(StudyFiles):
    """One open study.

    Args:
        folder: the study's folder.
        spec: what is studied.
        fingerprint: hashes and versions that must stay the same while a study goes on.
        storage_url: another Optuna storage (PostgreSQL, MySQL ...); None: a SQLite file in the folder.
        known: trials that a new database begins with, when a study is rebuilt.

    Raises:
        StudyBusy: another process has the study open.
        StudyChanged: the study on disk was made under other conditions.
        StudyDamaged: its database is lost, or says something else than its files.
        EnvironmentFault: the folder cannot be written any more.
    """

    def __init__(
        self,
        folder: Path,
        spec: StudySpec,
        fingerprint: Mapping[str, str],
        *,
        storage_url: str | None = None,
        known: Sequence[Trial] = (),
    ):
        super().__init__(folder, spec)
        check_folder(folder)
        self._base: Database | None = None
        self._known: list[Trial] | None = None
        self._lock = lock_study(folder)
        try:
            remove_leftovers(folder)
            key = study_key(folder)
            self._base = _open(folder, key, spec.name, fingerprint, storage_url)
            self._study = self._base.study
            for trial in known:
                self._begin_with(trial)
            trials = self.trials()
            if (fault := find_damage(folder, trials, read_object(folder / RESULT))) is not None:
                raise damaged(folder, fault)
            agree(
                folder / SPEC,
                spec,
                fingerprint,
                is_new=not trials,
                more={"storage": "elsewhere", "key": self._study.study_name} if storage_url else {},
            )
            self.id = read_study_file(folder).id or ""
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others open the study."""
        if self._base is not None:
            self._base.close()
        self._lock.release()

    def trials(self) -> list[Trial]:
        """All trials in order of creation.

        A file has this process as its only writer, and what it wrote is known: with a hundred workers Optuna would read all that
        run from the file several times for each that ends. A server is asked, since it may have gone to somebody else.
        """
        if self._known is None or not isinstance(self._base, FileDatabase):
            self._known = self._read_trials()
        return list(self._known)

    def _read_trials(self) -> list[Trial]:
        frozen = self._frozen()
        try:
            trials = [Trial.model_validate_json(trial.user_attrs["trial"]) for trial in frozen]
        except (ValidationError, KeyError, TypeError) as error:
            raise damaged(
                self.folder, f"its database holds a trial that cannot be read ({type(error).__name__})"
            ) from None
        if [trial.number for trial in trials] != [trial.number for trial in frozen]:
            raise damaged(self.folder, "the trials of its database are not numbered in turn")
        return trials

    def _frozen(self) -> list[FrozenTrial]:
        return self._do(lambda: self._study.get_trials(deepcopy=False))

    def _do(self, act: Callable[[], Answer]) -> Answer:
        assert self._base is not None
        return self._base.do(act)

    def add(
        self,
        recipe: Recipe,
        *,
        fidelity: float,
        stage: str,
        why: str,
        is_baseline: bool = False,
        command: str | None = None,
    ) -> Trial:
        """Create a running trial; it is in the store as a whole or not at all. `command` is the user's who asked for it."""
        number, asked = len(self.trials()), {"is_baseline": is_baseline, "command": command}
        trial = Trial(number=number, recipe=recipe, fidelity=fidelity, stage=stage, why=why, **asked)
        self._claim(trial)
        self._insert(trial)
        return trial

    def _begin_with(self, trial: Trial) -> None:
        self._insert(trial.model_copy(update={"state": "running", "outcome": None}))
        if trial.outcome is not None:
            self.finish(trial.number, trial.outcome)

    def _insert(self, trial: Trial) -> None:
        import optuna
        from optuna.distributions import FloatDistribution, IntDistribution

        recipe = trial.recipe
        created = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params={"learning_rate": recipe.learning_rate, "effective_batch_size": recipe.effective_batch_size},
            distributions={
                "learning_rate": FloatDistribution(1e-9, 10.0, log=True),
                "effective_batch_size": IntDistribution(1, 65536, log=True),
            },
            user_attrs={
                "trial": trial.model_dump_json(),
                "stage": trial.stage,
                "fidelity": trial.fidelity,
                "state": "running",
                "asked_by": trial.asked_by,
            },
        )

        def add() -> None:
            is_file = isinstance(self._base, FileDatabase)  # it is not asked twice
            if is_file or len(self._study.get_trials(deepcopy=False)) <= trial.number:
                self._study.add_trial(created)  # else it arrived, and only the answer was lost

        self._do(add)
        if self._known is not None:
            self._known.append(trial)

    def _claim(self, trial: Trial) -> None:
        """A new trial's folder holds nothing of another one: what stands there already is set aside, and never taken for a result."""
        folder = self.trial_folder(trial.number)
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or has_begun(folder))):
            set_aside(folder, "stale")
        make_folder(folder)
        write_claim(folder, trial, self.id)

    def finish(self, number: int, outcome: Outcome) -> Trial:
        """Record how a trial ended; once ended, it stays so."""
        current = next(trial for trial in self.trials() if trial.number == number)
        if current.state != "running":
            return current
        outcome = outcome.said()
        done = current.model_copy(update={"state": outcome.state, "outcome": outcome})

        def write() -> None:
            storage, key = self._study._storage, self._trial_id(number)
            if storage.get_trial(key).state.is_finished():
                return  # it arrived, and only the answer was lost
            storage.set_trial_user_attr(key, "trial", done.model_dump_json())
            storage.set_trial_user_attr(key, "state", outcome.state)
            storage.set_trial_user_attr(key, "reason", outcome.reason)
            for name, value in outcome.metrics.items():
                storage.set_trial_user_attr(key, name, value)
            storage.set_trial_state_values(key, *_optuna_end(done))

        self._do(write)
        if self._known is not None:
            self._known[number] = done
        return done

    def repair(self) -> None:
        """Close trials whose end was recorded by half: the outcome is in our record but Optuna's state is not set."""
        import optuna

        for frozen in self._frozen():
            if frozen.state == optuna.trial.TrialState.RUNNING and "trial" in frozen.user_attrs:
                trial = Trial.model_validate_json(frozen.user_attrs["trial"])
                if trial.outcome is not None:
                    end = partial(self._study._storage.set_trial_state_values, frozen._trial_id)
                    self._do(partial(end, *_optuna_end(trial)))

    def keep_ready(self, found: Ready) -> None:
        """Remember what the trainer found at its start."""
        write_whole(self.folder / READY, json_text(found.model_dump()))

    def written_outcome(self, number: int) -> Outcome | None:
        """The outcome that the worker wrote, whether or not anybody heard of it; one of another recipe is none."""
        outcome = read_outcome(self.trial_folder(number))
        if outcome is None or outcome.recipe_hash is None:
            return outcome
        asked = next(trial for trial in self.trials() if trial.number == number)
        return outcome if outcome.recipe_hash == asked.hash else None

    def read_step(self, data: Mapping[str, object]) -> StepRecord:
        """A step that the worker has made and written down."""
        return StepRecord.model_validate(data)

    def keep_evaluation(self, number: int, data: Mapping[str, object]) -> EvalRecord:
        """An evaluation that the worker has written down; it is shown to Optuna's tools as an intermediate value.

        A storage that is away for a moment does not hear of it: our own record has it.
        """
        record = EvalRecord.model_validate(data)
        if math.isfinite(record.eval_loss):
            show = self._study._storage.set_trial_intermediate_value
            if isinstance(self._base, FileDatabase):
                self._do(lambda: show(self._trial_id(number), record.step, record.eval_loss))
            else:
                with suppress(Exception):
                    show(self._trial_id(number), record.step, record.eval_loss)
        return record

    def _trial_id(self, number: int) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def _open(folder: Path, key: str | None, name: str, fingerprint: Mapping[str, str], url: str | None) -> Database:
    """The study's database: its own file, or the one at an address."""
    found = read_object(folder / SPEC) or {}
    if url is None and found.get("storage"):
        raise BadInput(
            "this study keeps its trials in another storage",
            value=str(folder),
            next_step=f"name it with --storage, or in ${VARIABLE}",
        )
    if url is None:
        return FileDatabase(folder, key or name)
    if key is not None and not found.get("storage"):
        raise BadInput(
            "this study keeps its trials in its own folder", value=str(folder), next_step="leave out --storage"
        )
    prints = hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:8]
    return ServerDatabase(StorageUrl(url), key or f"{name}-{prints}", folder=folder, is_new=key is None)


def _optuna_end(trial: Trial) -> tuple[TrialState, list[float] | None]:
    """Optuna's state and value of a trial that ended: `best_trial` counts what is complete, so that a short run, and one that
    forgot too much, is pruned."""
    from optuna.trial import TrialState

    if not trial.ranks or trial.outcome is None or trial.outcome.eval_loss is None:
        return TrialState.FAIL, None
    may_win = trial.is_choosable and trial.fidelity == 1.0 and not trial.outcome.by_hand
    return TrialState.COMPLETE if may_win else TrialState.PRUNED, [trial.outcome.eval_loss]
