"""The judgement itself: every rate comes from a law that saw nothing of the source, or of the family, that it is judged on.

Sources: all cases of a cluster of sources are left out at once, spreads are estimated anew, and the cluster counts once
however many cases it has. The sweep, besides: all cells of a model family are left out, and the loss that the recommended rate
would have had is read off the measured basin. Not left out: the form of the law, the priors of its coefficients, and the shape
of the basins.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.recommend.baselines import Baseline
from benchmarks.recommend.basins import basin_floor, best_measured, judged, loss_at
from finestep.knowledge.models import known_model, lineage, recipe_family
from finestep.knowledge.optima import MeasuredOptimum, measured_optima
from finestep.knowledge.sweep import SWEEP_ALPHA, SWEEP_BATCH, SWEEP_STEPS, SweepCell, sweep_cells
from finestep.rules.effective_size import effective_parameters
from finestep.rules.learning_rate import AskedAdapter, AskedModel, AskedTask, RateRequest, learning_rate, rate_estimate
from finestep.rules.rate_evidence import FITTED_GRADES, SWEEP, bracketed, evidence_cases
from finestep.rules.rate_fit import Measurement, estimated_spreads, fit_rate_law
from finestep.rules.rate_law import RateLaw


@dataclass(frozen=True, slots=True)
class Judged:
    """One case: what was recommended, and what was measured; rates in log10.

    `aim` is the rate that is recommended, as a user reads it (two digits); `center` is the middle of the interval.
    """

    name: str
    family: str
    cluster: str
    center: float
    aim: float
    low: float
    high: float
    best: float

    @property
    def covered(self) -> bool:
        """Whether the interval holds the best measured rate."""
        return self.low <= self.best <= self.high


def judge_sources() -> list[Judged]:
    """Every fitted case with its whole cluster left out; cases of practice and ratios are not measured rates, and not judged."""
    cases = evidence_cases()
    requests = _requests()
    out: list[Judged] = []
    for cluster in sorted({case.cluster for case in cases if case.name in requests}):
        law = fit_rate_law([case for case in cases if case.cluster != cluster])
        chosen = [case for case in cases if case.cluster == cluster and case.name in requests]
        out += [judge(case.name, cluster, requests[case.name], case.log_rate, law) for case in chosen]
    return out


def judge_weak() -> list[Judged]:
    """Published bests at the edge of their grid, or weak, that the law was not fitted on: shown apart."""
    rows = [row for row in measured_optima() if row.origin.grade not in FITTED_GRADES]
    return [
        judge(row.id, row.origin.cluster, published_request(row), math.log10(row.learning_rate), None) for row in rows
    ]


def judge(name: str, cluster: str, request: RateRequest, best: float, law: RateLaw | None) -> Judged:
    """One case under a law; None = as packaged."""
    answer = learning_rate(request, law=law)
    low, high = (math.log10(x) for x in answer.interval)
    aim = math.log10(rate_estimate(answer).value)
    return Judged(name, family_of(request), cluster, answer.center.mean, aim, low, high, best)


def family_of(request: RateRequest) -> str:
    """What coverage is counted by."""
    if request.model.is_encoder:
        return "encoders, full" if request.method == "full" else "encoders, LoRA"
    if request.method == "full":
        return "full, decoders"
    return "LoRA and QLoRA" if request.adapter.variant == "lora" else "LoRA variants"


def published_request(row: MeasuredOptimum) -> RateRequest:
    """The question that a published optimum answers, as a user would ask it."""
    facts = known_model(row.model)
    size = effective_parameters(facts) if facts else row.params
    assert size, row.id
    family = lineage(facts) if facts else None
    is_encoder = row.architecture == "encoder"
    return RateRequest(
        method=row.method,
        model=AskedModel(
            params=float(size),
            active_params=facts.num_active_parameters if facts else None,
            name=row.model,
            lineage=family,
            recipe_family=recipe_family(family),
            is_encoder=is_encoder,
        ),
        batch=row.run.batch,
        steps=row.run.steps,
        adapter=AskedAdapter(variant=row.variant, rank=row.rank or 16, alpha=row.alpha or 32.0),
        task=AskedTask(is_classification=is_encoder, num_labels=row.run.num_labels),
        constant_rate=row.run.constant_rate,
    )


def cell_request(cell: SweepCell) -> RateRequest:
    """The question that the sweep's cell answers."""
    return RateRequest(
        method="lora",
        model=AskedModel(
            params=cell.num_parameters,
            active_params=cell.num_active_parameters,
            name=cell.model,
            lineage=cell.lineage,
            recipe_family=recipe_family(cell.lineage),
        ),
        batch=SWEEP_BATCH,
        steps=SWEEP_STEPS,
        adapter=AskedAdapter(rank=cell.rank, alpha=SWEEP_ALPHA),
        task=AskedTask(name="instruction"),
    )


def _requests() -> dict[str, RateRequest]:
    published = {row.id: published_request(row) for row in measured_optima() if row.origin.grade in FITTED_GRADES}
    cells = {f"{c.model} rank {c.rank}": cell_request(c) for c in sweep_cells() if bracketed(c) is not None}
    return published | cells


@dataclass(frozen=True, slots=True)
class SweepRegret:
    """A cell of the sweep: loss above the best measured one, %, of the rate as recommended, and where the law knows the data set."""

    name: str
    recommended: float
    to_floor: float
    known_data: float


def judge_sweep() -> list[SweepRegret]:
    """Every judged cell of the sweep, its model family left out."""
    cases = evidence_cases()
    spreads = estimated_spreads(cases)
    out: list[SweepRegret] = []
    for family in sorted({cell.lineage for cell in sweep_cells()}):
        kept = [case for case in cases if case.setting.family != family]
        law = fit_rate_law(kept, spreads=spreads)
        offset = _sweep_offset(kept, law)
        out += [_regrets(cell, law, offset) for cell in sweep_cells() if cell.lineage == family and judged(cell)]
    return out


def _sweep_offset(cases: Iterable[Measurement], law: RateLaw) -> float:
    """How far the sweep's other families lie from the law as a whole, dex; each family counts once."""
    errors: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        if case.cluster == SWEEP:
            errors[case.setting.family or ""].append(case.log_rate - law.predict(case.setting).mean)
    return mean([mean(values) for values in errors.values()])


def _regrets(cell: SweepCell, law: RateLaw, offset: float) -> SweepRegret:
    answer = learning_rate(cell_request(cell), law=law)
    aim = math.log10(rate_estimate(answer).value)
    name = f"{cell.model} rank {cell.rank}"
    known = answer.center.mean + offset
    return SweepRegret(name, regret(cell, aim), regret(cell, aim, floor=True), regret(cell, known))


def regret(cell: SweepCell, log_rate: float, *, floor: bool = False) -> float:
    """Loss above the best measured one (or above the interpolated floor), in per cent of it."""
    reference = basin_floor(cell) if floor else best_measured(cell)
    return 100.0 * (loss_at(cell, log_rate) / reference - 1.0)


def baseline_regrets(baseline: Baseline, *, floor: bool = False) -> list[float]:
    """The same judgement of a baseline, on the cells where it says anything."""
    rates = ((cell, baseline(cell)) for cell in sweep_cells() if judged(cell))
    return [regret(cell, rate, floor=floor) for cell, rate in rates if rate is not None]


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
