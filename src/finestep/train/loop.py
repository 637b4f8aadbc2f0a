"""The training loop: one for all methods. It trains one trial, watches it, and leaves nothing undone when it is stopped.

An optimizer step sees the next rows of the order, cut into micro-batches; the loss is a sum over all of them, divided once
by the tokens that carry loss, so that 1 x 16, 4 x 4 and 16 x 1 are the same step. Plain records go out through `emit`.
"""

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
from finestep.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from finestep.train.evaluate import StopRequested, evaluate, extra_metrics
from finestep.train.memory import is_out_of_memory, peak_memory_bytes, release_memory
from finestep.train.optimizer import Optimizer
from finestep.train.order import Order
from finestep.train.resident import Resident, load_trained, trained
from finestep.train.tokens import collate
from finestep.trial import EvalRecord, Outcome, StepRecord

Emit = Callable[..., None]
NORMS_EVERY_STEP_BELOW = 2_000_000
NORMS_EVERY = 10


class OutOfMemory(Exception):
    """Even a micro-batch of one row does not fit."""


@dataclass
class Progress:
    """Where a run is; with the weights and Adam's moments, this is all that resuming needs."""

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


class Run:
    """One trial in training. `train` runs it to an outcome, or to None when it was asked to stop."""

    def __init__(
        self,
        resident: Resident,
        request: TrialRequest,
        *,
        emit: Emit,
        should_stop: Callable[[], bool],
        metrics: tuple[str, ...] = (),
        micro_batch_limit: int | None = None,
    ):
        self.resident, self.request, self.emit, self.should_stop = resident, request, emit, should_stop
        self.recipe: Recipe = request.recipe
        self.metrics = metrics
        self.data = resident.data
        self.model = resident.begin(self.recipe)
        self.order = Order(self.data.train.lengths, self.recipe, fidelity=request.fidelity)
        self.num_steps = self.order.num_steps
        self.warmup = warmup_steps(self.recipe.schedule, self.num_steps)
        self.optimizer = Optimizer(trained(self.model), self.recipe.optimizer, resident.new_names)
        self.has_dropout = _has_dropout(self.model)
        self.watch = DivergenceWatch(math.log(len(self.data.label_names) or self.model.config.vocab_size))
        self.best: dict[str, torch.Tensor] = {}
        self.progress = Progress(micro_batch_size=_first_micro_batch(self.recipe, micro_batch_limit))
        self.folder = Path(request.folder)
        self._started = self._saved = time.monotonic()

    def train(self) -> Outcome | None:
        """Train to the end: the outcome, with the best weights in the model; or None after a stop, with a checkpoint."""
        self._take_up()
        state, reason = "completed", f"all {self.num_steps} steps"
        try:
            self._evaluate_base()
            while True:
                if self._evaluation_due() and self._evaluate():
                    state, reason = "stopped", f"no gain in {self.recipe.evaluation.patience} evaluations"
                    break
                if self.progress.step >= self.num_steps:
                    break
                if self.should_stop():
                    raise StopRequested
                trouble = self._step()
                if trouble:
                    return self._outcome("diverged", f"step {self.progress.step}: {trouble}")
                self._save_if_due()
        except StopRequested:
            self._save()
            return None
        except OutOfMemory:
            return self._outcome("out_of_memory", "even a micro-batch of 1 does not fit")
        return self._finish(state, reason)

    def _step(self) -> str | None:
        """One optimizer step; the reason in words when it shows that the run has diverged."""
        progress, step = self.progress, self.progress.step + 1
        rows = self.order.rows_of_step(step)
        num_units = self.data.train.num_loss_units(rows)
        rate = learning_rate_at(
            step,
            peak=self.recipe.learning_rate,
            num_steps=self.num_steps,
            warmup=self.warmup,
            schedule=self.recipe.schedule,
        )
        loss = self._accumulate(rows, num_units, step)
        grad_norm, clipped = self.optimizer.clip()
        trouble = self.watch.reason(loss, grad_norm)
        if trouble is None:
            self.optimizer.step(rate)
        num_tokens = int(self.data.train.lengths[rows].sum())
        progress.step, progress.num_tokens = step, progress.num_tokens + num_tokens
        update, ratio = self._norms(step) if trouble is None else (None, None)
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
                num_loss_tokens=num_units,
                elapsed_s=round(self._elapsed(), 4),
                peak_memory_bytes=peak_memory_bytes(self.resident.placement.device),
            ),
        )
        return trouble

    def _accumulate(self, rows: np.ndarray, num_units: int, step: int) -> float:
        """Gradients of the mean loss over `rows`; when memory is short, the same step again in smaller micro-batches."""
        while True:
            try:
                return self._accumulate_once(rows, num_units, step)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._halve_micro_batch()

    def _accumulate_once(self, rows: np.ndarray, num_units: int, step: int) -> float:
        if self.model.training != self.has_dropout:
            self.model.train(self.has_dropout)
        total = torch.zeros((), device=self.resident.placement.device)
        for number, chosen in enumerate(self.order.micro_batches(rows, self.progress.micro_batch_size)):
            if self.has_dropout:
                torch.manual_seed((self.recipe.seed * 1_000_003 + step) * 1_009 + number)
            batch = collate(self.data.train, chosen, pad_id=self.data.pad_id, device=self.resident.placement.device)
            loss = self.resident.token_loss.sum(self.model, batch) / max(num_units, 1)
            loss.backward()
            total += loss.detach()
        return total.item()

    def _halve_micro_batch(self) -> None:
        self.model.zero_grad(set_to_none=True)
        release_memory(self.resident.placement.device)
        if self.progress.micro_batch_size == 1:
            raise OutOfMemory
        self.progress.micro_batch_size //= 2
        micro = self.progress.micro_batch_size
        self.emit(
            "note",
            {
                "text": f"out of memory: micro-batch {micro}, accumulation {self.recipe.accumulation_steps(micro)}; "
                "the same step again",
                "micro_batch_limit": micro,
            },
        )

    def _norms(self, step: int) -> tuple[float | None, float | None]:
        small = sum(row.num_elements for row in self.optimizer.table) <= NORMS_EVERY_STEP_BELOW
        if not small and step % NORMS_EVERY:
            return None, None
        update, weights = self.optimizer.update_norms()
        return update, update / weights if weights else None

    def _evaluate_base(self) -> None:
        """The loss before the first step, which says later whether training was worth it."""
        if not math.isnan(self.progress.base_loss) or self.progress.step:
            return
        loss, metrics = self.resident.base_evaluation(self._measure)
        self.progress.base_loss = loss
        self.emit(
            "evaluation", EvalRecord(step=0, num_tokens=0, eval_loss=loss, metrics=metrics, elapsed_s=self._elapsed())
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
            elapsed_s=round(self._elapsed(), 4),
        )
        self.emit("evaluation", record)
        if loss < progress.best_loss - (self.recipe.evaluation.min_gain if progress.best_step else 0.0):
            progress.best_loss, progress.best_step, progress.best_metrics = loss, progress.step, metrics
            progress.evaluations_without_gain = 0
            if progress.step < self.num_steps:
                self.best = {name: value.detach().to("cpu", copy=True) for name, value in trained(self.model).items()}
            return False
        progress.evaluations_without_gain += 1
        patience = self.recipe.evaluation.patience
        return patience is not None and progress.evaluations_without_gain >= patience

    def _measure(self) -> tuple[float, dict[str, float]]:
        return evaluate(self.model, self.data, self.resident.token_loss, should_stop=self.should_stop)

    def _finish(self, state: str, reason: str) -> Outcome:
        if not math.isfinite(self.progress.best_loss):
            return self._outcome("diverged", "the validation loss is not finite")
        if self.progress.best_step != self.progress.step:
            load_trained(self.model, self.best)
            reason += f"; the weights of step {self.progress.best_step} are kept"
        extra = extra_metrics(self.metrics, self.model, self.resident.tokenizer, self.data, self.resident.token_loss)
        self.progress.best_metrics = {**self.progress.best_metrics, **extra}
        return self._outcome(state, reason)

    def _outcome(self, state: Any, reason: str) -> Outcome:
        progress = self.progress
        known = state in {"completed", "stopped"}
        return Outcome(
            state=state,
            reason=reason,
            eval_loss=progress.best_loss if known else None,
            metrics=progress.best_metrics if known else {},
            base_eval_loss=_finite(progress.base_loss),
            best_step=progress.best_step if known else None,
            num_steps=progress.step,
            num_train_tokens=progress.num_tokens,
            elapsed_s=round(self._elapsed(), 3),
            micro_batch_size=progress.micro_batch_size,
            peak_memory_bytes=peak_memory_bytes(self.resident.placement.device),
        )

    def _elapsed(self) -> float:
        return self.progress.elapsed_s + time.monotonic() - self._started

    def _save_if_due(self) -> None:
        every = self.request.checkpoint_every_steps
        if time.monotonic() - self._saved >= self.request.checkpoint_every_s or (
            every and self.progress.step % every == 0
        ):
            self._save()

    def _save(self) -> None:
        state = {
            **vars(self.progress),
            "elapsed_s": self._elapsed(),
            "watch": self.watch.state(),
            "optimizer_steps": self.optimizer.num_steps,
        }
        tensors = {"weights": trained(self.model), "optimizer": self.optimizer.state(), "best": self.best}
        save_checkpoint(self.folder / "checkpoints", step=self.progress.step, state=state, tensors=tensors)
        self._saved = time.monotonic()
        self.emit("checkpoint", {"step": self.progress.step})

    def _take_up(self) -> None:
        """Continue from the newest valid checkpoint, and say which ones were skipped."""
        checkpoint, skipped = newest_checkpoint(self.folder / "checkpoints")
        for fault in skipped:
            self.emit("note", {"text": f"checkpoint skipped: {fault}"})
        if checkpoint is not None:
            state, tensors = load_checkpoint(checkpoint)
            load_trained(self.model, tensors["weights"])
            self.optimizer.restore(tensors.get("optimizer", {}), state.pop("optimizer_steps"))
            self.best = tensors.get("best", {})
            self.watch.restore(state["watch"])
            self.progress = Progress(**state)
        self.emit(
            "started",
            {
                "num_steps": self.num_steps,
                "from_step": self.progress.step,
                "warmup_steps": self.warmup,
                "num_train_rows": self.order.num_rows_to_see,
            },
        )


def _first_micro_batch(recipe: Recipe, limit: int | None) -> int:
    wanted = recipe.first_micro_batch()
    return max(1, min(wanted, limit or wanted))


def _has_dropout(model: Any) -> bool:
    inactive = isinstance(model, torch.nn.Module) and not any(
        isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()
    )
    config = model.config
    attention = any(getattr(config, name, 0) or 0 for name in ("attention_dropout", "attention_probs_dropout_prob"))
    return not inactive or bool(attention)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
