"""Review: another framework's config beside what finestep would recommend for the same model, method and adapter, in
words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finestep.errors import BadInput
from finestep.export.config_file import read_config
from finestep.export.exported import ForeignConfig
from finestep.export.registry import exporter, framework_of
from finestep.facts import HardwareFacts
from finestep.flows.recommend import recommend
from finestep.rules.batch_size import CAPS
from finestep.rules.compose import Ask
from finestep.rules.recommendation import Recommendation
from finestep.study import DataSpec

Verdict = Literal["change", "consider", "fine"]
DEFAULTS: dict[str, dict[str, float]] = {
    "hf": {"learning_rate": 5e-5, "micro": 8, "accumulation": 1, "epochs": 3, "clip": 1.0, "rank": 8, "alpha": 8},
    "trl": {"learning_rate": 2e-5, "micro": 8, "accumulation": 1, "epochs": 3, "clip": 1.0, "rank": 16, "alpha": 32},
    "llamafactory": {"learning_rate": 5e-5, "micro": 8, "accumulation": 1, "epochs": 3, "clip": 1.0, "rank": 8},
    "ms-swift": {"micro": 1, "accumulation": 16, "epochs": 3, "clip": 1.0, "rank": 8, "alpha": 32},
    "axolotl": {"micro": 1, "accumulation": 1, "epochs": 1, "clip": 1.0},
    "unsloth": {"learning_rate": 2e-4, "micro": 2, "accumulation": 4, "epochs": 3, "rank": 64, "alpha": 16},
    "litgpt": {"micro": 4, "epochs": 5, "rank": 8, "alpha": 16},
    "torchtune": {"micro": 2, "accumulation": 8, "epochs": 1},
}
"""What holds when a config does not say; LLaMA-Factory's alpha is twice the rank."""
FEW_STEPS = 100
CLEARLY_OUTSIDE_DEX = 0.3
HIGH_WARMUP_SHARE = 0.2


class Remark(BaseModel):
    """One thing about the config: `change`, `consider` or `fine`, and a sentence with the reason."""

    model_config = ConfigDict(frozen=True)

    topic: str
    verdict: Verdict
    text: str


class Review(BaseModel):
    """What finestep would say about a config."""

    model_config = ConfigDict(frozen=True)

    place: str
    framework: str
    subject: str
    remarks: tuple[Remark, ...]
    recommendation: Recommendation


def review_config(
    path: Path,
    *,
    model: str | None = None,
    data: str | DataSpec | None = None,
    hardware: HardwareFacts | str | None = None,
    params: str | None = None,
) -> Review:
    """Read a config of another framework and say what to change in it.

    Raises:
        BadInput: the file fits no known framework, or the model is unknown.
    """
    tree = read_config(path)
    framework = framework_of(tree)
    if framework is None:
        raise BadInput(
            "the config fits no known framework",
            value=sorted(tree)[:8],
            place=str(path),
            next_step="known: hf, trl, llamafactory, axolotl, ms-swift, unsloth, litgpt, torchtune, deepspeed",
        )
    config = exporter(framework).read(tree)
    name = model or config.model
    if name is None and params is None:
        raise BadInput(
            "the config names no model", place=str(path), next_step="give the model, or its size: --params 7B"
        )
    answer = recommend(name, data, method=config.method, hardware=hardware, params=params, ask=_ask(config))
    subject = f"{answer.method} of {answer.model.name}"
    return Review(
        place=str(path),
        framework=framework,
        subject=subject,
        remarks=tuple(_remarks(config, answer)),
        recommendation=answer,
    )


def _ask(config: ForeignConfig) -> Ask:
    default = DEFAULTS.get(config.framework, {})
    rank, alpha = config.lora_rank or default.get("rank"), config.lora_alpha or default.get("alpha")
    if alpha is None and rank and config.framework == "llamafactory":
        alpha = 2.0 * rank
    return Ask(
        rank=int(rank) if rank else None,
        alpha=alpha,
        batch=_batch(config),
        num_epochs=config.num_epochs,
        target_modules=_partial(config),
    )


def _partial(config: ForeignConfig) -> tuple[str, ...] | None:
    """The target modules when they are only a part of the linear layers."""
    names = config.target_modules
    return names if names and not any("down" in n or "fc2" in n or "mlp" in n for n in names) else None


def _batch(config: ForeignConfig) -> int | None:
    if config.effective_batch_size:
        return config.effective_batch_size
    default = DEFAULTS.get(config.framework, {})
    micro = config.micro_batch_size or default.get("micro")
    accumulation = config.accumulation_steps or default.get("accumulation")
    return int(micro * accumulation * (config.num_devices or 1)) if micro and accumulation else None


def _remarks(config: ForeignConfig, answer: Recommendation) -> list[Remark]:
    found = [
        _rate(config, answer),
        _written(config),
        _batch_remark(config, answer),
        _packing(config),
        _length(answer),
        _warmup(config, answer),
        _clip(config),
        _alpha(config),
        _epochs(config, answer),
        _auto(config),
    ]
    order = {"change": 0, "consider": 1, "fine": 2}
    return sorted((remark for remark in found if remark), key=lambda remark: order[remark.verdict])


def _rate(config: ForeignConfig, answer: Recommendation) -> Remark:
    estimate = answer.estimates["learning_rate"]
    rate = config.learning_rate or DEFAULTS.get(config.framework, {}).get("learning_rate")
    span = f"{estimate.low:.1e} ... {estimate.high:.1e}"
    if rate is None:
        return Remark(
            topic="learning_rate",
            verdict="change",
            text=f"no learning rate is stated: use {estimate.value:.1e} ({span})",
        )
    unstated = "" if config.learning_rate else " (the framework's default, as none is stated)"
    if estimate.low <= rate <= estimate.high:
        text = f"learning rate {rate:.1e}{unstated} lies inside {span}; we would use {estimate.value:.1e}"
        return Remark(topic="learning_rate", verdict="fine", text=text)
    high = rate > estimate.high
    distance = math.log10(rate / estimate.high) if high else math.log10(estimate.low / rate)
    verdict: Verdict = "change" if distance > CLEARLY_OUTSIDE_DEX or high else "consider"
    slow = "it will learn too slowly" if verdict == "change" else "it is likely on the slow side"
    risk = "it may diverge or forget; too high is the dearer error" if high else slow
    side = "above" if high else "below"
    text = f"learning rate {rate:.1e}{unstated} lies {side} {span}: {risk}; use {estimate.value:.1e}"
    return Remark(topic="learning_rate", verdict=verdict, text=text)


def _written(config: ForeignConfig) -> Remark | None:
    if not config.text_rate or config.learning_rate is None:
        return None
    text = f"the learning rate has no point, so that PyYAML reads it as text; write {config.learning_rate:.1e}"
    return Remark(topic="learning_rate", verdict="consider", text=text)


def _batch_remark(config: ForeignConfig, answer: Recommendation) -> Remark | None:
    batch = _batch(config)
    if batch is None:
        return None
    own = f"effective batch {batch}" + ("" if config.num_devices else " on one device")
    cap = CAPS.get(answer.method, 64)
    if batch > 2 * cap:
        text = f"{own} is large for {answer.method}: measured results get worse above 128 rows; use {cap} or fewer"
        return Remark(topic="effective_batch_size", verdict="change", text=text)
    return Remark(topic="effective_batch_size", verdict="fine", text=f"{own} is in the usual range")


def _packing(config: ForeignConfig) -> Remark | None:
    if not config.packing:
        return None
    text = "packing puts several rows into one: the effective batch holds more rows, and the run has fewer steps, than it says"
    return Remark(topic="packing", verdict="consider", text=text)


def _length(answer: Recommendation) -> Remark | None:
    if answer.data is None:
        return None
    steps = int(answer.estimates["num_steps"].value)
    if steps >= FEW_STEPS:
        return None
    text = f"only {steps} optimizer steps: below about {FEW_STEPS} nothing settles; lower the batch or train longer"
    return Remark(topic="num_steps", verdict="change", text=text)


def _warmup(config: ForeignConfig, answer: Recommendation) -> Remark:
    steps = answer.estimates["num_steps"].value
    wanted = int(answer.estimates["schedule.warmup_steps"].value)
    if not config.warmup:
        text = f"no warmup: about 5 % of the run ({wanted} steps) makes the same rate safer"
        return Remark(topic="warmup", verdict="consider", text=text)
    share = config.warmup if config.warmup < 1 else config.warmup / steps
    if share > HIGH_WARMUP_SHARE and answer.data is not None:
        text = f"warmup takes {share:.0%} of the run; {wanted} steps are enough"
        return Remark(topic="warmup", verdict="change", text=text)
    shown = f"{config.warmup:.0%} of the run" if config.warmup < 1 else f"{config.warmup:.0f} steps"
    return Remark(topic="warmup", verdict="fine", text=f"warmup of {shown} is usual")


def _clip(config: ForeignConfig) -> Remark | None:
    if config.framework in ("torchtune", "litgpt") and config.max_grad_norm is None:
        return Remark(
            topic="max_grad_norm",
            verdict="change",
            text=f"{config.framework} clips gradients only when told to; set the norm to 1.0",
        )
    return None


def _alpha(config: ForeignConfig) -> Remark | None:
    if config.lora_rank is None or config.lora_alpha is None:
        return None
    scale = config.lora_alpha / (config.lora_rank**0.5 if config.use_rslora else config.lora_rank)
    adapter = f"rank {config.lora_rank} with alpha {config.lora_alpha:g}"
    text = f"{adapter} scales the adapter by {scale:.2g}; the recommended rate is for it"
    return Remark(topic="lora", verdict="fine", text=text)


def _epochs(config: ForeignConfig, answer: Recommendation) -> Remark | None:
    if config.num_epochs is None or answer.model.is_encoder or config.num_epochs <= 3:
        return None
    text = f"{config.num_epochs:g} epochs: validation loss is usually lowest near 2; watch it, or stop early"
    return Remark(topic="num_epochs", verdict="consider", text=text)


def _auto(config: ForeignConfig) -> Remark | None:
    if not config.auto_find_batch_size:
        return None
    text = "auto_find_batch_size halves the batch without raising the accumulation; switch it off"
    return Remark(topic="auto_find_batch_size", verdict="change", text=text)
