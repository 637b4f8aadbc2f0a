"""Search: the search of finestep, the one behind `tune`, ask/tell and the Optuna sampler.

It reads results in the unit of the study, lets `StructuredSearch` choose, and says what it believes in per cent. It may add the
conservative baseline, and a last run at a faster batch size. Everything is recomputed from the trials; it never runs one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from finestep.answer import Answer, TradeOff, answer_sentence
from finestep.estimate import Estimate
from finestep.search.belief import BelievedCurve, believed_curves
from finestep.search.by_hand import as_shown
from finestep.search.calibrated import regret_factor, up_to
from finestep.search.further_fields import value_words
from finestep.search.leader import leading
from finestep.search.observations import Objective, observe
from finestep.search.opening import DECIDES_ALL, WHY, Opening
from finestep.search.prior import SearchPrior
from finestep.search.settled import is_surrounded
from finestep.search.space import SearchSpace
from finestep.search.strategy import Proposal
from finestep.search.structured import STOP_BELOW, StructuredSearch
from finestep.search.study_space import metric_noise_percent, objective_of
from finestep.search.sweep import BASELINE_RATES
from finestep.search.unit import Reading
from finestep.study import StudySpec
from finestep.trial import Trial

ROOM_FOR_BASELINE = 6.0
"""Full runs that a budget must have before one of them goes to the baseline. Of fewer none is left for one that only shows how far off
the usual default is: with four runs 15 recorded fine-tunes ended at 5.8 % above the best with it and at 3.2 % without, with six at 2.3 and
2.1 %."""
NEAR_OCTAVES = 1.0
"""A baseline this near the prior's centre is a full run of the search itself."""
SPEED_MARGIN_PERCENT = 0.1
"""Loss that `--prefer speed` may cost, in %."""


MOST_AT_ONCE = 8
"""Trials of a study that train together at most."""
FEWEST_TOGETHER = 4.0
"""Full runs that a budget must have before trials train together."""


def most_at_once(full_runs: float) -> int:
    """Trials that may train together: what is asked for together cannot learn from each other, so that a budget has two waves.

    Of two or three full runs each one decides where the next goes. Replayed on eight recorded fine-tunes, three runs end at 1.5 %
    above the best one at a time, and at 2.9 % two at a time. Simulated with 5 full runs (made-up surfaces): mean regret 0.05 % one
    at a time, 0.08 and 0.05 % with 2 and 3 at a time, 0.18 % with 6.

    >>> most_at_once(6), most_at_once(16), most_at_once(3), most_at_once(1000)
    (3, 8, 1, 8)
    """
    if full_runs < FEWEST_TOGETHER:
        return 1
    return int(min(math.ceil((full_runs - 1) / 2), MOST_AT_ONCE))


@dataclass(frozen=True)
class _View:
    """What the structured search is given.

    Attributes:
        trials: those that it may see, with their results as losses in units.
        unit: how many per cent of the loss a unit is.
        best: number of the best full run by the objective itself, which losses in units may round.
    """

    search: StructuredSearch
    trials: list[Trial]
    unit: float
    best: int | None


def of_the_loss(trials: Sequence[Trial]) -> Objective:
    """The validation loss, as far above its floor as the trials show."""
    return Objective().with_floor(trials)


@dataclass(frozen=True)
class Search:
    """Bayesian search over learning rate, batch size and length, in the unit of the study.

    Args:
        space: what may be proposed.
        prior: where the optimum is believed to be, and the shape around it.
        objective: from the trials so far to what is made best.
        seed: of the samples behind the intervals.
        stop_below: end when one more full run promises less than this, in units, or when worse full runs stand on both sides of
            the best; 0 = use the whole budget.
        num_eval_rows: rows behind a metric, for its noise.
        baseline: (rate, batch) of the usual default, to run first and compare with; None: none is run.
        prefers_speed: take a faster batch size where that costs little.
        opening: which of the first full runs are given, in a study of few steps.

    >>> search = Search(SearchSpace.between((1e-5, 1e-3), (8, 64)), SearchPrior(learning_rate=1e-4, batch_size=16))
    >>> (first,) = search.propose([], remaining_runs=4)
    >>> first.effective_batch_size, first.fidelity
    (16, 0.125)
    """

    space: SearchSpace
    prior: SearchPrior
    objective: Callable[[Sequence[Trial]], Objective] = of_the_loss
    seed: int = 0
    stop_below: float = STOP_BELOW
    num_eval_rows: int = 0
    baseline: tuple[float, int] | None = None
    baseline_name: str = "the usual default"
    prefers_speed: bool = False
    opening: Opening = DECIDES_ALL

    @classmethod
    def of_study(
        cls,
        spec: StudySpec,
        space: SearchSpace,
        prior: SearchPrior,
        *,
        num_eval_rows: int = 0,
        budget_runs: float = math.inf,
        opening: Opening = DECIDES_ALL,
    ) -> Search:
        """The search of a study.

        Args:
            num_eval_rows: rows behind a metric, for its noise.
            budget_runs: the whole budget; a small one leaves the baseline out.
            opening: which of the first full runs are given, in a study of few steps.
        """
        rate, batch = BASELINE_RATES[spec.recipe.method], max(min(16, space.batch_sizes[-1]), spec.recipe.num_devices)
        if spec.framework is not None:  # somebody's config is compared with what it says itself
            rate, batch = spec.recipe.learning_rate, spec.recipe.effective_batch_size
        wanted = spec.search.with_baseline and budget_runs >= ROOM_FOR_BASELINE
        return cls(
            space,
            prior,
            objective=partial(objective_of, spec, num_eval_rows=num_eval_rows),
            seed=spec.recipe.seed,
            num_eval_rows=num_eval_rows,
            baseline=(rate, batch) if wanted else None,
            baseline_name="the usual default" if spec.framework is None else "your file as it is",
            prefers_speed=spec.search.prefer == "speed",
            opening=opening,
        )

    @property
    def metric(self) -> str | None:
        """The metric that is made best; None: the validation loss."""
        return self.objective(()).metric

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        """The baseline first, then what the search wants; with a preference for speed a last run where it is faster."""
        proposals = self._baseline(trials) if remaining_runs >= 1 else []
        left = remaining_runs - len(proposals)
        view = self._view(trials)
        if len(proposals) < max_proposals and not self._has_answer(view):
            wanted = _beside(proposals, partial(view.search.propose, view.trials, remaining_runs=left), max_proposals)
            # What is believed is said once for all proposals of a wave: sampling the surfaces behind it is the costly part.
            said = self._answer(view) if wanted else None
            proposals += [_explained(one, said) for one in wanted]
        if not proposals and self.prefers_speed and left >= 1:
            proposals = self._faster(trials, view)
        return proposals

    def _has_answer(self, view: _View) -> bool:
        """True when the best run stands between worse ones, so that a further run would compare recipes that differ by luck.

        How many runs that takes depends on how far two seeds differ (`settled.is_surrounded`). Rates and batch sizes alone say nothing
        of further fields that are tuned.
        """
        if self.stop_below == 0.0 or self.space.extras:
            return False
        observations = observe(view.trials, self.space, view.search.objective)
        return is_surrounded(observations, view.search.prior, is_short=self.opening.is_short)

    def _view(self, trials: Sequence[Trial]) -> _View:
        """The study as the search sees it: its objective as a loss, in the study's own unit."""
        objective = self.objective(trials)
        trials = as_shown(trials, objective)
        best = leading(objective, trials)
        reading = Reading.of(trials, objective, self.prior)
        noise = metric_noise_percent(objective, trials, num_eval_rows=self.num_eval_rows)
        prior = reading.prior(self.prior, metric_noise=noise, is_short=self.opening.is_short)
        search = StructuredSearch(self.space, prior, seed=self.seed, stop_below=self.stop_below, opening=self.opening)
        return _View(search, reading.losses(self.visible(trials)), reading.unit, best.number if best else None)

    def visible(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials that the search may see.

        A baseline far from the centre is hidden until the search has a full run of its own: being easy to beat, it would
        make every full run look worth its cost before the short ones have been asked.
        """
        own = any(trial.fidelity == 1.0 and not trial.is_baseline for trial in trials)
        return [trial for trial in trials if own or not trial.is_baseline or self._is_near(trial)]

    def answer(self, trials: Sequence[Trial]) -> Answer:
        """What the search believes now, its choice moved to a faster batch when speed is preferred and costs little."""
        answer = self._answer(self._view(trials))
        if not self.prefers_speed or answer.trial is None:
            return answer
        row = self._fastest(answer)
        if row is None or row.effective_batch_size == answer.effective_batch_size:
            return answer
        found = self._best_at(trials, row.effective_batch_size)
        if found is None:
            return answer
        rows = tuple(
            one.model_copy(update={"learning_rate": up_to(one.learning_rate, found.recipe.learning_rate)})
            if one is row
            else one
            for one in answer.trade_offs
        )
        moved = answer.model_copy(
            update={
                "trial": found.number,
                "as_good": None,
                "trade_offs": rows,
                "learning_rate": found.recipe.learning_rate,
                "effective_batch_size": found.recipe.effective_batch_size,
                "expected_regret": None
                if answer.expected_regret is None
                else answer.expected_regret + (row.excess_percent or 0.0),
            }
        )
        return moved.model_copy(update={"sentence": answer_sentence(moved)})

    def _answer(self, view: _View) -> Answer:
        """The search's answer in per cent of the objective, not in units."""
        # Inside, a loss is counted in units (how many times steeper than usual this study is). What is told must be per cent
        # of the loss again.
        said = view.search.answer(view.trials, winner=view.best)
        rows = tuple(
            row.model_copy(update={"excess_percent": _times(row.excess_percent, view.unit)}) for row in said.trade_offs
        )
        scaled = said.model_copy(
            update={
                "expected_regret": _times(said.expected_regret, view.unit * regret_factor(self.opening)),
                "expected_gain": _times(said.expected_gain, view.unit),
                "trade_offs": rows,
            }
        )
        return scaled if said.learning_rate is None else scaled.model_copy(update={"sentence": answer_sentence(scaled)})

    def belief(self, trials: Sequence[Trial]) -> tuple[BelievedCurve, ...]:
        """What the search expects of every rate at each batch size, in the objective's own scale; for a figure."""
        view, objective = self._view(trials), self.objective(trials)
        full = [value for t in trials if t.fidelity == 1.0 and (value := objective.value(t)) is not None]
        if not full:
            return ()
        return believed_curves(
            view.trials,
            space=self.space,
            prior=view.search.prior,
            objective=objective,
            best_value=min(full, key=objective.rank),
            unit=view.unit,
            seed=self.seed,
        )

    def _baseline(self, trials: Sequence[Trial]) -> list[Proposal]:
        """The usual default, where it is wanted; not once a full run was begun: who goes on spends the rest on the search."""
        if self.baseline is None or any(trial.fidelity == 1.0 for trial in trials):
            return []
        rate, batch = self.baseline
        return [
            Proposal(
                learning_rate=rate,
                effective_batch_size=batch,
                stage="baseline",
                why=f"{self.baseline_name}, to compare with: {rate:.1e} at batch {batch}",
                is_baseline=True,
            )
        ]

    def _is_near(self, trial: Trial) -> bool:
        """Within an octave of the prior's centre at its batch size."""
        centre = math.log2(self.prior.learning_rate)
        centre += self.prior.slope * (math.log2(trial.recipe.effective_batch_size) - math.log2(self.prior.batch_size))
        return abs(math.log2(trial.recipe.learning_rate) - centre) <= NEAR_OCTAVES

    def _fastest(self, answer: Answer) -> TradeOff | None:
        return answer.fastest(max_excess_percent=SPEED_MARGIN_PERCENT)

    def _faster(self, trials: Sequence[Trial], view: _View) -> list[Proposal]:
        """A full run at the fastest batch size that costs little, when none was made there."""
        row = self._fastest(self._answer(view))
        if row is None or any(
            trial.fidelity == 1.0 and trial.recipe.effective_batch_size == row.effective_batch_size for trial in trials
        ):
            return []
        return [
            Proposal(
                learning_rate=min(
                    self.space.learning_rates, key=lambda rate: abs(math.log(rate / row.learning_rate.value))
                ),
                effective_batch_size=row.effective_batch_size,
                stage="faster batch",
                why=f"batch {row.effective_batch_size} is the fastest of those expected within {SPEED_MARGIN_PERCENT} % of the best",
            )
        ]

    def _best_at(self, trials: Sequence[Trial], batch: int) -> Trial | None:
        """The best full-length trial of one batch size."""
        here = [trial for trial in trials if trial.recipe.effective_batch_size == batch]
        return leading(self.objective(trials), here)


def _beside(others: Sequence[Proposal], propose: Callable[..., list[Proposal]], most: int) -> list[Proposal]:
    """What a search wants that does not know of others that run beside it (the baseline); none of it is the same run again."""
    same = {(one.learning_rate, one.effective_batch_size, one.fidelity) for one in others}

    def is_new(one: Proposal) -> bool:
        return bool(one.changes) or (one.learning_rate, one.effective_batch_size, one.fidelity) not in same

    room = most - len(others)
    wanted = propose(max_proposals=room)
    return wanted if all(map(is_new, wanted)) else list(filter(is_new, propose(max_proposals=most)))[:room]


def _explained(proposal: Proposal, said: Answer | None) -> Proposal:
    """What is tested, where the best rate is believed to be, and what further runs may gain."""
    tuned = f", {value_words(proposal.changes)}," if proposal.changes else ""
    what = f"{proposal.learning_rate:.2g} x {proposal.effective_batch_size}{tuned}"
    text = f"testing {what} at {length_words(proposal.fidelity)}"
    rows = {row.effective_batch_size: row.learning_rate for row in said.trade_offs} if said else {}
    rate = rows.get(proposal.effective_batch_size)
    if proposal.stage in WHY:
        text += f": {WHY[proposal.stage]}"
    elif rate is None:
        text += ", where the prior points"
    else:
        text += f": the best rate at this batch is between {rate.low:.2g} and {rate.high:.2g}"
        text += _outside_words(proposal, rate)
        gain = said.expected_gain if said else None
        text += f"; expected gain of one more full run {gain:.2g} %" if gain is not None else ""
    stage = "short runs" if proposal.fidelity < 1 else "full runs"
    return proposal.model_copy(update={"stage": stage, "why": text})


def _outside_words(proposal: Proposal, rate: Estimate) -> str:
    """Why a rate outside of its interval is tried; empty inside."""
    if rate.low * (1 - 1e-6) <= proposal.learning_rate <= rate.high * (1 + 1e-6):
        return ""
    side = "above" if proposal.learning_rate > rate.high else "below"
    if proposal.fidelity < 1:
        return f" (this lies {side}: a short run there tells most about where it is)"
    return f" (this lies {side}: less likely to be best, but the loss could fall furthest there)"


def length_words(fidelity: float) -> str:
    """A share of the full run as a person says it.

    >>> length_words(1.0), length_words(0.125), length_words(0.35), length_words(0.5), length_words(0.18)
    ('full length', '1/8 of the length', 'a third of the length', 'half of the length', '18 % of the length')
    """
    if fidelity >= 1:
        return "full length"
    named = {0.5: "half", 0.25: "a quarter", 0.35: "a third", 0.33: "a third"}
    whole = round(1 / fidelity)
    fraction = f"1/{whole}" if abs(1 / fidelity - whole) < 0.02 else f"{100 * fidelity:.0f} %"
    return f"{named.get(fidelity, fraction)} of the length"


def _times(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit
