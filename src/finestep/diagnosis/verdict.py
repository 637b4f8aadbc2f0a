"""The verdict on a log: the questions of `chain.py` in their order, the findings that do not contradict each other, and one label."""

from __future__ import annotations

from dataclasses import dataclass

from finestep.diagnosis.catalogue import CATALOGUE, Label
from finestep.diagnosis.chain import all_findings
from finestep.diagnosis.confidence import confidence_of
from finestep.diagnosis.signals import Signals, signals_of
from finestep.diagnosis.thresholds import DEFAULT, Thresholds
from finestep.diagnosis.training_log import TrainingLog
from finestep.finding import Finding


@dataclass(frozen=True)
class Diagnosis:
    """What is said about one run. `findings` begins with the one that gave the label."""

    log: TrainingLog
    signals: Signals
    label: Label
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Finding:
        """The finding that decides."""
        return self.findings[0]


def diagnose_log(log: TrainingLog, limits: Thresholds = DEFAULT) -> Diagnosis:
    """Judge one run; never raises on the content of a log."""
    signals = signals_of(log)
    findings = all_findings(signals, limits)
    findings[0] = replace_confidence(findings[0], signals)
    return Diagnosis(log, signals, CATALOGUE[findings[0].code].label, tuple(findings))


def replace_confidence(finding: Finding, signals: Signals) -> Finding:
    """The verdict with the confidence that verdicts of its kind have earned on labelled logs."""
    rows = signals.num_rows + signals.num_evaluations
    return finding.model_copy(update={"confidence": confidence_of(finding.code, rows)})
