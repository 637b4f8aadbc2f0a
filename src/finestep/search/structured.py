"""StructuredSearch: the core of `Search`; short runs teach where the optimum is, full runs are spent where it is.

Everything is recomputed from the trials, so that resuming and many workers are free. It never runs a trial.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finestep.answer import Answer, TradeOff, answer_sentence
from finestep.estimate import Estimate
from finestep.recipe import Recipe
from finestep.search.acquisition import expected_regret
from finestep.search.calibrated import up_to, widened, width_factor
from finestep.search.forgetting import over_limit
from finestep.search.look import Look
from finestep.search.observations import Objective, Observations, field_of, observe
from finestep.search.opening import DECIDES_ALL, Opening, given_places, next_octaves, place_of, stage_of
from finestep.search.prior import SearchPrior
from finestep.search.settled import best_full, is_settled, open_sides
from finestep.search.space import Array, Mask, SearchSpace
from finestep.search.strategy import Proposal
from finestep.trial import Trial

WORTH = 0.1
"""A short run must promise this much, in % of the loss per full run of cost, before the first full run; and always more
per cost than a full run, which gives a result and knowledge."""
SHORT_SHARE, SHORT_AFTER = 0.5, 0.33
"""Short runs may cost this many full runs before the first full run, and so many more for each full run."""
HANDFUL = 4
"""Short runs are made only where so many of the shortest fit into their share: fewer locate nothing, and dearer ones buy
less than a full run, which is a result and tells more."""
CROWD, CROWD_SHORT = 4, 0.25
"""With so many lanes, and a budget for a full run in each, this share of them does short runs and the others start full
runs at once: waiting for short runs would leave them idle, and the first wave of full runs already covers the prior."""
MANY_LANES = 9
"""So many trials at a time train on devices of their own, which one machine's pack does not: what they take off each other is nothing,
so that a search fills them in its first wave, with half of its budget at most. The other half learns from it. Where the wave is a
full run in each lane, no short run comes before: it would end after most of them had begun."""
NEXT_SIDE = (0.3, 1.6)
"""Octaves beyond the best rate where a search looks before it ends: the candidate nearest to one octave."""
MAX_FAILURES = 6
"""When so many trials have failed and none has finished, the search ends and says so."""
STOP_BELOW = 0.05
"""A search ends when one more full run promises less than this, % of the loss."""
NUM_SAMPLES = 512
INTERVAL = (0.1, 0.9)


@dataclass(frozen=True)
class StructuredSearch:
    """Bayesian search over learning rate, batch size, length and a few further fields.

    Args:
        space: what may be proposed.
        prior: where the optimum is believed to be, and the shape around it.
        objective: validation loss, or a metric.
        seed: of the samples behind the intervals.
        stop_below: end when one more full run promises less than this, % of the loss; 0 = use the whole budget.
        opening: which of the first full runs are given, in a study of few steps.
    """

    space: SearchSpace
    prior: SearchPrior = field(default_factory=SearchPrior)
    objective: Objective = field(default_factory=Objective)
    seed: int = 0
    stop_below: float = STOP_BELOW
    opening: Opening = DECIDES_ALL

    @property
    def metric(self) -> str | None:
        """The metric that is made best; None: the validation loss."""
        return self.objective.metric

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        """The next trials; empty when another run is not worth its cost, nothing fits the budget, or all failed."""
        observations = observe(trials, self.space, self.objective)
        if _hopeless(trials, observations):
            return []
        wished = given_places(self.opening, self.prior, self.space)
        look = Look(self.space, self.prior.within(self.space), observations, wished=wished)
        purse = _Purse.of(look, remaining_runs, max_proposals)
        # Proposals that are made together cannot learn from each other. So after each one the search pretends that it has run:
        # its uncertainty there shrinks, and the next proposal goes where something else is to be learned.
        proposals: list[Proposal] = []
        while len(proposals) < max_proposals:
            choice = self._opening(look, purse, trials, proposals) or self._choose(look, purse)
            if choice is None:
                break
            proposals.append(self._proposal(look, *choice))
            purse.pay(look, choice[0])
            look.pretend(choice[0])
        return proposals or self._unseen_side(look, purse)

    def _unseen_side(self, look: Look, purse: _Purse) -> list[Proposal]:
        """Before a search ends by itself, a full run an octave beyond its best, on a side where none is worse yet."""
        seen, best = look.observations, best_full(look.observations)
        if best is None or len(seen.pending) or self.stop_below == 0.0:
            return []
        places = look.candidates.points.take(look.full)
        here = (np.abs(places.v - seen.points.v[best]) < 0.05) & ~look.closed[look.full]
        here &= (np.abs(places.extra - seen.points.extra[best]) < 0.02).all(axis=1)
        here &= look.candidates.cost[look.full] <= purse.remaining + 1e-9
        for side in open_sides(seen, self.prior):
            gaps = side * (places.x - seen.points.x[best])
            beyond = np.flatnonzero(here & (gaps > NEXT_SIDE[0]) & (gaps < NEXT_SIDE[1]))
            if len(beyond):
                index = int(beyond[np.abs(gaps[beyond] - 1.0).argmin()])
                return [self._proposal(look, index, "full runs")]
        return []

    def _opening(
        self, look: Look, purse: _Purse, trials: Sequence[Trial], proposals: Sequence[Proposal]
    ) -> tuple[int, str] | None:
        """The given next run of a short study, where there is one that is open and can be paid."""
        octaves = next_octaves(trials, proposals, self.opening)
        wished = None if octaves is None else place_of(octaves, self.prior, self.space)
        if octaves is None or wished is None:
            return None
        places = look.candidates.points.take(look.full)
        here = np.flatnonzero(places.is_at(*wished))
        here = here[~look.closed[here] & (look.candidates.cost[here] <= purse.remaining + 1e-9)]
        return (int(here[look.mean[here].argmin()]), stage_of(octaves, trials, self.opening)) if len(here) else None

    def _choose(self, look: Look, purse: _Purse) -> tuple[int, str] | None:
        """Index of the next candidate and the name of the phase."""
        points = look.candidates.points
        free = ~look.closed & (look.candidates.cost <= purse.remaining + 1e-9)
        open_full = look.full[free[look.full]]
        if not free.any() or (purse.num_full and not len(open_full)):
            return None  # a short run serves a full one: when none can follow, it changes nothing
        if not look.opened and purse.short_runs_pay and purse.has_short_lane and purse.keeps_full_run(purse.shortest):
            return self._first(look, purse)
        # Short runs are worth what they teach about full length, per cost. A full run is a result as well as a lesson, so a
        # short run must beat both together.
        rates = np.where(free, look.knowledge_rates(), 0.0)
        short = np.where(points.length < 0, rates, 0.0)
        gains = self._full_gains(look, free)
        if short.max() > _worth_of_full(gains, rates[look.full]) and purse.allows(look, int(short.argmax())):
            return int(short.argmax()), "short runs"
        if gains is None and len(open_full):
            return int(open_full[look.mean[open_full].argmin()]), "full runs"
        worth = 0.0 if purse.fills_first_wave else self.stop_below
        if gains is not None and gains.max(initial=0.0) > worth and len(open_full):
            return int(gains.argmax()), "full runs"
        if gains is None and short.max() > 0:
            return int(short.argmax()), "short runs"
        return None

    def _first(self, look: Look, purse: _Purse) -> tuple[int, str] | None:
        """The prior's best point at the shortest length that can be paid."""
        lengths = np.unique(look.candidates.points.length)
        index = look.best(float(lengths[0]))
        fits = look.candidates.cost[index] <= purse.remaining + 1e-9
        return (index, "first run") if fits else None

    def _full_gains(self, look: Look, free: Mask) -> Array | None:
        """Expected improvement of full runs per cost; None before the first full run has been started."""
        gains = look.improvements()
        if not len(gains):
            return None
        return np.where(free[look.full], gains / look.candidates.cost[look.full], 0.0)

    def _proposal(self, look: Look, index: int, stage: str) -> Proposal:
        points, candidates = look.candidates.points, look.candidates
        combination = candidates.combinations[int(candidates.combination[index])]
        rate = min(self.space.learning_rates, key=lambda value: abs(np.log2(value) - points.x[index]))
        batch = min(self.space.batch_sizes, key=lambda value: abs(np.log2(value) - points.v[index]))
        fidelity = min(self.space.fidelities, key=lambda value: abs(np.log2(value) - points.length[index]))
        return Proposal(
            learning_rate=rate,
            effective_batch_size=batch,
            fidelity=fidelity,
            stage=stage,
            changes={d.name: value for d, value in zip(self.space.extras, combination, strict=True)},
        )

    def answer(self, trials: Sequence[Trial], *, winner: int | None = None) -> Answer:
        """What the search believes now; never an exception, whatever became of the trials.

        Args:
            winner: number of the best trial, for who knows values that are finer than the losses here.
        """
        observations = observe(trials, self.space, self.objective)
        if not (~observations.failed).any():
            return Answer(trial=None, learning_rate=None, sentence=_nothing(trials, observations))
        look = Look(self.space, self.prior.within(self.space), observations)
        chosen = self._chosen(observations, winner)
        surfaces = look.surfaces(count=NUM_SAMPLES, seed=self.seed)
        index = _predicted(look) if chosen is None else _nearest(look, observations, chosen)
        gains = self._full_gains(look, ~look.closed)
        gain = None if gains is None else float(gains.max(initial=0.0))
        best = None if chosen is None else observations.trials[chosen].recipe
        rows = self._trade_offs(look, observations, surfaces, best=best)
        said = self._said(look, observations, chosen, index, expected_regret(surfaces, index), gain, rows)
        settled = is_settled(observations, self.prior)
        told = said.model_copy(update={"settled": settled}).told()
        return told.model_copy(update={"sentence": answer_sentence(told)})

    def _said(
        self,
        look: Look,
        observations: Observations,
        chosen: int | None,
        index: int,
        regret: float,
        gain: float | None,
        rows: dict[int, TradeOff],
    ) -> Answer:
        points, candidates = look.candidates.points, look.candidates
        combination = candidates.combinations[int(candidates.combination[index])]
        changes = {d.name: value for d, value in zip(self.space.extras, combination, strict=True)}
        trial = None if chosen is None else observations.trials[chosen]
        rate = float(2 ** points.x[index]) if trial is None else trial.recipe.learning_rate
        batch = round(2 ** points.v[index]) if trial is None else trial.recipe.effective_batch_size
        if trial is not None:
            changes = {d.name: field_of(trial, d.name) for d in self.space.extras}
        return Answer(
            trial=None if trial is None else trial.number,
            as_good=None if chosen is None else self._as_good(observations, chosen),
            learning_rate=rate,
            effective_batch_size=batch,
            changes=changes,
            expected_regret=regret,
            expected_gain=gain,
            trade_offs=tuple(rows.values()),
            sentence="",
        )

    def _chosen(self, observations: Observations, winner: int | None) -> int | None:
        """The best full-length trial, plainly: noise is told beside it, and decides nothing."""
        full = {observations.trials[index].number: index for index in _finalists(observations)}
        if winner in full:
            return full[winner]
        return min(full.values(), key=lambda index: self._place(observations.trials[index]), default=None)

    def _place(self, trial: Trial) -> tuple[float, float]:
        """What trials are ordered by: the value as it is, and of equals the smaller learning rate."""
        value = self.objective.value(trial)
        assert value is not None
        return self.objective.rank(value), trial.recipe.learning_rate

    def _as_good(self, observations: Observations, chosen: int) -> int | None:
        """Number of the full-length trial with the smallest rate that is no worse than the chosen one beyond the noise."""
        limit = observations.excess[chosen] + self.prior.noise
        near = [index for index in _finalists(observations) if observations.excess[index] <= limit]
        first = min(near, key=lambda index: observations.points.x[index], default=chosen)
        smaller = observations.points.x[first] < observations.points.x[chosen] - 1e-9
        return observations.trials[first].number if smaller else None

    def _trade_offs(
        self, look: Look, observations: Observations, surfaces: Array, *, best: Recipe | None
    ) -> dict[int, TradeOff]:
        """One row a batch size that may be trained: that of the best trial, and those that memory has not ruled out.

        The interval at the batch size of the best trial holds its rate: nothing measured was better.
        """
        chosen = None if best is None else best.effective_batch_size
        samples, trials = surfaces, observations.trials
        points = look.candidates.points.take(look.full)
        mean = look.mean[look.full]
        allowed = [batch for batch in self.space.batch_sizes if batch == chosen or not observations.rules_out(batch)]
        speeds = _speeds(trials)
        measured = {trial.recipe.effective_batch_size for trial in trials if trial.outcome is not None}
        factor = width_factor(trials, self.opening)
        ends = (self.space.learning_rates[0], self.space.learning_rates[-1])
        rows: dict[int, TradeOff] = {}
        places = {batch: np.flatnonzero(np.abs(points.v - np.log2(batch)) < 0.01) for batch in allowed}
        lowest = min((float(mean[here].min()) for here in places.values() if len(here)), default=0.0)
        for batch, here in places.items():
            if len(here):
                estimate = _rate_estimate(points.x[here], mean[here], samples[:, here], is_measured=batch in measured)
                rate = widened(estimate, factor, within=ends)
                if best is not None and batch == chosen:
                    rate = up_to(rate, best.learning_rate)
                excess = float(mean[here].min()) - lowest
                rows[batch] = TradeOff(
                    effective_batch_size=batch,
                    learning_rate=rate,
                    excess_percent=excess,
                    tokens_per_second=speeds.get(batch),
                )
        return rows


@dataclass
class _Purse:
    """What may still be spent, in full runs; short runs leave room for the full run that they serve."""

    remaining: float
    short_spent: float
    num_full: int
    short_lanes: int
    """Lanes that may do short runs at the same time."""
    num_short_running: int
    shortest: float
    """Cost of the shortest run."""
    first_wave: int = 0
    """Full runs that start before the search weighs whether another is worth its cost."""

    @classmethod
    def of(cls, look: Look, remaining_runs: float, idle: int) -> _Purse:
        pending = look.observations.pending.length
        lengths = np.concatenate([look.observations.points.length, pending])
        short = lengths[lengths < -1e-6]
        lanes = len(pending) + idle
        crowd = lanes >= CROWD and remaining_runs >= lanes
        wave = first_wave(lanes, remaining_runs + float((2.0**lengths).sum()))
        short_lanes = 0 if wave == lanes else max(1, round(CROWD_SHORT * lanes)) if crowd else lanes
        return cls(
            remaining=remaining_runs,
            short_spent=float((2.0**short).sum()),
            num_full=len(lengths) - len(short),
            short_lanes=short_lanes,
            num_short_running=int((pending < -1e-6).sum()),
            shortest=float(look.candidates.cost.min()),
            first_wave=wave,
        )

    @property
    def fills_first_wave(self) -> bool:
        return self.num_full < self.first_wave

    @property
    def short_runs_pay(self) -> bool:
        """True when short runs are cheap enough, or when nothing else can be paid."""
        return HANDFUL * self.shortest <= SHORT_SHARE + 1e-9 or (self.num_full == 0 and self.remaining < 1)

    @property
    def has_short_lane(self) -> bool:
        return self.num_short_running < self.short_lanes

    def allows(self, look: Look, index: int) -> bool:
        """True when a short run is inside its share and leaves one full run to pay."""
        share = SHORT_SHARE + SHORT_AFTER * self.num_full
        inside = self.short_runs_pay and self.has_short_lane and self.short_spent < share
        return inside and self.keeps_full_run(float(look.candidates.cost[index]))

    def keeps_full_run(self, cost: float) -> bool:
        """True when a full run can follow a short one, which alone can use what it teaches, or none could be paid anyway."""
        reserve = 0.0 if self.remaining < 1 else 1.0
        return cost + reserve <= self.remaining + 1e-9

    def pay(self, look: Look, index: int) -> None:
        cost = float(look.candidates.cost[index])
        self.remaining -= cost
        if look.candidates.points.length[index] < 0:
            self.short_spent += cost
            self.num_short_running += 1
        else:
            self.num_full += 1


def first_wave(lanes: int, full_runs: float) -> int:
    """Full runs of the first wave where many trials train at a time: half of the budget, at most one a lane.

    >>> first_wave(64, 300), first_wave(64, 21), first_wave(8, 300), first_wave(64, 3)
    (64, 10, 0, 1)
    """
    return min(lanes, int((full_runs - 1) / 2)) if lanes >= MANY_LANES else 0


def _worth_of_full(gains: Array | None, knowledge: Array) -> float:
    """What a short run must beat: the best full run's result and knowledge together, % per full run of cost."""
    both = knowledge if gains is None else gains + knowledge
    return max(float(both.max(initial=0.0)), WORTH if gains is None else 1e-6)


def _hopeless(trials: Sequence[Trial], observations: Observations) -> bool:
    ended = sum(trial.state != "running" for trial in trials)
    return ended >= MAX_FAILURES and not (~observations.failed).any()


def _finalists(observations: Observations) -> list[int]:
    """Full-length trials that finished, best first."""
    full = np.flatnonzero((observations.points.length > -1e-6) & ~observations.failed)
    return [int(index) for index in full[np.argsort(observations.excess[full], kind="stable")]]


def _predicted(look: Look) -> int:
    """The place at full length that is expected to be best, of the batch sizes that memory holds."""
    full = look.candidates.points.take(look.full)
    fits = full.v <= look.observations.too_large - 1e-6
    return int(np.where(fits, look.mean[look.full], np.inf).argmin())


def _nearest(look: Look, observations: Observations, chosen: int) -> int:
    points, here = look.candidates.points.take(look.full), observations.points
    gap = np.abs(points.x - here.x[chosen]) + np.abs(points.v - here.v[chosen])
    return int((gap + np.abs(points.extra - here.extra[chosen]).sum(axis=1)).argmin())


def _speeds(trials: Sequence[Trial]) -> dict[int, float]:
    """Tokens per second by batch size, as measured in the study: tokens of all its trials over their seconds."""
    totals: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for trial in trials:
        if trial.outcome is not None and trial.outcome.cost.elapsed_s > 0:
            totals[trial.recipe.effective_batch_size][0] += trial.outcome.cost.num_train_tokens
            totals[trial.recipe.effective_batch_size][1] += trial.outcome.cost.elapsed_s
    return {batch: tokens / seconds for batch, (tokens, seconds) in totals.items() if tokens}


def _rate_estimate(x: Array, mean: Array, samples: Array, *, is_measured: bool) -> Estimate:
    """Best learning rate of one batch size: the predicted best, and the central 80 % of the sampled bests.

    A sampled best stands for its whole step of the grid, so that a coarse grid does not make the interval wide.
    """
    places, row = np.unique(x, return_inverse=True)
    shares = np.bincount(row[samples.argmin(axis=1)], minlength=len(places)) / len(samples)
    middles = (places[1:] + places[:-1]) / 2
    step = np.median(np.diff(places)) if len(places) > 1 else 0.0
    edges = np.concatenate([[places[0] - step / 2], middles, [places[-1] + step / 2]])
    low, high = np.interp(INTERVAL, np.concatenate([[0.0], np.cumsum(shares)]), edges)
    value = float(x[mean.argmin()])
    return Estimate(
        value=2**value,
        low=2 ** min(low, value),
        high=2 ** max(high, value),
        unit="1",
        source="measured here" if is_measured else "predicted from other batch sizes",
        coverage=0.8,
    )


def _nothing(trials: Sequence[Trial], observations: Observations) -> str:
    if not len(observations) and not any(trial.state != "running" for trial in trials):
        return "no trial has finished yet"
    if observations.failed.any():
        lowest = 2 ** float(observations.points.x[observations.failed].min())
        if over_limit(trials):
            return f"every trial forgot too much or failed, even {lowest:.2g}: lower the learning rates, or allow more"
        return f"every trial failed; even {lowest:.2g} diverged: lower the learning rates by 10x, or check the data"
    return "every trial failed before it gave a result; see the reasons of the trials"
