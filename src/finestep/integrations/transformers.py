"""FinestepCallback: the live monitor inside a Hugging Face Trainer (TRL, LLaMA-Factory, Axolotl, ms-swift); one line
to add.

It looks at what the Trainer logs and at a sample of the weights on logged steps; between them it does nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils.generic import ModelOutput

from finestep.diagnosis.from_records import training_log
from finestep.diagnosis.monitor import LiveMonitor
from finestep.diagnosis.run_verdict import merged
from finestep.diagnosis.training_log import RunContext
from finestep.diagnosis.verdict import Diagnosis, diagnose_log
from finestep.finding import Finding
from finestep.integrations.trainer_facts import RandomState, context_of, output_size, random_state, restore_random_state
from finestep.trial import EvalRecord, StepRecord

logger = logging.getLogger("finestep")

SAMPLED_TENSORS = 16
SAMPLED_VALUES = 65536
_HOPELESS = frozenset({"worse_than_base"})

Sample = list[tuple[torch.Tensor, torch.Tensor]]


class FinestepCallback(TrainerCallback):
    """Watches a run and says in words what goes wrong.

    >>> trainer = Trainer(..., callbacks=[FinestepCallback()])  # doctest: +SKIP

    Args:
        on_trouble: `warn` only speaks; `stop` also ends the run at the first finding of severity "error", and when no evaluation is
            better than the base model.
        measure_base: evaluate the base model before the first step (where the Trainer evaluates at all; the run itself stays the same to
            the bit), so that a run which ends above where it began is called what it is.
        unhide_nan: switch off the Trainer's filter that prints NaN losses as 0.0.

    Attributes:
        findings: everything said so far.
        steps, evaluations: the records behind it.
    """

    def __init__(
        self, *, on_trouble: Literal["warn", "stop"] = "warn", unhide_nan: bool = True, measure_base: bool = True
    ):
        self.on_trouble = on_trouble
        self.unhide_nan = unhide_nan
        self.measure_base = measure_base
        self.findings: list[Finding] = []
        self._said: list[Finding] = []
        self.steps: list[StepRecord] = []
        self.evaluations: list[EvalRecord] = []
        self._monitor: LiveMonitor | None = None
        self._context = RunContext()
        self._num_epochs: float | None = None
        self._chance: RandomState | None = None
        self._hook: RemovableHandle | None = None
        self._before: Sample = []
        self._grad_norm: float | None = None
        self._update: tuple[float, float] | None = None

    def diagnosis(self) -> Diagnosis:
        """The verdict on the run so far, as `finestep diagnose` would give it."""
        log = training_log(
            self.steps, self.evaluations, name="trainer", num_epochs=self._num_epochs, context=self._context
        )
        return merged(diagnose_log(log), self._said)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: object,
    ) -> None:
        """Read what is known about the run."""
        if self.unhide_nan and getattr(args, "logging_nan_inf_filter", False):
            args.logging_nan_inf_filter = False
        self._context = context_of(args, state, model, kwargs.get("train_dataloader"))
        self._measure_base(args, state, model)
        self._take_epochs(state)
        self._monitor = LiveMonitor(
            chance_loss=math.log(output_size(model)[0]),
            planned_steps=self._context.settings.max_steps,
            has_loss_scaler=bool(getattr(args, "fp16", False)),
        )

    def _measure_base(self, args: TrainingArguments, state: TrainerState, model: torch.nn.Module | None) -> None:
        """Have the base model evaluated before the first step, or else watch the loss of the first batch, which no step has changed."""
        if not self.measure_base or state.global_step:
            return
        if _strategy(args.eval_strategy) != "no":
            self._chance = random_state()
            args.eval_on_start = True
        elif model is not None and args.gradient_accumulation_steps == 1:
            self._hook = model.register_forward_hook(self._see_first_loss)

    def _take_epochs(self, state: TrainerState) -> None:
        """Epochs of the planned steps: as they have passed so far, because the Trainer rounds those of `max_steps` up."""
        epochs = float(state.num_train_epochs or 0)
        if state.epoch and state.global_step and state.max_steps > 0:
            epochs = float(state.epoch) / state.global_step * state.max_steps
        self._num_epochs = epochs if 0 < epochs < 1e6 else None

    def _see_first_loss(
        self, model: torch.nn.Module, inputs: object, outputs: ModelOutput | tuple[object, ...]
    ) -> None:
        """Keep the loss of the first batch that is trained on."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if model.training and loss is not None and self._context.base_train_loss is None and loss.numel() == 1:
            self._context = replace(self._context, base_train_loss=float(loss.detach()))

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: object,
    ) -> None:
        """Keep a sample of the weights, and the gradient norm when the Trainer does not clip, on steps that will be
        logged."""
        if model is None or not _is_due(args, state.global_step + 1):
            return
        self._before = [(tensor, tensor.clone()) for tensor in _sampled(model)]
        if not args.max_grad_norm:
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            self._grad_norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Measure how far the sampled weights moved."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if not self._before:
            return
        moved = sum(float((now - before).float().square().sum()) for now, before in self._before)
        size = sum(float(before.float().square().sum()) for _, before in self._before)
        self._update = (math.sqrt(moved), math.sqrt(size))
        self._before = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Look at one logged training row."""
        grad_norm = (logs or {}).get("grad_norm", self._grad_norm)
        if not logs or "loss" not in logs or grad_norm is None or self._monitor is None:
            return
        self._take_epochs(state)
        record = self._step_record(args, state, logs, float(grad_norm))
        if record is None:
            return
        self.steps.append(record)
        self._say(self._monitor.step(record), control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Look at one evaluation; the one before the first step leaves no trace in the run's chance."""
        if self._chance is not None and state.global_step == 0:
            restore_random_state(self._chance)
            self._chance = None
        if not metrics or "eval_loss" not in metrics:
            return
        if state.global_step == 0:
            self._context = replace(self._context, base_eval_loss=float(metrics["eval_loss"]))
        record = EvalRecord(
            step=state.global_step,
            num_tokens=int(state.num_input_tokens_seen or 0),
            eval_loss=float(metrics["eval_loss"]),
        )
        self.evaluations.append(record)
        if self._monitor is not None:
            self._say(self._monitor.evaluation(record), control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Say the verdict on the whole run."""
        verdict = self.diagnosis().verdict
        if verdict.code not in {finding.code for finding in self.findings}:
            self._say([verdict], control, may_stop=False)

    def _step_record(
        self, args: TrainingArguments, state: TrainerState, logs: dict[str, float], grad_norm: float
    ) -> StepRecord | None:
        if state.global_step < 1 or (self.steps and self.steps[-1].step >= state.global_step):
            return None
        moved, size = self._update or (None, None)
        self._update = None
        limit = args.max_grad_norm
        return StepRecord(
            step=state.global_step,
            loss=float(logs["loss"]),
            learning_rate=float(logs.get("learning_rate", 0.0)),
            grad_norm=grad_norm,
            clipped=bool(limit and grad_norm > limit),
            update_norm=moved,
            update_ratio=moved / size if moved is not None and size else None,
            num_tokens=int(state.num_input_tokens_seen or 0),
            num_loss_tokens=1,
            elapsed_s=0.0,
        )

    def _say(self, findings: list[Finding], control: TrainerControl, *, may_stop: bool = True) -> None:
        for finding in findings:
            self.findings.append(finding)
            if may_stop:
                self._said.append(finding)
            level = logging.WARNING if finding.severity in ("warning", "error") else logging.INFO
            logger.log(
                level, "%s: %s %s", finding.code, finding.meaning, f"-> {finding.advice}" if finding.advice else ""
            )
            if may_stop and self.on_trouble == "stop" and (finding.severity == "error" or finding.code in _HOPELESS):
                control.should_training_stop = True


def _strategy(value: object) -> str:
    return str(getattr(value, "value", value))


def _is_due(args: TrainingArguments, step: int) -> bool:
    every = int(args.logging_steps) if args.logging_steps >= 1 else 0
    return _strategy(args.logging_strategy) == "steps" and every > 0 and step % every == 0


def _sampled(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Flat views of parts of some trained tensors, spread over the model."""
    trained = [p for p in model.parameters() if p.requires_grad and p.numel()]
    stride = max(1, len(trained) // SAMPLED_TENSORS)
    for parameter in trained[::stride][:SAMPLED_TENSORS]:
        yield parameter.detach().reshape(-1)[:SAMPLED_VALUES]
