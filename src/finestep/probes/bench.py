"""A loaded model and its rows, on which passes and optimizer steps are made and timed; what they tell is measured in `measure.py`."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from finestep.probe import Lever, MeasureRequest
from finestep.probes.limit import usable_now
from finestep.rules.lanes import choose_processes
from finestep.train.batch import collate
from finestep.train.checkpointing import checkpoint_layers
from finestep.train.lane_plan import thread_counts, time_threads
from finestep.train.resident import Resident, lora_scale
from finestep.train.whole_model import trained

FEWEST_ROWS = 4


class Bench:
    """One trial in training, without its order of rows and its schedule.

    Attributes:
        notes: what a user should know of what was measured.
        rows_wanted: a micro-batch of so many rows is worth giving up speed for.
        budget: usable bytes of the device; None: not known.
        model: the base with the trial's row in it.
        values: the trained parameters, which `adamw` changes.
    """

    def __init__(self, request: MeasureRequest):
        self.recipe = request.recipe
        self.resident = Resident(request.model, request.data, request.recipe)
        self.notes: list[str] = []
        self.rows_wanted = min(FEWEST_ROWS, request.recipe.effective_batch_size)
        self.budget = usable_now(self.resident.placement.device, request.memory_budget_bytes)
        self._lever = Lever()
        self._chance = np.random.default_rng(request.recipe.seed)
        self.restart()

    def use(self, lever: Lever) -> None:
        """Pull the levers, from now on."""
        self._lever = lever
        if lever.chunk_tokens:
            self.resident.token_loss.cut_into_chunks(self.model, lever.chunk_tokens)
        self.restart()

    def choose_threads(self, num_threads: int | None, *, row_limit: int | None) -> dict[int, float]:
        """Set the number of CPU threads with which one trial is fastest, as the worker does; what was measured."""
        counts = thread_counts(self.resident, num_threads)
        timed = time_threads(self.resident, self.recipe, counts, row_limit=row_limit)
        if timed:
            torch.set_num_threads(choose_processes(timed, cores=max(counts), wanted=1).threads)
            self.restart()
        return timed

    def run_pass(self, rows: np.ndarray) -> float:
        """Forward and backward of the mean loss of these rows."""
        data = self.resident.data
        batch = collate(data.train, rows, pad_id=data.pad_id, device=self.resident.placement.device)
        self._trial.notice_changes()
        loss = self.resident.token_loss.sum(self.model, batch) / max(data.train.num_loss_units(rows), 1)
        loss.backward()
        self._trial.after_pass()
        return float(loss.detach())

    def timed_pass(self, rows: np.ndarray) -> float:
        """Seconds of a forward and backward pass."""
        start = self.now()
        self.run_pass(rows)
        return self.now() - start

    def update(self, rate: float) -> None:
        """Clip, step with this rate, and begin with new gradients."""
        torch.nn.utils.clip_grad_norm_(self.values, self.recipe.optimizer.max_grad_norm or math.inf)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)

    def restart(self) -> None:
        """Initial weights as a pack of one trial, a new optimizer."""
        resident = self.resident
        self._trial = resident.open_rows(self.recipe)
        self._trial.join(0, resident.initial_values(self.recipe), scale=lora_scale(self.recipe))
        self.model = resident.base.eval()
        if self._lever.checkpointing:
            checkpoint_layers(self.model)
        self.values = list(trained(self.model).values())
        settings = self.recipe.optimizer
        self.adamw = torch.optim.AdamW(
            self.values,
            lr=self.recipe.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=resident.placement.device.type in {"cpu", "cuda"},
        )

    def rows(self, count: int) -> np.ndarray:
        """Random rows, all different when there are enough."""
        number = len(self.resident.data.train)
        return self._chance.choice(number, size=count, replace=count > number)

    def now(self) -> float:
        """The clock, once the device has done what it was given."""
        if self.resident.placement.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
