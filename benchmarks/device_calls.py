"""What one device pays for the code of several: its seconds as a share of a step. `python -m benchmarks.device_calls [--steps 40]`

Every method of `Alone` and `agreed` without what it computes are timed in place. The timers' own cost counts as theirs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.packing import filled_pack
from benchmarks.step_time import Case, _timed
from finestep.train import loop
from finestep.train.devices import Alone

CASES = (("LoRA", "lora", 1), ("full", "full", 1), ("LoRA, pack of 4", "lora", 4))


class Watch:
    """Seconds inside the added code; what it computes for others does not count."""

    seconds, calls, _since = 0.0, 0, 0.0

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, timed unless another timed one made it."""

        def timed(*words: Any, **named: Any) -> Any:
            if self._since:
                return call(*words, **named)
            self.calls, self._since = self.calls + 1, time.perf_counter()
            try:
                return call(*words, **named)
            finally:
                self.seconds += time.perf_counter() - self._since
                self._since = 0.0

        return timed

    def left_out(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, during which the watch stands still."""

        def untimed(*words: Any) -> Any:
            self.seconds += time.perf_counter() - self._since
            self._since = 0.0
            try:
                return call(*words)
            finally:
                self._since = time.perf_counter()

        return untimed


def main() -> None:
    """Measure all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    watch, original = Watch(), loop.agreed
    agreed = watch.counted(original)
    loop.agreed = lambda devices, compute, lanes: agreed(devices, watch.left_out(compute), lanes)  # type: ignore[assignment]
    for name, method in list(vars(Alone).items()):
        if callable(method) and not name.startswith("_"):
            setattr(Alone, name, watch.counted(method))
    print("| batch 8 | step, ms | calls a step | in them, ms | share of the step |\n|---|---|---|---|---|")
    for name, method, trials in CASES:
        case = Case(method, 8, asked.steps)
        pack = filled_pack(case.resident, [case.recipe] * trials, emit=lambda *_, **__: None)
        watch.seconds, watch.calls = 0.0, 0
        step = _timed(pack._micro_step, asked.steps)
        inside = watch.seconds / (asked.steps + 3)  # `_timed` makes three more
        print(
            f"| {name} | {1000 * step:.1f} | {watch.calls / (asked.steps + 3):.1f} | {1000 * inside:.4f} | {inside / step:.3%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
