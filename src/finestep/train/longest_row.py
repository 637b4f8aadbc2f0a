"""The longest row that a device can train, by its memory: what the default of `max_length` may grow to."""

from __future__ import annotations

from finestep.errors import FinestepError
from finestep.recipe import Recipe
from finestep.rules.memory import Load, memory_need, usable_bytes
from finestep.study import ModelSpec
from finestep.survey.hardware import hardware_facts
from finestep.survey.model import model_facts
from finestep.train.tokenising import MOST_LENGTH, USUAL_LENGTH

FLOAT32_FACTOR = 2.0
"""The estimate is for 16-bit arithmetic; a CPU computes in 32 bits."""


def longest_row(model: ModelSpec, recipe: Recipe) -> int | None:
    """Tokens of the longest row that fits: 1,024 doubled as often as memory allows with one row a pass and checkpointing.

    It asks for the memory that the device has, not for what is free now, so that every worker of a study gets the same answer.
    None when the size of the model or of the memory is unknown.
    """
    try:
        facts = model_facts(model.path, offline=True)
        hardware = hardware_facts("cpu" if model.device == "cpu" else None)
    except FinestepError:
        return None
    budget = usable_bytes(hardware)
    if budget is None or facts.num_parameters is None:
        return None
    factor = FLOAT32_FACTOR if hardware.device == "cpu" else 1.0
    rank = recipe.lora.rank
    longest, length = None, USUAL_LENGTH
    while length <= MOST_LENGTH:
        if factor * memory_need(facts, Load(recipe.method, 1, length, rank, "on")).total > budget:
            break
        longest, length = length, 2 * length
    return longest
