"""The micro-batch that memory allows, or why nothing does; it decides nothing about the effective batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from finestep.errors import BadInput
from finestep.estimate import Estimate
from finestep.facts import HardwareFacts, ModelFacts
from finestep.recipe import Method
from finestep.rules.memory import (
    GIB,
    HIGH_FACTOR,
    LOW_FACTOR,
    WEIGHT_BYTES,
    Checkpointing,
    Load,
    MemoryNeed,
    largest_micro_batch,
    memory_need,
    usable_bytes,
)

SMALLER: dict[Method, tuple[Method, ...]] = {"full": ("lora", "qlora"), "lora": ("qlora",), "qlora": ()}
OVERHEAD_4_BIT = 1.15
"""Smallest ratio of all memory to weights at 4 bits with a short row, for saying what would fit."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What fits: micro-batch (None = memory unknown, 0 = nothing fits), the need at it, and what to know about it."""

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
    model: ModelFacts,
    hardware: HardwareFacts | None,
    *,
    method: Method,
    length: int,
    rank: int,
    most: int,
    strict: bool = True,
) -> MemoryPlan:
    """The largest micro-batch, without checkpointing where four rows (or all) fit, else with it.

    Raises:
        BadInput: not even one row fits (with `strict`).
    """
    budget = usable_bytes(hardware) if hardware else None
    if budget is None or model.num_parameters is None:
        return MemoryPlan(None, memory_need(model, Load(method, 1, length, rank)) if model.num_parameters else None)
    plain = largest_micro_batch(model, Load(method, 1, length, rank), budget=budget, most=most)
    saved = largest_micro_batch(model, Load(method, 1, length, rank, "on"), budget=budget, most=most)
    mode: Checkpointing = "off" if plain >= min(4, saved) and plain > 0 else "on"
    size = plain if mode == "off" else saved
    if size == 0:
        if strict:
            raise _too_large(model, hardware, method=method, length=length, rank=rank)
        return MemoryPlan(0)
    notes = ["switch activation checkpointing on: rows fit only with it"] if mode == "on" else []
    return MemoryPlan(size, memory_need(model, Load(method, size, length, rank, mode)), mode, notes)


def _too_large(
    model: ModelFacts, hardware: HardwareFacts | None, *, method: Method, length: int, rank: int
) -> BadInput:
    assert hardware is not None
    memory = hardware.memory_bytes or 0
    budget = usable_bytes(hardware) or 0
    needed = memory_need(model, Load(method, 1, length, rank, "on")).total / GIB
    law = f"the model must fit into memory: {method} of {model.name} needs about {needed:.1f} GiB"
    law += f" for one row of {length:,} tokens"
    fits = next((m for m in SMALLER[method] if _fits(model, m, budget, length, rank)), None)
    advice = f"`--method {fits}` fits" if fits else _what_would_fit(model, budget, length, rank)
    place = hardware.name or hardware.device
    return BadInput(law, value=f"{memory / GIB:.1f} GiB", place=place, next_step=advice)


def _what_would_fit(model: ModelFacts, budget: int, length: int, rank: int) -> str:
    need = memory_need(model, Load("qlora", 1, length, rank, "on")).total / GIB
    largest = max(budget / (WEIGHT_BYTES["qlora"] * OVERHEAD_4_BIT) / 1e9, 0.0)
    return (
        f"even at 4 bits it needs about {need:.0f} GiB; such a device holds about {largest:.1f}B parameters at 4 bits: "
        "take a smaller model, a larger `--gpu`, or shorter rows"
    )


def _fits(model: ModelFacts, method: Method, budget: int, length: int, rank: int) -> bool:
    return memory_need(model, Load(method, 1, length, rank, "on")).total <= budget
