"""The largest micro-batch that really fits: tried on the longest rows where running out is harmless, predicted where it is not.

On a GPU a step that does not fit raises an error; on a CPU, and where GPU and CPU share memory, it would take the machine down with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from finestep.recipe import Recipe
from finestep.train.batch import collate_lanes
from finestep.train.memory import is_out_of_memory, release_memory
from finestep.train.resident import Resident, lora_scale
from finestep.train.tokens import TrainingData
from finestep.train.update import UpdatePlan

HEADROOM = 0.05
PRECISION = 0.1
MOST_ROWS = 4096
OWN_BYTES = 2**30
TRYING = "trying "
"""Notes that begin so tell the caller what was tried last, should this process die of it."""
Source = Literal["prediction", "tried", "unknown"]


def usable_now(device: torch.device, budget_bytes: int | None) -> int | None:
    """What training may take: on a CPU no more than is free now, less what this process needs for itself."""
    if device.type != "cpu" or budget_bytes is None:
        return budget_bytes
    import psutil

    free = psutil.virtual_memory().available - OWN_BYTES
    return max(0, min(budget_bytes, int(free * (1 - HEADROOM))))


def largest_that_fits(
    resident: Resident,
    recipe: Recipe,
    *,
    predicted: int | None,
    note: Callable[[str], None],
    most: int | None = None,
) -> tuple[int | None, Source]:
    """(rows, how it is known); `predicted` has its headroom taken off already, and more than `most` are never tried."""
    if resident.placement.device.type != "cuda":
        return predicted, "prediction" if predicted is not None else "unknown"

    def fits(rows: int) -> bool:
        note(f"{TRYING}{rows} rows")
        return _fits(resident, recipe, rows)

    useful = math.ceil(len(resident.data.train) / (1 - HEADROOM))
    found = bisect(fits, start=predicted or 1, most=min(most or MOST_ROWS, MOST_ROWS, useful))
    return max(1, int(found * (1 - HEADROOM))) if found else 0, "tried"


def bisect(fits: Callable[[int], bool], *, start: int, most: int = MOST_ROWS) -> int:
    """The largest number of rows that fits, within 10 % and at most `most`, beginning at `start`; 0 when not even one row does."""
    good, bad = 0, math.inf
    rows = max(1, min(start, most))
    while rows >= 1 and bad - good > max(1, PRECISION * good):
        if fits(rows):
            good = rows
            rows = min(2 * rows, most) if math.isinf(bad) else (good + int(bad)) // 2
            if good == most:
                break
        else:
            bad = rows
            rows = (good + rows) // 2
    return good


def _fits(resident: Resident, recipe: Recipe, rows: int) -> bool:
    """Two steps with updates on the longest rows there are."""
    rows_of_trial = resident.open_rows(recipe)
    rows_of_trial.join(0, resident.initial_values(recipe), scale=lora_scale(recipe))
    model, device = resident.base, resident.placement.device
    try:
        batch, units = collate_lanes(
            resident.data.train, [_longest(resident.data, rows)], pad_id=resident.data.pad_id, device=device
        )
        for step in (1, 2):
            losses = resident.token_loss.lane_sums(model, batch, units) / rows
            losses.sum().backward()
            rows_of_trial.after_pass()
            rows_of_trial.add_losses(losses.detach())
            rows_of_trial.update({0: UpdatePlan(recipe.optimizer, (), num_steps=step, learning_rate=1e-6)})
        torch.cuda.synchronize()
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        rows_of_trial.zero_grad(0)
        release_memory(device)


def _longest(data: TrainingData, rows: int) -> np.ndarray:
    """The longest training rows, repeated when there are too few."""
    order = np.argsort(-data.train.lengths, kind="stable")
    return np.resize(order, rows)
