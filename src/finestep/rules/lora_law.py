"""The best learning rate of LoRA (all linear layers, Adam, decay to zero) as a sum of terms, each with its own doubt.

log10 rate = size law (centre, size, rank) + family offset - 0.5 log10(alpha / 32) - 0.2 log10(T / 780) + 0.2 log10(B
/ 128).
Fitted on the sweep: centre, size, rank, offsets. Not fitted there, and not on the settings that the benchmark judges:
alpha
(theory, evidence `mu-a`), steps T (`horizon-exponent`), batch B (`batch-exponent`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from finestep.knowledge.packaged import table
from finestep.knowledge.sweep import SWEEP_ALPHA, SWEEP_BATCH, SWEEP_STEPS
from finestep.rules.lora_fit import (
    Optimum,
    SizeLaw,
    decades_below,
    fit_size_law,
    half_width,
    left_out_residuals,
    model_means,
    shrunk_family_offsets,
)
from finestep.rules.terms import Term

Z80 = 1.2815515655446004
ALPHA_EXPONENT, ALPHA_SD = -0.5, 0.15
STEPS_EXPONENT, STEPS_SD = -0.2, 0.15
BATCH_EXPONENT, BATCH_SD = 0.2, 0.15
LENGTH_UNKNOWN_SD = 0.12
SMALL_SD = 0.1
"""Doubt for every factor of ten below 1B: one basin measured there."""
OTHER_DATA_SD = 0.12
"""Other data than the sweep's: the measured settings outside it scatter by this much more than the law's own doubt."""
FAMILY_PRIOR_MODELS = 1.5
"""Variance between models of a family over variance between families, about 0.15^2 / 0.12^2 in the sweep."""
MODEL_PRIOR_CELLS = 1.0


@dataclass(frozen=True, slots=True)
class LoraLaw:
    """The size law, the offsets of measured families and models, and the half-widths of 80 % intervals, all in dex."""

    size_law: SizeLaw
    families: dict[str, float]
    models: dict[str, float]
    half_width_new_family: float
    half_width_known_family: float
    half_width_known_model: float
    practice_dex: float = 0.0
    """How far published LoRA rates lie from the law's, as a whole (practice_bias.py)."""


@dataclass(frozen=True, slots=True)
class LoraSetting:
    """What the best rate depends on. `size` in billions, dense-equivalent; `steps` None = not known."""

    size: float
    rank: int
    alpha: float
    steps: float | None
    batch: float
    lineage: str | None = None
    model: str | None = None


def lora_terms(setting: LoraSetting, *, law: LoraLaw, same_data: bool = False) -> list[Term]:
    """The terms whose sum is log10 of the best rate; their variances add up.

    Args:
        same_data: the sweep's own recipe and data are meant, so no doubt is added for other data.
    """
    base = law.size_law.log_rate(size=setting.size, rank=setting.rank)
    alpha, batch = math.log10(setting.alpha / SWEEP_ALPHA), math.log10(setting.batch / SWEEP_BATCH)
    steps = math.log10((setting.steps or SWEEP_STEPS) / SWEEP_STEPS)
    terms = [
        Term("size and rank", base, 0.0, "lora-law", f"{setting.size:.3g}B dense-equivalent, rank {setting.rank}"),
        offset_term(setting, law=law),
        Term("alpha", ALPHA_EXPONENT * alpha, ALPHA_SD * abs(alpha), "mu-a", f"alpha {setting.alpha:g} against 32"),
        Term("steps", STEPS_EXPONENT * steps, STEPS_SD * abs(steps), "horizon-exponent", _steps_words(setting.steps)),
        Term(
            "batch",
            BATCH_EXPONENT * batch,
            BATCH_SD * abs(batch),
            "batch-exponent",
            f"batch {setting.batch:g} against 128",
        ),
    ]
    below = decades_below(setting.size)
    if below > 0.0:
        terms.append(Term("small", 0.0, SMALL_SD * below, "small-model", "smaller than any model of the sweep"))
    if setting.steps is None:
        terms.append(Term("length unknown", 0.0, LENGTH_UNKNOWN_SD, "horizon-exponent", "give the data to narrow this"))
    if not same_data:
        terms.append(Term("your data", 0.0, OTHER_DATA_SD, "lora-law", "other data than the sweep's"))
    return terms


def offset_term(setting: LoraSetting, *, law: LoraLaw) -> Term:
    """What the sweep says about this very model, else about its family, else nothing but doubt."""
    if setting.model in law.models:
        sd = law.half_width_known_model / Z80
        return Term("model", law.models[setting.model], sd, "tinker-sweep", "this model was measured")
    if setting.lineage in law.families:
        sd = law.half_width_known_family / Z80
        return Term(
            "family", law.families[setting.lineage], sd, "tinker-sweep", f"other {setting.lineage} models were measured"
        )
    sd = law.half_width_new_family / Z80
    return Term("family", 0.0, sd, "lora-law", f"no {setting.lineage or 'such'} model was measured")


def _steps_words(steps: float | None) -> str:
    return "length not known, 780 steps assumed" if steps is None else f"{steps:.0f} steps against 780"


def fit_lora_law(optima: Sequence[Optimum]) -> LoraLaw:
    """Fit every constant of the law to `optima` alone; leave a family out of `optima` to judge the law on it."""
    law = fit_size_law(optima)
    means = model_means(law, optima)
    families = shrunk_family_offsets(means, prior_models=FAMILY_PRIOR_MODELS)
    return LoraLaw(
        size_law=law,
        families=families,
        models={model: _model_offset(means[model], families) for model in means},
        half_width_new_family=half_width(left_out_residuals(optima, lambda o: o.lineage)),
        half_width_known_family=half_width(known_family_errors(optima)),
        half_width_known_model=half_width(known_model_errors(optima)),
    )


def _model_offset(mean: tuple[str, float, int], families: dict[str, float]) -> float:
    family, value, count = mean
    return (count * value + MODEL_PRIOR_CELLS * families[family]) / (count + MODEL_PRIOR_CELLS)


def known_family_errors(optima: Sequence[Optimum]) -> list[float]:
    """Errors for each model when it is left out but its family's other models are known."""
    return _left_out(optima, [(o.model, None) for o in _first_of_each_model(optima)])


def known_model_errors(optima: Sequence[Optimum]) -> list[float]:
    """Errors for each cell when it alone is left out."""
    return _left_out(optima, [(o.model, o.rank) for o in optima])


def _first_of_each_model(optima: Sequence[Optimum]) -> list[Optimum]:
    return list({o.model: o for o in optima}.values())


def _left_out(optima: Sequence[Optimum], keys: list[tuple[str, int | None]]) -> list[float]:
    errors: list[float] = []
    for model, rank in keys:
        out = [o for o in optima if o.model == model and rank in (None, o.rank)]
        kept = [o for o in optima if o not in out]
        law = fit_size_law(kept)
        means = model_means(law, kept)
        families = shrunk_family_offsets(means, prior_models=FAMILY_PRIOR_MODELS)
        for o in out:
            offset = _model_offset(means[model], families) if model in means else families.get(o.lineage)
            if offset is not None:
                errors.append(o.log_rate - law.log_rate(size=o.size, rank=o.rank) - offset)
    return errors


@cache
def packaged_law() -> LoraLaw:
    """The law as fitted on the whole sweep (scripts/build_knowledge/derive.py)."""
    return law_from_table(table("lora_law.json"))


def law_from_table(values: dict[str, Any]) -> LoraLaw:
    """Read what `law_to_table` wrote."""
    rest = {key: value for key, value in values.items() if key not in ("size_law", "about")}
    return LoraLaw(size_law=SizeLaw(tuple((a, b, c) for a, b, c in values["size_law"])), **rest)


def law_to_table(law: LoraLaw) -> dict[str, Any]:
    """The law as plain JSON values, rounded to 0.0001 dex."""
    names = ("half_width_new_family", "half_width_known_family", "half_width_known_model", "practice_dex")
    return {
        "size_law": [[round(x, 4) for x in row] for row in law.size_law.coefficients],
        "families": {key: round(value, 4) for key, value in sorted(law.families.items())},
        "models": {key: round(value, 4) for key, value in sorted(law.models.items())},
        **{name: round(getattr(law, name), 4) for name in names},
    }
