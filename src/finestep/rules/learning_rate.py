"""The learning rate of any method: a centre, how far one more data set may lie from it, and an aim at or left of the centre.

Full fine-tuning and adapters follow the law that was fitted to measured optima (rate_law.py); methods that train few weights have published
ranges only. Public recipes are shown beside the answer; they do not move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from finestep.estimate import Estimate
from finestep.rules.basin import ENCODER, FULL, LORA, Basin, aim_shift
from finestep.rules.neighbours import Neighbour, Target, nearest
from finestep.rules.preference_rate import METHODS as PREFERENCE_METHODS
from finestep.rules.preference_rate import preference_terms
from finestep.rules.prompt_rate import prompt_term
from finestep.rules.rate_law import Z80, RateLaw, packaged_law
from finestep.rules.rate_setting import REFERENCE_STEPS, Group, RateSetting, dense_equivalent
from finestep.rules.terms import LogNormal, Term, total, two_digits
from finestep.rules.variants import LAW_VARIANTS, effective_alpha

METHOD_GROUP = {"full": "full", "lora": "lora", "qlora": "lora"}
BY_LAW = ("full", "lora", "qlora")
COVERAGE = 0.8
QLORA_SD = 0.05
RSLORA_SD = 0.1
PARTIAL_TARGETS_DEX, PARTIAL_TARGETS_SD = 0.15, 0.1
CLASSIFICATION_SD = 0.1
LENGTH_UNKNOWN_SD = 0.12
"""A run between a fifth and five times the reference length, at the law's spread of slopes."""
ENCODER_DECODER_SD = 0.3
RETENTION = {"full": (1 / 3.5, 0.2), "lora": (1 / 1.5, 0.15)}
"""Retention-safe over loss-optimal rate: 2 to 5 times lower for full fine-tuning, 1 to 2 for LoRA. A judgement from one
published figure (evidence `retention`)."""


@dataclass(frozen=True, slots=True)
class AskedModel:
    """The model whose rate is asked for. `params`: shared layers counted once a layer; `active_params`: of a mixture of experts."""

    params: float
    active_params: float | None = None
    name: str | None = None
    lineage: str | None = None
    recipe_family: str | None = None
    is_encoder: bool = False
    is_encoder_decoder: bool = False


@dataclass(frozen=True, slots=True)
class AskedAdapter:
    """The adapter that is trained, where one is. `variant`: of LoRA."""

    variant: str = "lora"
    rank: int = 16
    alpha: float = 32.0
    all_linear: bool = True


@dataclass(frozen=True, slots=True)
class AskedTask:
    """What the model learns. `beta`: of a preference objective."""

    name: str | None = None
    is_classification: bool = False
    num_labels: int | None = None
    beta: float | None = None


@dataclass(frozen=True, slots=True)
class RateRequest:
    """Everything that the learning rate depends on. `method`: full, lora, qlora or a prompt method; `constant_rate`: the
    schedule does not decay."""

    method: str
    model: AskedModel
    batch: float
    steps: float | None
    adapter: AskedAdapter = AskedAdapter()
    task: AskedTask = AskedTask()
    constant_rate: bool = False


@dataclass(frozen=True, slots=True)
class RateAnswer:
    """The centre and width of log10 rate, the terms behind them, and the near recipes. `basin` None: its shape is not known."""

    center: LogNormal
    terms: list[Term]
    neighbours: list[Neighbour] = field(default_factory=list)
    basin: Basin | None = LORA

    @property
    def interval(self) -> tuple[float, float]:
        """The central 80 % of the best rate of one more data set."""
        half = Z80 * self.center.sd
        return 10 ** (self.center.mean - half), 10 ** (self.center.mean + half)

    @property
    def aim(self) -> float:
        """The rate to use, not rounded: left of the centre where too high is the dearer error, never outside of the interval.

        Prompt methods aim at the centre: the basin's shape was not studied for them.
        """
        shift = aim_shift(round(self.center.sd, 2), basin=self.basin) if self.basin else 0.0
        return max(10 ** (self.center.mean + shift), self.interval[0])


def learning_rate(
    request: RateRequest, *, law: RateLaw | None = None, exclude_families: Sequence[str] = ()
) -> RateAnswer:
    """The best learning rate of a setting.

    Args:
        law: None = as packaged (fitted on all evidence).
        exclude_families: public recipes of these families are not shown.
    """
    neighbours = nearest(_target(request), exclude_families=exclude_families)
    if request.method in PREFERENCE_METHODS:
        terms = preference_terms(request.method, params=request.model.params, beta=request.task.beta)
        return RateAnswer(total(terms), terms, neighbours, basin=None)
    if request.method not in BY_LAW:
        terms = [prompt_term(request.method, params=request.model.params, is_encoder=request.model.is_encoder)]
        return RateAnswer(total(terms), terms, neighbours, basin=None)
    law = law or packaged_law()
    setting, further = rate_setting(request), _further_terms(request)
    known, more = law.predict(setting), total(further)
    center = LogNormal(known.mean + more.mean, math.hypot(known.sd, more.sd))
    basin = ENCODER if request.model.is_encoder else FULL if request.method == "full" else LORA
    return RateAnswer(center, [*law.terms(setting), *further], neighbours, basin)


def rate_setting(request: RateRequest) -> RateSetting:
    """The request as the law sees it; an unknown length counts as the reference length, with more doubt."""
    model, adapter = request.model, request.adapter
    trained = "full" if request.method == "full" else "lora"
    group: Group = f"encoder {trained}" if model.is_encoder else trained  # type: ignore[assignment]
    return RateSetting(
        group,
        size=dense_equivalent(model.params, model.active_params),
        batch=request.batch,
        steps=request.steps or REFERENCE_STEPS,
        rank=adapter.rank,
        alpha=effective_alpha(adapter.alpha, adapter.rank, rslora=adapter.variant == "rslora"),
        variant=adapter.variant if trained == "lora" and adapter.variant in LAW_VARIANTS else "lora",
        family=model.lineage,
        num_labels=request.task.num_labels or 2,
        constant_rate=request.constant_rate,
    )


def _further_terms(request: RateRequest) -> list[Term]:
    """What the law does not know, each with its own doubt."""
    terms: list[Term] = []
    if request.method != "full" and request.adapter.variant == "rslora":
        terms.append(
            Term("variant", 0.0, RSLORA_SD, "rslora", "rslora against plain LoRA: x1, its scale counts as alpha")
        )
    if request.method == "qlora":
        terms.append(Term("4-bit base", 0.0, QLORA_SD, "qlora-practice", "no shift known"))
    if request.method != "full" and not request.adapter.all_linear:
        words = "adapters on some layers only want more"
        terms.append(Term("target modules", PARTIAL_TARGETS_DEX, PARTIAL_TARGETS_SD, "lwr-reproduction", words))
    if request.steps is None:
        terms.append(Term("length unknown", 0.0, LENGTH_UNKNOWN_SD, "rate-law", "give the data to narrow this"))
    if request.task.is_classification and not request.model.is_encoder:
        words = "measured on text generation, not on labels"
        terms.append(Term("new head", 0.0, CLASSIFICATION_SD, "rate-law", words))
    if request.model.is_encoder_decoder:
        words = "no encoder-decoder was measured: as a decoder of this size"
        terms.append(Term("encoder-decoder", 0.0, ENCODER_DECODER_SD, "rate-law", words))
    return terms


def _target(request: RateRequest) -> Target:
    model = request.model
    architecture = "encoder" if model.is_encoder else "causal-lm"
    return Target(
        group=METHOD_GROUP.get(request.method, "prompt"),
        architecture="encoder-decoder" if model.is_encoder_decoder else architecture,
        params=model.params,
        family=model.recipe_family,
        task="classification" if request.task.is_classification else request.task.name,
        batch=request.batch,
        rank=request.adapter.rank,
        alpha=request.adapter.alpha,
        model=model.name,
    )


def rate_estimate(answer: RateAnswer) -> Estimate:
    """The rate to use, to two digits, with the interval of the best rate of one more data set."""
    low, high = answer.interval
    value = two_digits(answer.aim)
    shift = math.log10(value) - answer.center.mean
    why = "centre of the interval" if shift > -0.03 else f"x{10**shift:.2f} of the centre: too high is the dearer error"
    source = answer.terms[0].source
    coverage = COVERAGE if source == "rate-law" else None
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), unit="", source=source, why=why, coverage=coverage
    )


def retention_estimate(answer: RateAnswer, method: str) -> Estimate:
    """A lower rate that keeps more of what the model could do before: a usual range, as it was never calibrated."""
    ratio, sd = RETENTION["full" if method == "full" else "lora"]
    value = two_digits(answer.aim * ratio)
    half = 10 ** (Z80 * math.hypot(answer.center.sd, sd))
    why = f"x{ratio:.2g}: forgetting rises steeply with the rate"
    return Estimate(value=value, low=value / half, high=value * half, unit="", source="retention", why=why)
