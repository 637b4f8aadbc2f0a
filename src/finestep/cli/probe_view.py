"""How a probe looks on the terminal; it computes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finestep.cli.terminal import open_console
from finestep.rules.ceiling import ceiling_words
from finestep.rules.memory_lines import CATEGORY_WORDS, peak_bytes, peak_parts
from finestep.wording import count, duration

if TYPE_CHECKING:
    from finestep.flows.probe import MemoryAnswer, ProbeReport
    from finestep.probe import Measured, MemoryCurve, NoiseAnswer

GIB = 2**30
BAR_WIDTH = 32


def show_memory(answer: MemoryAnswer, *, as_json: bool) -> None:
    """Memory by category for each setting of the levers, the largest micro-batch, and what each lever buys."""
    if as_json:
        typer.echo(json.dumps(memory_json(answer)))
        return
    out = open_console(markup=True)
    case, prediction = answer.prediction.case, answer.prediction
    where = answer.hardware.name or answer.hardware.device
    budget = f", {answer.budget_bytes / GIB:.1f} GiB of it usable" if answer.budget_bytes else ""
    out.print(
        f"[bold]{escape(f'{case.method} of {answer.model.name}')}[/bold], {count(prediction.num_parameters)} parameters "
        f"({count(prediction.num_trained)} trained), rows of {answer.length:,} tokens, {escape(where)}{budget}",
        soft_wrap=True,
    )
    out.print(_memory_table(answer))
    advice = answer.advice()
    if advice:
        out.print(f"What each lever buys: {advice}", soft_wrap=True)
    elif answer.budget_bytes is not None and not any(answer.rows(curve) for curve in prediction.curves):
        out.print("Not even one row fits: take shorter rows, `--method qlora` or a larger device", soft_wrap=True)
    for note in answer.notes:
        out.print(f"  - {escape(note)}", soft_wrap=True)


def _memory_table(answer: MemoryAnswer) -> Table:
    table = Table(box=None, pad_edge=False, title=None)
    table.add_column("GiB at the peak", no_wrap=True)
    curves = answer.prediction.curves
    for curve in curves:
        table.add_column(lever_name(curve), justify="right")
    parts = [peak_parts(curve, 1) for curve in curves]
    for name, words in CATEGORY_WORDS.items():
        if any(part[name] >= 0.0005 * GIB for part in parts):
            table.add_row(words, *[f"{part[name] / GIB:.2f}" for part in parts])
    table.add_row("one row, all in all", *[f"{peak_bytes(curve, 1) / GIB:.2f}" for curve in curves], style="bold")
    table.add_row("each further row", *[f"{(peak_bytes(c, 9) - peak_bytes(c, 1)) / 8 / GIB:.2f}" for c in curves])
    if answer.budget_bytes is not None:
        table.add_row("largest micro-batch", *[f"{answer.rows(curve):,}" for curve in curves], style="bold")
    return table


def lever_name(curve: MemoryCurve) -> str:
    """A setting of the levers in words."""
    lever = curve.lever
    names = ["checkpointing"] if lever.checkpointing else []
    names += ["chunked loss"] if lever.chunk_tokens else []
    return " + ".join(names) or "plain"


def memory_json(answer: MemoryAnswer) -> dict[str, object]:
    """The same as plain values, with bytes."""
    return {
        "model": answer.model.name,
        "method": answer.prediction.case.method,
        "length": answer.length,
        "num_parameters": answer.prediction.num_parameters,
        "num_trained": answer.prediction.num_trained,
        "usable_bytes": answer.budget_bytes,
        "settings": [
            {
                "checkpointing": curve.lever.checkpointing,
                "chunk_tokens": curve.lever.chunk_tokens,
                "largest_micro_batch": answer.rows(curve),
                "peak_bytes_one_row": round(peak_bytes(curve, 1)),
                "parts_one_row": {name: round(value) for name, value in peak_parts(curve, 1).items()},
                "lines": [line.model_dump() for line in curve.lines],
            }
            for curve in answer.prediction.curves
        ],
        "advice": answer.advice(),
        "notes": list(answer.notes),
        "elapsed_s": answer.prediction.elapsed_s,
    }


def show_report(report: ProbeReport, *, as_json: bool) -> None:
    """One table and the speed over the micro-batch as bars."""
    if as_json:
        typer.echo(json.dumps(report_json(report)))
        return
    out = open_console(markup=True)
    found = report.measured
    again = " (measured before; --again measures anew)" if report.was_cached else f" in {duration(found.elapsed_s)}"
    threads = f"{found.machine.num_threads} thread" + ("" if found.machine.num_threads == 1 else "s")
    where = found.machine.device_name or f"{found.machine.device}, {threads}"
    out.print(
        f"[bold]Probe[/bold] of {report.recipe.method} on {escape(where)}, {found.machine.dtype}{again}", soft_wrap=True
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, words in _report_rows(report):
        table.add_row(name, escape(words))
    out.print(table)
    _bars(out, found, report.micro_batch)
    for note in found.notes:
        out.print(f"  - {escape(note)}", soft_wrap=True)


def _report_rows(report: ProbeReport) -> list[tuple[str, str]]:
    found = report.measured
    rows = [
        ("largest micro-batch", _largest(found)),
        ("use micro-batch", f"{report.micro_batch} rows: {_best_rate(report):,.0f} tokens a second"),
    ]
    if report.sharing:
        rows.append(("shared pass", report.sharing.why))
    if report.crew.words:
        rows.append(("processes", report.crew.words))
    rows += [(name, noise.words) for name, noise in _noises(found)]
    if report.ceiling:
        rows.append(("learning-rate ceiling", ceiling_words(report.ceiling)))
    rows.append(("one full run", duration(report.run_s) + _cost(report.run_price)))
    rows.append((f"a study of {report.full_runs:g} runs", duration(report.study_s) + _cost(report.study_price)))
    return rows


def _noises(found: Measured) -> list[tuple[str, NoiseAnswer]]:
    named = (("gradient noise scale", found.noise), ("  in Adam's metric", found.noise_adam))
    return [(name, noise) for name, noise in named if noise]


def _largest(found: Measured) -> str:
    if found.memory.largest_micro_batch is None:
        return "unknown: the memory of this device could not be read"
    curve = next(curve for curve in found.memory.curves if curve.lever == found.memory.lever)
    how = {"prediction": "predicted", "tried": "tried on the longest rows"}.get(found.memory.limit_source, "assumed")
    with_lever = "" if lever_name(curve) == "plain" else f" with {lever_name(curve)}"
    one = f"{peak_bytes(curve, 1) / GIB:.2f} GiB for one row of {curve.length:,} tokens"
    return f"{found.memory.largest_micro_batch:,} rows{with_lever} ({how}; {one})"


def _best_rate(report: ProbeReport) -> float:
    points = [point for point in report.measured.speed.rates if point.micro_batch <= report.micro_batch]
    return (points or list(report.measured.speed.rates))[-1].tokens_per_s


def _cost(price: float | None) -> str:
    return "" if price is None else f", costs {price:,.2f}" if price >= 1 else f", costs {price:.2g}"


def _bars(out: Console, found: Measured, used: int) -> None:
    """Tokens per second over the micro-batch."""
    best = max(point.tokens_per_s for point in found.speed.rates)
    out.print("\ntokens per second")
    for point in found.speed.rates:
        bar = "█" * max(1, round(BAR_WIDTH * point.tokens_per_s / best))
        mark = "  <- knee" if point.micro_batch == found.speed.knee else ""
        out.print(f"{point.micro_batch:>5} rows {bar:<{BAR_WIDTH}} {point.tokens_per_s:>9,.0f}{mark}", markup=False)


def report_json(report: ProbeReport) -> dict[str, object]:
    """The same as plain values."""
    return {
        "measured": report.measured.model_dump(),
        "micro_batch": report.micro_batch,
        "packing": dataclasses.asdict(report.sharing) if report.sharing else None,
        "processes": report.crew.processes,
        "run_s": report.run_s,
        "study_s": report.study_s,
        "full_runs": report.full_runs,
        "run_price": report.run_price,
        "study_price": report.study_price,
        "was_cached": report.was_cached,
    }


@contextlib.contextmanager
def progress(*, silent: bool) -> Iterator[Callable[[str], None]]:
    """A line that says what is being measured."""
    console = open_console(stderr=True)
    if silent or not console.is_terminal:
        yield lambda text: None
        return
    with console.status("loading") as status:
        yield lambda text: status.update(escape(text))
