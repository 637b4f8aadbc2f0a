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

    Where one row is too much for one device, the model is sharded over those that are named. Where that is not enough either,
    the plan says what would do (with a micro-batch of 0): more devices, or another method.
    """
    budget = usable_bytes(hardware) if hardware else None
    if hardware is None or budget is None or model.num_parameters is None:
        return _without_a_card(model, Load(method, 1, length, rank, "on"))
    plain = largest_micro_batch(model, Load(method, 1, length, rank), budget=budget, most=most)
    saved = largest_micro_batch(model, Load(method, 1, length, rank, "on"), budget=budget, most=most)
    mode: Checkpointing = "off" if plain >= min(4, saved) and plain > 0 else "on"
    size = plain if mode == "off" else saved
    if size == 0:
        return _too_large(model, hardware, budget=budget, load=Load(method, 1, length, rank, "on"), most=most)
    notes = ["switch activation checkpointing on: rows fit only with it"] if mode == "on" else []
    return MemoryPlan(size, memory_need(model, Load(method, size, length, rank, mode)), mode, notes)


def _without_a_card(model: ModelFacts, load: Load) -> MemoryPlan:
    """No device is named: what one row takes, in cards of 80 GB."""
    if not model.num_parameters:
        return MemoryPlan(None, None)
    need = memory_need(model, load)
    return MemoryPlan(None, need, "on", [f"no card is named: {_in_cards(need, load)}"])


def _in_cards(need: MemoryNeed, load: Load) -> str:
    """How many cards of 80 GB hold one row, with checkpointing and a chunked loss."""
    row = f"one row of {load.length:,} tokens takes about {need.total / GIB:.0f} GiB with checkpointing"
    card = HardwareFacts(device="cuda", memory_bytes=CARD_BYTES)
    count = num_devices(replace(need, logits=0), usable_bytes(card) or 0)
    if count is None:
        return f"{row}, too long for any count of cards of 80 GB"
    held = "one card of 80 GB" if count == 1 else f"{count} cards of 80 GB, sharded by ZeRO-3 or FSDP"
    return f"{row}: {held}"


def _too_large(model: ModelFacts, hardware: HardwareFacts, *, budget: int, load: Load, most: int) -> MemoryPlan:
    """One row does not fit one device: the cheapest way that does."""
    need = memory_need(model, load)
    row = f"one row of {load.length:,} tokens needs about {need.total / GIB:.0f} GiB"
    without_logits = replace(need, logits=0)
    if without_logits.total <= budget:
        words = f"{row}, {need.logits / GIB:.0f} of it for the logits: use a chunked loss and activation checkpointing"
        return MemoryPlan(1, without_logits, "on", [words])
    own = f"{(hardware.memory_bytes or 0) / GIB:.0f} GiB of {'one of ' if hardware.num_devices > 1 else ''}{hardware.name or 'this device'}"
    smaller = next((m for m in SMALLER[load.method] if _fits(model, replace(load, method=m), budget)), None)
    lighter = [f"`--method {smaller}` fits one device"] if smaller else []
    rate = "The rate does not depend on it"
    micro = _sharded_rows(model, load, hardware.num_devices, budget=budget, most=most)
    if micro:
        ways = [
            f"{row}, more than the {own}; shard it over the {hardware.num_devices} devices (ZeRO-3 or FSDP)",
            *lighter,
        ]
        shared = _share(model, replace(load, micro_batch=micro), hardware.num_devices)
        return MemoryPlan(micro, shared, "on", ["; ".join(ways) + f". {rate}"])
    for method in SMALLER[load.method]:
        if not lighter and _sharded_rows(
            model, replace(load, method=method), hardware.num_devices, budget=budget, most=1
        ):
            lighter = [f"`--method {method}` fits the {hardware.num_devices} devices, sharded"]
    ways = [f"{row}, more than the {own}", _more_devices(without_logits, hardware), *lighter]
    return MemoryPlan(0, need, "on", ["; ".join(ways) + f". {rate}"])


def _share(model: ModelFacts, load: Load, devices: int) -> MemoryNeed:
    """What one of several devices holds when weights and optimizer state are sharded and the loss is chunked."""
    need = memory_need(model, load)
    return replace(need, weights=need.weights // devices, optimizer=need.optimizer // devices, logits=0)


def _sharded_rows(model: ModelFacts, load: Load, devices: int, *, budget: int, most: int) -> int:
    """The largest micro-batch of one of several devices, a power of two up to `most`; 0 when not one row fits."""
    fits, size = 0, 1
    while devices > 1 and size <= most and _share(model, replace(load, micro_batch=size), devices).total <= budget:
        fits, size = size, 2 * size
    return fits


def _more_devices(need: MemoryNeed, hardware: HardwareFacts) -> str:
    """How many devices hold it when weights and optimizer state are sharded and the loss is chunked."""
    large = max(hardware.memory_bytes or 0, CARD_BYTES)
    card = hardware.model_copy(update={"memory_bytes": large, "device": "cuda"})
    count = num_devices(need, usable_bytes(card) or 0)
    if count is None:
        return "the rows are too long for any count of such devices: shorten them, or split the sequence"
    if count == 1:
        return f"one card of {large / GIB:.0f} GB holds it"
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
