"""Feed: what a study's files hold that a tracker has not got yet. It reads files only, and only what was added to them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finestep.answer import Answer
from finestep.errors import FinestepError
from finestep.result import read_result
from finestep.search.search import length_words
from finestep.store.study_files import (
    StudyFiles,
    numbered_folders,
    read_claim,
    read_outcome,
    read_study_file,
    spec_in,
)
from finestep.store.tail import Tail, number, whole
from finestep.study_layout import CLAIM, DATABASE, EVALUATIONS, STEPS
from finestep.trackers.sink import Point, Run, Value
from finestep.trial import Outcome, Trial

ANSWER = -1
"""The number of the run that holds the study's answer."""
TRAIN = {"loss": "train/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}


@dataclass
class Course:
    """One trial and how far it was read.

    Attributes:
        points: what is new since it was asked.
        outcome: how it ended; None while it has not.
    """

    run: Run
    folder: Path
    outcome: Outcome | None = None
    tokens: int = 0
    sent_step: int = 0
    """What was sent before this process began, and the last evaluation of it (-1: none)."""
    sent_evaluation: int = -1
    _steps: Tail = field(init=False)
    _evaluations: Tail = field(init=False)
    _furthest: int = 0
    _before: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        self._steps, self._evaluations = Tail(self.folder / STEPS), Tail(self.folder / EVALUATIONS)

    def points(self) -> list[Point]:
        """New steps and evaluations by step; a step that is made again after a resume counts once."""
        found: dict[int, Point] = {}
        for record in self._steps.read():
            step = record.get("step")
            if isinstance(step, int) and step > self._furthest:
                self._furthest, values = step, self._of_step(record)
                if step > self.sent_step:
                    self._put(found, step, record, values)
        for record in self._evaluations.read():
            step = record.get("step")
            if isinstance(step, int) and step > self.sent_evaluation:
                self.sent_evaluation = step
                values = {"eval/loss": number(record.get("eval_loss"))}
                metrics = record.get("metrics")
                if isinstance(metrics, dict):
                    values |= {f"eval/{name}": number(value) for name, value in metrics.items()}
                self._put(found, step, record, values)
        self.sent_step = max([self.sent_step, self._furthest])
        return [found[step] for step in sorted(found)]

    def _of_step(self, record: Mapping[str, object]) -> dict[str, float | None]:
        elapsed, count = number(record.get("elapsed_s")) or 0.0, whole(record.get("num_tokens"))
        self.tokens += count
        since, before = elapsed - self._before[0], self._before[0]
        self._before = (elapsed, self.tokens)
        values = {ours: number(record.get(name)) for name, ours in TRAIN.items()}
        values["train/tokens"] = float(self.tokens)
        if since > 0 and before > 0:
            values["train/tokens_per_second"] = count / since
        if memory := number(record.get("peak_memory_bytes")):
            values["memory/peak_bytes"] = memory
        return values

    def _put(
        self, found: dict[int, Point], step: int, record: Mapping[str, object], values: Mapping[str, float | None]
    ) -> None:
        said = {name: value for name, value in values.items() if value is not None}
        known = found.get(step)
        at = self.run.began + (number(record.get("elapsed_s")) or 0.0)
        found[step] = Point(step, at, said) if known is None else Point(step, known.at, {**known.values, **said})


class Feed:
    """A study as a tracker gets it.

    Args:
        folder: the study's folder.
    """

    def __init__(self, folder: Path):
        self._folder, self._courses = folder, dict[int, Course]()
        found = read_study_file(folder)
        self._spec, self._id = spec_in(found, folder), found.id or ""

    @property
    def name(self) -> str:
        return self._spec.name

    def courses(self) -> list[Course]:
        """All trials in order, with what is known of their ends."""
        known = {trial.number: trial for trial in self._trials()}
        for index, folder in numbered_folders(self._folder).items():
            claim = read_claim(folder) if index not in self._courses else None
            if claim is not None:
                self._courses[index] = Course(self._run(claim[1], folder), folder)
        for index, course in self._courses.items():
            if course.outcome is None:
                said = known.get(index)
                course.outcome = (said.outcome if said else None) or _own_outcome(course.folder, said)
        return [self._courses[index] for index in sorted(self._courses)]

    def answer(self) -> tuple[Run, dict[str, Value]] | None:
        """(a run for it, what the study has found); None before it has written its result."""
        result = read_result(self._folder)
        if result is None:
            return None
        told: dict[str, Value] = {}
        if (best := result.best) is not None:
            told |= {
                "best/trial": best.trial,
                "best/learning_rate": best.learning_rate,
                "best/effective_batch_size": best.effective_batch_size,
                "best/eval_loss": best.eval_loss,
            }
            told |= {f"best/{name}": value for name, value in best.metrics.items() if math.isfinite(value)}
        told |= {"settled": result.settled, "spent/full_runs": result.spent.full_runs}
        told |= {} if result.answer is None else _interval(result.answer)
        run = Run(ANSWER, self._key("answer"), f"{self.name}: answer", self.name, {"command": result.command})
        return run, {name: value for name, value in told.items() if value is not None}

    def _trials(self) -> list[Trial]:
        if not (self._folder / DATABASE).is_file():
            return []
        try:
            return StudyFiles(self._folder, self._spec).trials()
        except FinestepError:
            return []

    def _run(self, trial: Trial, folder: Path) -> Run:
        recipe = trial.recipe
        length = "" if trial.fidelity == 1.0 else f", {length_words(trial.fidelity)}"
        config = {
            **_flat(recipe.model_dump(mode="json")),
            "fidelity": trial.fidelity,
            "stage": trial.stage,
            "why": trial.why,
            "asked_by": trial.asked_by,
            "model": self._spec.model.path,
            "data": self._spec.data.path,
        }
        name = f"trial {trial.number}: {recipe.learning_rate:.2g} x {recipe.effective_batch_size}{length}"
        began = (folder / CLAIM).stat().st_mtime
        return Run(trial.number, self._key(str(trial.number)), name, self.name, config, began)

    def _key(self, part: str) -> str:
        return hashlib.sha256(f"{self._id}/{part}".encode()).hexdigest()[:21]


def summary_of(outcome: Outcome) -> dict[str, Value]:
    """The end of a trial in plain values."""
    told: dict[str, Value] = outcome.model_dump(
        exclude={"findings", "interventions", "metrics", "projected", "log", "model_dir"}
    )
    told["findings"] = ", ".join(finding.code for finding in outcome.findings)
    told |= {f"final/{name}": value for name, value in outcome.metrics.items()}
    return {name: value for name, value in told.items() if value is not None and value != ""}


def _own_outcome(folder: Path, trial: Trial | None) -> Outcome | None:
    """What the trial's own file says of its end, where no database does."""
    return read_outcome(folder) if trial is None else None


def _interval(answer: Answer) -> dict[str, Value]:
    rows = [row for row in answer.trade_offs if row.effective_batch_size == answer.effective_batch_size]
    told: dict[str, Value] = {"expected_regret_percent": answer.expected_regret, "answer": answer.sentence}
    if rows:
        told |= {"best_rate/low": rows[0].learning_rate.low, "best_rate/high": rows[0].learning_rate.high}
    return told


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
