"""Trials that the user has stopped: what they showed, as the search reads it; nothing is made up where nothing was shown.

Half of a run is no short run: its rate has not fallen yet, so that its loss says nothing beside a whole run's. It can be held
against another run of the same length at the same share of it. What it lay above that run then, it would have lain
above it at the end: that is its projection. Larger rates look a little worse half way than in the end, so that a
projection is never taken for better than a run that did end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from finestep.search.observations import Objective
from finestep.trial import EvalRecord, Trial

BEHIND = 1e-4
"""A projection stays behind the best whole run by this share."""
LOSS = "eval_loss"


def projected(stopped: Trial, trials: Sequence[Trial], logs: Mapping[int, Sequence[EvalRecord]]) -> dict[str, float]:
    """What the end of a stopped trial would have been, by name; empty when it showed nothing, or nothing can be held against it.

    Args:
        logs: evaluations of each trial in order.
    """
    last = next((one for one in reversed(logs.get(stopped.number, ())) if one.step > 0), None)
    whole = _whole_runs(stopped, trials)
    if last is None or not whole or not math.isfinite(last.eval_loss):
        return {}
    beside = min(whole, key=lambda trial: _end(trial, LOSS))
    log = [one for one in logs.get(beside.number, ()) if math.isfinite(one.eval_loss)]
    found = {}
    for name in (LOSS, *last.metrics):
        then, now = _at(log, name, last.num_tokens), _value(last, name)
        end = _end(beside, name)
        if then is not None and now is not None and math.isfinite(end):
            found[name] = end * now / then if name == LOSS and min(end, now, then) > 0 else end + now - then
    return {name: value for name, value in found.items() if math.isfinite(value)}


def as_shown(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """The trials, those stopped by hand with their projection instead of what they measured; without one they teach nothing."""
    return [_shown(trial, trials, objective) if trial.is_stopped_by_hand else trial for trial in trials]


def _shown(trial: Trial, trials: Sequence[Trial], objective: Objective) -> Trial:
    assert trial.outcome is not None
    values = {LOSS: trial.outcome.eval_loss, **trial.outcome.metrics}
    name = objective.metric or LOSS
    whole = [value for one in _whole_runs(trial, trials) if (value := objective.value(one)) is not None]
    best, measured, at_end = (
        min(whole, key=objective.rank, default=None),
        values.get(name),
        trial.outcome.projected.get(name),
    )
    if best is None or at_end is None or measured is None:
        shown = None
    elif objective.rank(measured) < objective.rank(best):
        shown = measured
    else:
        behind = best - BEHIND * abs(best) if objective.goal == "maximize" else best + BEHIND * abs(best)
        shown = max((at_end, behind), key=objective.rank)
    changes = {"eval_loss": shown} if objective.metric is None else _metric(trial, name, shown)
    return trial.model_copy(update={"outcome": trial.outcome.model_copy(update=changes)})


def _metric(trial: Trial, name: str, shown: float | None) -> dict[str, object]:
    assert trial.outcome is not None
    if shown is None:
        return {LOSS: None, "metrics": {}}
    loss = trial.outcome.projected.get(LOSS, trial.outcome.eval_loss)
    return {LOSS: loss, "metrics": {**trial.outcome.metrics, name: shown}}


def _whole_runs(stopped: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """Trials of the same length that came to their end."""
    return [
        trial
        for trial in trials
        if trial.fidelity == stopped.fidelity
        and trial.recipe.num_epochs == stopped.recipe.num_epochs
        and trial.is_choosable
        and not trial.is_stopped_by_hand
    ]


def _end(trial: Trial, name: str) -> float:
    assert trial.outcome is not None
    value = trial.outcome.eval_loss if name == LOSS else trial.outcome.metrics.get(name)
    return math.nan if value is None else value


def _value(record: EvalRecord, name: str) -> float | None:
    return record.eval_loss if name == LOSS else record.metrics.get(name)


def _at(log: Sequence[EvalRecord], name: str, num_tokens: int) -> float | None:
    """A run's value after so many tokens, between its evaluations on a straight line; None before its first."""
    points = [(one.num_tokens, value) for one in log if (value := _value(one, name)) is not None]
    for (left, low), (right, high) in itertools.pairwise(points):
        if left <= num_tokens <= right and right > left:
            return low + (high - low) * (num_tokens - left) / (right - left)
    return points[-1][1] if points and num_tokens >= points[-1][0] else None
