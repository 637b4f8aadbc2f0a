"""Where a tool's words mean something of their own: mlx_lm's scale, litgpt's fraction, torchtune's steps an epoch, and so on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from finestep.foreign.config import ForeignConfig, Source
from finestep.foreign.names import Options, number, whole

LITGPT_SWITCHES = {
    "lora_query": "q_proj",
    "lora_key": "k_proj",
    "lora_value": "v_proj",
    "lora_projection": "o_proj",
    "lora_mlp": "down_proj",
}
MLX_RANK, MLX_SCALE = 8, 20.0
SWIFT_BATCH = 16


def in_own_words(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """The config with what its tool means by its words."""
    if config.adapter.lora_rank == 0:
        config = replace(config, adapter=replace(config.adapter, lora_rank=None, lora_alpha=None))
    rule = _RULES.get(config.framework)
    return rule(config, source, options) if rule else config


def _mlx(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """Scale x rank is alpha; the schedule's own arguments say where it ends; `iters` are passes, not steps."""
    scale = options.find("lora_scale")
    rank = config.adapter.lora_rank or MLX_RANK
    alpha = None if config.method == "full" else (number(scale.value) if scale else None) or MLX_SCALE
    schedule = options.get("lr_schedule.arguments")
    name = str(options.get("lr_schedule.name") or "")
    iters = config.length.max_steps or whole(config.defaults["max_steps"])
    steps = iters // (config.batch.accumulation_steps or 1) if iters else None
    decay = (
        whole(schedule[1])
        if isinstance(schedule, list) and len(schedule) > 1 and name in ("cosine_decay", "linear_schedule")
        else None
    )
    if name == "linear_schedule" and isinstance(schedule, list) and len(schedule) > 2:
        decay = whole(schedule[2])
    peak = number(schedule[0]) if isinstance(schedule, list) and schedule else None
    rate = peak or config.optimization.learning_rate
    end = decay + int(config.optimization.warmup or 0) if decay else None
    is_full = config.method == "full"
    return replace(
        config,
        optimization=replace(config.optimization, learning_rate=rate, schedule=name or "constant"),
        length=replace(config.length, max_steps=steps, decay_steps=end),
        adapter=replace(
            config.adapter, lora_rank=None if is_full else rank, lora_alpha=alpha * rank if alpha else None
        ),
    )


def _litgpt(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """Its warmup fraction is of one epoch; its switches are target modules; it decays by a cosine."""
    fraction = options.find("warmup_ratio")
    warmup = config.optimization.warmup
    if fraction is not None and warmup is not None and warmup < 1:
        warmup = warmup / (config.length.num_epochs or 1.0)
    on = [name for key, name in LITGPT_SWITCHES.items() if options.get(key)]
    stated = any(options.get(key) is not None for key in LITGPT_SWITCHES)
    partial = tuple(on) if stated and len(on) < len(LITGPT_SWITCHES) else None
    return replace(
        config,
        optimization=replace(config.optimization, warmup=warmup, schedule="cosine"),
        adapter=replace(config.adapter, target_modules=partial),
    )


def _torchtune(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """`max_steps_per_epoch` times the epochs; without it the rows decide."""
    each = whole(options.get("max_steps_per_epoch"))
    steps = round(each * (config.length.num_epochs or 1)) if each else None
    targets = list(config.adapter.target_modules or ())
    if targets and options.get("model.apply_lora_to_mlp") is True:
        targets.append("mlp")
    return replace(
        config,
        optimization=replace(config.optimization, clip_stated=options.has("clip_grad_norm")),
        length=replace(config.length, max_steps=steps),
        adapter=replace(config.adapter, target_modules=tuple(targets) or None),
    )


def _deepspeed(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """The devices follow from the product; its scheduler's total is the length of the run."""
    micro, accumulation, total = (
        config.batch.micro_batch_size,
        config.batch.accumulation_steps,
        config.batch.effective_batch_size,
    )
    devices = total // (micro * accumulation) if total and micro and accumulation else None
    return replace(config, batch=replace(config.batch, num_devices=devices or config.batch.num_devices))


def _megatron(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """A number of samples is a number of rows."""
    rows = whole(options.get("train_samples"))
    steps = rows // config.batch.effective_batch_size if rows and config.batch.effective_batch_size else None
    return replace(config, length=replace(config.length, max_steps=config.length.max_steps or steps, max_samples=None))


def _unknown(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """Say what kind of own layout it is."""
    if isinstance(source.tree.get("defaults"), list):
        return replace(config, layout="a Hydra config with a layout of its own")
    words = {"shell": "a script of its own", "python": "a Python script of its own"}.get(
        source.kind, "a layout that we do not know"
    )
    return replace(config, layout=words)


def _swift(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """Its rate follows the method, and its accumulation makes up a batch of 16."""
    defaults = {**config.defaults, "learning_rate": 1e-5 if config.method == "full" else 1e-4}
    if config.batch.accumulation_steps is None:
        rows = int(config.value("micro_batch_size") or 1) * (config.batch.num_devices or 1)
        defaults["accumulation_steps"] = max(1, math.ceil(SWIFT_BATCH / rows))
    return replace(config, defaults=defaults)


def _llama_factory(config: ForeignConfig, source: Source, options: Options) -> ForeignConfig:
    """Its alpha is twice the rank."""
    rank = config.value("lora_rank")
    return replace(config, defaults={**config.defaults, **({"lora_alpha": 2 * rank} if rank else {})})


_RULES: dict[str, Callable[[ForeignConfig, Source, Options], ForeignConfig]] = {
    "mlx_lm": _mlx,
    "ms-swift": _swift,
    "llamafactory": _llama_factory,
    "litgpt": _litgpt,
    "torchtune": _torchtune,
    "deepspeed": _deepspeed,
    "megatron": _megatron,
    "unknown": _unknown,
}
