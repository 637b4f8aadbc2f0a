"""The verdict on one of finestep's own runs: what the live monitor said on the way and what the whole log says, as one."""

from __future__ import annotations

from collections.abc import Sequence

from finestep.diagnosis.catalogue import CATALOGUE, NEVER, rank_of
from finestep.diagnosis.from_records import training_log
from finestep.diagnosis.monitor import LiveMonitor
from finestep.diagnosis.training_log import RunContext
from finestep.diagnosis.verdict import Diagnosis, diagnose_log
from finestep.finding import Finding
from finestep.trial import EvalRecord, StepRecord


def diagnose_run(
    steps: Sequence[StepRecord],
    evaluations: Sequence[EvalRecord],
    *,
    chance_loss: float,
    num_epochs: float | None = None,
    context: RunContext | None = None,
    name: str = "run",
) -> Diagnosis:
    """Judge a run from its records.

    Args:
        chance_loss: loss of a uniform guess in nats, ln(vocabulary) or ln(labels).
        num_epochs: epochs of the planned steps.
    """
    context = context or RunContext()
    whole = diagnose_log(training_log(steps, evaluations, name=name, num_epochs=num_epochs, context=context))
    said = replayed(steps, evaluations, chance_loss=chance_loss, planned_steps=context.max_steps)
    known = {finding.code for finding in whole.findings}
    findings = [*whole.findings, *(finding for finding in said if finding.code not in known)]
    if any(rank_of(finding) < NEVER and finding.code != "healthy" for finding in findings):
        findings = [finding for finding in findings if finding.code != "healthy"]
    ordered = sorted(findings, key=rank_of)
    return Diagnosis(whole.log, whole.signals, CATALOGUE[ordered[0].code].label, tuple(ordered))


def replayed(
    steps: Sequence[StepRecord],
    evaluations: Sequence[EvalRecord],
    *,
    chance_loss: float,
    planned_steps: int | None = None,
) -> list[Finding]:
    """Everything that the live monitor says about these records, in order."""
    monitor = LiveMonitor(chance_loss=chance_loss, planned_steps=planned_steps)
    by_step: dict[int, list[EvalRecord]] = {}
    for record in evaluations:
        by_step.setdefault(record.step, []).append(record)
    findings = [finding for record in by_step.get(0, []) for finding in monitor.evaluation(record)]
    for step in steps:
        findings += monitor.step(step)
        findings += [finding for record in by_step.get(step.step, []) for finding in monitor.evaluation(record)]
    return findings
