"""Probe: what fits into memory and how fast it trains, predicted from shapes or measured on this machine; no torch in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finestep.executors.prober import ask_probe
from finestep.facts import HardwareFacts, ModelFacts
from finestep.probe import Lever, MemoryCurve, OptimizerName, Prediction, PredictRequest
from finestep.recipe import Recipe
from finestep.rules.memory import usable_bytes
from finestep.rules.memory_case import levers, memory_case
from finestep.rules.memory_lines import largest_rows, lever_words, peak_bytes

LABELS_ASSUMED = 2
LENGTH_ASSUMED = 1024


@dataclass(frozen=True)
class MemoryAnswer:
    """What a step needs, and how many rows fit. `budget_bytes` is None when the memory of the device is unknown."""

    model: ModelFacts
    hardware: HardwareFacts
    length: int
    prediction: Prediction
    budget_bytes: int | None
    notes: tuple[str, ...] = ()

    def rows(self, curve: MemoryCurve) -> int | None:
        """The largest micro-batch."""
        return None if self.budget_bytes is None else largest_rows(curve, self.budget_bytes)

    def advice(self) -> str | None:
        """What each lever buys."""
        if self.budget_bytes is None:
            return None
        return lever_words(self.prediction.curves, self.budget_bytes, now=Lever())

    def curve(self, *, checkpointing: bool, chunked: bool) -> MemoryCurve:
        """The curve of one setting of the levers."""
        wanted = (checkpointing, chunked)
        return next(
            c for c in self.prediction.curves if (c.lever.checkpointing, c.lever.chunk_tokens is not None) == wanted
        )

    def shown_curve(self, rows: int) -> MemoryCurve:
        """The first setting, from no lever to both, with which `rows` rows fit; the last one when none does."""
        for curve in self.prediction.curves:
            if self.budget_bytes is None or peak_bytes(curve, rows) <= self.budget_bytes:
                return curve
        return self.prediction.curves[-1]


def predict_memory(
    model: str,
    recipe: Recipe,
    *,
    hardware: HardwareFacts | str | None = None,
    length: int,
    optimizer: OptimizerName = "adamw",
    num_labels: int | None = None,
    loss_tokens: int | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> MemoryAnswer:
    """Peak memory of a training step of `model` by category, for each setting of the levers; no weights, no GPU.

    Raises:
        BadInput: nothing is known about the model, or its architecture cannot be shadowed.
    """
    from finestep.survey.hardware import hardware_facts
    from finestep.survey.model import model_config, model_facts, stand_in_config

    facts = model_facts(model)
    device = hardware if isinstance(hardware, HardwareFacts) else hardware_facts(hardware)
    config = model_config(model)
    notes = [] if config else ["the model's own config is not here: a Llama of the same shape stands in"]
    if facts.is_encoder and num_labels is None:
        num_labels = LABELS_ASSUMED
    request = PredictRequest(
        config=config or stand_in_config(facts),
        case=memory_case(recipe, device, num_labels=num_labels, optimizer=optimizer),
        length=length,
        loss_tokens=loss_tokens,
        levers=levers(facts, is_causal=num_labels is None),
    )
    prediction = Prediction.model_validate(ask_probe(request, note=note))
    return MemoryAnswer(facts, device, length, prediction, usable_bytes(device), tuple(notes) + prediction.notes)
