"""What takes a while: the report of a study as it stands, what the search believes and what it would try next. It loads the search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finestep.answer import Answer
from finestep.report.curves import build_curves
from finestep.report.page_data import page_json
from finestep.report.view import ReportView
from finestep.result import StudyResult
from finestep.search.search import length_words
from finestep.store.study_files import StudyFiles
from finestep.studies.files import Writes, write_results
from finestep.studies.page import study_view
from finestep.studies.spent import study_spent
from finestep.studies.status import study_status, tally
from finestep.studies.strategies import make_judge, make_strategy
from finestep.study import Budget, StudySpec
from finestep.trial import Trial

MOST_WEIGHED = 300
"""Trials beyond which the search is not asked again for the page: its cost grows with their cube."""
MOST_CURVES = 40


@dataclass(frozen=True)
class Weighed:
    """The page of a study, as values and as JSON, and what the search says beside it."""

    view: ReportView
    data: str
    belief: dict[str, object] = field(default_factory=dict)


def weigh(folder: Path, spec: StudySpec) -> Weighed:
    """The whole page of a study as its files say now; nothing is written."""
    files = StudyFiles(folder, spec)
    trials = files.trials()
    result = _result(files, trials)
    view = study_view(files, trials, result, live=True, logs_of=_most_telling(trials, result))
    return Weighed(view, page_json(view), _belief(files, trials, result))


def curve_of(folder: Path, spec: StudySpec, number: int) -> dict[str, object] | None:
    """One run's curve, for a page that was sent without it; None when there is no such run."""
    files = StudyFiles(folder, spec)
    trials = files.trials()
    if not 0 <= number < len(trials):
        return None
    curves = build_curves(
        [trials[number]],
        {number: files.steps(number)},
        {number: files.evaluations(number)},
        shown=frozenset({number}),
    )
    return curves[0].model_dump(mode="json") if curves else {}


def _result(files: StudyFiles, trials: Sequence[Trial]) -> StudyResult:
    """What the study's result would say now."""
    status = study_status(files.folder, known=tally(files))
    return write_results(
        files,
        command=status.command or f"finestep report {files.folder}",
        budget=Budget(full_runs=status.budget) if status.budget else Budget(),
        ready=files.known_ready(),
        answer=_answer(files, trials),
        writes=Writes.NOTHING,
    )


def _is_weighed(files: StudyFiles, trials: Sequence[Trial]) -> bool:
    is_searched = files.spec.search.strategy not in ("sweep", "single")
    return is_searched and len(trials) <= MOST_WEIGHED and files.known_ready() is not None


def _answer(files: StudyFiles, trials: Sequence[Trial]) -> Answer | None:
    ready = files.known_ready()
    return make_judge(files.spec, ready.card).answer(trials) if ready and _is_weighed(files, trials) else None


def _belief(files: StudyFiles, trials: Sequence[Trial], result: StudyResult) -> dict[str, object]:
    """What the search believes, and what it would try next and why; empty for a study that it does not judge."""
    answer = result.answer
    if answer is None or not _is_weighed(files, trials):
        return {}
    return {"sentence": answer.sentence, "settled": answer.settled, "next": _next(files, trials, result)}


def _next(files: StudyFiles, trials: Sequence[Trial], result: StudyResult) -> dict[str, object] | None:
    ready = files.known_ready()
    if files.spec.search.strategy != "auto" or ready is None:
        return None
    limit = result.spent.budget_full_runs
    budget = Budget(full_runs=limit) if limit else Budget()
    strategy = make_strategy(files.spec, ready.card, budget=budget)
    left = max(budget.full_runs - study_spent(files.spec, trials, ready), 0.0)
    proposals = strategy.propose(trials, remaining_runs=left, max_proposals=1)
    if not proposals:
        return None
    one = proposals[0]
    length = length_words(one.fidelity)
    return {"rate": one.learning_rate, "batch": one.effective_batch_size, "length": length, "why": one.why}


def _most_telling(trials: Sequence[Trial], result: StudyResult) -> set[int] | None:
    """Of very many trials, those whose curves the page gets at once; None for all. The others are sent when they are lit up."""
    if len(trials) <= MOST_CURVES:
        return None
    ranked = sorted(
        (trial for trial in trials if trial.ranks and trial.outcome and trial.outcome.eval_loss is not None),
        key=lambda trial: (-trial.fidelity, trial.outcome.eval_loss if trial.outcome else math.inf),
    )
    chosen = [one.trial for one in (result.best, result.baseline) if one is not None]
    running = [trial.number for trial in trials if trial.state == "running"]
    order = dict.fromkeys([*chosen, *running, *(trial.number for trial in ranked)])
    return set(list(order)[: MOST_CURVES // 2])
