"""The page of a study: its view from its records and its result as they stand; it serves the report and the live page alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from finestep.disk import write_whole
from finestep.language.catalogue import asked_language
from finestep.plain_text import shortened
from finestep.report.page import render_page
from finestep.report.view import ReportView, build_view
from finestep.result import StudyResult
from finestep.search.belief import BelievedCurve
from finestep.store.study_files import StudyFiles
from finestep.studies.courses import read_courses
from finestep.studies.strategies import make_judge
from finestep.studies.told import provenance, told_of
from finestep.studies.words import report_notes
from finestep.study_layout import REPORT
from finestep.trial import Trial

MOST_BELIEVED = 300
"""Trials beyond which the expected curve is not drawn: the runs themselves show the basin, and its cost grows with their cube."""
MOST_OF_TITLE = 120
"""Characters of a command that stand above its page."""


def write_page(store: StudyFiles, trials: Sequence[Trial], result: StudyResult) -> None:
    """Draw the page of the study into its folder."""
    write_whole(store.folder / REPORT, render_page(study_view(store, trials, result)))


def study_view(
    store: StudyFiles,
    trials: Sequence[Trial],
    result: StudyResult,
    *,
    live: bool = False,
    logs_of: Collection[int] | None = None,
) -> ReportView:
    """The page as values.

    Args:
        live: the study runs while it is shown.
        logs_of: trials whose logs are read; None: all.
    """
    logged = [trial for trial in trials if logs_of is None or trial.number in logs_of]
    steps, evaluations = read_courses(store, logged)
    trainer = store.spec.trainer
    return build_view(
        title=store.spec.name if trainer is None else shortened(trainer.command, MOST_OF_TITLE),
        trials=trials,
        steps=steps,
        evaluations=evaluations,
        facts=provenance(store, result.facts, trials),
        baseline=result.baseline.trial if result.baseline else None,
        best=result.best.trial if result.best else None,
        notes=report_notes(result),
        answers=result.answers,
        spent=result.spent,
        told=told_of(result, trials, belief=_belief(store, trials, result), is_own=trainer is None),
        language=asked_language() or "",
        live=live,
    )


def _belief(store: StudyFiles, trials: Sequence[Trial], result: StudyResult) -> tuple[BelievedCurve, ...]:
    """What the search expects of every rate; nothing where no search was asked, or it is too large to be worth it."""
    ready = store.known_ready()
    if result.answer is None or ready is None or len(trials) > MOST_BELIEVED:
        return ()
    return make_judge(store.spec, ready.card).belief(trials)
