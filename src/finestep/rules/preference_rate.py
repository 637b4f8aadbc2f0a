"""Learning rates of DPO, ORPO and KTO, from what published runs used: hardly anybody has swept them, and the width says so.

Each publisher has one vote (the geometric mean of its own), since one template is repeated in many files. The centre is the
median of the votes; the width is their distance from it, and never less than a factor of 3.2 for one standard deviation
where three or fewer have published. Two figures were fitted to the full DPO runs among them: by size and by beta.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

from finestep.knowledge.preference import preference_runs
from finestep.rules.terms import Term

OBJECTIVES = ("dpo", "orpo", "kto")
METHODS = tuple(f"{name}{kind}" for name in OBJECTIVES for kind in ("", "-full"))
"""`dpo` trains an adapter, `dpo-full` all weights."""
SOURCE = "preference-runs"
REFERENCE_PARAMS, REFERENCE_BETA = 7e9, 0.1
SIZE_SLOPE, SIZE_SLOPE_SD = -0.22, 0.08
"""Dex a tenfold size: least squares over the 30 full DPO runs whose publishers do not repeat a template for all models."""
BETA_SLOPE, BETA_SLOPE_SD = 0.11, 0.06
"""Dex a tenfold beta between 0.01 and 0.5, over the 16 of them that state it; length-normalised losses (beta above 1) have another."""
BETA_RANGE = (0.001, 1.0)
FEW_VOTES, FEW_VOTES_SD = 3, 0.5
LIKE_DPO_SD = 0.3
"""KTO is advised to take DPO's rate (TRL's own script says so); three published files are too few to say more."""
LEAST_SD = 0.3


def objective_of(method: str) -> tuple[str, bool]:
    """(dpo, orpo or kto; whether an adapter is trained).

    >>> objective_of("orpo-full"), objective_of("dpo")
    (('orpo', False), ('dpo', True))
    """
    return method.removesuffix("-full"), not method.endswith("-full")


def preference_terms(method: str, *, params: float, beta: float | None = None) -> list[Term]:
    """The usual rate of a preference objective, and what model size and beta change of it."""
    objective, is_adapter = objective_of(method)
    like = "dpo" if objective == "kto" else objective
    votes = votes_of(like, is_adapter=is_adapter)
    sd = spread(votes)
    kind = "adapter" if is_adapter else "full"
    terms = [
        Term("objective", statistics.median(votes), sd, SOURCE, f"{kind} {like} runs of {len(votes)} publishers"),
        Term(
            "size",
            SIZE_SLOPE * math.log10(params / REFERENCE_PARAMS),
            SIZE_SLOPE_SD * abs(math.log10(params / REFERENCE_PARAMS)),
            SOURCE,
            f"{params / 1e9:.3g}B, beside 7B",
        ),
    ]
    if objective == "kto":
        terms.append(Term("kto", 0.0, LIKE_DPO_SD, SOURCE, "as DPO: hardly published by itself"))
    if beta is not None and objective != "orpo":
        octaves = math.log10(min(max(beta, BETA_RANGE[0]), BETA_RANGE[1]) / REFERENCE_BETA)
        terms.append(
            Term("beta", BETA_SLOPE * octaves, BETA_SLOPE_SD * abs(octaves), SOURCE, f"beta {beta:g}, beside 0.1")
        )
    return terms


def votes_of(objective: str, *, is_adapter: bool) -> list[float]:
    """log10 rates, one for each publisher."""
    by_publisher: dict[str, list[float]] = defaultdict(list)
    for run in preference_runs():
        if run.objective == objective and run.is_adapter is is_adapter:
            by_publisher[run.publisher].append(math.log10(run.learning_rate))
    return sorted(statistics.mean(rates) for rates in by_publisher.values())


def spread(votes: list[float]) -> float:
    """How far the votes lie from their median, dex: the root of the mean square, and no less than 0.5 where few have voted."""
    centre = statistics.median(votes)
    found = math.sqrt(statistics.fmean((vote - centre) ** 2 for vote in votes))
    return max(found, FEW_VOTES_SD if len(votes) <= FEW_VOTES else LEAST_SD)
