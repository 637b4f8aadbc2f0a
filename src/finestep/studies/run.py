"""One study from its start to its files: open the store, run the tuning loop, write the results, close everything."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from finestep import __version__
from finestep.answer import Answer
from finestep.errors import BadInput, EnvironmentFault, FinestepError, StudyDamaged
from finestep.executor import Executor
from finestep.executors.command import CommandExecutor
from finestep.executors.framework import FrameworkExecutor
from finestep.executors.local import LocalExecutor
from finestep.executors.ray import RayExecutor
from finestep.flows.probe import cached
from finestep.probe import Lever
from finestep.protocol import ClusterRequest, SessionRequest, Sharding, Spread, TrialOptions
from finestep.ready import Ready
from finestep.result import StudyResult
from finestep.search.leader import worth_keeping
from finestep.search.search import MOST_AT_ONCE, most_at_once
from finestep.search.traits import traits_of
from finestep.store.running import write_running
from finestep.store.study_files import read_study_file
from finestep.store.study_store import StudyStore
from finestep.studies.event import TuneEvent
from finestep.studies.files import drop_other_models, write_results
from finestep.studies.saved_check import check_saved, known_check
from finestep.studies.steering import known_budget
from finestep.studies.strategies import make_judge, make_strategy
from finestep.studies.tuning import Tuning
from finestep.studies.with_launch import visible_gpus
from finestep.study import Budget, StartingPoint, StudySpec
from finestep.study_layout import SPEC
from finestep.survey.fingerprint import fingerprint
from finestep.survey.hardware import hardware_facts
from finestep.survey.installed import TRAINING, check_installed


@dataclass
class StudyRun:
    """A study in the making.

    Attributes:
        pack: trials that share a forward pass; None: by measurement.
        check_saved: at the end, load the saved model again and compare its loss with what was measured.
        cluster: where it trains; None: on this machine.
        sharding: whether each device of a trial that spans several holds a part of the base, or all of it.
        result: the figures of the study, once `events` has come to its end.
    """

    spec: StudySpec
    folder: Path
    budget: Budget
    command: str
    storage_url: str | None = None
    pack: int | None = None
    options: TrialOptions = field(default_factory=TrialOptions)
    check_saved: bool = True
    cluster: ClusterRequest | None = None
    sharding: Sharding = "auto"
    result: StudyResult | None = None
    stopped_by_command: bool = False
    """`finestep stop` ended it, and not a signal."""

    def __post_init__(self) -> None:
        _check_trainer(self.spec, self.folder)
        self.spec = _with_known_start(self.spec, self.folder)
        self.budget = known_budget(self.folder, self.budget)
        prints = _fingerprint(self.spec)
        self.store = StudyStore(self.folder, self.spec, prints, storage_url=self.storage_url)
        self.executor: Executor = self._executor()

    def events(self, should_stop: Callable[[], bool]) -> Generator[TuneEvent]:
        """Run the study; results are written even when it is interrupted.

        Raises:
            FinestepError: what a worker or a trial came upon that a user can act on.
        """
        tuning = Tuning(
            self.store,
            self.executor,
            lambda card: make_strategy(self.spec, card, budget=tuning.budget),
            self.budget,
            should_stop=should_stop,
            options=self.options,
            keeps=lambda trials: worth_keeping(self.spec, trials),
        )
        write_running(self.folder, command=self.command, budget=self.budget)
        try:
            last: str | None = None
            refusal: FinestepError | None = None
            try:
                for event in tuning.run():
                    last = event.kind
                    self.budget, self.stopped_by_command = tuning.budget, tuning.steering.stops
                    yield event
            except FinestepError as error:
                if isinstance(error, StudyDamaged) or not any(trial.outcome for trial in self.store.trials()):
                    raise
                refusal = error
                last = None
            self.executor.close()
            write = partial(
                write_results,
                self.store,
                command=self.command,
                budget=self.budget,
                ready=tuning.ready,
                answer=self._answer(tuning.ready),
            )
            try:
                self.result = write()
            except EnvironmentFault as fault:
                raise refusal or fault from None
            if last == "done":
                drop_other_models(self.store, self.result)
                yield from self._checked(write)
            if refusal is not None:
                raise refusal
        finally:
            self.executor.close()
            self.store.close()

    def _checked(self, write: Callable[[], StudyResult]) -> Iterator[TuneEvent]:
        """Load the chosen model again, and write the results with what this found."""
        assert self.result is not None
        model, best = self.result.paths.model, self.result.best
        if not self.check_saved or model is None or best is None:
            return
        folder = self.store.trial_folder(best.trial)
        known = known_check(folder)
        if known is None or not known.check.checked:
            yield TuneEvent("saved", data={"text": "loading the saved model again, to check it"})
        check_saved(folder, Path(model), machine=(self.store.known_ready() or Ready()).machine)
        self.result = write()

    def _answer(self, ready: Ready | None) -> Answer | None:
        """What the search makes of the study; the sweep and a single run speak for themselves."""
        if ready is None or not traits_of(self.spec.search.strategy).believes:
            return None
        return make_judge(self.spec, ready.card, budget=self.budget).answer(self.store.trials())

    def _executor(self) -> Executor:
        if self.spec.trainer is not None:
            return CommandExecutor(self.spec.trainer, folder=self.folder)
        if self.spec.framework is not None:
            return FrameworkExecutor(
                self.spec.framework, self.spec.recipe, folder=self.folder.resolve(), gpus=visible_gpus()
            )
        session = self._session()
        if self.cluster is not None:
            return RayExecutor(session, folder=self.folder)
        if groups := gpu_groups(session):
            return LocalExecutor(session, folder=self.folder, devices=groups)
        return LocalExecutor(session, folder=self.folder, starts_ahead=may_need_two(session))

    def _session(self) -> SessionRequest:
        limits = [
            trial.outcome.cost.micro_batch_size
            for trial in self.store.trials()
            if trial.outcome
            and trial.outcome.cost.micro_batch_size
            and trial.outcome.cost.micro_batch_size < trial.recipe.first_micro_batch()
        ]
        traits = traits_of(self.spec.search.strategy)
        known = cached(self.spec.model, self.spec.data, self.spec.recipe, num_threads=self.spec.num_threads)
        if known is not None and known.memory.largest_micro_batch and known.memory.lever == Lever():
            limits.append(known.memory.largest_micro_batch)
        return SessionRequest(
            model=self.spec.model,
            data=self.spec.data,
            recipe=self.spec.recipe,
            study_dir=str(self.folder),
            metrics=self.spec.metrics,
            num_threads=self.spec.num_threads,
            pack=self.pack if traits.searches else 1,
            most_lanes=most_at_once(self.budget.full_runs) if traits.adapts else MOST_AT_ONCE,
            retention=self.spec.retention,
            micro_batch_limit=min(limits, default=None),
            spread=Spread(cluster=self.cluster, sharding=self.sharding),
        )


def gpu_groups(session: SessionRequest) -> list[str]:
    """The GPUs of each worker on this machine, as CUDA_VISIBLE_DEVICES names them; empty where one worker sees all that there is.

    Raises:
        BadInput: a trial is to span more GPUs than there are.
    """
    if session.model.device not in ("auto", "cuda"):
        return []
    gpus, each = visible_gpus(), session.num_devices
    if not gpus:
        return []
    if each > len(gpus):
        raise BadInput(
            "a trial can span the GPUs of one machine",
            value=f"{each} of {len(gpus)}",
            place="--devices-per-trial",
            next_step=f"at most {len(gpus)} here",
        )
    groups = [",".join(gpus[at : at + each]) for at in range(0, len(gpus) - each + 1, each)]
    return groups if len(groups) > 1 or each > 1 else []


def may_need_two(session: SessionRequest) -> bool:
    """True where the first worker may find that a second one pays: on a CPU with several cores, unless the user has decided."""
    if (
        session.num_devices > 1
        or session.pack is not None
        or session.num_threads is not None
        or session.most_lanes == 1
    ):
        return False
    from joblib import cpu_count  # counts what a container may use, not what the machine has

    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(threads) if threads.isdecimal() else cpu_count()
    device = session.model.device
    return cores > 1 and (device == "cpu" or (device == "auto" and hardware_facts().device == "cpu"))


def _check_trainer(spec: StudySpec, folder: Path) -> None:
    """A new study of our own trainer needs its packages before anything is created; one on disk may be finished."""
    if not spec.is_external and not (folder / SPEC).exists():
        check_installed(TRAINING, needed_for="training")


def _fingerprint(spec: StudySpec) -> dict[str, str]:
    """What must stay the same; a command is in the study itself, and what it reads is its own affair."""
    if spec.is_external:
        return {"version_finestep": __version__}
    return fingerprint(spec.model.path, spec.data.path, spec.data.eval_path)


def _with_known_start(spec: StudySpec, folder: Path) -> StudySpec:
    """A study that goes on keeps the start that it began with, whatever `recommend` would say today."""
    if spec.search.start is None or not (folder / SPEC).exists():
        return spec
    known = read_study_file(folder).spec.get("start")
    is_own = spec.search.start.learning_rate_reach is not None or spec.search.start.batch_size_reach is not None
    if not isinstance(known, dict) or is_own or known.get("why") != spec.search.start.why:
        return spec
    begun = StartingPoint.model_validate(known)
    both = begun.fields.keys() & spec.search.start.fields.keys()
    recipe = spec.recipe.with_fields({name: begun.fields[name].value for name in both})
    search = spec.search.model_copy(update={"start": begun})
    return spec.model_copy(update={"search": search, "recipe": recipe})
