"""How trials share the device: short timings of the real model, the laws of `rules/lanes.py`, and a look at the clock.

Trials share a pass only after `pass_clock.py` has proved, on this very model, that rows of a pack do not touch each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import joblib
import torch

from finestep.ready import SharePlan
from finestep.recipe import Recipe
from finestep.rules.lanes import LEAST_GAIN, choose_processes, choose_shape, fit_step_cost
from finestep.survey.hardware import hardware_facts
from finestep.train.memory import peak_memory_bytes, release_memory, unless_out_of_memory
from finestep.train.pass_clock import LONG_STEP_S, PassClock
from finestep.train.resident import Resident

LEAST_PADDING = 0.1
"""Below this share of padding, texts are not tried end to end."""
LEAST_GAIN_END_TO_END = 1.1
"""More than timings of three differ by on a busy machine."""


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
    clock, rows = PassClock(resident, recipe), _most_rows(recipe, row_limit)
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
    return int(1 + free // (2 * mine))


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
    if asked == 1:
        return SharePlan()
    if asked is None and most_lanes == 1:
        return SharePlan(
            why="one by one: a small budget learns more from trials that follow each other (`--pack 2` shares)"
        )
    if reason := resident.why_alone(recipe):
        return SharePlan(why=f"one by one: {reason}")
    plan = unless_out_of_memory(lambda: _measured(PassClock(resident, recipe), asked, most_lanes, row_limit))
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
    clock = PassClock(resident, recipe)
    share = clock.padding_share(rows)
    if share < LEAST_PADDING or resident.why_padded() is not None:
        return plan
    timed = [
        unless_out_of_memory(partial(clock.step_seconds, plan.num_lanes, rows, end_to_end=on)) for on in (False, True)
    ]
    padded, laid = timed
    if padded is None or laid is None or padded < LEAST_GAIN_END_TO_END * laid:
        return plan
    why = f"{share:.0%} of the tokens would be padding; measured {padded / laid:.2f}x faster without it"
    return plan.model_copy(update={"end_to_end": True, "end_to_end_why": why})


def _most_rows(recipe: Recipe, row_limit: int | None) -> int:
    return min(recipe.first_micro_batch(), row_limit or recipe.first_micro_batch())


def _measured(clock: PassClock, asked: int | None, most_lanes: int, row_limit: int | None) -> SharePlan:
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
