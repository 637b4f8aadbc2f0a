"""The verdict on one of finestep's own runs: what the live monitor said on the way and what the whole log says, as one."""

from __future__ import annotations

from collections.abc import Sequence

from finestep.diagnosis.catalogue import CATALOGUE, NEVER, rank_of
from finestep.diagnosis.chain import without_contradictions
from finestep.diagnosis.from_records import training_log
from finestep.diagnosis.monitor import LiveMonitor
from finestep.diagnosis.training_log import RunContext
from finestep.diagnosis.verdict import Diagnosis, diagnose_log
from finestep.finding import Finding
from finestep.trial import EvalRecord, StepRecord

RATE_OR_LENGTH = frozenset({
    "diverged", "unstable", "worse_than_base", "stuck_high_rate", "warmup_too_short", "learning_rate_too_low", "undertrained",
    "nothing_trained",
})  # fmt: skip
"""With one of these the model could not have learned what answers depend on, whatever the data."""

OF_THE_END = frozenset({"overfitting"})
"""What the live monitor may say half way, and only the whole run decides."""


def diagnose_run(
    steps: Sequence[StepRecord],
    evaluations: Sequence[EvalRecord],
    *,
    chance_loss: float,
    num_epochs: float | None = None,
    context: RunContext | None = None,
    said: Sequence[Finding] = (),
    name: str = "run",
) -> Diagnosis:
    """Judge a run from its records.

    Args:
        chance_loss: loss of a uniform guess in nats, ln(vocabulary) or ln(labels).
        num_epochs: epochs of the planned steps.
        said: findings that no record shows, because they took a measurement.
    """
    context = context or RunContext()
    whole = diagnose_log(training_log(steps, evaluations, name=name, num_epochs=num_epochs, context=context))
    said = [*said, *replayed(steps, evaluations, chance_loss=chance_loss, planned_steps=context.settings.max_steps)]
    return merged(whole, said)


def merged(whole: Diagnosis, said: Sequence[Finding]) -> Diagnosis:
    """The verdict on a whole log together with what was said on the way, without what contradicts each other."""
    known = {finding.code for finding in whole.findings}
    findings = [*whole.findings, *(each for each in said if each.code not in known and each.code not in OF_THE_END)]
    # A model that could not learn fits its answers to nothing, whatever its data are.
    if {finding.code for finding in findings} & RATE_OR_LENGTH:
        findings = [finding for finding in findings if finding.code != "answers_unrelated"]
    # The monitor may have seen a fault that the logged rows do not show.
    if any(rank_of(finding) < NEVER and finding.code != "healthy" for finding in findings):
        findings = [finding for finding in findings if finding.code != "healthy"]
    ordered = without_contradictions(sorted(findings, key=rank_of))
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
