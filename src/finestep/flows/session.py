"""One study from its start to its files: open the store, run the tuning loop, write the results, close everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finestep.executors.local import LocalExecutor
from finestep.flows.result import write_results
from finestep.flows.setup import make_strategy
from finestep.flows.tune import TuneEvent, Tuning
from finestep.protocol import SessionRequest
from finestep.store.study_store import StudyStore
from finestep.study import Budget, StudySpec
from finestep.survey.fingerprint import fingerprint


@dataclass
class StudyRun:
    """A study in the making.

    Attributes:
        pack: trials that share a forward pass; None: by measurement.
        result: the figures of the study, once `events` has come to its end.
    """

    spec: StudySpec
    folder: Path
    budget: Budget
    command: str
    storage_url: str | None = None
    pack: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        prints = fingerprint(self.spec.model.path, self.spec.data.path, self.spec.data.eval_path)
        self.store = StudyStore(self.folder, self.spec, prints, storage_url=self.storage_url)
        self.executor = LocalExecutor(self._session(), folder=self.folder)

    def events(self, should_stop: Callable[[], bool]) -> Iterator[TuneEvent]:
        """Run the study; results are written even when it is interrupted."""
        tuning = Tuning(
            self.store,
            self.executor,
            lambda card: make_strategy(self.spec, card),
            self.budget,
            should_stop=should_stop,
            options=self.options,
        )
        try:
            yield from tuning.run()
            self.executor.close()
            self.result = write_results(
                self.store, command=self.command, budget=self.budget, card=tuning.card, facts=tuning.facts
            )
        finally:
            self.executor.close()
            self.store.close()

    def _session(self) -> SessionRequest:
        limits = [
            trial.outcome.micro_batch_size
            for trial in self.store.trials()
            if trial.outcome
            and trial.outcome.micro_batch_size
            and trial.outcome.micro_batch_size < trial.recipe.first_micro_batch()
        ]
        return SessionRequest(
            model=self.spec.model,
            data=self.spec.data,
            recipe=self.spec.recipe,
            study_dir=str(self.folder),
            metrics=self.spec.metrics,
            num_threads=self.spec.num_threads,
            pack=self.pack,
            micro_batch_limit=min(limits, default=None),
        )
