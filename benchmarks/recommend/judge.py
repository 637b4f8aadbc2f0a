"""The judgement itself: every cell's rate comes from a rule that saw nothing of the cell's family.

Left out for a family: its cells in the fit of the law (centre, rank slope, size curve, family offsets, interval
widths, distance of practice), and its vendor's public recipes in the pooling. The sweep's own rows among the public
recipes are never pooled. Not left out: the form of the law, the shape of the basin, and the small exponent that moves a
public recipe to another rank. The 13 outside settings (Gemma-3) are judged by the law fitted on the whole sweep, which
holds no Gemma, without any Gemma recipe; alpha, steps and batch exponents come from other sources (rules/lora_law.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.recommend.baselines import Baseline
from benchmarks.recommend.basins import basin_floor, best_measured, judged, loss_at
from finestep.knowledge.models import recipe_family
from finestep.knowledge.sweep import (
    SWEEP_ALPHA,
    SWEEP_BATCH,
    SWEEP_STEPS,
    MeasuredSetting,
    SweepCell,
    measured_settings,
    sweep_cells,
)
from finestep.rules.learning_rate import RateAnswer, RateRequest, learning_rate, rate_estimate
from finestep.rules.lora_fit import optimum
from finestep.rules.lora_law import LoraLaw
from finestep.rules.practice_bias import fit_law_with_practice

OUTSIDE_SOURCE = "lr-matters"


@dataclass(frozen=True, slots=True)
class Judged:
    """One case: what was recommended, and what was measured. Rates in log10; the regrets in per cent, None outside
    the sweep.

    `aim` is the rate that is recommended, as a user reads it (two digits); it is what is judged. `center` is the middle
    of the interval, right of the aim when the doubt is large.
    """

    name: str
    family: str
    center: float
    aim: float
    low: float
    high: float
    best: float | None
    regret: float | None = None
    floor_regret: float | None = None

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the best measured rate; None where the sweep does not bracket it."""
        return None if self.best is None else self.low <= self.best <= self.high


def families(group: str) -> dict[str, str]:
    """Lineage -> the family that is left out together: `fine` (qwen3 apart from qwen3.5) or `vendor` (all Qwen at
    once)."""
    names = {cell.lineage for cell in sweep_cells()}
    return {name: (recipe_family(name) or name) if group == "vendor" else name for name in names}


def judge_sweep(group: str = "fine") -> list[Judged]:
    """Every judged cell of the sweep, its family left out."""
    family_of = families(group)
    out: list[Judged] = []
    for family in sorted(set(family_of.values())):
        kept = [found for c in sweep_cells() if family_of[c.lineage] != family and (found := optimum(c))]
        law = fit_law_with_practice(kept, exclude_families=[recipe_family(family) or family])
        out += [judge_cell(cell, law) for cell in sweep_cells() if family_of[cell.lineage] == family and judged(cell)]
    return out


def judge_cell(cell: SweepCell, law: LoraLaw) -> Judged:
    """One cell under a law that did not see it."""
    answer = learning_rate(cell_request(cell), law=law, exclude_families=[recipe_family(cell.lineage) or cell.lineage])
    found = optimum(cell)
    return _judged(f"{cell.model} r{cell.rank}", cell.lineage, answer, found.log_rate if found else None, cell)


def cell_request(cell: SweepCell) -> RateRequest:
    """The question that the sweep's cell answers."""
    return RateRequest(
        method="lora",
        params=cell.num_parameters,
        active_params=cell.num_active_parameters,
        batch=SWEEP_BATCH,
        steps=SWEEP_STEPS,
        rank=cell.rank,
        alpha=SWEEP_ALPHA,
        model=cell.model,
        lineage=cell.lineage,
        recipe_family=recipe_family(cell.lineage),
        task="instruction",
    )


def _judged(name: str, family: str, answer: RateAnswer, best: float | None, cell: SweepCell | None) -> Judged:
    center, aim = answer.center.mean, math.log10(rate_estimate(answer).value)
    low, high = (math.log10(x) for x in answer.interval)
    if cell is None:
        return Judged(name, family, center, aim, low, high, best)
    return Judged(name, family, center, aim, low, high, best, regret(cell, aim), regret(cell, aim, floor=True))


def regret(cell: SweepCell, log_rate: float, *, floor: bool = False) -> float:
    """Loss above the best measured one (or above the interpolated floor), in per cent of it."""
    reference = basin_floor(cell) if floor else best_measured(cell)
    return 100.0 * (loss_at(cell, log_rate) / reference - 1.0)


def judge_outside() -> list[Judged]:
    """The 13 outside settings (batch 16-128, 5k-395k examples, rank 4-256) on Gemma-3-1B."""
    law = fit_law_with_practice([found for c in sweep_cells() if (found := optimum(c))], exclude_families=["gemma"])
    rows = [row for row in measured_settings() if row.source == OUTSIDE_SOURCE]
    return [_judged(row.id, row.lineage, _answer(row, law), math.log10(row.best_learning_rate), None) for row in rows]


def _answer(row: MeasuredSetting, law: LoraLaw) -> RateAnswer:
    request = RateRequest(
        method="lora",
        params=row.params,
        active_params=None,
        batch=row.batch,
        steps=row.steps,
        rank=row.rank,
        alpha=row.alpha,
        model=row.model,
        lineage=row.lineage,
        recipe_family=recipe_family(row.lineage),
        task="math",
    )
    return learning_rate(request, law=law, exclude_families=[recipe_family(row.lineage) or row.lineage])


def baseline_regrets(baseline: Baseline, *, floor: bool = False) -> list[float]:
    """Regret of a baseline on every judged cell that it covers."""
    cells = [cell for cell in sweep_cells() if judged(cell)]
    return [regret(cell, rate, floor=floor) for cell in cells if (rate := baseline(cell)) is not None]
