"""Adapter, row length, precision, clipping, weight decay and memory of somebody's config, each judged by what is known."""

from __future__ import annotations

from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.flows.planned_run import PlannedRun
from finestep.flows.remark import Remark, Verdict
from finestep.foreign.config import ForeignConfig
from finestep.rules.compose import row_length
from finestep.rules.memory import GIB, Load, MemoryNeed, memory_need, usable_bytes

SMALL_RANK, LARGE_RANK = 4, 256
LARGE_SCALE, SMALL_SCALE = 4.0, 0.1
SHORT_ROWS = 256
HIGH_DECAY, HIGH_DROPOUT = 0.1, 0.15
TIGHT = 1.25
"""The estimate of memory is within this factor."""


def judged_numbers(
    config: ForeignConfig, run: PlannedRun, model: ModelFacts | None, data: DataFacts | None, gpu: HardwareFacts | None
) -> list[Remark]:
    """Remarks on everything but rate, length and batch."""
    found = [
        _adapter(config),
        _dropout(config),
        _length(config, model, data),
        _precision(config, gpu),
        _clip(config),
        _decay(config),
        _memory(config, run, model, data, gpu),
    ]
    return [remark for remark in found if remark]


def _adapter(config: ForeignConfig) -> Remark | None:
    rank, alpha = config.adapter.lora_rank, config.adapter.lora_alpha
    if rank is None or config.method == "full":
        return None
    words = [f"rank {rank}" + (f" with alpha {alpha:g}" if alpha is not None else "")]
    verdict: Verdict = "fine"
    if rank < SMALL_RANK:
        verdict = "consider"
        words.append(f"rank {rank} holds little; 8 to 64 are usual")
    elif rank > LARGE_RANK:
        verdict = "consider"
        words.append("8 to 64 are usual; more cost memory and gained nothing on small sets")
    scale = alpha / (rank**0.5 if config.adapter.use_rslora else rank) if alpha is not None else None
    usual = config.framework == "mlx_lm"
    if scale is not None and not usual and not SMALL_SCALE <= scale <= LARGE_SCALE:
        verdict = "consider"
        side = "a higher" if scale > 1 else "a lower"
        words.append(f"the adapter is scaled by {scale:.3g}, where 0.5 to 2 are usual: it acts like {side} rate")
    elif scale is not None:
        there = ", usual in mlx_lm" if usual else ""
        words.append(f"scales the adapter by {scale:.3g}{there}; the recommended rate is for it")
    return Remark(topic="lora", verdict=verdict, text=": ".join(words[:2]) + "".join(f"; {word}" for word in words[2:]))


def _dropout(config: ForeignConfig) -> Remark | None:
    if config.adapter.lora_dropout is None or config.adapter.lora_dropout <= HIGH_DROPOUT:
        return None
    text = f"dropout {config.adapter.lora_dropout:g} on the adapter is high; 0 to 0.1 are usual"
    return Remark(topic="lora_dropout", verdict="consider", text=text)


def _length(config: ForeignConfig, model: ModelFacts | None, data: DataFacts | None) -> Remark | None:
    length = config.length.max_length
    if length is None:
        return None
    context = model.shape.context_length if model else None
    if context and length > context:
        text = f"rows of up to {length:,} tokens, beyond the {context:,} that the model reads"
        return Remark(topic="max_length", verdict="change", text=text)
    if data and data.length_p95 and data.length_p95 > length:
        text = f"rows are cut at {length:,} tokens; more than one in twenty is longer ({data.length_p95:,} at the 95th percentile)"
        return Remark(topic="max_length", verdict="consider", text=text)
    if length < SHORT_ROWS and not (model and model.is_encoder):
        text = f"rows are cut at {length:,} tokens, which is short for chats: count how many are cut"
        return Remark(topic="max_length", verdict="consider", text=text)
    return Remark(topic="max_length", verdict="fine", text=f"rows of up to {length:,} tokens")


def _precision(config: ForeignConfig, gpu: HardwareFacts | None) -> Remark | None:
    if config.memory.precision != "fp16" or (gpu is not None and not gpu.supports_bf16):
        return None
    text = "fp16 overflows in models that were trained in bf16, which are nearly all since 2022; use bf16 where the card has it"
    return Remark(topic="precision", verdict="consider", text=text)


def _clip(config: ForeignConfig) -> Remark | None:
    if config.framework == "torchtune" and config.optimization.max_grad_norm is None:
        return Remark(
            topic="max_grad_norm",
            verdict="change",
            text="torchtune clips gradients only when told to; set `clip_grad_norm` to 1.0",
        )
    clip = config.optimization.max_grad_norm
    if clip is not None and clip > 5:
        return Remark(
            topic="max_grad_norm", verdict="consider", text=f"clipping at {clip:g} hardly clips; 0.3 to 1 are usual"
        )
    return None


def _decay(config: ForeignConfig) -> Remark | None:
    decay = config.optimization.weight_decay
    if decay is None or decay == 0:
        return None
    if decay > HIGH_DECAY:
        return Remark(
            topic="weight_decay", verdict="consider", text=f"weight decay {decay:g} is high; 0 to 0.1 are usual"
        )
    return Remark(
        topic="weight_decay", verdict="fine", text=f"weight decay {decay:g} is usual, and hardly acts in a short run"
    )


def _memory(
    config: ForeignConfig, run: PlannedRun, model: ModelFacts | None, data: DataFacts | None, gpu: HardwareFacts | None
) -> Remark | None:
    """One device's memory, where the card was named; sharding divides what it shards."""
    budget = usable_bytes(gpu) if gpu else None
    if gpu is None or budget is None or model is None or model.num_parameters is None or not run.micro:
        return None
    if config.method not in ("full", "lora", "qlora"):
        return None
    length = config.length.max_length or row_length(data, model)
    mode = "on" if config.memory.checkpointing else "off"
    load = Load(config.method, run.micro, length, int(config.value("lora_rank") or 16), mode)  # type: ignore[arg-type]
    need = memory_need(model, load)
    devices = max(run.devices, gpu.num_devices)
    total = _sharded(need, config.memory.sharding, devices)
    spread = f" with {config.memory.sharding} over {devices} devices" if config.memory.sharding and devices > 1 else ""
    rows = f"{run.micro} rows of {length:,} tokens need about {total / GIB:.0f} GiB a device{spread}"
    shown = f"{rows}; {gpu.name} has {(gpu.memory_bytes or 0) / GIB:.0f}"
    if total > TIGHT * budget:
        return Remark(
            topic="memory", verdict="change", text=f"{shown}: {_remedy(config, need, total, budget, devices)}"
        )
    if total > budget / TIGHT:
        return Remark(topic="memory", verdict="consider", text=f"{shown}: tight; try a few steps first")
    return Remark(topic="memory", verdict="fine", text=shown)


def _sharded(need: MemoryNeed, sharding: str | None, devices: int) -> float:
    kept = float(need.activations + need.logits)
    if sharding in ("zero-3", "fsdp"):
        return kept + (need.weights + need.optimizer) / devices
    if sharding in ("zero-1", "zero-2"):
        return kept + need.weights + need.optimizer / devices
    return float(need.total)


def _remedy(config: ForeignConfig, need: MemoryNeed, total: float, budget: int, devices: int) -> str:
    states = need.weights + need.optimizer
    if states > budget:
        count = -(-states // budget) + 1
        wide = f"shard it over {max(count, devices)} such devices (ZeRO-3 or FSDP)"
        return f"{wide}, or train an adapter" if config.method == "full" else wide
    smaller = "lower the micro-batch and raise the accumulation"
    return smaller if config.memory.checkpointing else f"switch gradient checkpointing on, or {smaller}"
