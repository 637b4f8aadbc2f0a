"""Rescale: move a recipe to another batch size or number of devices, and say what changes and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finestep.errors import BadInput
from finestep.estimate import Estimate
from finestep.recipe import Recipe
from finestep.result import StudyResult, read_result
from finestep.rules.rate_setting import Group
from finestep.rules.scaling import (
    ScaledRate,
    capped_batch,
    measured_exponent,
    scale_betas,
    scale_by,
    scale_epsilon,
    scale_learning_rate,
)
from finestep.store.recipe_file import read_recipe
from finestep.study_layout import RECIPE

Rule = Literal["measured", "sqrt", "linear", "none"]
RULES: tuple[Rule, ...] = ("measured", "sqrt", "linear", "none")
SOURCES = {"measured": "rate-law", "sqrt": "adam-sde", "linear": "linear-scaling", "none": "rate-law"}
LARGE_LORA_BATCH = 128
RETUNE_FACTOR = 4
Z80 = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class Measured:
    """The best rate at one batch size, as a study believes it."""

    batch: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StudySlope:
    """What a study measured of its own rates: one row a batch size that it tried."""

    rows: tuple[Measured, ...]

    def moved(self, rate: float, *, from_batch: float, to_batch: float) -> ScaledRate | None:
        """The rate at another batch by the study's own rows; None when it tried only one batch size."""
        if len(self.rows) < 2:
            return None
        exact = next((row for row in self.rows if row.batch == to_batch), None)
        if exact is not None:
            words = "best at this batch, measured in the study"
            return ScaledRate(exact.rate, exact.low, exact.high, exact.rate / rate, words)
        exponent, sd = self.slope()
        words = f"through the {len(self.rows)} batch sizes of the study"
        moved = scale_by(rate, from_batch=from_batch, to_batch=to_batch, exponent=exponent, sd=sd, words=words)
        # Where the study's rates themselves are doubtful, so is the moved one.
        nearest = min(self.rows, key=lambda row: abs(math.log(row.batch / to_batch)))
        low, high = nearest.low / nearest.rate, nearest.high / nearest.rate
        return ScaledRate(moved.value, moved.low * low, moved.high * high, moved.factor, moved.why)

    def slope(self) -> tuple[float, float]:
        """(exponent of the rate in the batch by least squares, its sd by the intervals of the rows)."""
        xs = [math.log10(row.batch) for row in self.rows]
        ys = [math.log10(row.rate) for row in self.rows]
        sds = [math.log10(row.high / row.low) / (2 * Z80) for row in self.rows]
        mean = sum(xs) / len(xs)
        spread = sum((x - mean) ** 2 for x in xs)
        exponent = sum((x - mean) * y for x, y in zip(xs, ys, strict=True)) / spread
        variance = sum(((x - mean) * sd) ** 2 for x, sd in zip(xs, sds, strict=True)) / spread**2
        return exponent, math.sqrt(variance)


@dataclass(frozen=True, slots=True)
class Origin:
    """A recipe, and what is known of where it comes from."""

    recipe: Recipe
    model: str | None = None
    data: str | None = None
    is_encoder: bool = False
    slope: StudySlope | None = None

    @property
    def group(self) -> Group:
        """Whose law holds."""
        adapter = "full" if self.recipe.method == "full" else "lora"
        return f"encoder {adapter}" if self.is_encoder else adapter  # type: ignore[return-value]


def origin_of(place: Path, *, model: str | None = None) -> Origin:
    """A recipe file, or a study with its recipe and its own measurements.

    Args:
        model: the model of a recipe file; encoders have a slope of their own.
    """
    if not place.is_dir():
        return Origin(read_recipe(place), model, is_encoder=_is_encoder(model))
    if not (place / RECIPE).exists():
        raise BadInput(
            "the study has no recipe yet", value=str(place), next_step="let it finish, or give a recipe file"
        )
    result = read_result(place) or StudyResult()
    known, data = result.facts.get("model"), result.facts.get("data")
    named = model or (str(known) if known else None)
    recipe = read_recipe(place / RECIPE)
    return Origin(recipe, named, str(data) if data else None, _is_encoder(named), _slope(result))


def _slope(result: StudyResult) -> StudySlope | None:
    """The rows of the answer at batch sizes that were tried."""
    rows = result.answer.trade_offs if result.answer is not None else ()
    tried = {trial.effective_batch_size for trial in result.trials if trial.eval_loss is not None}
    found = [
        Measured(row.effective_batch_size, row.learning_rate.value, row.learning_rate.low, row.learning_rate.high)
        for row in rows
        if row.effective_batch_size in tried
    ]
    return StudySlope(tuple(sorted(found, key=lambda row: row.batch))) if found else None


def _is_encoder(model: str | None) -> bool:
    from finestep.survey.model import model_facts
    from finestep.survey.model_name import facts_from_name

    if model is None:
        return False
    try:
        return model_facts(model, offline=True).is_encoder
    except BadInput:
        named = facts_from_name(model)
        return bool(named and named.is_encoder)


@dataclass(frozen=True, slots=True)
class Rescaled:
    """The moved recipe, its rate as an estimate, and what changed in words."""

    recipe: Recipe
    rate: Estimate
    remarks: list[str] = field(default_factory=list)


def rescale(
    origin: Recipe | Origin,
    *,
    batch: int | None = None,
    devices: int | None = None,
    rule: Rule = "measured",
    noise_scale: float | None = None,
    scale_adam: bool = False,
) -> Rescaled:
    """Move a recipe to `batch` rows a step and `devices` devices; without `batch` the effective batch stays.

    Args:
        noise_scale: a measured gradient noise scale in rows; the rate does not grow beyond it.
        scale_adam: also move Adam's betas and epsilon.
    """
    origin = origin if isinstance(origin, Origin) else Origin(origin)
    recipe = origin.recipe
    new_batch, new_devices = batch or recipe.effective_batch_size, devices or recipe.num_devices
    if rule not in RULES:
        raise BadInput("unknown scaling rule", value=rule, next_step="known: " + ", ".join(RULES))
    if new_devices > new_batch:
        raise BadInput(
            "every device needs a row: the batch must be >= the number of devices", value=f"{new_batch} < {new_devices}"
        )
    rate = _rate(origin, new_batch, rule, noise_scale)
    micro = _micro(recipe, new_batch, new_devices)
    changes: dict[str, object] = {
        "learning_rate": rate.value,
        "effective_batch_size": new_batch,
        "num_devices": new_devices,
        "micro_batch_size": micro,
    }
    remarks = _remarks(recipe, new_batch, new_devices, micro, rule)
    schedule, words = _warmup(recipe, new_batch)
    remarks += words
    if schedule:
        changes["schedule"] = schedule
    if scale_adam:
        changes["optimizer"], words = _adam(recipe, new_batch)
        remarks += words
    return Rescaled(recipe.changed(**changes), rate, remarks)


def _rate(origin: Origin, batch: int, rule: Rule, noise_scale: float | None) -> Estimate:
    recipe = origin.recipe
    old, rate = recipe.effective_batch_size, recipe.learning_rate
    target = max(min(old, batch), capped_batch(batch, noise_scale=noise_scale)) if noise_scale else batch
    measured = _measured(origin, target)
    value = (
        measured.value
        if rule == "measured"
        else scale_learning_rate(rate, from_batch=old, to_batch=round(target), rule=rule)
    )
    value = rate if batch == old else float(f"{value:.3g}")
    why = measured.why if rule == "measured" else f"{rule} rule, as asked"
    if target != batch:
        why += f", capped at the noise scale of {noise_scale:g} rows"
    low, high = min(measured.low, value), max(measured.high, value)
    return Estimate(value=value, low=low, high=high, unit="", source=SOURCES[rule], why=why)


def _measured(origin: Origin, batch: float) -> ScaledRate:
    """By the study's own rows where it has several, else by the law that `recommend` uses."""
    recipe = origin.recipe
    old, rate = recipe.effective_batch_size, recipe.learning_rate
    if origin.slope is not None and (own := origin.slope.moved(rate, from_batch=old, to_batch=batch)) is not None:
        return own
    exponent, sd = measured_exponent(origin.group)
    words = "at the same data, by the law of `recommend`"
    return scale_by(rate, from_batch=old, to_batch=batch, exponent=exponent, sd=sd, words=words)


def _micro(recipe: Recipe, batch: int, devices: int) -> int | None:
    """The micro-batch stays where it can: memory did not change."""
    if recipe.micro_batch_size is None:
        return None
    return max(1, min(recipe.micro_batch_size, batch // devices))


def _remarks(recipe: Recipe, batch: int, devices: int, micro: int | None, rule: Rule) -> list[str]:
    old = recipe.effective_batch_size
    out = []
    if batch == old and devices == recipe.num_devices:
        return [f"nothing changes: the batch is {batch} and the devices are {devices} already"]
    if batch == old:
        out.append("the effective batch is the same, so the learning rate is too: devices only divide the work")
    else:
        out.append(
            f"at the same epochs the run takes {old / batch:.3g} times the steps; part of the change in rate is that"
        )
        if max(batch / old, old / batch) >= RETUNE_FACTOR:
            out.append("the batch changes by 4x or more: measure again (`finestep tune`) before a long run")
        if rule == "linear":
            out.append("the linear rule was made for SGD; with Adam it overshoots")
        if recipe.method != "full" and batch > LARGE_LORA_BATCH:
            out.append(f"LoRA lost quality above {LARGE_LORA_BATCH} rows where it was measured, at any rate")
    if micro:
        accumulation = -(-batch // (micro * devices))
        product = micro * accumulation * devices
        out.append(f"effective batch {product} = {micro} rows x {accumulation} accumulation x {devices} devices")
    return out


def _warmup(recipe: Recipe, batch: int) -> tuple[dict[str, object] | None, list[str]]:
    """Warmup in steps keeps its share of the run."""
    steps = recipe.schedule.warmup_steps
    if steps is None or batch == recipe.effective_batch_size:
        return None, []
    new = max(1, round(steps * recipe.effective_batch_size / batch)) if steps else 0
    return {"warmup_steps": new}, [f"warmup {steps} -> {new} steps, the same share of the run"]


def _adam(recipe: Recipe, batch: int) -> tuple[dict[str, object], list[str]]:
    factor = batch / recipe.effective_batch_size
    beta1, beta2 = scale_betas(recipe.optimizer.beta1, recipe.optimizer.beta2, factor=factor)
    epsilon = scale_epsilon(recipe.optimizer.epsilon, factor=factor)
    old = recipe.optimizer
    words = f"betas {old.beta1:g}, {old.beta2:g} -> {beta1:g}, {beta2:g} (holds while gradient noise dominates)"
    return {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}, [words]
