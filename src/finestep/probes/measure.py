"""A minute or two on this machine: the largest micro-batch, its speed, the gradient noise and the breaking rate.

It runs in a process of its own, on the study's own rows and weights, and keeps no weight that it changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from finestep.errors import BadInput
from finestep.probe import (
    Measured,
    MeasuredMachine,
    MeasuredMemory,
    MeasuredSpeed,
    MeasureRequest,
    MemoryCurve,
    Prediction,
    RatePoint,
)
from finestep.probes.bench import Bench
from finestep.probes.first_steps import breaking_rate, noise
from finestep.probes.limit import Source, largest_that_fits
from finestep.probes.predict import Predictor
from finestep.rules.memory_lines import choose_curve, largest_rows, peak_bytes
from finestep.rules.throughput import knee
from finestep.train.batch import collate
from finestep.train.memory import peak_memory_bytes
from finestep.train.order import Order
from finestep.train.tokens import TrainingData

SPEED_SHARE, NOISE_SHARE, RANGE_SHARE = 0.35, 0.35, 0.3
MOST_ROWS_TIMED, MOST_ROWS_UNKNOWN = 64, 16
REPEATS = 3
Note = Callable[[str], None]


def measure(request: MeasureRequest, *, note: Note = lambda _: None) -> Measured:
    """Measure, within about `budget_s` after loading."""
    if request.num_threads:
        torch.set_num_threads(request.num_threads)
    started = time.monotonic()
    bench = Bench(request)
    prediction, curve, (largest, source) = _memory(bench, request, note)
    seconds_of_threads = bench.choose_threads(request.num_threads, row_limit=largest)
    note("timing micro-batches")
    points = rates(
        bench, most=largest if largest is not None else MOST_ROWS_UNKNOWN, budget_s=SPEED_SHARE * request.budget_s
    )
    update_s, evaluation_s = update_seconds(bench), evaluation_seconds(bench)
    note("measuring gradient noise")
    plain, adam = noise(bench, budget_s=NOISE_SHARE * request.budget_s, rates=points)
    note("looking for the rate at which training breaks")
    found = breaking_rate(bench, budget_s=RANGE_SHARE * request.budget_s, rates=points)
    return Measured(
        machine=_machine(bench, seconds_of_threads),
        card=bench.resident.data.card,
        memory=MeasuredMemory(
            lever=curve.lever,
            curves=prediction.curves,
            memory_budget_bytes=bench.budget,
            num_parameters=prediction.num_parameters,
            num_trained=prediction.num_trained,
            largest_micro_batch=largest,
            limit_source=source,
            peak_memory_bytes=peak_memory_bytes(bench.resident.placement.device),
        ),
        speed=MeasuredSpeed(
            rates=tuple(points),
            knee=knee([(point.micro_batch, point.tokens_per_s) for point in points]),
            update_s=update_s,
            evaluation_s=evaluation_s,
        ),
        noise=plain,
        noise_adam=adam,
        ceiling_breaks_at=found.breaks_at if found else None,
        ceiling_tested_to=found.tested_to if found else None,
        elapsed_s=round(time.monotonic() - started, 1),
        notes=tuple(bench.notes),
    )


def _machine(bench: Bench, seconds_of_threads: dict[int, float]) -> MeasuredMachine:
    """Where and how the bench was run."""
    placement = bench.resident.placement
    return MeasuredMachine(
        device=placement.device.type,
        device_name=torch.cuda.get_device_name(placement.device) if placement.device.type == "cuda" else "",
        dtype=str(placement.weights_dtype).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        seconds_of_threads=seconds_of_threads,
    )


def _memory(
    bench: Bench, request: MeasureRequest, note: Note
) -> tuple[Prediction, MemoryCurve, tuple[int | None, Source]]:
    """(what is predicted, the lever that is used, the largest micro-batch and who says so)."""
    note("predicting memory")
    prediction = predict(bench, request)
    curve = choose_curve(prediction.curves, bench.budget, rows=bench.rows_wanted)
    bench.use(curve.lever)
    return prediction, curve, _largest(bench, request, curve, note)


def _largest(bench: Bench, request: MeasureRequest, curve: MemoryCurve, note: Note) -> tuple[int | None, Source]:
    """The largest micro-batch, by prediction or by trying.

    Raises:
        BadInput: not even one row fits.
    """
    budget = bench.budget
    predicted = None if budget is None else largest_rows(curve, budget)
    if request.largest_micro_batch is not None:
        predicted = min(predicted or request.largest_micro_batch, request.largest_micro_batch)
    largest, source = largest_that_fits(
        bench.resident, request.recipe, predicted=predicted, note=note, most=request.largest_micro_batch
    )
    bench.use(curve.lever)  # trying put other rows of adapters on the base
    if largest == 0:
        raise BadInput(
            "one row must fit into memory",
            value=f"{peak_bytes(curve, 1) / 2**30:.1f} GiB needed, {(budget or 0) / 2**30:.1f} GiB usable",
            next_step="use --method lora, shorter rows (--max-length), or a smaller model",
        )
    return None if largest is None else min(largest, len(bench.resident.data.train)), source


def predict(bench: Bench, request: MeasureRequest) -> Prediction:
    """Memory on the longest rows, for the settings up to the first with which enough rows fit."""
    data, started = bench.resident.data, time.monotonic()
    is_causal = not data.label_names
    case = request.case.model_copy(update={"num_labels": len(data.label_names) or None})
    predictor = Predictor(bench.resident.base.config, case)
    curves: list[MemoryCurve] = []
    for lever in request.levers:
        if lever.chunk_tokens and not is_causal:
            continue
        length, tokens = _longest(data)
        curves.append(predictor.curve(length, lever=lever, loss_tokens=tokens))
        if bench.budget is None or largest_rows(curves[-1], bench.budget) >= bench.rows_wanted:
            break
    total, mine = predictor.num_parameters()
    return Prediction(
        case=case,
        num_parameters=total,
        num_trained=mine,
        curves=tuple(curves),
        elapsed_s=round(time.monotonic() - started, 2),
    )


def rates(bench: Bench, *, most: int, budget_s: float) -> list[RatePoint]:
    """Speed of micro-batches of 1, 2, 4, ... rows, until memory, the time or the rows end; of two at least, if they fit."""
    limit = min(most, MOST_ROWS_TIMED, len(bench.resident.data.train))
    points: list[RatePoint] = []
    start = time.monotonic()
    size = 1
    while size <= limit:
        points.append(_rate(bench, size))
        if len(points) > 1 and time.monotonic() - start + _next_cost(points) > budget_s:
            break
        size *= 2
    return points


def _rate(bench: Bench, size: int) -> RatePoint:
    """As in training: the rows of a step are sorted by length and cut."""
    rows = bench.rows(max(size, bench.recipe.effective_batch_size))
    cut = Order(bench.resident.data.train.lengths, bench.recipe).micro_batches(rows, size)
    chosen = [cut[place] for place in np.unique(np.linspace(0, len(cut) - 1, min(4, len(cut))).astype(int))]
    bench.run_pass(chosen[0])
    times = [[bench.timed_pass(part) for part in chosen] for _ in range(REPEATS)]
    lengths = [bench.resident.data.train.lengths[part] for part in chosen]
    return RatePoint(
        micro_batch=size,
        seconds=float(np.median(np.array(times), axis=0).mean()),
        num_tokens=float(np.mean([part.sum() for part in lengths])),
        num_padded_tokens=float(np.mean([part.max() * len(part) for part in lengths])),
    )


def _next_cost(points: list[RatePoint]) -> float:
    return 2 * points[-1].seconds * (4 * REPEATS + 1)


def update_seconds(bench: Bench) -> float:
    """Clipping and Adam's update, once there is state."""
    bench.run_pass(bench.rows(1))
    times = []
    for _ in range(REPEATS + 1):
        start = bench.now()
        torch.nn.utils.clip_grad_norm_(bench.values, 1.0)
        bench.adamw.step()
        times.append(bench.now() - start)
    bench.restart()
    return float(np.median(times[1:]))


@torch.no_grad()
def evaluation_seconds(bench: Bench) -> float:
    """All validation rows, from the time of one batch of them."""
    data = bench.resident.data
    chosen = np.arange(min(16, len(data.evaluation)))
    batch = collate(data.evaluation, chosen, pad_id=data.pad_id, device=bench.resident.placement.device)
    bench.resident.token_loss.sum(bench.model, batch)
    start = bench.now()
    bench.resident.token_loss.sum(bench.model, batch)
    share = data.evaluation.lengths[chosen].sum() / data.evaluation.lengths.sum()
    return float((bench.now() - start) / share)


def _longest(data: TrainingData) -> tuple[int, int | None]:
    """(tokens of the longest row, most tokens that carry loss among long rows; None for labels)."""
    longest = np.argsort(-data.train.lengths, kind="stable")[:64]
    tokens = None if data.label_names else max(1, *(data.train.num_loss_units([row]) for row in longest))
    return max(2, int(data.train.lengths[longest[0]])), tokens
