"""Is the learning rate too high? The questions of lost runs, unsettled runs and first steps in their order, and healed spikes."""

from __future__ import annotations

from finestep.diagnosis.excursion import long_excursion
from finestep.diagnosis.first_steps import exploded_at_start, jumped_at_start, too_high_from_the_start
from finestep.diagnosis.lost import lost_findings
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.spikes import spike_findings
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.unsettled import unsettled, worse_than_base
from finestep.finding import Finding


def stability_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """A lost or unsettled run, or its healed spikes."""
    curve = signals.loss
    if curve is None or curve.num_rows < 4 or signals.log.context.objective == "reinforcement":
        return []
    lost = lost_findings(signals, curve, limits)
    if lost:
        return lost
    checks = (too_high_from_the_start, worse_than_base, unsettled, jumped_at_start, exploded_at_start, long_excursion)
    findings = [finding for check in checks if (finding := check(signals, curve, limits)) is not None][:1]
    return findings + spike_findings(signals, curve, limits)
