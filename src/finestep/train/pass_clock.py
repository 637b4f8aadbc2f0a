"""Times forward and backward passes on rows of a study, and proves that trials of a pass do not touch each other. It decides nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from finestep.recipe import Recipe
from finestep.train.batch import collate_end_to_end, collate_lanes
from finestep.train.independence import short_and_long
from finestep.train.order import Order
from finestep.train.resident import Resident, lora_scale
from finestep.train.trial_rows import TrialRows

TIMINGS = 3
SAMPLED_STEPS = 32
SAME_LOSS, SAME_LOSS_BF16, SAME_BESIDE_ANOTHER = 1e-4, 1e-2, 1e-5
LONG_STEP_S = 1.0
"""A step that takes longer is timed once, and keeps all threads busy: fewer are not tried."""


class PassClock:
    """Times forward and backward passes on rows of the study."""

    def __init__(self, resident: Resident, recipe: Recipe):
        self.resident, self.recipe = resident, recipe
        self.values = dict(resident.initial_values(recipe))
        self.order = Order(resident.data.train.lengths, recipe)

    def time(self, num_lanes: int, num_rows: int) -> tuple[int, float]:
        """(padded tokens of one trial, seconds of a pass): the fastest of a few."""
        chosen = self._middle_rows(num_rows)
        seconds = self._fastest(num_lanes, [chosen])
        return int(self.resident.data.train.lengths[chosen].max()) * len(chosen), seconds

    def step_seconds(self, num_lanes: int, num_rows: int, *, end_to_end: bool = False) -> float:
        """Seconds of the passes of one trial's first step, when `num_lanes` trials share them."""
        cut = self.order.micro_batches(self.order.rows_of_step(1), num_rows)
        return self._fastest(num_lanes, cut, end_to_end=end_to_end) / num_lanes

    def padding_share(self, num_rows: int) -> float:
        """Share of padding in the first step of a trial."""
        cut, lengths = self.order.micro_batches(self.order.rows_of_step(1), num_rows), self.order.lengths
        padded = sum(int(lengths[part].max()) * len(part) for part in cut)
        return 1 - sum(int(lengths[part].sum()) for part in cut) / padded

    def tokens_of(self, num_rows: int) -> float:
        """Tokens of a micro-batch of so many rows, padding included, on average over some steps."""
        steps = range(1, min(self.order.num_steps, SAMPLED_STEPS) + 1)
        cut = [part for step in steps for part in self.order.micro_batches(self.order.rows_of_step(step), num_rows)]
        return sum(int(self.resident.data.train.lengths[part].max()) * len(part) for part in cut) / len(cut)

    def _fastest(self, num_lanes: int, micro_batches: Sequence[np.ndarray], *, end_to_end: bool = False) -> float:
        rows = self._open([self.values] * num_lanes)
        # The fastest of a few: other work on the machine only ever makes a pass slower.
        seconds = []
        try:
            if self.resident.placement.device.type != "cpu":
                # a GPU loads its kernels when they are first used
                self._pass(rows, [micro_batches[0]] * num_lanes, end_to_end=end_to_end)
            for _ in range(TIMINGS):
                self._finish_on_device()
                began = time.perf_counter()
                for chosen in micro_batches:
                    self._pass(rows, [chosen] * num_lanes, end_to_end=end_to_end)
                self._finish_on_device()
                seconds.append(time.perf_counter() - began)
                if seconds[-1] > LONG_STEP_S:
                    break
        finally:
            self._close(rows)
        return min(seconds)

    def _pass(self, rows: TrialRows, chosen: list[np.ndarray], *, end_to_end: bool) -> None:
        self._losses(chosen, end_to_end=end_to_end).sum().backward()
        rows.after_pass()

    def fault(self) -> str | None:
        """Two adapters on rows of different lengths must give together the losses that each gives alone; what is wrong otherwise.

        In bfloat16 products of another shape round differently, so that only the neighbour's exchange tells exactly.
        """
        short, long = short_and_long(self.resident.data.train.lengths)
        rows, (first, second, third) = [np.array([short]), np.array([long])], [self._shaken(seed) for seed in (1, 2, 3)]
        together = self._evaluated([first, second], rows)
        beside_another = self._evaluated([first, third], rows)
        alone = [self._evaluated([values], [row])[0] for values, row in zip((first, second), rows, strict=True)]
        rounding = SAME_LOSS_BF16 if self.resident.placement.autocast else SAME_LOSS
        same = [math.isclose(a, b, rel_tol=rounding) for a, b in zip(together, alone, strict=True)]
        if all(same) and math.isclose(together[0], beside_another[0], rel_tol=SAME_BESIDE_ANOTHER):
            return None
        return "rows of a batch are not independent in this model"

    def _evaluated(self, variants: Sequence[dict[str, torch.Tensor]], chosen: list[np.ndarray]) -> list[float]:
        rows = self._open(variants)
        try:
            with torch.no_grad():
                return self._losses(chosen).tolist()
        finally:
            self._close(rows)

    def _losses(self, chosen: list[np.ndarray], *, end_to_end: bool = False) -> torch.Tensor:
        resident = self.resident
        collated = collate_end_to_end if end_to_end else collate_lanes
        batch, units = collated(
            resident.data.train, chosen, pad_id=resident.data.pad_id, device=resident.placement.device
        )
        resident.base.train(False)
        return resident.token_loss.lane_sums(resident.base, batch, units)

    def _open(self, variants: Sequence[dict[str, torch.Tensor]]) -> TrialRows:
        rows = self.resident.open_rows(self.recipe)
        for number, values in enumerate(variants):
            rows.join(number, values, scale=lora_scale(self.recipe))
        return rows

    def _close(self, rows: TrialRows) -> None:
        for number in list(rows.keys):
            rows.leave(number)

    def _shaken(self, seed: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return {name: value + 0.02 * torch.randn(value.shape, generator=draw) for name, value in self.values.items()}

    def _middle_rows(self, num_rows: int) -> np.ndarray:
        """Rows of the middle lengths, as many as asked; with few rows, some of them twice."""
        by_length = np.argsort(self.resident.data.train.lengths, kind="stable")
        first = max(0, (len(by_length) - num_rows) // 2)
        return np.resize(by_length[first : first + num_rows], num_rows)

    def _finish_on_device(self) -> None:
        if self.resident.placement.device.type == "cuda":
            torch.cuda.synchronize(self.resident.placement.device)
