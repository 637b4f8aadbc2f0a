"""LiveMonitor: the detectors, one step at a time, while a run trains; it sees records and answers with new findings.

A step costs a few microseconds of plain Python: windows stay sorted, so a median is a look-up. Each code is said
once a run,
healed spikes at most a few times. Thresholds are wider than those of a whole log, because it looks again at every step;
`docs/figures/diagnose.md` states how often clean simulated runs set each off.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

from finestep.diagnosis.catalogue import CATALOGUE, found
from finestep.diagnosis.divergence import EXPLOSION_FACTOR, DivergenceWatch
from finestep.diagnosis.generalization import MIN_GAIN
from finestep.diagnosis.robust import MAD_TO_SD, sorted_median
from finestep.diagnosis.thresholds import DEFAULT, Thresholds
from finestep.finding import Finding
from finestep.trial import EvalRecord, StepRecord

CHANCE_OF_TEXT = 5.0
"""Nats of a uniform guess above which tokens are chosen, and not labels."""
WINDOW = 64
MIN_VALUES = LEVEL_STEPS = 16
CHANGE_TO_SD = MAD_TO_SD / math.sqrt(2)
"""Standard deviation of Gaussian noise over the median size of its changes."""
SMOOTHING_STEPS = 20
LOSS_FLOOR = 0.02
"""Smallest standard deviation of the log-loss that is believed."""
EPISODE_STEPS = 40
"""Steps after which a spike that has not healed is called so."""
DRIFT_ALARM = 8.0
LEVEL_SDS = 1.4
"""Noise of the level over that of neighbouring steps, which are alike in real data (AR(1) of 0.3: 1.2)."""
DRIFT_STEPS = 20
"""Consecutive steps on which both the drift sum and the ratio must stand."""
EXPLODED_STEPS = 2
"""Steps in a row far beyond chance that make a lost run; one may be an odd batch."""
LOST_STEPS = 10
"""Steps for which a drift far above the best must stand before the run is called lost; healing spikes are shorter."""
LOST_EXCESS = math.log(1.4)
LOST_SDS = 1.6
MAX_SPIKES_TOLD = 3
SURGE_BEGINS, SURGE_ENDS, SURGE_SCORE = 3.0, 1.5, 20.0
RISK_PROBES = 3
"""Consecutive one-forward probes beyond half of the critical rate that make an early warning. Source: science notes
7.2 E2."""
CLIP_WINDOW = 100
CLIMB, CLIMB_FROM = math.log(1.3), 5
"""Smoothed log-loss above that of the first step, from the sixth step on, that a sound rate does not show."""
HARDLY_BETTER = 0.95
NEGLIGIBLE = 0.05
"""Share of the first loss below which rises are not looked at; labels are learned to 0.01 nats and lower."""


class RollingScore:
    """Robust score of each value against those before it; a value that stands out is not remembered.

    The level is the median of the last 16 values, the noise that of the differences between neighbours, so that a steep descent
    does not pass for noise.
    """

    def __init__(self, floor: float):
        self._floor = floor
        self._recent: deque[float] = deque()
        self._level: list[float] = []
        self._changes: deque[float] = deque()
        self._sorted_changes: list[float] = []
        self.centre = self.scale = 0.0

    def score(self, x: float) -> float:
        """(x - level) / noise, or 0 while fewer than 16 values are known."""
        if len(self._recent) < MIN_VALUES:
            return 0.0
        self.centre = sorted_median(self._level)
        self.scale = max(CHANGE_TO_SD * sorted_median(self._sorted_changes), self._floor)
        return (x - self.centre) / self.scale

    def remember(self, x: float) -> None:
        """Add a value to the window."""
        if self._recent:
            change = abs(x - self._recent[-1])
            if len(self._changes) == WINDOW:
                del self._sorted_changes[bisect_left(self._sorted_changes, self._changes.popleft())]
            self._changes.append(change)
            insort(self._sorted_changes, change)
        if len(self._recent) == WINDOW:
            self._recent.popleft()
        self._recent.append(x)
        insort(self._level, x)
        if len(self._level) > LEVEL_STEPS:
            del self._level[bisect_left(self._level, self._recent[-LEVEL_STEPS - 1])]

    @property
    def values(self) -> list[float]:
        """The window, oldest first."""
        return list(self._recent)


class Surge:
    """Neighbouring steps above the level before them, from the first clear one to the second calm one; 40 steps at most.

    Its scores are summed: single steps may be noise, a sum of 20 over neighbours hardly ever is (CUSUM, science notes 7.1 D2).
    """

    def __init__(self) -> None:
        self.start = self.num_steps = self._calm = 0
        self.excess = self.score = 0.0

    def follow(self, step: int, z: float, excess: float) -> None:
        """Look at one step: its score and its log-loss above the level."""
        if not self.num_steps:
            if z <= SURGE_BEGINS:
                return
            self.start, self._calm, self.excess, self.score = step, 0, 0.0, 0.0
        self.num_steps += 1
        self._calm = self._calm + 1 if z < SURGE_ENDS else 0
        if self._calm >= 2 or self.num_steps > EPISODE_STEPS:
            self.num_steps, self.excess, self.score = 0, 0.0, 0.0
            return
        self.excess += max(excess, 0.0)
        self.score += max(z, 0.0)

    @property
    def is_beyond_chance(self) -> bool:
        """True when noise hardly ever does that."""
        return self.num_steps > 0 and self.score > SURGE_SCORE


class LiveMonitor:
    """Call `step` once per optimizer step and `evaluation` once per evaluation; both return the findings that are new.

    Args:
        chance_loss: loss of a uniform guess in nats, ln(vocabulary) or ln(labels).
        planned_steps: length of the run in optimizer steps.
        base_eval_loss: validation loss before the first step, when known.
        has_loss_scaler: training is in fp16, where a few gradients that are not finite are normal and their steps
        are skipped.
        weights_in_bf16: the trained weights themselves are bf16, which loses updates below 1/512 of a weight.
    """

    def __init__(
        self,
        *,
        chance_loss: float,
        planned_steps: int | None = None,
        base_eval_loss: float | None = None,
        has_loss_scaler: bool = False,
        weights_in_bf16: bool = False,
        limits: Thresholds = DEFAULT,
    ):
        self.limits = limits
        self.planned_steps = planned_steps
        self.base_eval_loss = base_eval_loss
        self._divergence = DivergenceWatch(chance_loss)
        self._loss = RollingScore(LOSS_FLOOR)
        self._surge = Surge()
        self._told: dict[str, int] = {}
        self._smooth = self._lowest = math.nan
        self._num_steps = 0
        self._drift_sum = 0.0
        self._num_drifting = 0
        self._episode: list[float] = []
        self._episode_start = 0
        self._calm = 0
        self._num_still = 0
        self._still_code = "bf16_stall" if weights_in_bf16 else "nothing_trained"
        self._has_loss_scaler = has_loss_scaler
        self._skipped: deque[int] = deque(maxlen=limits.overflow_rows_in_20 + 1)
        self._num_risky = 0
        self._num_lost = self._num_exploded = 0
        self._first: float | None = None
        self._climb = 0.0
        self._clipped = 0.0
        self._eval_losses: list[tuple[int, float, float]] = []

    def step(self, record: StepRecord) -> list[Finding]:
        """Look at one optimizer step."""
        if self._first is None:
            self._first = record.loss
        if self._has_loss_scaler and math.isfinite(record.loss) and not math.isfinite(record.grad_norm):
            return self._skipped_step(record)
        lost = self._divergence.reason(record.loss, record.grad_norm)
        self._num_exploded = self._num_exploded if lost is not None else 0
        if lost is not None and self._is_certain(record):
            return self._lost(record, lost)
        self._num_steps += 1
        findings: list[Finding] = []
        x = math.log(record.loss) if record.loss > 1e-12 else -27.6
        z = self._loss.score(x)
        if z > self.limits.spike_z or self._episode:
            self._follow_episode(record, x, z, findings)
        self._surge.follow(record.step, 0.0 if self._is_negligible(record.loss) else z, x - self._loss.centre)
        if not self._episode and not self._surge.num_steps:
            self._loss.remember(x)
        self._follow_level(record, x, z, findings)
        if record.update_norm is not None or record.grad_norm == 0.0:
            self._check_still(record, findings)
        self._follow_clipping(record, findings)
        return findings

    @property
    def is_calm(self) -> bool:
        """True while no spike is under way and the level does not drift upwards: a state worth coming back to."""
        return not (self._episode or self._surge.num_steps or self._num_lost) and self._drift_sum < DRIFT_ALARM

    @property
    def harm(self) -> tuple[int, float]:
        """(first step, harm) of the surge under way: by how much the log-loss stood above its level before, summed over steps."""
        return self._surge.start, self._surge.excess if self._surge.is_beyond_chance else 0.0

    def evaluation(self, record: EvalRecord) -> list[Finding]:
        """Look at one evaluation."""
        if not math.isfinite(record.eval_loss):
            return self._tell(
                "evaluation_broken",
                "The validation loss is not finite.",
                advice="look for validation rows without any label",
                step=record.step,
            )
        if record.step == 0:
            self.base_eval_loss = record.eval_loss
        self._eval_losses.append((record.step, record.eval_loss, self._smooth))
        return self._frozen() + self._overfitting() + self._worse_than_base(record) + self._leak(record)

    def probe(self, step: int, step_ratio: float) -> list[Finding]:
        """Look at a one-forward probe: measured over predicted loss drop of one update, 1 - rate / critical rate.

        Source: science notes 7.2 E1: 1 for tiny steps, 0.5 at half the critical rate, below 0 when the step does harm.
        """
        self._num_risky = self._num_risky + 1 if step_ratio < 0.5 else 0
        if self._num_risky < RISK_PROBES:
            return []
        return self._tell(
            "early_warning",
            "The learning rate is beyond half of what the loss surface bears, though the loss has not moved yet.",
            advice="lower the peak rate by 1.5-2 or warm up longer",
            confidence=0.6,
            step=step,
            step_ratio=step_ratio,
            rate_over_critical=1 - step_ratio,
        )

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps; JSON."""
        return {
            "divergence": self._divergence.state(), "loss": self._loss.values, "told": dict(self._told),
            "level": [self._smooth, self._lowest, self._num_steps], "evals": [list(each) for each in self._eval_losses],
            "base": self.base_eval_loss, "first": self._first, "climb": self._climb,
        }  # fmt: skip

    def restore(self, state: dict) -> None:
        """Take up what `state` gave; running spikes and drifts begin anew."""
        self._divergence.restore(state["divergence"])
        self._loss = RollingScore(LOSS_FLOOR)
        for value in state["loss"]:
            self._loss.remember(value)
        self._told = dict(state["told"])
        self._smooth, self._lowest, num_steps = state["level"]
        self._num_steps = int(num_steps)
        self._eval_losses = [(int(step), loss, smooth) for step, loss, smooth in state["evals"]]
        self.base_eval_loss, self._first, self._climb = state["base"], state["first"], state["climb"]
        self._episode, self._drift_sum, self._num_drifting = [], 0.0, 0
        self._surge, self._num_lost, self._num_exploded = Surge(), 0, 0

    def _tell(self, code: str, meaning: str, *, at_most: int = 1, **rest) -> list[Finding]:
        if code not in CATALOGUE:
            raise KeyError(code)
        count = self._told.get(code, 0)
        if count >= at_most:
            return []
        self._told[code] = count + 1
        return [found(code, meaning, **rest)]

    def _lost(self, record: StepRecord, reason: str) -> list[Finding]:
        if math.isfinite(record.loss) and math.isfinite(record.grad_norm):
            return self._tell(
                "diverged",
                f"At step {record.step} {reason}: the learning rate is too high.",
                advice="roll back to the last good checkpoint and divide the rate by 2-4",
                confidence=0.9,
                step=record.step,
                loss=record.loss,
                learning_rate=record.learning_rate,
            )
        code = "non_finite_loss" if not math.isfinite(record.loss) else "dead_gradients"
        cause = "no token of the batch carries loss" if record.num_loss_tokens == 0 else "numbers overflowed"
        return self._tell(
            code,
            f"At step {record.step} {reason} ({cause}).",
            advice="look at the rows of this batch; keep weights in fp32 or bf16; then lower the rate by 2",
            confidence=0.95,
            step=record.step,
            loss_tokens=record.num_loss_tokens,
        )

    def _skipped_step(self, record: StepRecord) -> list[Finding]:
        self._skipped.append(record.step)
        if len(self._skipped) <= self.limits.overflow_rows_in_20 or record.step - self._skipped[0] >= 20:
            return []
        return self._tell(
            "fp16_overflow",
            f"{len(self._skipped)} of the last 20 steps were skipped because gradients overflow in fp16.",
            advice="train in bf16, or lower the learning rate by 2",
            confidence=0.9,
            step=record.step,
            skipped=len(self._skipped),
        )

    def _is_certain(self, record: StepRecord) -> bool:
        """False for what noise, an odd batch and healing spikes also make, until it has stood for some steps: one exploded loss, and
        a mere drift of the mean."""
        if not (math.isfinite(record.loss) and math.isfinite(record.grad_norm)):
            return True
        self._num_exploded = self._num_exploded + 1 if self._has_exploded(record) else 0
        if self._num_exploded:
            return self._num_exploded >= EXPLODED_STEPS
        excess = self._smooth - self._lowest
        self._num_lost = self._num_lost + 1 if excess > max(LOST_EXCESS, LOST_SDS * self._loss.scale) else 0
        return self._num_lost >= LOST_STEPS

    def _has_exploded(self, record: StepRecord) -> bool:
        return record.loss > EXPLOSION_FACTOR * max(self._first or 0.0, self._divergence.chance_loss)

    @property
    def has_exploded(self) -> bool:
        """True while the loss of the last step is far beyond pure chance; one such step may be an odd batch."""
        return self._num_exploded > 0

    def _follow_episode(self, record: StepRecord, x: float, z: float, findings: list[Finding]) -> None:
        """A spike runs from its first high step to the second calm one."""
        if not self._episode:
            if x - self._loss.centre < math.log(self.limits.spike_ratio):
                return
            self._episode_start, self._calm = record.step, 0
        self._episode.append(x)
        self._calm = self._calm + 1 if z < self.limits.spike_z / 2 else 0
        height = math.exp(max(self._episode) - self._loss.centre)
        if self._calm >= 2:
            self._end_episode(height, findings)
        elif len(self._episode) > EPISODE_STEPS:
            self._episode = []
            findings += self._tell(
                "unstable",
                f"The loss jumped at step {self._episode_start} and has not come back for {EPISODE_STEPS} steps.",
                advice="roll back to before the jump and divide the rate by 2",
                confidence=0.8,
                step=self._episode_start,
                height=height,
                learning_rate=record.learning_rate,
            )

    def _end_episode(self, height: float, findings: list[Finding]) -> None:
        length = len(self._episode) - self._calm
        self._episode = []
        if length <= 1:
            findings += self._tell(
                "bad_batch",
                f"Step {self._episode_start} stands out ({height:.1f} times the usual loss) and the next is "
                "normal: an odd batch.",
                advice="look at the rows of that step; nothing else is needed",
                at_most=MAX_SPIKES_TOLD,
                confidence=0.7,
                step=self._episode_start,
                height=height,
            )
        else:
            findings += self._tell(
                "spike_recovered",
                f"The loss jumped to {height:.1f} times its level at step {self._episode_start} and healed in "
                f"{length} steps.",
                advice="nothing for one; lower the rate by 1.5 if it repeats",
                at_most=MAX_SPIKES_TOLD,
                step=self._episode_start,
                height=height,
                steps=length,
            )

    def _follow_level(self, record: StepRecord, x: float, z: float, findings: list[Finding]) -> None:
        """Drift: the smoothed log-loss leaves its lowest value, by ratio and by CUSUM, for many steps on end."""
        weight = max(1.0 / self._num_steps, 1.0 / SMOOTHING_STEPS)
        self._smooth = x if self._num_steps == 1 else self._smooth + weight * (x - self._smooth)
        if self._first is not None and self._first > 0 and self._num_steps > CLIMB_FROM:
            self._climb = max(self._climb, self._smooth - math.log(self._first))
        if self._num_steps < 2 * SMOOTHING_STEPS:
            return
        if not self._lowest <= self._smooth:
            self._lowest, self._drift_sum, self._num_drifting = self._smooth, 0.0, 0
            return
        sd = LEVEL_SDS * self._loss.scale
        if sd == 0.0:
            return
        # The lowest smoothed value lies about three of its own errors (0.16 sd) below the level that it tracks.
        self._drift_sum = max(0.0, self._drift_sum + min((x - self._lowest) / sd - 0.5, 5.0) - 0.5)
        risen = self._smooth - self._lowest > max(math.log(self.limits.unstable_ratio), 1.2 * sd)
        risen = risen and not self._is_negligible(math.exp(self._smooth))
        self._num_drifting = self._num_drifting + 1 if risen and self._drift_sum > DRIFT_ALARM else 0
        if self._num_drifting == DRIFT_STEPS:
            findings += self._risen(record, sd)

    def _is_negligible(self, loss: float) -> bool:
        """True for a loss of next to nothing beside the first one: a rise there is of no account."""
        return self._first is not None and loss < NEGLIGIBLE * self._first

    def _risen(self, record: StepRecord, sd: float) -> list[Finding]:
        excess = self._smooth - self._lowest
        is_lost = excess > max(math.log(self.limits.diverged_ratio), LOST_SDS * sd)
        return self._tell(
            "diverged" if is_lost else "unstable",
            f"The smoothed loss has risen by {100 * math.expm1(excess):.0f} % above its best and stays there.",
            advice=f"roll back to the best checkpoint and divide the rate by {4 if is_lost else 2}",
            confidence=0.8 if is_lost else 0.7,
            step=record.step,
            best_loss=math.exp(self._lowest),
            loss=math.exp(self._smooth),
            learning_rate=record.learning_rate,
        )

    def _check_still(self, record: StepRecord, findings: list[Finding]) -> None:
        moved = record.grad_norm != 0.0 and record.update_norm != 0.0
        self._num_still = 0 if moved or record.learning_rate == 0.0 else self._num_still + 1
        if self._num_still != 3:
            return
        no_gradient = record.grad_norm == 0.0
        cause = "all gradients are zero" if no_gradient else "the updates do not change the weights"
        findings += self._tell(
            "nothing_trained" if no_gradient else self._still_code,
            f"No weight moves: {cause}.",
            advice=(
                "check `requires_grad` and the label mask; keep trained weights in fp32, because bf16 "
                "loses tiny updates"
            ),
            confidence=0.95,
            step=record.step,
            grad_norm=record.grad_norm,
        )

    def _follow_clipping(self, record: StepRecord, findings: list[Finding]) -> None:
        self._clipped += (record.clipped - self._clipped) / min(self._num_steps, CLIP_WINDOW)
        if self._num_steps == CLIP_WINDOW and self._clipped > self.limits.clipped_share:
            findings += self._tell(
                "mostly_clipped",
                f"{100 * self._clipped:.0f} % of the steps are clipped, so clipping sets their size.",
                advice="normal for LoRA; the learning rate alone decides the step then",
                share=self._clipped,
            )

    def _frozen(self) -> list[Finding]:
        if len(self._eval_losses) < 2 or self._num_steps < 5:
            return []
        (_, first, _), (step, last, _) = self._eval_losses[0], self._eval_losses[-1]
        if abs(last - first) > 1e-6 * abs(first):
            return []
        return self._tell(
            "nothing_trained",
            "The validation loss is the same to the sixth digit: no weight is being trained.",
            advice="check `requires_grad`, the adapter's target modules and the optimizer's parameters",
            confidence=0.95,
            step=step,
            eval_loss=last,
        )

    def _overfitting(self) -> list[Finding]:
        """Two evaluations in a row above the lowest by more than the margin, while the training loss fell."""
        losses = [loss for _, loss, _ in self._eval_losses]
        best = min(range(len(losses)), key=losses.__getitem__)
        margin = max(self.limits.overfit_rise * losses[best], MIN_GAIN)
        if len(losses) - 1 - best < 2 or min(losses[-2:]) < losses[best] + margin:
            return []
        best_step, best_loss, smooth_then = self._eval_losses[best]
        if not self._smooth <= smooth_then + 0.02:
            return []
        return self._tell(
            "overfitting",
            f"The validation loss rises since step {best_step} while the training loss falls.",
            advice=f"stop; use the checkpoint of step {best_step}",
            confidence=0.85,
            best_step=best_step,
            best_eval_loss=best_loss,
            last_eval_loss=losses[-1],
        )

    def _worse_than_base(self, record: EvalRecord) -> list[Finding]:
        """Every evaluation is above the base; or hardly below it, after a loss that had climbed first."""
        base = self.base_eval_loss
        late = self._num_steps > 0.25 * (self.planned_steps or 4 * self._num_steps)
        after = [loss for step, loss, _ in self._eval_losses if step > 0]
        allowed = HARDLY_BETTER if self._climb > CLIMB else 1.02
        if base is None or not late or len(after) < 2 or min(after) <= allowed * base:
            return []
        return self._tell(
            "worse_than_base",
            "No evaluation so far is better than the model before training.",
            advice=(
                "divide the rate by 4; if that does not help, the labels or the template do not fit the validation rows"
            ),
            confidence=0.8,
            step=record.step,
            base_eval_loss=base,
            eval_loss=record.eval_loss,
        )

    def _leak(self, record: EvalRecord) -> list[Finding]:
        base = self.base_eval_loss
        share = (
            self.limits.too_good_share_of_text
            if self._divergence.chance_loss > CHANCE_OF_TEXT
            else self.limits.too_good_share
        )
        if base is None or record.step == 0 or base < 0.3 or record.eval_loss > share * base:
            return []
        return self._tell(
            "too_good",
            "The validation loss has fallen to almost nothing: the answer leaks into the input, or the "
            "target is trivial.",
            advice="check the mask, the label shift, and duplicates between training and validation rows",
            confidence=0.7,
            step=record.step,
            base_eval_loss=base,
            eval_loss=record.eval_loss,
        )
