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

from finestep.diagnosis.generalization import is_progress, paired_gain
from finestep.diagnosis.guard import Decision, Probes
from finestep.diagnosis.learning import pairing_findings
from finestep.disk import remove_leftovers
from finestep.finding import Finding
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.rules.schedule import learning_rate_at
from finestep.rules.warmup import warmup_steps
from finestep.train.adapters import AdapterRows
from finestep.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from finestep.train.evaluate import Evaluation, evaluate_rows, extra_metrics
from finestep.train.memory import peak_memory_bytes, unless_out_of_memory
from finestep.train.optimizer import Optimizer, Slice
from finestep.train.order import Order
from finestep.train.pairing import exchanged
from finestep.train.resident import Resident, Rows, lora_scale
from finestep.train.rollback import Guard, Snapshot, onset_of
from finestep.train.row_losses import RowLosses
from finestep.train.saved_files import checked_rows
from finestep.train.whole_model import Values
from finestep.trial import KL_TO_BASE, EvalRecord, Outcome, StepRecord

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
    best_sums: list[float] = field(default_factory=list)
    """Sums of the rows that a reload is checked on, at the best evaluation."""
    base_loss: float = math.nan
    evaluations_without_gain: int = 0
    reference: list[float] | None = None
    """Sums of the validation rows at the last evaluation that was progress beyond noise."""
    num_tokens: int = 0
    elapsed_s: float = 0.0
    micro_batch_size: int = 0
    kl_now: float | None = None
    """KL from the base at the last evaluation, nats a token; None: not watched."""


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
        is_stopped: Callable[[int], bool],
        metrics: tuple[str, ...],
        row_limit: int | None,
    ):
        self.resident, self.request, self.should_stop, self.metrics = resident, request, should_stop, metrics
        self.number, self.recipe = request.number, request.recipe
        self._emit, self._is_stopped = emit, is_stopped
        self.data = resident.data
        self.order = Order(self.data.train.lengths, self.recipe, fidelity=request.fidelity)
        self.num_steps = self.order.num_steps
        self.warmup = warmup_steps(self.recipe.schedule, self.num_steps)
        self.optimizer = Optimizer(self.recipe.optimizer)
        self.progress = Progress(micro_batch_size=_first_micro_batch(self.recipe, row_limit))
        self.best: dict[str, torch.Tensor] = {}
        self.guard = Guard(
            request.on_trouble,
            chance_loss=math.log(len(self.data.label_names) or resident.base.config.get_text_config().vocab_size),
            num_steps=self.num_steps,
        )
        units = [self.data.evaluation.num_loss_units([row]) for row in range(len(self.data.evaluation))]
        self._eval_units: list[int] = units
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
        self._keep_good_state()

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
        """Update the weights, record it, and answer trouble."""
        progress, step = self.progress, self.progress.step + 1
        goes = self.guard.may_update(step, loss, grad_norm)
        rate = self._rate(step) if goes else 0.0
        clipped = goes and self.optimizer.clip(slices, grad_norm)
        probes = goes and self._probe_due(step)
        before = [piece.value.clone() for piece in slices] if probes else []
        if goes:
            self.optimizer.step(slices, rate)
        ratio_of_step = self._step_ratio(slices, before, loss, grad_norm, clipped) if probes else None
        num_tokens = int(self.data.train.lengths[self._step_rows].sum())
        progress.step, progress.num_tokens = step, progress.num_tokens + num_tokens
        update, ratio = self._norms(slices, rate) if goes else (None, None)
        self._rows.zero_grad(self.number)
        self.rewind()
        record = StepRecord(
            step=step,
            loss=loss,
            learning_rate=rate,
            grad_norm=grad_norm,
            clipped=clipped,
            update_norm=update,
            update_ratio=ratio,
            num_tokens=num_tokens,
            num_loss_tokens=self.data.train.num_loss_units(self._step_rows),
            elapsed_s=round(progress.elapsed_s, 4),
            peak_memory_bytes=peak_memory_bytes(self.resident.placement.device),
        )
        self.emit("step", record)
        findings, trouble = self.guard.watch(record, was_updated=goes)
        if ratio_of_step is not None:
            findings += self.guard.probed(step, ratio_of_step)
        self._tell(findings)
        if trouble is not None:
            self._answer(trouble, record)
        elif self.guard.snapshot_due(step):
            self._keep_good_state()

    def _probe_due(self, step: int) -> bool:
        every = self.recipe.evaluation.probe_every_steps
        return every is not None and step % every == 0

    @torch.no_grad()
    def _step_ratio(
        self, slices: list[Slice], before: list[torch.Tensor], loss: float, grad_norm: float, clipped: bool
    ) -> float | None:
        """Drop of the batch's loss over the drop that its gradient predicts: 1 - rate / critical rate (science notes 7.2 E1).

        It costs one forward pass over the batch. None when the step was no descent, e.g. by momentum.
        """
        limit = self.recipe.optimizer.max_grad_norm
        scale = limit / grad_norm if clipped and limit is not None else 1.0
        predicted = -sum(
            float(((piece.value - old) * piece.grad).sum()) for piece, old in zip(slices, before, strict=True)
        )
        units = np.array([self.data.train.num_loss_units([row]) for row in self._step_rows])
        after = float((self._losses.of(self._step_rows) * units).sum() / max(units.sum(), 1))
        return (loss - after) * scale / predicted if predicted > 0 else None

    def _rate(self, step: int) -> float:
        planned = learning_rate_at(
            step,
            peak=self.recipe.learning_rate,
            num_steps=self.num_steps,
            warmup=self.warmup,
            schedule=self.recipe.schedule,
        )
        return planned * self.guard.rate_factor

    def _norms(self, slices: list[Slice], rate: float) -> tuple[float | None, float | None]:
        small = sum(piece.value.numel() for piece in slices) <= NORMS_EVERY_STEP_BELOW
        if not small and self.progress.step % NORMS_EVERY:
            return None, None
        update, weights = unless_out_of_memory(self.optimizer.update_norms, slices, rate) or (None, None)
        return update, update / weights if update is not None and weights else None

    # ---- trouble

    def _tell(self, findings: list[Finding]) -> None:
        for finding in findings:
            if finding.severity in ("warning", "error") or finding.code == "early_warning":
                text = f"{finding.code}: {finding.meaning}"
                self.emit("note", {"text": text, "finding": finding.model_dump()})

    def _answer(self, trouble: Finding, record: StepRecord) -> None:
        """End the trial, or go back to its last good state and on with what the evidence asks for."""
        if self.guard.on_trouble == "stop":
            clause = trouble.meaning.removeprefix(f"At step {record.step} ")
            self.outcome = self._outcome("diverged", f"step {record.step}: {clause}")
            return
        onset = onset_of(trouble, record)
        good = self.guard.good_state(onset)
        fixed, troubled = self.order.rows_of_step(1), self.order.rows_of_step(onset)
        now = float(self._losses.of(fixed).mean())
        self._go_back(good)
        rows = self._losses.of(troubled)
        probes = Probes(
            probe_loss_good=float(self._losses.of(fixed).mean()),
            probe_loss_now=now,
            replay_loss=float(rows.mean()),
            row_losses=tuple(rows.tolist()),
        )
        self._go_on(self.guard.decide(onset, probes), onset, good)

    def _start_over(self, trouble: Finding) -> None:
        """Back to the first state, with a lower rate."""
        onset = self.progress.step
        first, decision = self.guard.start_over(trouble)
        if decision.action != "stop":
            self._go_back(first)
        self._go_on(decision, onset, first)

    def _go_on(self, decision: Decision, onset: int, good: Snapshot) -> None:
        done = self.guard.go_on(decision, onset=onset, back_to=good)
        text = f"trouble at step {onset}: back to step {good.step}, {done.action.replace('_', ' ')}: {done.reason}"
        self.emit("note", {"text": text, "intervention": done.model_dump()})
        if decision.action == "stop":
            self._give_up(done.reason)

    def _go_back(self, good: Snapshot) -> None:
        self._rows.load(self.number, good.values)
        self._rows.load_moments(self.number, good.moments)
        self.optimizer.num_steps = good.optimizer_steps
        best = {name: value for name, value in vars(self.progress).items() if name.startswith("best_")}
        self.progress = Progress(**{**good.progress, **best, "elapsed_s": self.progress.elapsed_s})

    def _give_up(self, reason: str) -> None:
        """End a run that cannot be saved with the best weights it had."""
        if not self.progress.best_step and self.progress.evaluated_step < self.progress.step:
            self._evaluate()
        if self.outcome is None:
            self._finish("stopped", reason)

    def _keep_good_state(self) -> None:
        if self.guard.on_trouble != "rollback":
            return
        progress = {**vars(self.progress), "best_metrics": dict(self.progress.best_metrics)}
        self.guard.keep(
            Snapshot(
                step=self.progress.step,
                values=self._kept(self.values()),
                moments=self._kept(self._moments()),
                optimizer_steps=self.optimizer.num_steps,
                progress=progress,
                monitor=self.guard.monitor.state(),
            )
        )

    def _kept(self, values: Values) -> dict[str, torch.Tensor]:
        """In host memory and its own; what adapter rows give is a copy already."""
        is_copy = isinstance(self._rows, AdapterRows)
        return {name: value.detach().to("cpu", copy=not is_copy) for name, value in values.items()}

    # ---- between steps

    def settle(self) -> None:
        """What is due between two steps: evaluations, the end, a checkpoint.

        Raises:
            StopRequested: an evaluation was told to stop.
        """
        if self._is_stopped(self.number):
            self._end_by_hand()
            return
        self._evaluate_base()
        if self._evaluation_due() and self._evaluate():
            self._finish("stopped", f"no gain in {self.recipe.evaluation.patience} evaluations")
        elif self.outcome is not None:
            return
        elif self.progress.step >= self.num_steps:
            self._finish("completed", f"all {self.num_steps} steps")
        else:
            self._save_if_due()

    def _end_by_hand(self) -> None:
        """End with what the trial has shown: the validation rows are looked at once more, unless no step was made."""
        step = self.progress.step
        if step == 0:
            self.outcome = self._outcome("stopped", "stopped by hand before its first step")
        else:
            if self.progress.evaluated_step < step:
                self._evaluate()
            self._finish("stopped", f"stopped by hand at step {step} of {self.num_steps}")
        if self.outcome is not None and self.outcome.state == "stopped":
            self.outcome = self.outcome.model_copy(update={"by_hand": True})

    def interrupt(self) -> None:
        """Write a checkpoint and end without an outcome. A trial that waits its turn says so itself: no pack will."""
        self._save()
        self.interrupted = True
        if self._parked:
            self.emit("interrupted", {"step": self.progress.step})

    def run_out_of_memory(self) -> None:
        """End the trial: not even one row fits."""
        self.outcome = self._outcome("out_of_memory", "even a micro-batch of 1 does not fit")

    def fail(self, reason: str) -> None:
        """End the trial: something in it raised, and would raise again."""
        self.outcome = self._outcome("failed", reason)

    def spend(self, seconds: float) -> None:
        """Count time; trials that share a forward pass share its time."""
        self.progress.elapsed_s += seconds

    def values(self) -> Values:
        """The trained tensors as they are now."""
        return self._parked[0] if self._parked else self._rows.values(self.number)

    @property
    def _losses(self) -> RowLosses:
        return RowLosses(self.resident, self._rows, self.number)

    def _moments(self) -> Values:
        return self._parked[1] if self._parked else self._rows.moments(self.number)

    def _evaluate_base(self) -> None:
        """The loss before the first step, which says later whether training was worth it."""
        if not math.isnan(self.progress.base_loss) or self.progress.step:
            return
        loss, metrics, _ = self.resident.base_evaluation(self.recipe, self._measure)
        self.progress.base_loss = loss
        record = EvalRecord(step=0, num_tokens=0, eval_loss=loss, metrics=metrics, elapsed_s=self.progress.elapsed_s)
        self.emit("evaluation", record)
        self._tell(self.guard.look(record)[0])

    def _evaluation_due(self) -> bool:
        progress, number = self.progress, self.recipe.evaluation.num_evaluations
        due = {round(part * self.num_steps / number) for part in range(1, number + 1)} - {0}
        return progress.step in due and progress.evaluated_step < progress.step

    def _evaluate(self) -> bool:
        """Look at the validation rows, keep the best weights; True when it is time to stop early."""
        progress = self.progress
        loss, metrics, row_sums = self._measure()
        progress.evaluated_step, progress.kl_now = progress.step, metrics.get(KL_TO_BASE)
        record = EvalRecord(
            step=progress.step,
            num_tokens=progress.num_tokens,
            eval_loss=loss,
            metrics=metrics,
            elapsed_s=round(progress.elapsed_s, 4),
        )
        self.emit("evaluation", record)
        findings, trouble = self.guard.look(record)
        self._tell(findings)
        if trouble is not None and not self._is_stopped(self.number):
            self._start_over(trouble)
            return False
        if loss < progress.best_loss and self._is_within_budget(metrics):
            progress.best_loss, progress.best_step, progress.best_metrics = loss, progress.step, metrics
            progress.best_sums = row_sums[checked_rows(len(row_sums))].tolist()
            if progress.step < self.num_steps:
                self.best = {name: value.detach().to("cpu", copy=True) for name, value in self.values().items()}
        return self._is_stalled(row_sums)

    def _is_stalled(self, row_sums: np.ndarray) -> bool:
        """Count evaluations without a gain beyond noise, judged on the same rows; True when patience is at its end."""
        progress, group = self.progress, self.recipe.evaluation
        if is_progress(progress.reference, row_sums.tolist(), self._eval_units, min_gain=group.min_gain):
            progress.reference, progress.evaluations_without_gain = row_sums.tolist(), 0
            return False
        progress.evaluations_without_gain += 1
        return group.patience is not None and progress.evaluations_without_gain >= group.patience

    def _measure(self) -> Evaluation:
        began = time.monotonic()
        with self._rows.only(self.number):
            measured = evaluate_rows(
                self.resident.base,
                self.data,
                self.resident.token_loss,
                rows=self.data.evaluation,
                should_stop=self.should_stop,
            )
        measured.metrics.update(self.resident.forgetting(self._rows, self.number))
        self.spend(time.monotonic() - began)
        return measured

    def _is_within_budget(self, metrics: dict[str, float]) -> bool:
        """False for a state that has moved further from the base than `max_forgetting` allows."""
        limit = self.resident.max_forgetting
        return limit is None or metrics[KL_TO_BASE] <= limit

    def _is_over_limit(self) -> bool:
        """True when the last state that was looked at is one of these."""
        limit, now = self.resident.max_forgetting, self.progress.kl_now
        return limit is not None and now is not None and not now <= limit

    def _forgetting_words(self) -> str:
        """What to say about a run that ended over the limit; empty for others."""
        if not self._is_over_limit():
            return ""
        return f"; it ended {self.progress.kl_now:.3g} nats a token from the base, over the limit of {self.resident.max_forgetting:g}"

    def _finish(self, state: str, reason: str) -> None:
        if not math.isfinite(self.progress.best_loss):
            self._end_without_weights(state, reason + self._forgetting_words())
            return
        reason += self._forgetting_words()
        if self.progress.best_step != self.progress.step:
            self._rows.load(self.number, self.best)
            reason += f"; the weights of step {self.progress.best_step} are kept"
        began, resident = time.monotonic(), self.resident
        with self._rows.only(self.number):
            extra = extra_metrics(self.metrics, resident.base, resident.tokenizer, self.data, resident.token_loss)
        self.spend(time.monotonic() - began)
        self.progress.best_metrics = {**self.progress.best_metrics, **extra}
        self._tell(self._pairing())
        self.outcome = self._outcome(state, reason)

    def _pairing(self) -> list[Finding]:
        """Whether answers depend on their prompts, by exchanging them."""
        rows, pairs = self.data.evaluation, exchanged(self.data.evaluation)
        if pairs is None:
            return []
        chosen, others = pairs
        own, mixed = self._losses.in_batches(chosen, rows), self._losses.in_batches(np.arange(len(others)), others)
        gap, error = paired_gain(mixed.tolist(), own.tolist())
        found = pairing_findings(gap, error)
        self.guard.findings += found
        return found

    def _end_without_weights(self, state: Any, reason: str) -> None:
        if self.guard.last_eval_is_finite and self._is_over_limit():
            self.outcome = self._outcome(state, f"{reason}; no state before was within it either")
        else:
            self.outcome = self._outcome("diverged", "the validation loss is not finite")

    def _outcome(self, state: Any, reason: str) -> Outcome:
        progress = self.progress
        known = state in {"completed", "stopped"} and progress.best_step > 0
        return Outcome(
            state=state,
            reason=reason,
            eval_loss=progress.best_loss if known else None,
            metrics=progress.best_metrics if known else {},
            base_eval_loss=progress.base_loss if math.isfinite(progress.base_loss) else None,
            best_step=progress.best_step if known else None,
            kl_at_end=progress.kl_now,
            kl_limit=self.resident.max_forgetting,
            num_steps=progress.step,
            num_train_tokens=progress.num_tokens,
            elapsed_s=round(progress.elapsed_s, 3),
            micro_batch_size=progress.micro_batch_size,
            peak_memory_bytes=peak_memory_bytes(self.resident.placement.device),
            findings=tuple(each for each in self.guard.findings if each.severity in ("warning", "error")),
            interventions=tuple(self.guard.interventions),
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
            "guard": self.guard.state(),
            "optimizer_steps": self.optimizer.num_steps,
        }
        tensors = {"weights": self.values(), "optimizer": self._moments(), "best": self.best}
        save_checkpoint(self.folder / "checkpoints", step=self.progress.step, state=state, tensors=tensors)
        self._saved, self._saved_step = time.monotonic(), self.progress.step
        self.emit("checkpoint", {"step": self.progress.step})

    def _take_up(self) -> tuple[Values, Values]:
        """(values, moments) of the newest valid checkpoint, saying which ones were skipped; or the initial ones."""
        remove_leftovers(self.folder)
        checkpoint, skipped = newest_checkpoint(self.folder / "checkpoints")
        for fault in skipped:
            self.emit("note", {"text": f"checkpoint skipped: {fault}"})
        values, moments = self.resident.initial_values(self.recipe), {}
        if checkpoint is not None:
            state, tensors = load_checkpoint(checkpoint)
            values, moments = tensors["weights"], tensors.get("optimizer", {})
            self.optimizer.num_steps = state.pop("optimizer_steps")
            self.best = tensors.get("best", {})
            self.guard.restore(state.pop("guard"))
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
