"""Rescale: move a recipe to another batch size or number of devices, and say what changes and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from finestep.errors import BadInput
from finestep.estimate import Estimate
from finestep.recipe import Recipe
from finestep.rules.scaling import capped_batch, scale_betas, scale_epsilon, scale_learning_rate, scale_measured

Rule = Literal["measured", "sqrt", "linear", "none"]
RULES: tuple[Rule, ...] = ("measured", "sqrt", "linear", "none")
SOURCES = {"measured": "rate-law", "sqrt": "adam-sde", "linear": "linear-scaling", "none": "rate-law"}
LARGE_LORA_BATCH = 128
RETUNE_FACTOR = 4


@dataclass(frozen=True, slots=True)
class Rescaled:
    """The moved recipe, its rate as an estimate, and what changed in words."""

    recipe: Recipe
    rate: Estimate
    remarks: list[str] = field(default_factory=list)


def rescale(
    recipe: Recipe,
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
    new_batch, new_devices = batch or recipe.effective_batch_size, devices or recipe.num_devices
    if rule not in RULES:
        raise BadInput("unknown scaling rule", value=rule, next_step="known: " + ", ".join(RULES))
    if new_devices > new_batch:
        raise BadInput(
            "every device needs a row: the batch must be >= the number of devices", value=f"{new_batch} < {new_devices}"
        )
    rate = _rate(recipe, new_batch, rule, noise_scale)
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


def _rate(recipe: Recipe, batch: int, rule: Rule, noise_scale: float | None) -> Estimate:
    old, rate = recipe.effective_batch_size, recipe.learning_rate
    target = max(min(old, batch), capped_batch(batch, noise_scale=noise_scale)) if noise_scale else batch
    measured = scale_measured(rate, from_batch=old, to_batch=target)
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


def _micro(recipe: Recipe, batch: int, devices: int) -> int | None:
    """The micro-batch stays where it can: memory did not change."""
    if recipe.micro_batch_size is None:
        return None
    return max(1, min(recipe.micro_batch_size, batch // devices))


def _remarks(recipe: Recipe, batch: int, devices: int, micro: int | None, rule: Rule) -> list[str]:
    old = recipe.effective_batch_size
    out = []
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
