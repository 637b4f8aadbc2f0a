"""Preference and reinforcement learning: their losses say little by construction, so rewards, margins and accuracies decide.

A gain is the difference between the first and the last quarter in standard errors that are widened for the correlation of
neighbouring rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.next_rate import moved
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.training_log import Column, TrainSeries
from finestep.finding import Finding

FEWEST_ROWS = 12
"""Rows with a reward below which quarters of a run mean nothing."""
GAIN_Z = 3.0
"""Standard errors of a gain. Source: labelled runs that learned had at least 3.1, the eleven others at most 2.2."""
FELL_IN_ALL = 1.5
"""Standard errors that the middle one of several measures must have fallen by, when one of them fell clearly."""
COLLAPSE_Z = 5.0
"""Standard errors of a fall from the highest quarter, more because it is chosen among many."""
NO_SPREAD_SHARE, CLIPPED_SHARE = 0.8, 0.8
SMALL_PREFERENCE_RATE = 1e-7
"""Peak rates below this move no policy; practice is 5e-7 for all weights and 5e-6 for adapters."""
STILL_WARMING = 0.9


class _Paid(NamedTuple):
    """What the policy is paid for: the reward, or the share of right answers where no reward was logged; known rows only."""

    name: str
    step: Column
    values: Column


def objective_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """What a run counts as gained, in its own terms; nothing for supervised runs."""
    objective = signals.log.context.objective
    if objective == "supervised":
        return []
    # Before anything else: at a rate that is still rising neither a gain nor its absence says much.
    if _stopped_while_warming(signals):
        return [_too_early(signals)]
    return _of_rewards(signals) if objective == "reinforcement" else _of_pairs(signals)


def gain_z(x: Column) -> float:
    """Mean of the last quarter minus that of the first, in standard errors widened by the lag-1 correlation; NaN with too few rows.

    >>> rising = np.arange(100) + np.random.default_rng(0).normal(0, 5, 100)
    >>> gain_z(rising) > 10 > 3 > abs(gain_z(rising[::-1] + rising))
    True
    """
    x = x[np.isfinite(x)]
    if len(x) < FEWEST_ROWS:
        return math.nan
    quarter = max(3, len(x) // 4)
    first, last = x[:quarter], x[-quarter:]
    # Around a parabola, because the bend of a gain is no correlation of the noise.
    time = np.linspace(-1, 1, len(x))
    rest = x - np.polynomial.Polynomial.fit(time, x, 2)(time)
    spread = float(np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / 2))
    if spread <= 1e-12:
        return (
            0.0
            if math.isclose(float(first.mean()), float(last.mean()))
            else math.copysign(math.inf, last.mean() - first.mean())
        )
    correlation = float(np.clip(rest[1:] @ rest[:-1] / max(float(rest @ rest), 1e-12), 0.0, 0.9))
    widened = math.sqrt((1 + correlation) / (1 - correlation))
    return float((last.mean() - first.mean()) / (spread * math.sqrt(2 / quarter) * widened))


def _of_rewards(signals: Signals) -> list[Finding]:
    train = signals.log.train
    paid = _paid_for(train)
    name, reward = paid.name, paid.values
    if not len(reward):
        if _validation_gained(signals):
            return []
        signs = " takes both signs and" if (train.loss < 0).any() else ""
        meaning = f"No reward was found in the log, and a loss of reinforcement learning{signs} says nothing of what was learned."
        return [found("loss_not_comparable", meaning, advice="log the mean reward of each step")]
    if len(reward) < FEWEST_ROWS:
        meaning = f"Only {len(reward)} rows with {name} were found in the log: too few to tell a gain from noise."
        return [found("too_little_information", meaning, advice="let it run for 50 steps or more", rewards=len(reward))]
    z, quarter = gain_z(reward), max(3, len(reward) // 4)
    known: Evidence = {
        "first_quarter": float(reward[:quarter].mean()), "last_quarter": float(reward[-quarter:].mean()), "z": z,
        "kl": _last_known(train.answers.kl), "clipped_completions": _last_known(train.answers.clipped_completions),
        "share_of_prompts_without_spread": _last_known(train.answers.zero_spread_share),
    }  # fmt: skip
    collapse = _collapsed(signals, paid)
    if collapse is not None:
        return [collapse]
    if z >= GAIN_Z:
        return _cut_off(signals, known, is_learning=True)
    # Before the other reasons: rewards of unfinished answers say nothing about any of them.
    cut_off = _cut_off(signals, known, is_learning=False)
    if cut_off:
        return cut_off
    if z <= -GAIN_Z:
        return [found("reward_fell", f"The {name} fell from {known['first_quarter']:.3g} to {known['last_quarter']:.3g}.",
                      advice=f"{moved(signals, 1 / 3)}; raise the weight of the KL penalty (beta) if KL grew", known=known)]  # fmt: skip
    if (_last_known(train.answers.zero_spread_share) or 0.0) > NO_SPREAD_SHARE:
        meaning = "Nearly all prompts give answers of one and the same reward, so there is nothing to learn from."
        advice = (
            "leave out prompts that are always or never solved, draw more answers a prompt, or grade in finer steps"
        )
        return [found("no_reward_signal", meaning, advice=advice, known=known)]
    meaning = f"The {name} did not move beyond noise ({known['first_quarter']:.3g} to {known['last_quarter']:.3g}, z {z:.1f})."
    return [found("reward_not_gained", meaning, advice=_for_no_gain(signals), known=known)]


def _paid_for(train: TrainSeries) -> _Paid:
    name, column = ("reward", train.reward) if np.isfinite(train.reward).any() else ("accuracy", train.answers.accuracy)
    known = np.isfinite(column)
    return _Paid(name, train.step[known], column[known])


def _validation_gained(signals: Signals) -> bool:
    """A task metric of the evaluations rose beyond noise: what the rewards are for, where they were not logged."""
    series, metric = signals.log.evaluation, signals.metric
    return series is not None and metric is not None and gain_z(series.metrics[metric.name]) >= GAIN_Z


def _collapsed(signals: Signals, paid: _Paid) -> Finding | None:
    """The reward had risen and fell again by more than half of its gain, beyond noise."""
    reward = paid.values
    # The mean of each quarter of a run that could be cut out of it: the highest is compared with the last.
    quarter = max(3, len(reward) // 4)
    means = np.convolve(reward, np.full(quarter, 1 / quarter), mode="valid")
    peak = int(means.argmax())
    # The highest quarter must be over before the last one begins, or both are the same rows.
    if peak + 2 * quarter > len(reward):
        return None
    gained, lost = means[peak] - means[0], means[peak] - means[-1]
    # Each quarter twice, because `gain_z` compares the first quarter of what it gets with the last.
    fall = gain_z(
        np.concatenate(
            [reward[peak : peak + quarter], reward[peak : peak + quarter], reward[-quarter:], reward[-quarter:]]
        )
    )
    if not (lost > gained / 2 and fall <= -COLLAPSE_Z and gained > 0):
        return None
    step = float(paid.step[peak + quarter // 2])
    meaning = f"The {paid.name} rose to {means[peak]:.3g} at about step {step:.0f} and fell to {means[-1]:.3g}: the policy broke."
    return found("reward_fell", meaning, advice=f"keep step {step:.0f}; {moved(signals, 1 / 3)}", step=step,
                 highest=float(means[peak]), last=float(means[-1]))  # fmt: skip


def _cut_off(signals: Signals, known: Evidence, *, is_learning: bool) -> list[Finding]:
    """Answers that are cut off at the longest length get no fair reward, whatever else is wrong."""
    share = _last_known(signals.log.train.answers.clipped_completions)
    if share is None or share <= CLIPPED_SHARE:
        return []
    meaning = f"{100 * share:.0f} % of the answers are cut off at the longest length, so their rewards judge unfinished answers."
    code = "answers_cut_off" if not is_learning else "some_answers_cut_off"
    return [found(code, meaning, advice="raise the completion length before anything else is judged", known=known)]


def _for_no_gain(signals: Signals) -> str:
    return f"look at answers and rewards of a few prompts: some must be solved and some not; then {moved(signals, 3)}"


def _of_pairs(signals: Signals) -> list[Finding]:
    train = signals.log.train
    if signals.num_rows < FEWEST_ROWS:
        return [] if signals.num_evaluations else [_too_few_pairs(signals)]
    gains = {name: z for name, z in _gains_of_pairs(signals).items() if z == z}
    remarks = _chosen_falls(train.pairs.chosen_reward, train.pairs.margin)
    if not gains or max(gains.values()) >= GAIN_Z:
        return remarks
    best = max(gains, key=lambda name: gains[name])
    known: Evidence = {"z": gains[best], "judged_by": best, "last_loss": signals.loss.end if signals.loss else None}
    # One measure may fall by chance; the middle one of all must have fallen too.
    if min(gains.values()) <= -GAIN_Z and np.median(list(gains.values())) <= -FELL_IN_ALL:
        meaning = "The model prefers the chosen answers less than before."
        return [found("reward_fell", meaning, advice=moved(signals, 1 / 3), known=known), *remarks]
    what = (
        "The loss, which is all that was found in the log, did not fall"
        if best == "loss"
        else "Neither margins nor accuracy of the pairs moved"
    )
    meaning = f"{what} beyond noise (z {gains[best]:.1f})."
    peak = signals.schedule.peak if signals.schedule else math.nan
    if peak < SMALL_PREFERENCE_RATE:
        advice = moved(signals, 10)
        return [found("preference_rate_too_low", meaning, advice=advice, learning_rate=peak, known=known), *remarks]
    advice = "check that chosen and rejected answers differ and are not swapped; then multiply the rate by 3"
    return [found("preference_not_learned", meaning, advice=advice, known=known), *remarks]


def _too_few_pairs(signals: Signals) -> Finding:
    meaning = f"Only {signals.num_rows} rows of pairs were found in the log: too few to tell a gain from noise."
    return found("too_little_information", meaning, advice="let it run for 50 steps or more", rows=signals.num_rows)


def _gains_of_pairs(signals: Signals) -> dict[str, float]:
    """Gains of what was logged: accuracy on validation pairs, margins, accuracy; the loss only where nothing else is."""
    train, evaluation = signals.log.train, signals.log.evaluation
    metrics = evaluation.metrics if evaluation is not None else {}
    gains = {"margins": gain_z(train.pairs.margin), "accuracy of pairs": gain_z(train.pairs.pair_accuracy)}
    for name, values in metrics.items():
        if name.endswith(("rewards/accuracies", "rewards/margins")):
            gains[f"validation {name}"] = gain_z(values)
    if all(z != z for z in gains.values()):
        gains["loss"] = -gain_z(train.loss)
    return gains


def _chosen_falls(chosen: Column, margin: Column) -> list[Finding]:
    if not (gain_z(chosen) <= -GAIN_Z and gain_z(margin) >= GAIN_Z):
        return []
    meaning = "Margins grow only because the rejected answers fall faster: the reward of the chosen ones falls as well."
    known = chosen[np.isfinite(chosen)]
    return [found("chosen_reward_falls", meaning, advice="raise beta, lower the rate by 3, or add a loss on the chosen answers",
                  first=float(known[0]), last=float(known[-1]))]  # fmt: skip


def _stopped_while_warming(signals: Signals) -> bool:
    """True when the rate was still on its way up in the last row of a run that was stopped early."""
    schedule, progress = signals.schedule, signals.progress
    rates = signals.log.train.learning_rate
    rates = rates[np.isfinite(rates)]
    return bool(
        schedule and len(rates) > 3 and progress.share_done < 0.5 and rates[-1] >= STILL_WARMING * schedule.peak
        and rates[-1] > 1.2 * rates[len(rates) // 2]
    )  # fmt: skip


def _too_early(signals: Signals) -> Finding:
    share = 100 * signals.progress.share_done
    return found(
        "too_little_information",
        f"The run stopped at {share:.0f} % of its steps while the rate was still warming up: nothing can be seen yet.",
        advice="let it run past the warmup",
        learning_rate=signals.schedule.peak if signals.schedule else None,
    )


def _last_known(column: Column) -> float | None:
    known = column[np.isfinite(column)]
    return float(known[-max(1, len(known) // 4) :].mean()) if len(known) else None
