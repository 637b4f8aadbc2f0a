"""The classic procedure: a baseline, a learning-rate scan, a batch test under a scaling rule, a last refinement.

It is what textbooks and practitioners do by hand, at equal tokens a trial; `search` has better ones, and this is their yardstick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from finestep.rules.scaling import scale_learning_rate
from finestep.search.strategy import Proposal
from finestep.study import ScalingRule
from finestep.trial import Trial

BASELINE_RATES = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}
SCAN_RATES = (1e-5, 3e-5, 5e-5, 1e-4)
ADAPTER_FACTOR = 10.0
BATCHES = (16, 32, 64, 128)
EDGE_STEP = 3.0
REFINE_STEP = 1.7
LOWEST_RATE, HIGHEST_RATE = 1e-7, 0.1
SMALLEST_NUMBER_OF_STEPS = 20


def own_rates(centre: float) -> tuple[float, ...]:
    """The rates of a scan around one that the user has set.

    >>> own_rates(3e-5)
    (1.5e-05, 3e-05, 6e-05)
    """
    return tuple(float(f"{centre * factor:.6g}") for factor in (0.5, 1.0, 2.0))


@dataclass(frozen=True)
class Sweep:
    """The plan; which trial comes next follows from the trials so far alone.

    Args:
        method: `full`, `lora` or `qlora`; adapters take ten times the rates.
        batch: batch size of the baseline and the scan.
        batches: batch sizes of the batch test.
        scaling: how the rate moves with the batch.
    """

    method: str
    batch: int = 16
    batches: tuple[int, ...] = BATCHES
    scaling: ScalingRule = "sqrt"
    rates: tuple[float, ...] = field(default=())

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        """The next trials of the stage that is not done yet; nothing when all stages are, or when the budget is spent."""
        planned = self._stage(list(trials))
        done = {_key(trial.recipe.learning_rate, trial.recipe.effective_batch_size) for trial in trials}
        fresh = [one for one in planned if _key(one.learning_rate, one.effective_batch_size) not in done]
        return fresh[: min(max_proposals, int(remaining_runs + 1e-9))]

    def _stage(self, trials: list[Trial]) -> list[Proposal]:
        for plan in (self._baseline, self._scan, self._extension, self._batch_test, self._refinement):
            if plan not in (self._baseline, self._scan) and _unfinished(trials):
                return []
            planned = plan(trials)
            if any(not _has(trials, one) for one in planned):
                return planned
        return []

    def _baseline(self, trials: list[Trial]) -> list[Proposal]:
        rate = BASELINE_RATES[self.method]
        return [
            Proposal(
                learning_rate=rate,
                effective_batch_size=self.batch,
                stage="baseline",
                why=f"the usual default: {rate:.0e} at batch {self.batch}",
                is_baseline=True,
            )
        ]

    def _scan(self, trials: list[Trial]) -> list[Proposal]:
        return [
            Proposal(
                learning_rate=rate,
                effective_batch_size=self.batch,
                stage="learning-rate scan",
                why=f"learning rates at batch {self.batch}",
            )
            for rate in self._scan_rates()
        ]

    def _scan_rates(self) -> tuple[float, ...]:
        if self.rates:
            return self.rates
        factor = 1.0 if self.method == "full" else ADAPTER_FACTOR
        return tuple(float(f"{rate * factor:.6g}") for rate in SCAN_RATES)

    def _extension(self, trials: list[Trial]) -> list[Proposal]:
        """While the best rate lies on an edge of what was tried, try a step beyond it."""
        here = _at_batch(trials, self.batch)
        best = best_trial(here)
        if best is None:
            lowest = min((trial.recipe.learning_rate for trial in here), default=LOWEST_RATE)
            return self._beyond(lowest / EDGE_STEP, "no rate ended well: trying lower")
        rates = sorted(trial.recipe.learning_rate for trial in here)
        rate = best.recipe.learning_rate
        if rate == rates[-1]:
            return self._beyond(rate * EDGE_STEP, "the best rate is the highest tried: trying higher")
        if rate == rates[0]:
            return self._beyond(rate / EDGE_STEP, "the best rate is the lowest tried: trying lower")
        return []

    def _beyond(self, rate: float, why: str) -> list[Proposal]:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            return []
        return [
            Proposal(
                learning_rate=float(f"{rate:.2g}"), effective_batch_size=self.batch, stage="learning-rate scan", why=why
            )
        ]

    def _batch_test(self, trials: list[Trial]) -> list[Proposal]:
        best = best_trial(_at_batch(trials, self.batch))
        if best is None:
            return []
        return [
            Proposal(
                learning_rate=_round(
                    scale_learning_rate(
                        best.recipe.learning_rate, from_batch=self.batch, to_batch=batch, rule=self.scaling
                    )
                ),
                effective_batch_size=batch,
                stage="batch test",
                why=f"batch {batch} with the rate moved by the {self.scaling} rule",
            )
            for batch in self.batches
            if batch != self.batch
        ]

    def _refinement(self, trials: list[Trial]) -> list[Proposal]:
        """One step either side of the winner; the winner of the earlier stages, so that the step is not taken twice."""
        winner = best_trial([trial for trial in trials if trial.stage != "refinement"])
        if winner is None:
            return []
        recipe = winner.recipe
        return [
            Proposal(
                learning_rate=_round(recipe.learning_rate * factor),
                effective_batch_size=recipe.effective_batch_size,
                stage="refinement",
                why=f"one step {side} the winner",
            )
            for factor, side in ((1 / REFINE_STEP, "below"), (REFINE_STEP, "above"))
        ]


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The choosable trial with the lowest validation loss at full fidelity; of equals, the smaller learning rate."""
    ranked = [trial for trial in trials if trial.is_choosable and trial.fidelity == 1.0]
    return min(ranked, key=lambda trial: (trial.outcome.eval_loss, trial.recipe.learning_rate), default=None)  # type: ignore[union-attr]


def sweep_batches(num_train_rows: int, num_epochs: float, *, baseline: int = 16) -> tuple[int, ...]:
    """Batch sizes worth a trial: those that leave at least twenty steps.

    >>> sweep_batches(1000, 1.0)
    (16, 32)
    """
    rows = num_train_rows * num_epochs
    return tuple(batch for batch in BATCHES if batch == baseline or rows / batch >= SMALLEST_NUMBER_OF_STEPS)


def _at_batch(trials: Sequence[Trial], batch: int) -> list[Trial]:
    return [trial for trial in trials if trial.recipe.effective_batch_size == batch and trial.stage != "refinement"]


def _unfinished(trials: Sequence[Trial]) -> bool:
    return any(trial.state == "running" for trial in trials)


def _has(trials: Sequence[Trial], proposal: Proposal) -> bool:
    wanted = _key(proposal.learning_rate, proposal.effective_batch_size)
    return any(_key(trial.recipe.learning_rate, trial.recipe.effective_batch_size) == wanted for trial in trials)


def _key(learning_rate: float, batch: int) -> tuple[str, int]:
    return (f"{learning_rate:.3e}", batch)


def _round(rate: float) -> float:
    return float(f"{rate:.3g}")
