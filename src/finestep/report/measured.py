"""What the trials of a study say together: who ranks, how noisy seeds are, what was gained; it draws nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from finestep import wording
from finestep.report.told import Told
from finestep.trial import Trial

FALLEN_STATES = ("diverged", "out_of_memory", "failed")
NOISE_FACTOR = 2 * math.sqrt(2)
"""Two standard deviations of the difference of two runs, each with the noise of a seed."""


class Noise(BaseModel):
    """How much the validation loss moves when only the seed changes."""

    model_config = ConfigDict(frozen=True)

    deviation: float
    num_runs: int


class Verdict(BaseModel):
    """The best run against the baseline, as a short figure and a sentence."""

    model_config = ConfigDict(frozen=True)

    figure: str
    sentence: str


def final_loss(trial: Trial) -> float | None:
    """The validation loss of a trial that ranks and is a number, else None."""
    value = trial.outcome.eval_loss if trial.ranks and trial.outcome else None
    return value if value is not None and math.isfinite(value) else None


def has_fallen(trial: Trial) -> bool:
    """True for a trial that ended without a loss that counts; a NaN that says "completed" is one too."""
    return trial.state in FALLEN_STATES or (trial.state != "running" and final_loss(trial) is None)


def seed_noise(trials: Sequence[Trial]) -> Noise | None:
    """Pooled standard deviation (nats) over groups of runs that differ in their seed alone; None without a repeat."""
    groups: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
    for trial in trials:
        value = final_loss(trial)
        if value is not None:
            groups[_setting(trial)].append(value)
    repeated = [losses for losses in groups.values() if len(losses) > 1]
    if not repeated:
        return None
    squares = sum((x - sum(losses) / len(losses)) ** 2 for losses in repeated for x in losses)
    freedom = sum(len(losses) - 1 for losses in repeated)
    return Noise(deviation=math.sqrt(squares / freedom), num_runs=sum(map(len, repeated)))


def _setting(trial: Trial) -> tuple[str, float]:
    """What two runs share that differ in their seed alone."""
    return trial.recipe.model_dump_json(exclude={"seed"}), trial.fidelity


def lower_elsewhere(trials: Sequence[Trial], chosen: Trial | None) -> tuple[Trial, float] | None:
    """The run of another setting with the lowest loss at the chosen run's length, and how far below (nats); None if none is."""
    reached = final_loss(chosen) if chosen else None
    if chosen is None or reached is None:
        return None
    others = [
        (loss, trial.number, trial)
        for trial in trials
        if trial.fidelity == chosen.fidelity
        and (loss := final_loss(trial)) is not None
        and loss < reached
        and _setting(trial) != _setting(chosen)
    ]
    if not others:
        return None
    loss, _, lowest = min(others)
    return lowest, reached - loss


def verdict(best: Trial | None, baseline: Trial | None, noise: Noise | None) -> Verdict:
    """The gain of the best run over the baseline in per cent, or why there is none to report."""
    if best is None:
        return Verdict(figure=wording.NONE, sentence="no run has a result yet")
    if baseline is None:
        return Verdict(figure=wording.NONE, sentence="the usual default was not run")
    if best.number == baseline.number:
        return Verdict(figure="0 %", sentence="the usual default itself is the best run")
    reached, before = final_loss(best), final_loss(baseline)
    if reached is None or before is None:
        return Verdict(figure=wording.NONE, sentence=f"the usual default has no result ({_state(baseline)})")
    if best.fidelity != baseline.fidelity:
        lengths = f"{wording.share(best.fidelity)} against {wording.share(baseline.fidelity)} of a full run"
        return Verdict(figure=wording.NONE, sentence=f"not compared with the usual default: {lengths}")
    return _compared(reached, before, noise)


def metric_verdict(best: Trial | None, baseline: Trial | None, told: Told) -> Verdict | None:
    """The gain in the metric that the study optimises; None where it is the loss, or one of them lacks the metric."""
    found = [_metric(trial, told.objective) for trial in (best, baseline)]
    if best is None or baseline is None or best.number == baseline.number or best.fidelity != baseline.fidelity:
        return None
    reached, before = found
    if reached is None or before is None:
        return None
    name, (error, rows) = told.objective.replace("_", " "), told.metric_errors.get(told.objective, (None, 0))
    sentence = f"{name} {reached:.4f} against {before:.4f}"
    if error is None:
        return Verdict(figure=f"{reached - before:+.4g}", sentence=sentence)
    limit = 2 * math.sqrt(2) * error
    if abs(reached - before) <= limit:
        return Verdict(
            figure="tie", sentence=f"{sentence}; {rows:,} rows cannot tell less than {100 * limit:.1f} points"
        )
    return Verdict(figure=f"{100 * (reached - before):+.1f} points", sentence=sentence)


def _metric(trial: Trial | None, name: str) -> float | None:
    value = trial.outcome.metrics.get(name) if trial is not None and trial.ranks and trial.outcome else None
    return value if value is not None and math.isfinite(value) else None


def _compared(reached: float, before: float, noise: Noise | None) -> Verdict:
    gain = before - reached
    if noise is not None and abs(gain) <= NOISE_FACTOR * noise.deviation:
        limit = f"{NOISE_FACTOR * noise.deviation:.4f}"
        return Verdict(
            figure="tie",
            sentence=f"tie with the usual default ({wording.loss(before)}): {abs(gain):.4f} apart, noise up to {limit}",
        )
    side = "below" if gain >= 0 else "above"
    known = "noise unknown, because no run was repeated with another seed"
    if noise is not None:
        known = f"more than the noise between seeds, from {noise.num_runs} repeated runs"
    figure = f"{100 * abs(gain / before):.1f} % {'lower' if gain >= 0 else 'higher'}" if before else wording.NONE
    return Verdict(
        figure=figure, sentence=f"{abs(gain):.4f} {side} the usual default ({wording.loss(before)}); {known}"
    )


def _state(trial: Trial) -> str:
    return wording.STATE_WORDS[trial.state]
