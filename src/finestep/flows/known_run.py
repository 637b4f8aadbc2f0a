"""What is known of a run beside its curves: options, files beside the log, the trainer's count of operations; and the usual rate."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finestep.diagnosis.training_log import RunContext, TrainingLog
from finestep.errors import BadInput
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.flows.recommend import recommend
from finestep.readers.beside import Beside, read_beside
from finestep.rules.compose import Ask
from finestep.survey.model import facts_from_config, facts_from_size, model_facts

ENOUGH = HardwareFacts(device="cuda", name="any", memory_bytes=10**15, supports_bf16=True)
"""The rate does not depend on memory, and the run has already found room."""
_SIZE = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,2})?) ?([BbMm])(?![A-Za-z])")
GUESSED_METHOD = "lora"
FLOS_A_TOKEN = 6.0
LOWEST_RATES = "full"
"""The method whose usual rates are the lowest of all."""
FEWEST_TOKENS_A_ROW = 8.0
"""Tokens of a row, padding included, below which no text data set lies: with them and the batch, operations tell how large a model is at
most. Accumulation and more devices only make it smaller."""


@dataclass(frozen=True)
class Told:
    """What the user says about a run; None = look for it."""

    method: str | None = None
    model: str | None = None
    rank: int | None = None


def with_knowledge(log: TrainingLog, path: Path, told: Told) -> TrainingLog:
    """The log with what is known about its run."""
    beside = read_beside(path)
    context = log.context
    method = told.method or context.method or beside.method
    peak = context.settings.peak_learning_rate or beside.learning_rate
    settings = replace(context.settings, peak_learning_rate=peak)
    known = replace(context, method=method, num_labels=context.num_labels or beside.num_labels, settings=settings)
    if context.objective != "supervised":
        return replace(log, context=known)
    facts = _model(told.model, beside, log)
    if facts is None:
        advice = replace(known.advice, least_rate=_least_rate(method, beside, told, log))
        return replace(log, context=replace(known, advice=advice))
    usual = _usual_rate(facts, method or GUESSED_METHOD, beside, told, log)
    guess = None if method else GUESSED_METHOD
    vocabulary = context.vocabulary_size or facts.shape.vocabulary_size
    return replace(
        log,
        context=replace(
            known, advice=replace(known.advice, usual_rate=usual, usual_method=guess), vocabulary_size=vocabulary
        ),
    )


def _model(name: str | None, beside: Beside, log: TrainingLog) -> ModelFacts | None:
    """The model's facts: named by the user, in a file beside the log, or its size from the trainer's count."""
    if name is not None:
        return _named(name, strict=True)
    if beside.config is not None:
        try:
            return facts_from_config(
                dict(beside.config), name=beside.base_model or "model", source="config.json beside the log"
            )
        except (BadInput, ValueError, TypeError):
            pass
    facts = _named(beside.base_model, strict=False) if beside.base_model else None
    size = _counted_size(log.context, log)
    return facts or (facts_from_size(f"{size:.0f}") if size is not None else None)


def _named(name: str, *, strict: bool) -> ModelFacts | None:
    try:
        return facts_from_size(name)
    except BadInput:
        pass
    try:
        return model_facts(name, offline=True)
    except BadInput:
        size = _SIZE.search(name.rsplit("/", 1)[-1].replace("-", " ").replace("_", " "))
        if size is not None:
            return facts_from_size(size[1] + size[2]).model_copy(update={"name": name})
        if strict:
            raise
    return None


def _counted_size(context: RunContext, log: TrainingLog) -> float | None:
    """Parameters from the Trainer's `total_flos` = 6 x parameters x tokens, where tokens were counted; None otherwise."""
    tokens = log.train.num_tokens[np.isfinite(log.train.num_tokens)]
    if not context.total_flos or not len(tokens) or not tokens[-1] > 0:
        return None
    size = context.total_flos / FLOS_A_TOKEN / float(tokens[-1])
    return size if 1e6 < size < 1e12 else None


def _least_rate(method: str | None, beside: Beside, told: Told, log: TrainingLog) -> tuple[float, float] | None:
    """(aim, low) of the usual rate of the largest model that the Trainer's operations allow, in the method with the lowest rates."""
    context, steps = log.context, log.train.step
    if not context.total_flos or not context.settings.batch_size or not len(steps) or not steps[-1] > 0:
        return None
    size = context.total_flos / FLOS_A_TOKEN / (float(steps[-1]) * context.settings.batch_size * FEWEST_TOKENS_A_ROW)
    if not 1e5 < size < 1e12:
        return None
    usual = _usual_rate(facts_from_size(f"{max(size, 1e6):.0f}"), method or LOWEST_RATES, beside, told, log)
    return usual[:2] if usual is not None else None


def _usual_rate(
    facts: ModelFacts, method: str, beside: Beside, told: Told, log: TrainingLog
) -> tuple[float, float, float] | None:
    data = DataFacts(
        name="the run", num_rows=_rows(log, beside), task="classification" if log.context.num_labels else None
    )
    ask = Ask(
        method=method,
        rank=told.rank or beside.rank,
        alpha=beside.alpha,
        batch=beside.batch_size,
        num_epochs=_epochs(log),
    )
    try:
        estimate = recommend(facts, data, hardware=ENOUGH, ask=ask).estimates["learning_rate"]
    except (BadInput, KeyError, ValueError):
        return None
    return (estimate.value, estimate.low, estimate.high)


def _rows(log: TrainingLog, beside: Beside) -> int | None:
    """Rows of the data from steps, batch and epochs, where all three are known."""
    batch = beside.batch_size or log.context.settings.batch_size
    epochs, steps = _epochs(log), log.context.settings.max_steps
    rows = steps * batch / epochs if batch and epochs and steps else 0
    return round(rows) if 10 < rows < 1e9 else None


def _epochs(log: TrainingLog) -> float | None:
    epochs = log.context.settings.num_epochs
    return epochs if epochs and 0.01 <= epochs <= 1000 else None
