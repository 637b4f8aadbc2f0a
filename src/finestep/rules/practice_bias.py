"""How far published LoRA rates lie below measured optima, as a whole; without this, pooling would drag every answer
down.

Practice rounds to 1e-4 and 2e-4 and copies; the sweep's optima are about twice as high. The mean distance over the
sweep's models, each
family counted once, is taken out before pooling, so that only what recipes say about *this* model against others is
used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from finestep.knowledge.models import recipe_family
from finestep.knowledge.sweep import SWEEP_ALPHA, SWEEP_BATCH, SWEEP_STEPS
from finestep.rules.lora_fit import Optimum
from finestep.rules.lora_law import LoraLaw, LoraSetting, fit_lora_law, lora_terms
from finestep.rules.neighbours import Target, nearest, practice_view
from finestep.rules.terms import total

REFERENCE_RANK = 32


def fit_law_with_practice(optima: Sequence[Optimum], *, exclude_families: Sequence[str] = ()) -> LoraLaw:
    """The law fitted to `optima`, with the distance of practice from it (recipes of `exclude_families` left out)."""
    law = fit_lora_law(optima)
    return replace(law, practice_dex=practice_distance(law, optima, exclude_families=exclude_families))


def practice_distance(law: LoraLaw, optima: Sequence[Optimum], *, exclude_families: Sequence[str] = ()) -> float:
    """Mean over families of (what near recipes say - what the law says), in dex."""
    distances: dict[str, list[float]] = defaultdict(list)
    for o in {o.model: o for o in optima}.values():
        target = _target(o)
        view = practice_view(target, nearest(target, exclude_families=exclude_families))
        if view is not None:
            setting = LoraSetting(o.size, REFERENCE_RANK, SWEEP_ALPHA, SWEEP_STEPS, SWEEP_BATCH, o.lineage, o.model)
            distances[o.lineage].append(view.mean - total(lora_terms(setting, law=law)).mean)
    return sum(sum(d) / len(d) for d in distances.values()) / max(len(distances), 1)


def _target(o: Optimum) -> Target:
    return Target(
        group="lora",
        architecture="causal-lm",
        params=o.params,
        family=recipe_family(o.lineage),
        task="instruction",
        batch=SWEEP_BATCH,
        rank=REFERENCE_RANK,
        alpha=SWEEP_ALPHA,
    )
