"""How a probe looks on the terminal; it computes nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finestep.cli.words import size
from finestep.rules.memory_lines import CATEGORY_WORDS, peak_bytes, peak_parts

if TYPE_CHECKING:
    from finestep.flows.probe import MemoryAnswer
    from finestep.probe import MemoryCurve

GIB = 2**30


def show_memory(answer: MemoryAnswer, *, as_json: bool) -> None:
    """Memory by category for each setting of the levers, the largest micro-batch, and what each lever buys."""
    if as_json:
        typer.echo(json.dumps(memory_json(answer)))
        return
    out = Console(highlight=False)
    case, prediction = answer.prediction.case, answer.prediction
    where = answer.hardware.name or answer.hardware.device
    budget = f", {answer.budget_bytes / GIB:.1f} GiB of it usable" if answer.budget_bytes else ""
    out.print(
        f"[bold]{escape(f'{case.method} of {answer.model.name}')}[/bold], {size(prediction.num_parameters)} parameters "
        f"({size(prediction.num_trained)} trained), rows of {answer.length:,} tokens, {escape(where)}{budget}",
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


def memory_json(answer: MemoryAnswer) -> dict:
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


@contextlib.contextmanager
def progress(*, silent: bool) -> Iterator[Callable[[str], None]]:
    """A line that says what is being measured."""
    console = Console(stderr=True, highlight=False)
    if silent or not console.is_terminal:
        yield lambda text: None
        return
    with console.status("loading") as status:
        yield lambda text: status.update(escape(text))
