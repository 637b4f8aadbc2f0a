"""Probe: what fits into memory and how fast it trains, predicted from shapes or measured on this machine; no torch in this process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finestep.errors import BadInput, WorkerFailed
from finestep.executors.question import ask
from finestep.facts import HardwareFacts, ModelFacts
from finestep.probe import (
    Lever,
    Measured,
    MeasureRequest,
    MemoryCurve,
    OptimizerName,
    Prediction,
    PredictRequest,
    RatePoint,
)
from finestep.recipe import Recipe
from finestep.rules.ceiling import Ceiling
from finestep.rules.lanes import Crew, PackShape, choose_processes, choose_shape, fit_step_cost
from finestep.rules.memory import usable_bytes
from finestep.rules.memory_case import levers, memory_case
from finestep.rules.memory_lines import largest_lanes, largest_rows, lever_words
from finestep.rules.throughput import price, run_seconds
from finestep.search.search import most_at_once
from finestep.store.probe_cache import probe_file, read_probe, write_probe
from finestep.study import DataSpec, ModelSpec

LABELS_ASSUMED = 2
"""Labels of a classifier whose data are not at hand."""
Note = Callable[[str], None]
LENGTH_ASSUMED = 1024


@dataclass(frozen=True)
class MemoryAnswer:
    """What a step needs, and how many rows fit. `budget_bytes` is None when the memory of the device is unknown."""

    model: ModelFacts
    hardware: HardwareFacts
    length: int
    prediction: Prediction
    budget_bytes: int | None
    notes: tuple[str, ...] = ()

    def rows(self, curve: MemoryCurve) -> int | None:
        """The largest micro-batch."""
        return None if self.budget_bytes is None else largest_rows(curve, self.budget_bytes)

    def advice(self) -> str | None:
        """What each lever buys."""
        if self.budget_bytes is None:
            return None
        return lever_words(self.prediction.curves, self.budget_bytes, now=Lever())

    def curve(self, *, checkpointing: bool, chunked: bool) -> MemoryCurve:
        """The curve of one setting of the levers."""
        wanted = (checkpointing, chunked)
        return next(
            c for c in self.prediction.curves if (c.lever.checkpointing, c.lever.chunk_tokens is not None) == wanted
        )


def predict_memory(
    model: str | None,
    recipe: Recipe,
    *,
    params: str | None = None,
    hardware: HardwareFacts | str | None = None,
    length: int | None = None,
    optimizer: OptimizerName = "adamw",
    num_labels: int | None = None,
    loss_tokens: int | None = None,
    note: Note = lambda _: None,
) -> MemoryAnswer:
    """Peak memory of a training step of `model` by category, for each setting of the levers; no weights, no GPU.

    Args:
        length: tokens of a row; None: 1,024, or all that the model can read.

    Raises:
        BadInput: nothing is known about the model, or its architecture cannot be shadowed.
    """
    from finestep.survey.hardware import hardware_facts
    from finestep.survey.model import model_config, stand_in_config

    facts, guessed = _predicted_model(model, params)
    length = length or min(LENGTH_ASSUMED, facts.shape.context_length or LENGTH_ASSUMED)
    device = hardware if isinstance(hardware, HardwareFacts) else hardware_facts(hardware)
    config = model_config(model) if model is not None and params is None else None
    notes = (
        [guessed or "the model's own config is not here: a Llama of the same shape stands in"] if config is None else []
    )
    if facts.is_encoder and num_labels is None:
        num_labels = LABELS_ASSUMED
    request = PredictRequest(
        config=config or stand_in_config(facts),
        case=memory_case(recipe, device, num_labels=num_labels, optimizer=optimizer),
        length=length,
        loss_tokens=loss_tokens,
        levers=levers(facts, is_causal=num_labels is None),
    )
    prediction = Prediction.model_validate(ask("finestep.probes", request, note=note))
    return MemoryAnswer(facts, device, length, prediction, usable_bytes(device), tuple(notes) + prediction.notes)


def _predicted_model(model: str | None, params: str | None) -> tuple[ModelFacts, str | None]:
    """(facts with a shape, a word on it where it is guessed): of files, of a known name, of a name that says its size, or of a size."""
    from finestep.survey.model import facts_from_size, model_facts
    from finestep.survey.model_name import facts_from_name, with_usual_shape

    if params is not None:
        facts = facts_from_size(params)
    elif model is None:
        raise BadInput("say which model", next_step="give a folder, a known name, or a size: --params 7B")
    else:
        try:
            return model_facts(model), None
        except BadInput:
            named = None if model.startswith((".", "/", "~")) else facts_from_name(model)
            if named is None:
                raise
            facts = named
    shaped = with_usual_shape(facts)
    words = (
        f"only the size is known: a Llama of {shaped.shape.num_layers} layers of {shaped.shape.hidden_size} stands in"
    )
    return shaped, None if facts.shape.hidden_size else words


@dataclass(frozen=True)
class ProbeReport:
    """What was measured, and what follows from it for one recipe."""

    measured: Measured
    recipe: Recipe
    micro_batch: int
    sharing: PackShape | None
    crew: Crew
    run_s: float
    study_s: float
    full_runs: float
    run_price: float | None
    study_price: float | None
    was_cached: bool

    @property
    def ceiling(self) -> Ceiling | None:
        """The breaking rate, if it was looked for."""
        found = self.measured
        return None if found.ceiling_tested_to is None else Ceiling(found.ceiling_breaks_at, found.ceiling_tested_to)


def probe(
    model: ModelSpec,
    data: DataSpec,
    recipe: Recipe,
    *,
    budget_s: float = 90.0,
    full_runs: float = 16.0,
    price_per_hour: float | None = None,
    num_threads: int | None = None,
    again: bool = False,
    note: Note = lambda _: None,
) -> ProbeReport:
    """Measure this machine on this model and data, or take what was measured before.

    Args:
        budget_s: about how long to measure, loading aside.
        full_runs: size of the study whose time and price are told.
        again: measure even if the answer is known.
    """
    known = None if again else cached(model, data, recipe, num_threads=num_threads)
    measured = known or _measure(_request(model, data, recipe, budget_s, num_threads), note)
    if known is None:
        write_probe(_place(model, data, recipe, num_threads), measured)
    return _report(measured, recipe, full_runs, price_per_hour, was_cached=known is not None)


def cached(model: ModelSpec, data: DataSpec, recipe: Recipe, *, num_threads: int | None = None) -> Measured | None:
    """What an earlier `probe` found for this model, data, method, device and these versions; None when nothing did.

    Learning rate, batch size and schedule of the recipe do not matter.
    """
    return read_probe(_place(model, data, recipe, num_threads))


def best_micro_batch(measured: Measured, recipe: Recipe) -> int:
    """The smallest micro-batch that is fast, within memory and the effective batch."""
    most = min(recipe.effective_batch_size, measured.memory.largest_micro_batch or recipe.effective_batch_size)
    return max(1, min(measured.speed.knee or most, most))


def shape_of_pass(measured: Measured, recipe: Recipe, *, wanted: int) -> PackShape | None:
    """How many of `wanted` LoRA trials should share a step; None when they cannot, or too little was measured."""
    rows = best_micro_batch(measured, recipe)
    tokens = {point.micro_batch: point.num_padded_tokens for point in measured.speed.rates if point.micro_batch <= rows}
    if recipe.method == "full" or len({round(point.num_padded_tokens) for point in measured.speed.rates}) < 2:
        return None
    lanes = _lanes_in_memory(measured, rows)
    return choose_shape(
        fit_step_cost(measured.step_timings()),
        tokens_of_rows=tokens or {rows: _point(measured, rows).num_padded_tokens},
        batch=recipe.effective_batch_size,
        wanted=wanted,
        row_limit=None if lanes is None else lanes * rows,
        device=measured.machine.device,
    )


def _lanes_in_memory(measured: Measured, rows: int) -> int | None:
    if measured.memory.memory_budget_bytes is None:
        return None
    curve = next(curve for curve in measured.memory.curves if curve.lever == measured.memory.lever)
    lanes = largest_lanes(
        curve, measured.memory.memory_budget_bytes, rows=rows, num_trained=measured.memory.num_trained
    )
    return max(1, lanes)


def _request(
    model: ModelSpec, data: DataSpec, recipe: Recipe, budget_s: float, num_threads: int | None
) -> MeasureRequest:
    from finestep.survey.model import model_facts

    hardware = _hardware(model)
    return MeasureRequest(
        model=model,
        data=data,
        recipe=recipe,
        case=memory_case(recipe, hardware),
        levers=levers(model_facts(model.path), is_causal=True),
        memory_budget_bytes=usable_bytes(hardware),
        budget_s=budget_s,
        num_threads=num_threads,
    )


def _hardware(model: ModelSpec) -> HardwareFacts:
    from finestep.survey.hardware import hardware_facts

    return hardware_facts("cpu" if model.device == "cpu" else None)


def _measure(request: MeasureRequest, note: Note) -> Measured:
    """Ask the probe; when it dies while trying so many rows, ask again with half of them as the limit."""
    tried: list[int] = []

    def listen(text: str) -> None:
        rows = re.match(r"trying (\d+) rows", text)
        tried.extend([int(rows[1])] if rows else [])
        note(text)

    while True:
        try:
            return Measured.model_validate(ask("finestep.probes", request, note=listen))
        except WorkerFailed:
            if not tried or tried[-1] == 1:
                raise
            request = request.model_copy(update={"largest_micro_batch": tried.pop() // 2})


def _place(model: ModelSpec, data: DataSpec, recipe: Recipe, num_threads: int | None) -> Path:
    from finestep.survey.fingerprint import fingerprint

    hardware = _hardware(model)
    question: dict[str, object] = {
        "of": fingerprint(model.path, data.path, data.eval_path),
        "data": data.model_dump(exclude={"path", "eval_path"}),
        "method": recipe.method,
        "lora": recipe.lora.model_dump() if recipe.method != "full" else None,
        "device": [hardware.device, hardware.name, hardware.memory_bytes],
        "threads": num_threads or os.cpu_count(),
    }
    return probe_file(question)


def _report(
    measured: Measured, recipe: Recipe, full_runs: float, price_per_hour: float | None, *, was_cached: bool
) -> ProbeReport:
    rows = best_micro_batch(measured, recipe)
    wanted = most_at_once(full_runs)
    timed = measured.machine.seconds_of_threads
    crew = choose_processes(timed, cores=max(timed), wanted=wanted) if timed else Crew(1, measured.machine.num_threads)
    choice = shape_of_pass(measured, recipe, wanted=crew.share(wanted))
    point = _point(measured, rows)
    run_s = run_seconds(
        num_rows=round((measured.card.facts.num_rows or 0) * recipe.num_epochs),
        effective_batch_size=recipe.effective_batch_size,
        micro_batch=rows,
        micro_step_s=point.seconds * rows / point.micro_batch,
        update_s=measured.speed.update_s,
        num_evaluations=recipe.evaluation.num_evaluations,
        evaluation_s=measured.speed.evaluation_s,
    )
    study_s = crew.study_seconds(full_runs * run_s / (choice.gain if choice else 1.0), last_s=run_s)
    return ProbeReport(
        measured=measured,
        recipe=recipe,
        micro_batch=rows,
        sharing=choice,
        crew=crew,
        run_s=run_s,
        study_s=study_s,
        full_runs=full_runs,
        run_price=price(run_s, price_per_hour),
        study_price=price(study_s, price_per_hour),
        was_cached=was_cached,
    )


def _point(measured: Measured, rows: int) -> RatePoint:
    """The measured micro-batch nearest to `rows`, not above it where there is one."""
    below = [point for point in measured.speed.rates if point.micro_batch <= rows]
    return below[-1] if below else measured.speed.rates[0]
