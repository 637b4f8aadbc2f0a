"""A minute or two on this machine: the largest micro-batch, its speed, the gradient noise and the breaking rate.

It runs in a process of its own, on the study's own rows and weights, and keeps no weight that it changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from finestep.errors import BadInput
from finestep.probe import Lever, Measured, MeasureRequest, MemoryCurve, NoiseAnswer, Prediction, RatePoint
from finestep.probes.gradient_noise import accumulate_with_noise, adam_metric
from finestep.probes.limit import Source, largest_that_fits, usable_now
from finestep.probes.predict import Predictor
from finestep.rules.ceiling import Ceiling, ceiling, range_rates
from finestep.rules.memory_lines import choose_curve, largest_rows, peak_bytes
from finestep.rules.noise_scale import StepNoise, noise_scale, noise_words
from finestep.rules.packing import choose_processes
from finestep.rules.throughput import knee
from finestep.train.batch import collate
from finestep.train.checkpointing import checkpoint_layers
from finestep.train.memory import peak_memory_bytes
from finestep.train.order import Order
from finestep.train.packing import thread_counts, time_threads
from finestep.train.resident import Resident, lora_scale
from finestep.train.tokens import TrainingData
from finestep.train.whole_model import trained

SPEED_SHARE, NOISE_SHARE, RANGE_SHARE = 0.35, 0.35, 0.3
MOST_ROWS_TIMED, MOST_ROWS_UNKNOWN, FEWEST_ROWS = 64, 16, 4
REPEATS = 3
NOISE_MICRO_BATCHES, FEWEST_NOISE_STEPS, MOST_NOISE_STEPS = 8, 4, 24
FEWEST_RANGE_STEPS, MOST_RANGE_STEPS = 40, 200
RANGE_ROWS = 8
WARMUP_SHARE = 0.25
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
    rates = bench.rates(
        most=largest if largest is not None else MOST_ROWS_UNKNOWN, budget_s=SPEED_SHARE * request.budget_s
    )
    update_s, evaluation_s = bench.update_seconds(), bench.evaluation_seconds()
    note("measuring gradient noise")
    plain, adam = bench.noise(budget_s=NOISE_SHARE * request.budget_s, rates=rates)
    note("looking for the rate at which training breaks")
    found = bench.ceiling(budget_s=RANGE_SHARE * request.budget_s, rates=rates)
    device = bench.resident.placement.device
    return Measured(
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        dtype=str(bench.resident.placement.weights_dtype).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        seconds_of_threads=seconds_of_threads,
        card=bench.resident.data.card,
        lever=curve.lever,
        curves=prediction.curves,
        memory_budget_bytes=bench.budget,
        num_parameters=prediction.num_parameters,
        num_trained=prediction.num_trained,
        largest_micro_batch=largest,
        limit_source=source,
        rates=tuple(rates),
        knee=knee([(point.micro_batch, point.tokens_per_s) for point in rates]),
        update_s=update_s,
        evaluation_s=evaluation_s,
        peak_memory_bytes=peak_memory_bytes(device),
        noise=plain,
        noise_adam=adam,
        ceiling_breaks_at=found.breaks_at if found else None,
        ceiling_tested_to=found.tested_to if found else None,
        elapsed_s=round(time.monotonic() - started, 1),
        notes=tuple(bench.notes),
    )


def _memory(
    bench: Bench, request: MeasureRequest, note: Note
) -> tuple[Prediction, MemoryCurve, tuple[int | None, Source]]:
    """(what is predicted, the lever that is used, the largest micro-batch and who says so)."""
    note("predicting memory")
    prediction = bench.predict(request)
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


class Bench:
    """A loaded model and its rows, and what can be measured on them."""

    def __init__(self, request: MeasureRequest):
        self.recipe = request.recipe
        self.resident = Resident(request.model, request.data, request.recipe)
        self.notes: list[str] = []
        self.rows_wanted = min(FEWEST_ROWS, request.recipe.effective_batch_size)
        self.budget = usable_now(self.resident.placement.device, request.memory_budget_bytes)
        self._lever = Lever()
        self._chance = np.random.default_rng(request.recipe.seed)
        self._restart()

    def predict(self, request: MeasureRequest) -> Prediction:
        """Memory on the longest rows, for the settings up to the first with which enough rows fit."""
        data, started = self.resident.data, time.monotonic()
        is_causal = not data.label_names
        case = request.case.model_copy(update={"num_labels": len(data.label_names) or None})
        predictor = Predictor(self.resident.base.config, case)
        curves: list[MemoryCurve] = []
        for lever in request.levers:
            if lever.chunk_tokens and not is_causal:
                continue
            length, tokens = _longest(data)
            curves.append(predictor.curve(length, lever=lever, loss_tokens=tokens))
            if self.budget is None or largest_rows(curves[-1], self.budget) >= self.rows_wanted:
                break
        total, mine = predictor.num_parameters()
        return Prediction(
            case=case,
            num_parameters=total,
            num_trained=mine,
            curves=tuple(curves),
            elapsed_s=round(time.monotonic() - started, 2),
        )

    def use(self, lever: Lever) -> None:
        """Pull the levers, from now on."""
        self._lever = lever
        if lever.chunk_tokens:
            self.resident.token_loss.cut_into_chunks(self._model, lever.chunk_tokens)
        self._restart()

    def choose_threads(self, num_threads: int | None, *, row_limit: int | None) -> dict[int, float]:
        """Set the number of CPU threads with which one trial is fastest, as the worker does; what was measured."""
        counts = thread_counts(self.resident, num_threads)
        timed = time_threads(self.resident, self.recipe, counts, row_limit=row_limit)
        if timed:
            torch.set_num_threads(choose_processes(timed, cores=max(counts), wanted=1).threads)
            self._restart()
        return timed

    def rates(self, *, most: int, budget_s: float) -> list[RatePoint]:
        """Speed of micro-batches of 1, 2, 4, ... rows, until memory, the time or the rows end; of two at least, if they fit."""
        limit = min(most, MOST_ROWS_TIMED, len(self.resident.data.train))
        points: list[RatePoint] = []
        start = time.monotonic()
        size = 1
        while size <= limit:
            points.append(self._rate(size))
            if len(points) > 1 and time.monotonic() - start + self._next_cost(points) > budget_s:
                break
            size *= 2
        return points

    def _rate(self, size: int) -> RatePoint:
        """As in training: the rows of a step are sorted by length and cut."""
        rows = self._rows(max(size, self.recipe.effective_batch_size))
        cut = self._order().micro_batches(rows, size)
        chosen = [cut[place] for place in np.unique(np.linspace(0, len(cut) - 1, min(4, len(cut))).astype(int))]
        self._pass(chosen[0])
        times = [[self._timed_pass(part) for part in chosen] for _ in range(REPEATS)]
        lengths = [self.resident.data.train.lengths[part] for part in chosen]
        return RatePoint(
            micro_batch=size,
            seconds=float(np.median(np.array(times), axis=0).mean()),
            num_tokens=float(np.mean([part.sum() for part in lengths])),
            num_padded_tokens=float(np.mean([part.max() * len(part) for part in lengths])),
        )

    @staticmethod
    def _next_cost(points: list[RatePoint]) -> float:
        return 2 * points[-1].seconds * (4 * REPEATS + 1)

    def update_seconds(self) -> float:
        """Clipping and Adam's update, once there is state."""
        self._pass(self._rows(1))
        times = []
        for _ in range(REPEATS + 1):
            start = self._now()
            torch.nn.utils.clip_grad_norm_(self._values, 1.0)
            self._adamw.step()
            times.append(self._now() - start)
        self._restart()
        return float(np.median(times[1:]))

    @torch.no_grad()
    def evaluation_seconds(self) -> float:
        """All validation rows, from the time of one batch of them."""
        data = self.resident.data
        chosen = np.arange(min(16, len(data.evaluation)))
        batch = collate(data.evaluation, chosen, pad_id=data.pad_id, device=self.resident.placement.device)
        self.resident.token_loss.sum(self._model, batch)
        start = self._now()
        self.resident.token_loss.sum(self._model, batch)
        share = data.evaluation.lengths[chosen].sum() / data.evaluation.lengths.sum()
        return float((self._now() - start) / share)

    def noise(self, *, budget_s: float, rates: list[RatePoint]) -> tuple[NoiseAnswer | None, NoiseAnswer | None]:
        """The noise scale in rows over the first steps of training: (plain, in Adam's metric)."""
        rows_each = max(1, self.recipe.effective_batch_size // NOISE_MICRO_BATCHES)
        seconds = NOISE_MICRO_BATCHES * rows_each * _seconds_a_row(rates)
        num_steps = min(MOST_NOISE_STEPS, int(budget_s / seconds))
        if num_steps < FEWEST_NOISE_STEPS:
            self.notes.append("gradient noise was not measured: the time allows too few steps")
            return None, None
        plain, adam = self._noisy_steps(num_steps, rows_each)
        self._restart()
        return self._noise_answer(plain), self._noise_answer(adam)

    def _noisy_steps(self, num_steps: int, rows_each: int) -> tuple[list[StepNoise], list[StepNoise]]:
        plain: list[StepNoise] = []
        adam: list[StepNoise] = []
        settings = self.recipe.optimizer
        for step in range(1, num_steps + 1):
            metric = adam_metric(self._values, self._adamw.state, beta2=settings.beta2, epsilon=settings.epsilon)
            seen, scaled = accumulate_with_noise(self._values, self._random_parts(rows_each), metric)
            plain.append(seen)
            adam += [scaled] if scaled else []
            rate = self.recipe.learning_rate * min(1.0, step / (WARMUP_SHARE * num_steps))
            self._update(rate)
        return plain, adam

    def _random_parts(self, rows_each: int) -> Iterator[tuple[float, Callable[[], None]]]:
        rows = self._rows(NOISE_MICRO_BATCHES * rows_each)
        for part in np.array_split(rows, min(NOISE_MICRO_BATCHES, len(rows))):
            units = self.resident.data.train.num_loss_units(part)
            yield float(units), lambda part=part: self._pass(part)  # type: ignore[misc]

    def _noise_answer(self, steps: list[StepNoise]) -> NoiseAnswer | None:
        try:
            scale = noise_scale(steps).times(1 / self._units_a_row())
        except BadInput as error:
            self.notes.append(f"gradient noise is unknown: {error}")
            return None
        return NoiseAnswer(
            value=scale.value, low=scale.low, high=scale.high, num_steps=scale.num_steps, words=noise_words(scale)
        )

    def ceiling(self, *, budget_s: float, rates: list[RatePoint]) -> Ceiling | None:
        """A range test from a tenth of the recipe's rate to a hundred times it."""
        affordable = max(1, int(budget_s / (FEWEST_RANGE_STEPS * _seconds_a_row(rates))))
        size = min(RANGE_ROWS, self.recipe.effective_batch_size, rates[-1].micro_batch, affordable)
        num_steps = min(MOST_RANGE_STEPS, int(budget_s / (size * _seconds_a_row(rates))))
        if num_steps < FEWEST_RANGE_STEPS:
            self.notes.append("no range test: the time allows too few steps")
            return None
        tested = range_rates(prior=self.recipe.learning_rate, num_steps=num_steps)
        losses: list[float] = []
        for rate in tested:
            self._adamw.zero_grad(set_to_none=True)
            losses.append(self._pass(self._rows(size)))
            if not math.isfinite(losses[-1]):
                break
            self._update(rate)
        self._restart()
        losses += [math.inf] * (len(tested) - len(losses))
        return ceiling(tested, losses)

    def _pass(self, rows: np.ndarray) -> float:
        """Forward and backward of the mean loss of these rows."""
        data = self.resident.data
        batch = collate(data.train, rows, pad_id=data.pad_id, device=self.resident.placement.device)
        self._trial.notice_changes()
        loss = self.resident.token_loss.sum(self._model, batch) / max(data.train.num_loss_units(rows), 1)
        loss.backward()  # type: ignore[no-untyped-call]
        self._trial.after_pass()
        return float(loss.detach())

    def _timed_pass(self, rows: np.ndarray) -> float:
        start = self._now()
        self._pass(rows)
        return self._now() - start

    def _update(self, rate: float) -> None:
        torch.nn.utils.clip_grad_norm_(self._values, self.recipe.optimizer.max_grad_norm or math.inf)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)

    def _restart(self) -> None:
        """Initial weights as a pack of one trial, a new optimizer."""
        resident = self.resident
        self._trial = resident.open_rows(self.recipe)
        self._trial.join(0, resident.initial_values(self.recipe), scale=lora_scale(self.recipe))
        self._model = resident.base.eval()
        if self._lever.checkpointing:
            checkpoint_layers(self._model)
        self._values = list(trained(self._model).values())
        settings = self.recipe.optimizer
        self._adamw = torch.optim.AdamW(
            self._values,
            lr=self.recipe.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=resident.placement.device.type in {"cpu", "cuda"},
        )

    def _rows(self, count: int) -> np.ndarray:
        """Random rows, all different when there are enough."""
        number = len(self.resident.data.train)
        return self._chance.choice(number, size=count, replace=count > number)

    def _order(self) -> Order:
        return Order(self.resident.data.train.lengths, self.recipe)

    def _units_a_row(self) -> float:
        rows = self.resident.data.train
        return rows.num_loss_units(np.arange(len(rows))) / len(rows)

    def _now(self) -> float:
        if self.resident.placement.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _seconds_a_row(rates: list[RatePoint]) -> float:
    """Of the micro-batches that are small enough to be used for noise."""
    return max(point.seconds / point.micro_batch for point in rates[-2:])


def _longest(data: TrainingData) -> tuple[int, int | None]:
    """(tokens of the longest row, most tokens that carry loss among long rows; None for labels)."""
    longest = np.argsort(-data.train.lengths, kind="stable")[:64]
    tokens = None if data.label_names else max(1, *(data.train.num_loss_units([row]) for row in longest))
    return max(2, int(data.train.lengths[longest[0]])), tokens
