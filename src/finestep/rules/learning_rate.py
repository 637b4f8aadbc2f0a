"""The learning rate of any method: terms and views into one centre, one width, and an aim left of the centre.

Views (the law of the method, pre-training, practice, near recipes) are pooled by precision. The aim is the rate with
the least
expected loss under the width: the basin is mild on the left and ends in a cliff on the right (basin.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from finestep.estimate import Estimate
from finestep.rules.basin import aim_shift
from finestep.rules.full_rate import practice_fit_view, pretraining_view, ratio_term
from finestep.rules.lora_law import (
    LENGTH_UNKNOWN_SD,
    STEPS_EXPONENT,
    STEPS_SD,
    Z80,
    LoraLaw,
    LoraSetting,
    lora_terms,
    packaged_law,
)
from finestep.rules.neighbours import Neighbour, Target, nearest, practice_view
from finestep.rules.prompt_rate import prompt_term
from finestep.rules.terms import LogNormal, Term, pooled, total, two_digits
from finestep.rules.variants import effective_alpha, variant_term

METHOD_GROUP = {"full": "full", "lora": "lora", "qlora": "lora"}
QLORA_SD = 0.05
PARTIAL_TARGETS_DEX, PARTIAL_TARGETS_SD = 0.15, 0.1
CLASSIFICATION_SD = 0.1
LARGEST_PRACTICE_SD = 2.0
"""Public recipes so far from the setting that they say nothing (a doubt of more than x100, in dex)."""
ENCODER_SMALLEST_SD = 0.2
"""The practice fit and the near recipes share rows, so their pooled doubt is not allowed below this."""
ENCODER_STEPS = 2_000
"""Geometric mean over the GLUE tasks at three epochs of batch 32 (230 to 37,000 steps)."""
SMALL_ENCODER, SMALL_ENCODER_DEX, SMALL_ENCODER_SD = 6e7, 0.35, 0.3
"""Below 60M parameters, full: ELECTRA-small's own 3e-4 lies 0.26 dex above the fit, our measured MiniLM 0.6 (docs/log.md)."""
FULL_SMALLEST_SD = 0.3
"""Three of the four views of full fine-tuning rest on the same published runs, and no dense sweep can check them."""
RETENTION = {"full": (1 / 3.5, 0.2), "lora": (1 / 1.5, 0.15)}
"""Retention-safe over loss-optimal rate: 2 to 5 times lower for full fine-tuning, 1 to 2 for LoRA (evidence
`retention`)."""


@dataclass(frozen=True, slots=True)
class RateRequest:
    """Everything that the learning rate depends on. `method`: full, lora, qlora or a prompt method; `variant`: of
    LoRA."""

    method: str
    params: float
    active_params: float | None
    batch: float
    steps: float | None
    variant: str = "lora"
    rank: int = 16
    alpha: float = 32.0
    model: str | None = None
    lineage: str | None = None
    recipe_family: str | None = None
    pretraining_rate: float | None = None
    is_encoder: bool = False
    classification: bool = False
    all_linear: bool = True
    task: str | None = None


@dataclass(frozen=True, slots=True)
class RateAnswer:
    """The centre and width of log10 rate, the terms of the main view, and the near recipes."""

    center: LogNormal
    terms: list[Term]
    neighbours: list[Neighbour] = field(default_factory=list)
    basin_known: bool = True

    @property
    def interval(self) -> tuple[float, float]:
        """The central 80 % of the best rate."""
        half = Z80 * self.center.sd
        return 10 ** (self.center.mean - half), 10 ** (self.center.mean + half)

    @property
    def aim(self) -> float:
        """The rate to use, not rounded: left of the centre when the width is large, never outside of the interval.

        Prompt methods aim at the centre: the basin's shape was not studied for them.
        """
        shift = aim_shift(round(self.center.sd, 2)) if self.basin_known else 0.0
        return max(10 ** (self.center.mean + shift), self.interval[0])


def learning_rate(
    request: RateRequest, *, law: LoraLaw | None = None, exclude_families: Sequence[str] = ()
) -> RateAnswer:
    """The best learning rate of a setting.

    Args:
        law: constants of the LoRA law; None = as packaged (fitted on the whole sweep).
        exclude_families: public recipes of these families are left out (for judging the rule).
    """
    neighbours = nearest(_target(request), exclude_families=exclude_families)
    if request.method in ("full", "lora", "qlora"):
        terms = _main_terms(request, law or packaged_law())
        views = [total(terms), *_other_views(request)]
    else:
        terms = [prompt_term(request.method, params=request.params, is_encoder=request.is_encoder)]
        views = [total(terms)]
    practice = _practice(request, neighbours, law or packaged_law())
    if practice is not None and practice.sd > LARGEST_PRACTICE_SD:
        practice = None
    return _answer(request, views=views, terms=terms, practice=practice, neighbours=neighbours)


def _answer(
    request: RateRequest,
    *,
    views: list[LogNormal],
    terms: list[Term],
    practice: LogNormal | None,
    neighbours: list[Neighbour],
) -> RateAnswer:
    law_alone = pooled(views)
    center = pooled([law_alone, practice]) if practice else law_alone
    if request.is_encoder:
        center = replace(center, sd=max(center.sd, ENCODER_SMALLEST_SD))
    elif request.method == "full":
        center = replace(center, sd=max(center.sd, FULL_SMALLEST_SD))
    steps = [*terms]
    if len(views) > 1:
        steps.append(
            Term("other views", law_alone.mean - views[0].mean, law_alone.sd, "practice-fits", _views_words(request))
        )
    if practice:
        words = (
            f"the nearest centre on {practice.value:.1e}{_moved_words(request)}, with a doubt of x{10**practice.sd:.1f}"
        )
        steps.append(Term("public recipes", center.mean - law_alone.mean, practice.sd, "public-recipes", words))
    return RateAnswer(center, steps, neighbours, basin_known=request.method in ("full", "lora", "qlora"))


def _moved_words(request: RateRequest) -> str:
    moved = request.method in ("lora", "qlora") and not request.is_encoder
    return " after taking out how far published LoRA rates lie below measured ones" if moved else ""


def _views_words(request: RateRequest) -> str:
    return (
        "pooled with 1/15 of the pre-training rate and with practice"
        if request.pretraining_rate
        else "pooled with practice"
    )


def _practice(request: RateRequest, neighbours: list[Neighbour], law: LoraLaw) -> LogNormal | None:
    """What near recipes say, for LoRA of decoders moved by the mean distance of practice from measured optima."""
    view = practice_view(_target(request), neighbours) if _has_practice(request) else None
    if view is None or request.is_encoder or request.method not in ("lora", "qlora"):
        return view
    return replace(view, mean=view.mean - law.practice_dex)


def _has_practice(request: RateRequest) -> bool:
    return request.variant in ("lora", "rslora", "dora") and request.method not in ("prompt", "ia3", "bitfit", "head")


def _main_terms(request: RateRequest, law: LoraLaw) -> list[Term]:
    if request.is_encoder:
        return _encoder_terms(request)
    if request.method == "full":
        return [*_lora_terms(replace(request, rank=32, alpha=32.0), law), ratio_term()]
    terms = _lora_terms(request, law)
    if request.variant != "lora":
        terms.append(variant_term(request.variant))
    if request.method == "qlora":
        terms.append(Term("4-bit base", 0.0, QLORA_SD, "qlora-paper", "no measurable shift"))
    if not request.all_linear:
        words = "adapters on some layers only want more"
        terms.append(Term("target modules", PARTIAL_TARGETS_DEX, PARTIAL_TARGETS_SD, "lwr-reproduction", words))
    return terms


def _lora_terms(request: RateRequest, law: LoraLaw) -> list[Term]:
    size = math.sqrt(request.params * (request.active_params or request.params)) / 1e9
    alpha = effective_alpha(request.alpha, request.rank, rslora=request.variant == "rslora")
    setting = LoraSetting(size, request.rank, alpha, request.steps, request.batch, request.lineage, request.model)
    terms = lora_terms(setting, law=law)
    if request.classification:
        terms.append(Term("new head", 0.0, CLASSIFICATION_SD, "lp-ft", "measured on text generation, not on labels"))
    return terms


def _encoder_terms(request: RateRequest) -> list[Term]:
    group = "full-encoder" if request.method == "full" else "lora-encoder"
    view = practice_fit_view(group, params=request.params, batch=request.batch)
    terms = [Term("size", view.mean, view.sd, "practice-fits", f"published {request.method} encoder runs against size")]
    if request.params < SMALL_ENCODER and request.method == "full":
        words = "published rates of small encoders are copied from large ones; measured ones are higher"
        terms.append(Term("small encoder", SMALL_ENCODER_DEX, SMALL_ENCODER_SD, "small-encoder", words))
    terms.append(_encoder_steps(request.steps))
    if request.method == "qlora":
        terms.append(Term("4-bit base", 0.0, QLORA_SD, "qlora-paper", "no measurable shift"))
    if request.variant != "lora" and request.method != "full":
        terms.append(variant_term(request.variant))
    return terms


def _encoder_steps(steps: float | None) -> Term:
    if steps is None:
        return Term("steps", 0.0, LENGTH_UNKNOWN_SD, "horizon-exponent", "length not known")
    dex = math.log10(steps / ENCODER_STEPS)
    words = f"{steps:.0f} steps against about {ENCODER_STEPS:,} in published runs"
    return Term("steps", STEPS_EXPONENT * dex, STEPS_SD * abs(dex), "horizon-exponent", words)


def _other_views(request: RateRequest) -> list[LogNormal]:
    if request.method != "full" or request.is_encoder:
        return []
    views = [practice_fit_view("full-causal", params=request.params, batch=request.batch)]
    before = pretraining_view(request.pretraining_rate)
    return [*views, before] if before else views


def _target(request: RateRequest) -> Target:
    return Target(
        group=METHOD_GROUP.get(request.method, "prompt"),
        architecture="encoder" if request.is_encoder else "causal-lm",
        params=request.params,
        family=request.recipe_family,
        task="classification" if request.classification else request.task,
        batch=request.batch,
        rank=request.rank,
        alpha=request.alpha,
        model=request.model,
    )


def rate_estimate(answer: RateAnswer) -> Estimate:
    """The rate to use, to two digits, with the interval of the best rate."""
    low, high = answer.interval
    value = two_digits(answer.aim)
    shift = math.log10(value) - answer.center.mean
    why = "centre of the interval" if shift > -0.03 else f"x{10**shift:.2f} of the centre: too high is the dearer error"
    source = answer.terms[0].source
    return Estimate(value=value, low=min(low, value), high=max(high, value), unit="", source=source, why=why)


def retention_estimate(answer: RateAnswer, method: str) -> Estimate:
    """A lower rate that keeps more of what the model could do before."""
    ratio, sd = RETENTION["full" if method == "full" else "lora"]
    value = two_digits(answer.aim * ratio)
    half = 10 ** (Z80 * math.hypot(answer.center.sd, sd))
    source = "retention" if method == "full" else "lora-forgets-less"
    why = f"x{ratio:.2g}: forgetting rises steeply with the rate"
    return Estimate(value=value, low=value / half, high=value * half, unit="", source=source, why=why)
