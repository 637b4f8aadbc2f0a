"""`finestep data`: what is in the data, as the model will see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finestep.cli import options as o

if TYPE_CHECKING:
    from finestep.ready import DataCard


def data(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help="JSONL, JSON, CSV, Parquet or text; a folder of them, or a Hub name.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Model whose tokenizer reads the data; `shipped` for the one in the package.",
            rich_help_panel=o.DATA,
        ),
    ],
    columns: o.Columns = None,
    data_format: o.Format = None,
    prompt: o.Prompt = None,
    completion: o.Completion = None,
    system: o.System = None,
    eval_data: o.EvalData = None,
    eval_share: o.EvalShare = None,
    template: o.Template = None,
    max_rows: o.MaxRows = None,
    max_length: o.MaxLength = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.", rich_help_panel=o.OUTPUT)] = False,
) -> None:
    """Show rows, tokens, lengths, labels, and one row with its mask."""
    import tempfile
    from pathlib import Path

    from finestep.cli.values import named_specs
    from finestep.executors.local import inspect_data
    from finestep.protocol import SessionRequest
    from finestep.recipe import Recipe

    named = named_specs(context.params)
    with tempfile.TemporaryDirectory() as folder:
        session = SessionRequest(model=named.model, data=named.data, recipe=Recipe(), study_dir=folder)
        card = inspect_data(session, folder=Path(folder))
    if as_json:
        typer.echo(card.model_dump_json())
    else:
        _print_card(card)


def _print_card(card: DataCard) -> None:
    from rich.table import Table
    from rich.text import Text

    from finestep.cli.terminal import open_console

    console = open_console()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, text in _rows(card):
        table.add_row(name, text)
    console.print(table)
    for note in card.notes:
        console.print(f"note: {note}", soft_wrap=True)
    sample = Text()
    for text, carries_loss in card.sample:
        sample.append(text, style="bold green" if carries_loss else "dim")
    console.print(
        "\none row; [bold green]what is trained[/] and [dim]what is only read[/]:"
        if console.is_terminal
        else "\none row; [[what is trained]] stands between brackets:",
        markup=console.is_terminal,
    )
    if not console.is_terminal:
        sample = Text("".join(f"[[{text}]]" if carries_loss else text for text, carries_loss in card.sample))
    console.print(sample, soft_wrap=True)


def _rows(card: DataCard) -> list[tuple[str, str]]:
    facts = card.facts
    longest = facts.length_max if card.longest is None else card.longest
    lengths = "  ".join(f"{name} {value}" for name, value in card.lengths.items())
    tokens = facts.num_tokens or 0
    trained = f", {(facts.num_trained_tokens or 0) / max(tokens, 1):.1%} of them carry loss"
    rows = [
        ("format", f"{facts.format} ({facts.task})"),
        ("rows", f"{facts.num_rows or 0:,} to train on, {facts.num_eval_rows or 0:,} to validate"),
        ("tokens", f"{tokens:,} to train on" + ("" if facts.task == "classification" else trained)),
        ("length", f"{lengths}  max {longest} tokens"),
        ("over-long", _over_long(card)),
        ("duplicates", f"{card.num_duplicates:,}"),
    ]
    if card.accuracy_error:
        points = 100 * card.accuracy_error
        rows.append(("accuracy", f"standard error of up to {points:.1f} points on these validation rows"))
    if card.labels:
        named = list(card.labels.items())
        shown = ", ".join(f"{name} {count}" for name, count in [*named[:3], *named[3:][-2:]])
        more = " (most and least frequent)" if len(named) > 5 else ""
        rows.append(("labels", f"{len(named)}: {shown}{more}"))
    return rows


def _over_long(card: DataCard) -> str:
    text = f"{card.num_cut:,} rows cut at {card.max_length} tokens, {card.num_left_out:,} left out"
    return text + (f", {card.num_continued:,} go on in further rows" if card.num_continued else "")
