"""What the live monitor and the guard cost in real steps of the shipped model, in processor time.

    python -m benchmarks.monitor [--rounds 6]

Blocks of 20 steps with and without the monitor alternate in one run, so that a busy machine hits both alike; beside it the time
spent inside the monitor and the guard is added up directly, which is the less noisy figure.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.survey.shipped import SHIPPED_DATA, SHIPPED_MAX_LENGTH, SHIPPED_MODEL
from finestep.train.lane import Lane
from finestep.train.loop import Pack
from finestep.train.resident import Resident

BLOCK = 20
WARM_UP_STEPS = 20


class TimedPack(Pack):
    """Times each step, and what the monitor takes of it; in every second block the monitor is off."""

    steps: dict[bool, list[float]]
    inside: list[float]

    def _lane(self, request: Any) -> Lane:
        lane = super()._lane(request)
        self.steps, self.inside = defaultdict(list), []
        guard, recovery = lane._state.guard, lane._recovery
        guard.watch = self._switched(lane, guard.watch, ([], None))
        recovery.keep_good_state = self._switched(lane, recovery.keep_good_state, None)
        return lane

    def _micro_step(self) -> None:
        lane = self.lanes[0]
        began, spent = time.process_time(), len(self.inside)
        super()._micro_step()
        if lane.progress.step > WARM_UP_STEPS:
            self.steps[_is_on(lane.progress.step)].append(time.process_time() - began)
        else:
            del self.inside[spent:]

    def _switched(self, lane: Lane, call: Callable[..., Any], otherwise: Any) -> Callable[..., Any]:
        def switched(*arguments: Any, **options: Any) -> Any:
            if not _is_on(lane.progress.step):
                return otherwise
            began = time.process_time()
            result = call(*arguments, **options)
            self.inside.append(time.process_time() - began)
            return result

        return switched


def _is_on(step: int) -> bool:
    return (step - 1) // BLOCK % 2 == 0


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = 2 * BLOCK * options.rounds + WARM_UP_STEPS
    recipe = Recipe(learning_rate=2e-3, effective_batch_size=options.batch, num_epochs=steps * options.batch / 1800)
    data = DataSpec(path=str(SHIPPED_DATA), max_length=SHIPPED_MAX_LENGTH)
    with tempfile.TemporaryDirectory() as place:
        request = TrialRequest(
            number=0, recipe=recipe, folder=str(Path(place) / "run"), checkpoint_every_s=1e9, on_trouble="rollback"
        )
        waiting = [request]
        pack = TimedPack(
            Resident(ModelSpec(path=str(SHIPPED_MODEL), device="cpu"), data, recipe),
            emit=lambda *_, **__: None,
            should_stop=lambda: False,
            take=lambda: waiting.pop() if waiting else None,
        )
        for _ in pack.run():
            pass
    on, off = (np.array(pack.steps[key]) for key in (True, False))
    share = sum(pack.inside) / on.sum()
    print(f"{len(on)} steps with the monitor, {len(off)} without, batch {options.batch}, one thread")
    print(f"median step {1e3 * np.median(on):.2f} ms with, {1e3 * np.median(off):.2f} ms without")
    print(f"inside monitor and guard (snapshots too): {share:.2%} of the step time")


if __name__ == "__main__":
    main()
