"""How a recommendation looks on the terminal; it computes nothing."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finestep import wording
from finestep.cli.terminal import open_console
from finestep.disk import json_text
from finestep.errors import BadInput, did_you_mean
from finestep.estimate import Estimate
from finestep.flows.next_command import Asked, after_recommend
from finestep.knowledge.evidence import all_evidence, evidence
from finestep.rules.recommendation import Recommendation

MIB, GIB = 2**20, 2**30
WIDTH_FOR_SOURCES = 110
"""A narrower terminal shows the sources only with --explain and --json."""
LABELS = {
    "effective_batch_size": "effective batch",
    "retention_learning_rate": "retention-safe rate",
    "micro_batch_size": "micro-batch",
    "memory_bytes": "memory",
    "optimizer.head_lr_multiplier": "head rate factor",
    "optimizer.layerwise_decay": "layer-wise decay",
}
SMALL_NUMBERS = ("learning_rate", "retention_learning_rate")


def show(answer: Recommendation, asked: Asked) -> None:
    """The recipe as a table, the near recipes, what would change the answer, and the next command."""
    out = open_console(markup=True)
    out.print(f"[bold]{escape(_title(answer))}[/bold]")
    out.print(_recipe_table(answer, with_sources=out.width >= WIDTH_FOR_SOURCES))
    _near(out, answer)
    for heading, lines in (
        ("Assumed", answer.assumptions),
        ("Notes", answer.notes),
        ("What would change the answer most", [f"{w.action}: {w.effect}" for w in answer.what_ifs]),
    ):
        if lines:
            out.print(f"\n[bold]{heading}[/bold]")
            for line in lines:
                out.print(f"  - {escape(line)}", soft_wrap=True)
    out.print(
        f"\nWhere a number comes from: --explain learning_rate. Next: {escape(after_recommend(answer, asked))}",
        soft_wrap=True,
    )


def _title(answer: Recommendation) -> str:
    model, rows = answer.model, answer.data.num_rows if answer.data else None
    sized = model.num_parameters and model.source != "--params"
    size = f", {wording.count(model.num_parameters or 0)} parameters" if sized else ""
    data = f", {rows:,} training row{'s' * (rows > 1)}" if rows else ""
    where = f", {answer.hardware.name}" if answer.hardware else ""
    return f"{answer.method} of {model.name}{size}{data}{where}"


def _recipe_table(answer: Recommendation, *, with_sources: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for column in ("value", "80 % interval", "usual range"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("why")
    if with_sources:
        table.add_column("source", no_wrap=True, style="dim")
    for name, estimate in answer.estimates.items():
        cells = [
            LABELS.get(name, name.split(".")[-1]),
            _number(name, estimate.value),
            _span(name, estimate) if estimate.kind == "interval" else "",
            _span(name, estimate) if estimate.kind == "usual range" else "",
            escape(estimate.why),
        ]
        table.add_row(*cells, *([estimate.source] if with_sources else []))
    return table


def _span(name: str, estimate: Estimate) -> str:
    return f"{_number(name, estimate.low)} - {_number(name, estimate.high)}"


def _span_words(name: str, estimate: Estimate) -> str:
    """What low and high are, in words; only a calibrated interval is called one."""
    words = {
        "interval": f" (80 % interval {_span(name, estimate)})",
        "usual range": f" (usual range {_span(name, estimate)})",
    }
    return words.get(estimate.kind, "")


def _number(name: str, value: float) -> str:
    if name in SMALL_NUMBERS:
        return f"{value:.1e}"
    if name == "memory_bytes":
        return f"{value / GIB:.1f} GiB" if value >= GIB / 10 else f"{value / MIB:.0f} MiB"
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _near(out: Console, answer: Recommendation) -> None:
    if not answer.neighbours:
        return
    out.print("\n[bold]Nearest public recipes[/bold] (as published)")
    for row in answer.neighbours:
        batch = f", batch {row.effective_batch_size}" if row.effective_batch_size else ""
        kind = "best of a sweep" if row.measured else row.task
        out.print(
            f"  - {escape(row.model)} {row.method}, {kind}: {row.learning_rate:.1e}{batch}"
            f"  [dim]{escape(row.source_url)}[/dim]",
            soft_wrap=True,
        )


def show_explanation(answer: Recommendation, name: str) -> None:
    """The derivation of one number and the sources behind it."""
    out = open_console(markup=True)
    known = {full.split(".")[-1]: full for full in answer.estimates} | {full: full for full in answer.estimates}
    if name not in known:
        raise BadInput(
            f"no such number{did_you_mean(name, known)}",
            value=name,
            place="--explain",
            next_step="known: " + ", ".join(answer.estimates),
        )
    full = known[name]
    estimate = answer.estimates[full]
    out.print(f"[bold]{full}[/bold] = {_number(full, estimate.value)} {_span_words(full, estimate)}")
    out.print(f"  {escape(estimate.why)}", soft_wrap=True)
    sources = [estimate.source]
    if full in SMALL_NUMBERS:
        _derivation(out, answer)
        sources += [step.source for step in answer.derivation]
    _sources(out, sources)
    if full in SMALL_NUMBERS:
        _near(out, answer)


def _derivation(out: Console, answer: Recommendation) -> None:
    table = Table(box=None, pad_edge=False)
    for column, justify in (
        ("step", "left"),
        ("factor", "right"),
        ("doubt", "right"),
        ("why", "left"),
        ("source", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for index, step in enumerate(answer.derivation):
        factor = f"{step.factor:.2e}" if index == 0 else f"x{step.factor:.2f}"
        table.add_row(step.name, factor, f"x/ {step.doubt:.2f}", escape(step.why), step.source)
    out.print(table)
    center, sd = 10**answer.log10_center, 10**answer.log10_sd
    out.print(
        f"  centre {center:.2e}, one standard deviation x/ {sd:.2f}; doubts of the steps are correlated and do not add up"
    )


def _sources(out: Console, names: list[str]) -> None:
    out.print("\n[bold]Sources[/bold]")
    for name in dict.fromkeys(names):
        if name in all_evidence():
            row = evidence(name)
            text = f"{name}: {row.title}. {row.where}; {row.table} ({row.date})."
            text += f" Regime: {row.regime}. Confidence: {row.confidence}."
            out.print(f"  - {escape(text)}", soft_wrap=True)
        else:
            out.print(f"  - {escape(name)}")


def show_json(answer: Recommendation) -> None:
    """One JSON object on one line."""
    print(json_text(answer.model_dump(mode="json")))


def write_yaml(answer: Recommendation, path: Path) -> None:
    """The recipe as a file for `train` and `tune`, with each interval or usual range as a comment."""
    from finestep.store.recipe_file import write_recipe

    if answer.recipe is None:
        raise BadInput(
            "only full, lora and qlora can be written as a recipe",
            value=answer.method,
            place="--yaml",
            next_step="use --json for the numbers",
        )
    comments = {name: comment(name, e) for name, e in answer.estimates.items() if e.low != e.high}
    write_recipe(path, answer.recipe, comments=comments, header=f"Recommended by finestep for {answer.model.name}.")


def comment(name: str, estimate: Estimate) -> str:
    """Interval or usual range, and the reason, in one line."""
    return f"{_span_words(name, estimate).strip(' ()')}; {estimate.why} [{estimate.source}]"


def show_review(review: object, *, as_json: bool) -> None:
    """What would be changed in somebody's config, and why."""
    from finestep.flows.review import Review

    assert isinstance(review, Review)
    if as_json:
        print(json_text(review.model_dump(mode="json")))
        return
    out = open_console(markup=True)
    out.print(
        f"[bold]Review of {escape(review.place)}[/bold] ({escape(review.layout)}; {escape(review.subject)})",
        soft_wrap=True,
    )
    if review.read:
        out.print(f"[dim]read: {escape('; '.join(review.read))}[/dim]", soft_wrap=True)
    marks = {"change": "[yellow]change[/yellow]", "fine": "[green]fine[/green]"}
    for item in review.remarks:
        out.print(f"  {marks.get(item.verdict, item.verdict)} {escape(item.text)}", soft_wrap=True)
    for note in review.notes:
        out.print(f"  note {escape(note)}", soft_wrap=True)
