"""What a Hugging Face Trainer tells before its first step: the model, the method, the rows, and so the usual learning rate."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from transformers import TrainerState, TrainingArguments

from finestep.diagnosis.training_log import RateAdvice, RunContext, RunSettings
from finestep.errors import BadInput
from finestep.facts import DataFacts, ModelFacts, Task
from finestep.flows.known_run import ENOUGH
from finestep.flows.recommend import recommend
from finestep.rules.compose import Ask
from finestep.survey.model import facts_from_config

UNKNOWN_VOCABULARY = 32000


@dataclass(frozen=True)
class RandomState:
    """Where every generator of chance stands."""

    python: tuple[object, ...]
    numpy: dict[str, object]
    cpu: torch.Tensor
    cuda: list[torch.Tensor] | None


def context_of(
    args: TrainingArguments, state: TrainerState, model: torch.nn.Module | None, train_dataloader: object
) -> RunContext:
    """What is known about the run."""
    size, num_labels = output_size(model)
    method, rank, alpha = _method(model)
    planned = state.max_steps if state.max_steps and state.max_steps > 0 else None
    return RunContext(
        settings=RunSettings(
            max_steps=planned, logging_steps=float(args.logging_steps) if args.logging_steps >= 1 else None
        ),
        num_labels=num_labels,
        vocabulary_size=None if num_labels else size,
        method=method,
        advice=RateAdvice(
            usual_rate=_usual_rate(args, state, model, train_dataloader, Ask(method=method, rank=rank, alpha=alpha))
        ),
    )


def output_size(model: torch.nn.Module | None) -> tuple[int, int | None]:
    """Number of classes that the loss chooses among, and the number of labels when it is a classifier."""
    config = getattr(model, "config", None)
    name = type(getattr(getattr(model, "base_model", None), "model", model)).__name__
    if "SequenceClassification" in name or "TokenClassification" in name:
        return max(2, int(getattr(config, "num_labels", 2))), int(getattr(config, "num_labels", 2))
    text = getattr(config, "get_text_config", lambda: config)()
    return max(2, int(getattr(text, "vocab_size", None) or UNKNOWN_VOCABULARY)), None


def random_state() -> RandomState:
    """Every generator of chance that a forward pass or a data loader may draw from."""
    is_used = torch.cuda.is_available() and torch.cuda.is_initialized()
    cuda = torch.cuda.get_rng_state_all() if is_used else None
    return RandomState(random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state(), cuda)


def restore_random_state(state: RandomState) -> None:
    """Go back to what `random_state` gave, so that looking changes nothing."""
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.cpu)
    if state.cuda is not None:
        torch.cuda.set_rng_state_all(state.cuda)


def _method(model: torch.nn.Module | None) -> tuple[str | None, int | None, float | None]:
    """(method, rank, alpha): of the active PEFT adapter, or full when all weights are trained."""
    if model is None:
        return None, None, None
    configs = getattr(model, "peft_config", None)
    if not configs:
        is_full = all(parameter.requires_grad for parameter in model.parameters())
        return ("full" if is_full else None), None, None
    config = next(iter(configs.values())) if isinstance(configs, dict) else configs
    kind = str(getattr(getattr(config, "peft_type", ""), "value", getattr(config, "peft_type", ""))).upper()
    method = {"LORA": "lora", "PREFIX_TUNING": "prefix", "P_TUNING": "p-tuning", "PROMPT_TUNING": "prompt"}.get(kind)
    return method, getattr(config, "r", None), getattr(config, "lora_alpha", None)


def _usual_rate(
    args: TrainingArguments, state: TrainerState, model: torch.nn.Module | None, train_dataloader: object, ask: Ask
) -> tuple[float, float, float] | None:
    """Aim and interval of `recommend` for this run; None where model or method are not known."""
    if ask.method not in ("full", "lora") or "reward" in type(args).__name__.lower() or _is_preference(args):
        return None
    batch = (
        args.per_device_train_batch_size
        * args.gradient_accumulation_steps
        * max(1, int(getattr(args, "world_size", 1)))
    )
    epochs = float(state.num_train_epochs or 0)
    wanted = Ask(
        method=ask.method,
        rank=ask.rank,
        alpha=ask.alpha,
        batch=batch,
        num_epochs=epochs if 0.01 <= epochs <= 1000 else None,
    )
    task: Task | None = "classification" if output_size(model)[1] else None
    data = DataFacts(name="the Trainer's rows", num_rows=_num_rows(train_dataloader), task=task)
    try:
        rate = recommend(_facts(model), data, hardware=ENOUGH, ask=wanted).estimates["learning_rate"]
    except (BadInput, KeyError, ValueError, TypeError):
        return None
    return rate.value, rate.low, rate.high


def _is_preference(args: TrainingArguments) -> bool:
    return any(word in type(args).__name__ for word in ("DPO", "ORPO", "KTO", "CPO", "GRPO", "PPO", "RLOO"))


def _facts(model: torch.nn.Module | None) -> ModelFacts:
    config = getattr(model, "config", None)
    values = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
    named = model.named_parameters() if model is not None else ()
    counted = sum(parameter.numel() for name, parameter in named if "lora_" not in name)
    return facts_from_config(
        values, name=str(getattr(config, "_name_or_path", "") or "model"), source="the model", counted=counted
    )


def _num_rows(train_dataloader: object) -> int | None:
    rows = getattr(train_dataloader, "dataset", None)
    try:
        return len(rows) or None  # type: ignore[arg-type]
    except TypeError:
        return None
