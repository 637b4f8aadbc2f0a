"""A log of finestep's own study: what the study knows of the run, so that its diagnosis and the study's card say the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from finestep.diagnosis.catalogue import Label, found
from finestep.diagnosis.pairing import MEASURED
from finestep.diagnosis.run_verdict import merged
from finestep.diagnosis.training_log import TrainingLog
from finestep.diagnosis.verdict import Diagnosis
from finestep.errors import BadInput
from finestep.finding import Finding
from finestep.flows.known_run import Told
from finestep.result import ChosenFinding, Standing, read_result
from finestep.store.study_files import read_outcome, read_spec
from finestep.study import StudySpec
from finestep.study_layout import TRIALS
from finestep.trial import Outcome

OF_THE_RATE = frozenset(
    {
        "learning_rate_too_low",
        "rate_below_usual",
        "rate_far_below_usual",
        "rate_above_usual",
        "unstable",
        "stuck_high_rate",
    }
)
"""Findings that ask for another rate. A study that is settled has tried those: it knows better than one curve does."""


@dataclass(frozen=True)
class OwnTrial:
    """One trial of a study: its recipe's facts, whether it is the chosen one, and what the study believes of the rate at its batch."""

    method: str
    model: str | None
    rank: int | None
    usual_rate: tuple[float, float, float] | None = None
    is_chosen: bool = False
    is_settled: bool = False
    num_epochs: float | None = None
    said: tuple[Finding, ...] = ()
    """What its trainer measured and no record shows."""

    def told(self, told: Told) -> Told:
        """What the user says, and what the study says where the user says nothing."""
        here = self.model if self.model is not None and Path(self.model).exists() else None
        return Told(told.method or self.method, told.model or here, told.rank or self.rank)

    def informs(self, log: TrainingLog) -> TrainingLog:
        """The log with the study's own interval as the usual rate, where it has one."""
        if self.usual_rate is None:
            return log
        return replace(
            log,
            context=replace(
                log.context, advice=replace(log.context.advice, usual_rate=self.usual_rate, usual_method=None)
            ),
        )

    def agrees(self, run: Diagnosis) -> Diagnosis:
        """The diagnosis without what the study has refuted by trying it, and with what only the trainer could measure."""
        run = self._unrefuted(run)
        return merged(run, self.said) if self.said else run

    def _unrefuted(self, run: Diagnosis) -> Diagnosis:
        if not (self.is_chosen and self.is_settled):
            return run
        kept = tuple(finding for finding in run.findings if finding.code not in OF_THE_RATE)
        if len(kept) == len(run.findings):
            return run
        words = "The study tried rates on both sides of this one, and they were worse."
        findings = kept or (found("healthy", words, advice="keep this rate"),)
        label = run.label if run.findings[0] in kept else _label_of(findings[0])
        return replace(run, findings=findings, label=label)


def _label_of(finding: Finding) -> Label:
    from finestep.diagnosis.catalogue import CATALOGUE

    return CATALOGUE[finding.code].label


def own_trial(log: Path) -> OwnTrial | None:
    """What the study around a log says; None for logs of other trainers."""
    folder = (log if log.is_dir() else log.parent).absolute()
    if folder.parent.name != TRIALS or not folder.name.isdigit():
        return None
    study = folder.parent.parent
    try:
        spec = read_spec(study)
    except BadInput:
        return None
    return trial_of(spec, read_result(study) or Standing(), number=int(folder.name), outcome=read_outcome(folder))


def trial_of(spec: StudySpec, standing: Standing, *, number: int, outcome: Outcome | None = None) -> OwnTrial:
    """A trial by its number, from the study's specification, its results as they stand, and how the trial itself ended."""
    answer = standing.answer
    row = next((one for one in standing.trials if one.trial == number), None)
    batch = row.effective_batch_size if row is not None else None
    trade_offs = answer.trade_offs if answer is not None else ()
    rate = next((one.learning_rate for one in trade_offs if one.effective_batch_size == batch), None)
    return OwnTrial(
        method=spec.recipe.method,
        model=spec.model.path,
        rank=spec.recipe.lora.rank,
        usual_rate=(rate.value, rate.low, rate.high) if rate is not None else None,
        is_chosen=standing.best is not None and standing.best.trial == number,
        is_settled=answer is not None and answer.settled,
        num_epochs=spec.recipe.num_epochs,
        said=tuple(one for one in (outcome.findings if outcome else ()) if one.code in MEASURED),
    )


def finding_words(report: ChosenFinding | None) -> str | None:
    """The finding on the chosen trial, for the card and the page; a run that ended on its way down gains from length, not from a rate."""
    if report is None:
        return None
    if report.code == "undertrained" and report.num_epochs:
        longer = f"{2 * report.num_epochs:g}"
        return f"still falling at the end: a longer run would gain more than another rate (`--epochs {longer}`)"
    text, advice = report.meaning, report.advice
    return f"{text} {advice[:1].upper()}{advice[1:]}." if advice else text
