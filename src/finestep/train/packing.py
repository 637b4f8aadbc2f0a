"""How trials share the device: short timings of the real model, the laws of `rules/packing.py`, and a look at the clock.

It also proves, on this very model, that rows of a pack do not touch each other before it lets them share a pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial

import joblib
import numpy as np
import torch

from finestep.ready import SharePlan
from finestep.recipe import Recipe
from finestep.rules.packing import LEAST_GAIN, choose_processes, choose_shape, fit_step_cost
from finestep.survey.hardware import hardware_facts
from finestep.train.batch import collate_end_to_end, collate_lanes
from finestep.train.independence import short_and_long
from finestep.train.memory import peak_memory_bytes, release_memory, unless_out_of_memory
from finestep.train.order import Order
from finestep.train.resident import Resident, lora_scale
from finestep.train.trial_rows import TrialRows

TIMINGS = 3
SAMPLED_STEPS = 32
SAME_LOSS, SAME_LOSS_BF16, SAME_BESIDE_ANOTHER = 1e-4, 1e-2, 1e-5
LEAST_PADDING = 0.1
"""Below this share of padding, texts are not tried end to end."""
LONG_STEP_S = 1.0
"""A step that takes longer is timed once, and keeps all threads busy: fewer are not tried."""


def plan_lanes(
    resident: Resident,
    recipe: Recipe,
    *,
    asked: int | None,
    most_lanes: int,
    row_limit: int | None,
    threads: Sequence[int] = (),
) -> SharePlan:
    """Decide for trials of the size of `recipe`, and set the number of threads.

    Args:
        asked: trials a pass that the user wants: 1 is off, None measures.
        most_lanes: trials that are under way at the same time at most, when it is measured.
        row_limit: rows of a pass that memory is known to allow.
        threads: numbers of CPU threads to choose from, measured; with none or one there is no choice, and only one process.
    """
    if threads:
        torch.set_num_threads(max(threads))
    timed = time_threads(resident, recipe, threads, row_limit=row_limit)
    if not timed:
        plan = _plan(resident, recipe, asked, most_lanes, row_limit)
        return plan.model_copy(update={"num_threads": max(threads)}) if threads else plan
    wanted = 1 if asked is not None else min(most_lanes, _workers_that_fit(resident))
    crew = choose_processes(timed, cores=max(threads), wanted=wanted)
    torch.set_num_threads(crew.threads)
    plan = _plan(resident, recipe, asked, crew.share(most_lanes), row_limit)
    return plan.model_copy(
        update={
            "num_threads": crew.threads,
            "threads_why": _threads_words(timed, crew.threads),
            "num_workers": crew.processes,
            "workers_why": crew.words,
        }
    )


def thread_counts(resident: Resident, num_threads: int | None) -> list[int]:
    """Numbers of CPU threads to choose from: 1, 2, 4, ... and all; none where the user or the device has decided.

    A container may be allowed fewer cores than torch sees.
    """
    if num_threads is not None or resident.placement.device.type != "cpu":
        return []
    most = min(torch.get_num_threads(), joblib.cpu_count())
    return sorted({2**power for power in range(most.bit_length())} | {most})


def time_threads(
    resident: Resident, recipe: Recipe, threads: Sequence[int], *, row_limit: int | None
) -> dict[int, float]:
    """Number of threads -> seconds of a step of one trial alone; nothing when there is no choice.

    Alone, because a pack is not always full, and because the threads of a small model mostly wait for each other. Leaves the base
    without rows, and the last number set.
    """
    seconds: dict[int, float] = {}
    if len(threads) < 2:
        return seconds
    clock, rows = _Clock(resident, recipe), _most_rows(recipe, row_limit)
    for count in sorted(threads, reverse=True):
        torch.set_num_threads(count)
        found = unless_out_of_memory(clock.step_seconds, 1, rows)
        if found is None:
            release_memory(clock.resident.placement.device)
            break
        seconds[count] = found
        if seconds[count] > LONG_STEP_S:
            break
    return seconds


def _workers_that_fit(resident: Resident) -> int:
    """Processes of this one's size for which there is memory, twice over, because trials take more than the first passes."""
    import psutil

    mine = peak_memory_bytes(resident.placement.device)
    if not mine:
        return 1
    free = min(psutil.virtual_memory().available, (hardware_facts("cpu").memory_bytes or mine) - mine)
    return 1 + free // (2 * mine)


def _threads_words(timed: Mapping[int, float], chosen: int) -> str:
    others = [
        f"{count} would take {seconds / timed[chosen]:.2g} times as long"
        for count, seconds in timed.items()
        if count != chosen
    ]
    return f"{chosen}; {', '.join(others)}" if others else ""


def _plan(resident: Resident, recipe: Recipe, asked: int | None, most_lanes: int, row_limit: int | None) -> SharePlan:
    plan = _shared(resident, recipe, asked, most_lanes, row_limit)
    return _laid_out(plan, resident, recipe, row_limit)


def _shared(resident: Resident, recipe: Recipe, asked: int | None, most_lanes: int, row_limit: int | None) -> SharePlan:
    """How many trials share a pass."""
    if asked == 1 or most_lanes == 1:
        return SharePlan()
    if reason := resident.why_alone(recipe):
        return SharePlan(why=f"one by one: {reason}")
    plan = unless_out_of_memory(lambda: _measured(_Clock(resident, recipe), asked, most_lanes, row_limit))
    if plan is None:
        release_memory(resident.placement.device)
        return SharePlan(why="one by one: memory holds no second trial")
    return plan


def _laid_out(plan: SharePlan, resident: Resident, recipe: Recipe, row_limit: int | None) -> SharePlan:
    """The plan, with texts end to end where that is exact and measured to be faster.

    There is nothing to gain where little is padding, so that the timing is spared then.
    """
    rows = plan.rows or _most_rows(recipe, row_limit)
    if resident.data.label_names or rows == 1:
        return plan
    clock = _Clock(resident, recipe)
    share = clock.padding_share(rows)
    if share < LEAST_PADDING or resident.why_padded() is not None:
        return plan
    timed = [
        unless_out_of_memory(partial(clock.step_seconds, plan.num_lanes, rows, end_to_end=on)) for on in (False, True)
    ]
    padded, laid = timed
    if padded is None or laid is None or padded < LEAST_GAIN * laid:
        return plan
    why = f"{share:.0%} of the tokens would be padding; measured {padded / laid:.2f}x faster without it"
    return plan.model_copy(update={"end_to_end": True, "end_to_end_why": why})


def _most_rows(recipe: Recipe, row_limit: int | None) -> int:
    return min(recipe.first_micro_batch(), row_limit or recipe.first_micro_batch())


def _measured(clock: _Clock, asked: int | None, most_lanes: int, row_limit: int | None) -> SharePlan:
    if fault := clock.fault():
        return SharePlan(why=f"one by one: {fault}")
    if asked is not None:
        return SharePlan(num_lanes=asked, why=f"{asked} trials at a time, as asked")
    recipe, most = clock.recipe, _most_rows(clock.recipe, row_limit)
    sizes = [rows for rows in (1, 2, 4, 8, 16, 32, 64) if rows < most] + [most]
    cost = fit_step_cost([clock.time(1, rows) for rows in (max(1, most // 4), 2 * most if most == 1 else most)])
    shape = choose_shape(
        cost,
        tokens_of_rows={rows: clock.tokens_of(rows) for rows in sizes},
        batch=recipe.effective_batch_size,
        wanted=most_lanes,
        row_limit=row_limit,
        device=clock.resident.placement.device.type,
    )
    if shape.lanes == 1:
        return SharePlan(why=shape.why)
    gain = clock.step_seconds(1, most) / clock.step_seconds(shape.lanes, shape.rows)
    if gain < LEAST_GAIN:
        return SharePlan(why=f"one by one: {shape.lanes} together were measured at {gain:.2f}x")
    return SharePlan(
        num_lanes=shape.lanes,
        rows=shape.rows,
        gain=round(gain, 3),
        why=f"{shape.why}; measured {gain:.2f}x faster than one by one",
    )


class _Clock:
    """Times forward and backward passes on rows of the study."""

    def __init__(self, resident: Resident, recipe: Recipe):
        self.resident, self.recipe = resident, recipe
        self.values = dict(resident.initial_values(recipe))
        self.order = Order(resident.data.train.lengths, recipe)

    def time(self, num_lanes: int, num_rows: int) -> tuple[int, float]:
        """(padded tokens of one trial, seconds of a pass): the fastest of a few."""
        chosen = self._middle_rows(num_rows)
        seconds = self._fastest(num_lanes, [chosen])
        return int(self.resident.data.train.lengths[chosen].max()) * len(chosen), seconds

    def step_seconds(self, num_lanes: int, num_rows: int, *, end_to_end: bool = False) -> float:
        """Seconds of the passes of one trial's first step, when `num_lanes` trials share them."""
        cut = self.order.micro_batches(self.order.rows_of_step(1), num_rows)
        return self._fastest(num_lanes, cut, end_to_end=end_to_end) / num_lanes

    def padding_share(self, num_rows: int) -> float:
        """Share of padding in the first step of a trial."""
        cut, lengths = self.order.micro_batches(self.order.rows_of_step(1), num_rows), self.order.lengths
        padded = sum(int(lengths[part].max()) * len(part) for part in cut)
        return 1 - sum(int(lengths[part].sum()) for part in cut) / padded

    def tokens_of(self, num_rows: int) -> float:
        """Tokens of a micro-batch of so many rows, padding included, on average over some steps."""
        steps = range(1, min(self.order.num_steps, SAMPLED_STEPS) + 1)
        cut = [part for step in steps for part in self.order.micro_batches(self.order.rows_of_step(step), num_rows)]
        return sum(int(self.resident.data.train.lengths[part].max()) * len(part) for part in cut) / len(cut)

    def _fastest(self, num_lanes: int, micro_batches: Sequence[np.ndarray], *, end_to_end: bool = False) -> float:
        rows = self._open([self.values] * num_lanes)
        seconds = []
        try:
            if self.resident.placement.device.type != "cpu":
                # a GPU loads its kernels when they are first used
                self._pass(rows, [micro_batches[0]] * num_lanes, end_to_end=end_to_end)
            for _ in range(TIMINGS):
                self._finish_on_device()
                began = time.perf_counter()
                for chosen in micro_batches:
                    self._pass(rows, [chosen] * num_lanes, end_to_end=end_to_end)
                self._finish_on_device()
                seconds.append(time.perf_counter() - began)
                if seconds[-1] > LONG_STEP_S:
                    break
        finally:
            self._close(rows)
        return min(seconds)

    def _pass(self, rows: TrialRows, chosen: list[np.ndarray], *, end_to_end: bool) -> None:
        self._losses(chosen, end_to_end=end_to_end).sum().backward()  # type: ignore[no-untyped-call]
        rows.after_pass()

    def fault(self) -> str | None:
        """Two adapters on rows of different lengths must give together the losses that each gives alone; what is wrong otherwise.

        In bfloat16 products of another shape round differently, so that only the neighbour's exchange tells exactly.
        """
        short, long = short_and_long(self.resident.data.train.lengths)
        rows, (first, second, third) = [np.array([short]), np.array([long])], [self._shaken(seed) for seed in (1, 2, 3)]
        together = self._evaluated([first, second], rows)
        beside_another = self._evaluated([first, third], rows)
        alone = [self._evaluated([values], [row])[0] for values, row in zip((first, second), rows, strict=True)]
        rounding = SAME_LOSS_BF16 if self.resident.placement.autocast else SAME_LOSS
        same = [math.isclose(a, b, rel_tol=rounding) for a, b in zip(together, alone, strict=True)]
        if all(same) and math.isclose(together[0], beside_another[0], rel_tol=SAME_BESIDE_ANOTHER):
            return None
        return "rows of a batch are not independent in this model"

    def _evaluated(self, variants: Sequence[dict[str, torch.Tensor]], chosen: list[np.ndarray]) -> list[float]:
        rows = self._open(variants)
        try:
            with torch.no_grad():
                return self._losses(chosen).tolist()
        finally:
            self._close(rows)

    def _losses(self, chosen: list[np.ndarray], *, end_to_end: bool = False) -> torch.Tensor:
        resident = self.resident
        collated = collate_end_to_end if end_to_end else collate_lanes
        batch, units = collated(
            resident.data.train, chosen, pad_id=resident.data.pad_id, device=resident.placement.device
        )
        resident.base.train(False)
        return resident.token_loss.lane_sums(resident.base, batch, units)

    def _open(self, variants: Sequence[dict[str, torch.Tensor]]) -> TrialRows:
        rows = self.resident.open_rows(self.recipe)
        for number, values in enumerate(variants):
            rows.join(number, values, scale=lora_scale(self.recipe))
        return rows

    def _close(self, rows: TrialRows) -> None:
        for number in list(rows.keys):
            rows.leave(number)

    def _shaken(self, seed: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return {name: value + 0.02 * torch.randn(value.shape, generator=draw) for name, value in self.values.items()}

    def _middle_rows(self, num_rows: int) -> np.ndarray:
        """Rows of the middle lengths, as many as asked; with few rows, some of them twice."""
        by_length = np.argsort(self.resident.data.train.lengths, kind="stable")
        first = max(0, (len(by_length) - num_rows) // 2)
        return np.resize(by_length[first : first + num_rows], num_rows)

    def _finish_on_device(self) -> None:
        if self.resident.placement.device.type == "cuda":
            torch.cuda.synchronize(self.resident.placement.device)
