"""One trial of a pack: its clock, its records, its evaluations, its checkpoints. The forward pass is the pack's (`loop.py`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finestep.diagnosis.divergence import DivergenceWatch
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.rules.schedule import learning_rate_at
from finestep.rules.warmup import warmup_steps
from finestep.train.adapters import Values
from finestep.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from finestep.train.evaluate import evaluate, extra_metrics
from finestep.train.memory import peak_memory_bytes
from finestep.train.optimizer import Optimizer, Slice
from finestep.train.order import Order
from finestep.train.resident import Resident, Rows, lora_scale
from finestep.trial import EvalRecord, Outcome, StepRecord

Emit = Callable[..., None]
NORMS_EVERY_STEP_BELOW = 2_000_000
NORMS_EVERY = 10


@dataclass
class Progress:
    """Where a trial is; with the weights and Adam's moments, this is all that resuming needs."""

    step: int = 0
    evaluated_step: int = -1
    best_step: int = 0
    best_loss: float = math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)
    base_loss: float = math.nan
    evaluations_without_gain: int = 0
    num_tokens: int = 0
    elapsed_s: float = 0.0
    micro_batch_size: int = 0
    watch: list[float] = field(default_factory=list)


class Lane:
    """One trial in training.

    Attributes:
        outcome: how it ended, or None while it has not.
        interrupted: it was stopped from outside, with a checkpoint.
    """

    def __init__(
        self,
        resident: Resident,
        request: TrialRequest,
        *,
        emit: Emit,
        should_stop: Callable[[], bool],
        metrics: tuple[str, ...],
        row_limit: int | None,
    ):
        self.resident, self.request, self.should_stop, self.metrics = resident, request, should_stop, metrics
        self.number, self.recipe = request.number, request.recipe
        self._emit = emit
        self.data = resident.data
        self.order = Order(self.data.train.lengths, self.recipe, fidelity=request.fidelity)
        self.num_steps = self.order.num_steps
        self.warmup = warmup_steps(self.recipe.schedule, self.num_steps)
        self.optimizer = Optimizer(self.recipe.optimizer)
        self.watch = DivergenceWatch(math.log(len(self.data.label_names) or resident.base.config.vocab_size))
        self.progress = Progress(micro_batch_size=_first_micro_batch(self.recipe, row_limit))
        self.best: dict[str, torch.Tensor] = {}
        self.folder = Path(request.folder)
        self.outcome: Outcome | None = None
        self.interrupted = False
        self._parked: tuple[Values, Values] | None = None
        self._saved, self._saved_step = time.monotonic(), 0
        self._queue: list[np.ndarray] = []
        self.loss = torch.zeros(())
        self.num_micro_batches = 0
        self._rows: Rows

    def join(self, rows: Rows) -> None:
        """Take a row: with what was parked, from the newest valid checkpoint, or at the start."""
        self._rows = rows
        values, moments = self._parked or self._take_up()
        self._parked = None
        rows.join(self.number, values, scale=lora_scale(self.recipe), moments=moments)

    def park(self) -> None:
        """Give up the row for now, and keep what is needed to take another later."""
        self._parked = (self.values(), self._moments())
        self.rewind()
        self._rows.leave(self.number)

    def leave(self) -> None:
        """Give up the row for good."""
        self._rows.leave(self.number)

    def emit(self, kind: str, data: Any) -> None:
        """Send a record of this trial."""
        self._emit(kind, data, trial=self.number)

    # ---- a step in the making

    def next_rows(self, micro_batch_size: int, window: int | None) -> np.ndarray:
        """Rows of the next micro-batch; the first of a step fixes how the step is cut."""
        if not self._queue:
            step_rows = self.order.rows_of_step(self.progress.step + 1)
            self._step_rows, self.num_units = step_rows, max(self.data.train.num_loss_units(step_rows), 1)
            self._queue = self.order.micro_batches(step_rows, micro_batch_size, window=window)
            self.num_micro_batches = 0
        return self._queue[0]

    def add(self, loss: torch.Tensor) -> bool:
        """Count a micro-batch whose gradients are in; True when the effective batch is complete."""
        self.loss = self.loss + loss
        self.num_micro_batches += 1
        del self._queue[0]
        return not self._queue

    def rewind(self) -> None:
        """Forget a step that is half done; its gradients are the caller's to clear."""
        self._queue, self.loss, self.num_micro_batches = [], torch.zeros(()), 0

    def slices(self) -> list[Slice]:
        """The tensors of this trial for its optimizer."""
        return self._rows.slices(self.number, self.recipe.optimizer, self.resident.new_names)

    def step(self, slices: list[Slice], loss: float, grad_norm: float) -> None:
        """Update the weights and record it, or end the trial when it has diverged."""
        progress, step = self.progress, self.progress.step + 1
        rate = learning_rate_at(
            step,
            peak=self.recipe.learning_rate,
            num_steps=self.num_steps,
            warmup=self.warmup,
            schedule=self.recipe.schedule,
        )
        clipped = self.optimizer.clip(slices, grad_norm)
        trouble = self.watch.reason(loss, grad_norm)
        if trouble is None:
            self.optimizer.step(slices, rate)
        num_tokens = int(self.data.train.lengths[self._step_rows].sum())
        progress.step, progress.num_tokens = step, progress.num_tokens + num_tokens
        update, ratio = self._norms(slices, rate) if trouble is None else (None, None)
        self._rows.zero_grad(self.number)
        self.rewind()
        self.emit(
            "step",
            StepRecord(
                step=step,
                loss=loss,
                learning_rate=rate,
                grad_norm=grad_norm,
                clipped=clipped,
                update_norm=update,
                update_ratio=ratio,
                num_tokens=num_tokens,
                num_loss_tokens=self.num_units,
                elapsed_s=round(progress.elapsed_s, 4),
                peak_memory_bytes=peak_memory_bytes(self.resident.placement.device),
            ),
        )
        if trouble:
            self.outcome = self._outcome("diverged", f"step {step}: {trouble}")

    def _norms(self, slices: list[Slice], rate: float) -> tuple[float | None, float | None]:
        small = sum(piece.value.numel() for piece in slices) <= NORMS_EVERY_STEP_BELOW
        if not small and self.progress.step % NORMS_EVERY:
            return None, None
        update, weights = self.optimizer.update_norms(slices, rate)
        return update, update / weights if weights else None

    # ---- between steps

    def settle(self) -> None:
        """What is due between two steps: evaluations, the end, a checkpoint.

        Raises:
            StopRequested: an evaluation was told to stop.
        """
        self._evaluate_base()
        if self._evaluation_due() and self._evaluate():
            self._finish("stopped", f"no gain in {self.recipe.evaluation.patience} evaluations")
        elif self.progress.step >= self.num_steps:
            self._finish("completed", f"all {self.num_steps} steps")
        else:
            self._save_if_due()

    def interrupt(self) -> None:
        """Write a checkpoint and end without an outcome."""
        self._save()
        self.interrupted = True

    def run_out_of_memory(self) -> None:
        """End the trial: not even one row fits."""
        self.outcome = self._outcome("out_of_memory", "even a micro-batch of 1 does not fit")

    def spend(self, seconds: float) -> None:
        """Count time; trials that share a forward pass share its time."""
        self.progress.elapsed_s += seconds

    def values(self) -> Values:
        """The trained tensors as they are now."""
        return self._parked[0] if self._parked else self._rows.values(self.number)

    def _moments(self) -> Values:
        return self._parked[1] if self._parked else self._rows.moments(self.number)

    def _evaluate_base(self) -> None:
        """The loss before the first step, which says later whether training was worth it."""
        if not math.isnan(self.progress.base_loss) or self.progress.step:
            return
        loss, metrics = self.resident.base_evaluation(self.recipe, self._measure)
        self.progress.base_loss = loss
        self.emit(
            "evaluation",
            EvalRecord(step=0, num_tokens=0, eval_loss=loss, metrics=metrics, elapsed_s=self.progress.elapsed_s),
        )

    def _evaluation_due(self) -> bool:
        progress, number = self.progress, self.recipe.evaluation.num_evaluations
        due = {round(part * self.num_steps / number) for part in range(1, number + 1)} - {0}
        return progress.step in due and progress.evaluated_step < progress.step

    def _evaluate(self) -> bool:
        """Look at the validation rows, keep the best weights; True when it is time to stop early."""
        progress = self.progress
        loss, metrics = self._measure()
        progress.evaluated_step = progress.step
        record = EvalRecord(
            step=progress.step,
            num_tokens=progress.num_tokens,
            eval_loss=loss,
            metrics=metrics,
            elapsed_s=round(progress.elapsed_s, 4),
        )
        self.emit("evaluation", record)
        if loss < progress.best_loss - (self.recipe.evaluation.min_gain if progress.best_step else 0.0):
            progress.best_loss, progress.best_step, progress.best_metrics = loss, progress.step, metrics
            progress.evaluations_without_gain = 0
            if progress.step < self.num_steps:
                self.best = {name: value.detach().to("cpu", copy=True) for name, value in self.values().items()}
            return False
        progress.evaluations_without_gain += 1
        patience = self.recipe.evaluation.patience
        return patience is not None and progress.evaluations_without_gain >= patience

    def _measure(self) -> tuple[float, dict[str, float]]:
        began = time.monotonic()
        with self._rows.only(self.number):
            measured = evaluate(self.resident.base, self.data, self.resident.token_loss, should_stop=self.should_stop)
        self.spend(time.monotonic() - began)
        return measured

    def _finish(self, state: str, reason: str) -> None:
        if not math.isfinite(self.progress.best_loss):
            self.outcome = self._outcome("diverged", "the validation loss is not finite")
            return
        if self.progress.best_step != self.progress.step:
            self._rows.load(self.number, self.best)
            reason += f"; the weights of step {self.progress.best_step} are kept"
        began, resident = time.monotonic(), self.resident
        with self._rows.only(self.number):
            extra = extra_metrics(self.metrics, resident.base, resident.tokenizer, self.data, resident.token_loss)
        self.spend(time.monotonic() - began)
        self.progress.best_metrics = {**self.progress.best_metrics, **extra}
        self.outcome = self._outcome(state, reason)

    def _outcome(self, state: Any, reason: str) -> Outcome:
        progress = self.progress
        known = state in {"completed", "stopped"}
        return Outcome(
            state=state,
            reason=reason,
            eval_loss=progress.best_loss if known else None,
            metrics=progress.best_metrics if known else {},
            base_eval_loss=progress.base_loss if math.isfinite(progress.base_loss) else None,
            best_step=progress.best_step if known else None,
            num_steps=progress.step,
            num_train_tokens=progress.num_tokens,
            elapsed_s=round(progress.elapsed_s, 3),
            micro_batch_size=progress.micro_batch_size,
            peak_memory_bytes=peak_memory_bytes(self.resident.placement.device),
        )

    def _save_if_due(self) -> None:
        every = self.request.checkpoint_every_steps
        by_step = every is not None and self.progress.step % every == 0
        by_time = time.monotonic() - self._saved >= self.request.checkpoint_every_s
        if self.progress.step != self._saved_step and (by_step or by_time):
            self._save()

    def _save(self) -> None:
        state = {
            **vars(self.progress),
            "watch": self.watch.state(),
            "optimizer_steps": self.optimizer.num_steps,
        }
        tensors = {"weights": self.values(), "optimizer": self._moments(), "best": self.best}
        save_checkpoint(self.folder / "checkpoints", step=self.progress.step, state=state, tensors=tensors)
        self._saved, self._saved_step = time.monotonic(), self.progress.step
        self.emit("checkpoint", {"step": self.progress.step})

    def _take_up(self) -> tuple[Values, Values]:
        """(values, moments) of the newest valid checkpoint, saying which ones were skipped; or the initial ones."""
        checkpoint, skipped = newest_checkpoint(self.folder / "checkpoints")
        for fault in skipped:
            self.emit("note", {"text": f"checkpoint skipped: {fault}"})
        values, moments = self.resident.initial_values(self.recipe), {}
        if checkpoint is not None:
            state, tensors = load_checkpoint(checkpoint)
            values, moments = tensors["weights"], tensors.get("optimizer", {})
            self.optimizer.num_steps = state.pop("optimizer_steps")
            self.best = tensors.get("best", {})
            self.watch.restore(state["watch"])
            self.progress = Progress(**state)
            self._saved_step = self.progress.step
        self.emit(
            "started",
            {
                "num_steps": self.num_steps,
                "from_step": self.progress.step,
                "warmup_steps": self.warmup,
                "num_train_rows": self.order.num_rows_to_see,
            },
        )
        return values, moments


def _first_micro_batch(recipe: Recipe, limit: int | None) -> int:
    wanted = recipe.first_micro_batch()
    return max(1, min(wanted, limit or wanted))
