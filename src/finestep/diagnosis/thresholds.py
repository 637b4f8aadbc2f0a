"""Every threshold of the verdicts in one value, so that their influence can be measured by moving them together.

`docs/figures/diagnose.md` says how often pure noise passes each; `benchmarks/diagnose.py --sensitivity` moves each by 20 %.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Numbers:
    """When a run is lost to numbers that are not finite."""

    broken_rows_share: float = 0.5
    """Share of rows without a finite gradient norm that makes a run dead."""
    overflow_rows_in_20: int = 5
    """Non-finite gradient norms within 20 rows that are more than fp16 loss scaling normally makes."""
    hidden_nan_before: float = 0.01
    """A loss of exactly 0.0 for the rest of the run is hidden NaN when the loss before was above this, in nats."""


@dataclass(frozen=True)
class Stuck:
    """When a loss stands still, or at a level of ignorance."""

    flat_spread: float = 0.004
    """Relative spread of the whole loss curve below which nothing moves."""
    chance_tolerance: float = 0.035
    """Relative distance to a level of ignorance that counts as sitting on it."""


@dataclass(frozen=True)
class Lost:
    """When a run is lost or unsettled."""

    ratio: float = 1.5
    """End over best (or over the first row) of a lost run."""
    given_back: float = 0.5
    """Share of the gain so far that a lost run has given back."""
    unstable_ratio: float = 1.1
    """End over best of a run that is unsettled without being lost."""
    low_rate_share: float = 0.3
    """A rise at a rate below this share of the peak has another cause than the rate."""


@dataclass(frozen=True)
class Overfitting:
    """When the validation loss has turned up."""

    rise: float = 0.015
    """Relative rise of the validation loss above its lowest value that is overfitting."""
    rise_at_last: float = 0.04
    """The same when only the last evaluation is above the lowest."""
    rise_despite_metric: float = 0.05
    """Relative rise of the validation loss from which a task metric must have gained clearly for the run not to be overfitting."""
    clear_error_cut: float = 0.2
    """Share of the errors that went away since the lowest validation loss, from which the metric alone decides."""


@dataclass(frozen=True)
class Memorised:
    """When a long run has learned its rows by heart."""

    share: float = 0.3
    """Training loss at the end over that of the first epoch, below which a long run has memorised its rows."""
    epochs: float = 5.0
    """Epochs from which that is judged without any evaluation."""


@dataclass(frozen=True)
class TooGood:
    """When a loss is too low to be true."""

    share: float = 0.03
    """Loss at the end over its start that is too good within two epochs."""
    share_of_text: float = 0.04
    """The same against the base model where tokens are chosen among a vocabulary; a classifier may rightly come lower."""
    loss: float = 0.01
    """Training loss in nats that is too good within two epochs."""


@dataclass(frozen=True)
class TooShort:
    """When a run ended while it still fell."""

    falling_eval: float = 0.05
    """Relative drop of the validation loss in the last interval of a run that ended too early."""
    annealed_factor: float = 1.5
    """Times that drop for a run that came to its planned end at a rate of nothing: the decay of the rate brings the loss down by
    itself, and a longer run would have decayed later. The last fifth of a linear decay has 4 % of the summed rate."""
    falling_eval_interrupted: float = 0.015
    """The same for a run that was interrupted while its rate was high."""
    falling_tail: float = 0.06
    """Relative drop of the training loss over the last fifth of a run that ended too early."""
    expected_gain: float = 0.02
    """Relative gain of a run that was stopped early, from which on it is unfinished rather than stuck."""
    stopped_share: float = 0.3
    """Share of the planned steps below which a stopped run is looked at in that way."""


@dataclass(frozen=True)
class TooLow:
    """When the rate was too low for what the run had to learn."""

    small_gain: float = 0.3
    """Relative drop of the loss below which a long run that still falls had too low a rate."""
    small_gain_epochs: float = 4.0
    """Epochs from which that is judged."""
    straight_gain: float = 0.4
    """Relative drop of the loss below which its response to the spent learning rate is looked at."""
    straight_third: float = 0.36
    """Share of the gain in the first third of the summed learning rate below which the loss never bent."""
    straight_half: float = 0.53
    """The same for the first half."""
    converged_gain: float = 0.05
    """Relative gain of a long run below which it had nothing to learn."""


@dataclass(frozen=True)
class Spikes:
    """When single rows stand out."""

    z: float = 8.0
    """Robust spike score on the log-loss."""
    ratio: float = 1.5
    """Loss of a spike over the level before it."""
    grad_ratio: float = 8.0
    """Gradient norm in a spike over its usual level."""


@dataclass(frozen=True)
class Explosion:
    """When the first steps tear the weights apart."""

    rows: int = 3
    """Rows among the first ones above `lost.ratio` times the lowest before them which make an explosion."""
    grad_ratio: float = 12.0
    """Largest gradient norm of the first rows over the usual later one, in an explosion."""


@dataclass(frozen=True)
class Thresholds:
    """Ratios are of losses, shares of rows or steps, z and t in standard errors."""

    min_rows: int = 6
    """Training rows plus evaluations below which no shape is judged."""
    trend_t: float = 4.0
    """t value of a trend over eight block medians that counts as real."""
    level_z: float = 4.0
    """Standard errors between two levels that count as different."""
    few_steps: int = 100
    """Optimizer steps below which a run without a clear gain is undertrained."""
    clipped_share: float = 0.5
    """Share of clipped steps above which clipping sets the step size."""
    numbers: Numbers = Numbers()
    stuck: Stuck = Stuck()
    lost: Lost = Lost()
    overfitting: Overfitting = Overfitting()
    memorised: Memorised = Memorised()
    too_good: TooGood = TooGood()
    too_short: TooShort = TooShort()
    too_low: TooLow = TooLow()
    spikes: Spikes = Spikes()
    explosion: Explosion = Explosion()


DEFAULT = Thresholds()
