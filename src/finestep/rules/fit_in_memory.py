"""The micro-batch that memory allows, or what it would take; it refuses nothing and decides no rate and no effective batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from finestep.estimate import Estimate
from finestep.facts import HardwareFacts, ModelFacts
from finestep.recipe import Method
from finestep.rules.memory import (
    GIB,
    HIGH_FACTOR,
    LOW_FACTOR,
    Checkpointing,
    Load,
    MemoryNeed,
    largest_micro_batch,
    memory_need,
    usable_bytes,
)

SMALLER: dict[Method, tuple[Method, ...]] = {"full": ("lora", "qlora"), "lora": ("qlora",), "qlora": ()}
CARD_BYTES = 80 * GIB
"""The card that a count of devices is given in when the user's own is smaller."""
MOST_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What fits: micro-batch (None = memory unknown, or left open because one device is too small; 0 = nothing fits one device), the
    need at it, and what to know about it."""

    micro_batch: int | None
    need: MemoryNeed | None = None
    checkpointing: Checkpointing = "off"
    notes: list[str] = field(default_factory=list)

    def memory_estimate(self) -> Estimate:
        """Peak memory of one device, an estimate by shapes."""
        total = float(self.need.total if self.need else 0)
        return Estimate(
            value=total,
            low=LOW_FACTOR * total,
            high=HIGH_FACTOR * total,
            unit="bytes",
            source="activation-memory",
            why=f"estimate from shapes, {'with' if self.checkpointing == 'on' else 'without'} activation checkpointing",
        )

    def micro_batch_estimate(self) -> Estimate:
        """Rows per forward pass."""
        value = float(self.micro_batch or 1)
        why = "largest that fits" + (" with activation checkpointing" if self.checkpointing == "on" else "")
        return Estimate(
            value=value, low=max(1.0, value / 2), high=2 * value, unit="rows", source="activation-memory", why=why
        )


def plan_memory(
    model: ModelFacts, hardware: HardwareFacts | None, *, method: Method, length: int, rank: int, most: int
) -> MemoryPlan:
    """The largest micro-batch, without checkpointing where four rows (or all) fit, else with it.

    Where one row is too much for one device, the plan says what would do: a chunked loss, or (with a micro-batch of 0) sharding
    or another method.
    """
    budget = usable_bytes(hardware) if hardware else None
    if hardware is None or budget is None or model.num_parameters is None:
        return MemoryPlan(None, memory_need(model, Load(method, 1, length, rank)) if model.num_parameters else None)
    plain = largest_micro_batch(model, Load(method, 1, length, rank), budget=budget, most=most)
    saved = largest_micro_batch(model, Load(method, 1, length, rank, "on"), budget=budget, most=most)
    mode: Checkpointing = "off" if plain >= min(4, saved) and plain > 0 else "on"
    size = plain if mode == "off" else saved
    if size == 0:
        return _too_large(model, hardware, budget=budget, load=Load(method, 1, length, rank, "on"))
    notes = ["switch activation checkpointing on: rows fit only with it"] if mode == "on" else []
    return MemoryPlan(size, memory_need(model, Load(method, size, length, rank, mode)), mode, notes)


def _too_large(model: ModelFacts, hardware: HardwareFacts, *, budget: int, load: Load) -> MemoryPlan:
    """One row does not fit one device: the cheapest way that does."""
    need = memory_need(model, load)
    row = f"one row of {load.length:,} tokens needs about {need.total / GIB:.0f} GiB"
    without_logits = replace(need, logits=0)
    if without_logits.total <= budget:
        words = f"{row}, {need.logits / GIB:.0f} of it for the logits: use a chunked loss and activation checkpointing"
        return MemoryPlan(1, without_logits, "on", [words])
    ways = [f"{row}, more than the {(hardware.memory_bytes or 0) / GIB:.0f} GiB of {hardware.name or 'this device'}"]
    ways.append(_sharded(without_logits, hardware))
    smaller = next((m for m in SMALLER[load.method] if _fits(model, replace(load, method=m), budget)), None)
    if smaller:
        ways.append(f"`--method {smaller}` fits one device")
    return MemoryPlan(0, need, "on", ["; ".join(ways) + ". The rate does not depend on it"])


def _sharded(need: MemoryNeed, hardware: HardwareFacts) -> str:
    """How many devices hold it when weights and optimizer state are sharded and the loss is chunked."""
    own = num_devices(need, usable_bytes(hardware) or 0)
    if own is not None and own <= hardware.num_devices:
        return f"shard it over the {hardware.num_devices} devices (ZeRO-3 or FSDP)"
    large = max(hardware.memory_bytes or 0, CARD_BYTES)
    card = hardware.model_copy(update={"memory_bytes": large, "device": "cuda"})
    count = num_devices(need, usable_bytes(card) or 0)
    if count is None:
        return "the rows are too long for any count of such devices: shorten them, or split the sequence"
    return f"needs {count} x {large / GIB:.0f} GB sharded (ZeRO-3 or FSDP)"


def num_devices(need: MemoryNeed, budget: int) -> int | None:
    """Devices of so much usable memory over which weights and optimizer state must be sharded; None when activations alone are too many."""
    room = budget - need.activations - need.logits
    if room <= 0:
        return None
    count = math.ceil((need.weights + need.optimizer) / room)
    return count if count <= MOST_DEVICES else None


def _fits(model: ModelFacts, load: Load, budget: int) -> bool:
    return memory_need(model, load).total <= budget
