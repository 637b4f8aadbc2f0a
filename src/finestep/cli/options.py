"""Options that several commands share: one name, one meaning, one help text, one group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA, MODEL, SEARCH = "Data", "Model and recipe", "Search"
QUALITY, MEMORY, COMMAND = "Quality", "Memory and speed", "Another trainer"
OUTPUT, TEXTS = "Output", "Texts written from columns"

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="Model folder or Hub name; with neither model nor data: the shipped example.", show_default=False
    ),
]
DataArgument = Annotated[
    str | None,
    typer.Argument(help="JSONL, JSON, CSV, Parquet or text; a folder of them, or a Hub name.", show_default=False),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=COLUMN,...",
        help="Which column is which, where the names do not tell: prompt=question,completion=answer.",
        rich_help_panel=DATA,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="How rows are laid out, if not as detected: alpaca, sharegpt, messages, prompt_completion, text or labels.",
        rich_help_panel=DATA,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="Write the prompt from columns: '{context}\\n\\n{question}'.",
        rich_help_panel=TEXTS,
    ),
]
Completion = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help="Write the answer from columns: '{answer}'.", rich_help_panel=TEXTS),
]
System = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help="The system text, with or without columns.", rich_help_panel=TEXTS),
]
EvalShare = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of the rows to validate on, e.g. 0.2. [default: a tenth, within 200 to 512 rows, at most a quarter]",
        rich_help_panel=DATA,
    ),
]
EvalData = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Validation rows of their own. [default: split off the data]", rich_help_panel=DATA
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="auto: the tokenizer's chat template; raw: prompt and answer joined as they are. [default: auto]",
        rich_help_panel=MODEL,
    ),
]
MaxRows = Annotated[
    int | None, typer.Option(metavar="N", help="Use at most this many rows, chosen by chance.", rich_help_panel=DATA)
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        metavar="TOKENS",
        help="Cut rows that are longer. [default: 1,024, or more where over 1 % would be cut and memory allows]",
        rich_help_panel=DATA,
    ),
]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Measure this too: exact_match, or a function of your own as module:function. May be repeated.",
        rich_help_panel=QUALITY,
    ),
]
GeneralText = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A text file: show how far the model moves from its base on it (what it forgets).",
        rich_help_panel=QUALITY,
    ),
]
MaxForgetting = Annotated[
    float | None,
    typer.Option(
        metavar="NATS",
        help="Choose no trial that ends further from its base than this KL a token, e.g. 0.1.",
        rich_help_panel=QUALITY,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the recipe, e.g. seed=1 or schedule.name=cosine. May be repeated.",
        rich_help_panel=MODEL,
    ),
]
UnsafePickle = Annotated[
    bool,
    typer.Option(
        "--unsafe-pickle",
        help="Also load weights that are not safetensors (loading them can run code).",
        rich_help_panel=MODEL,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python code that comes with the model.", rich_help_panel=MODEL),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.", rich_help_panel=MEMORY)]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="CPU threads for training. [default: measured]", rich_help_panel=MEMORY),
]
On = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Train on a Ray cluster: ray://auto (the one of this machine) or ray://HOST:6379.",
        rich_help_panel=MEMORY,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="With --on: at most so many workers. [default: one a GPU, else one a node]",
        rich_help_panel=MEMORY,
    ),
]
DevicesPerTrial = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Devices that train each trial together; with --device cpu that many processes. [default: 1]",
        rich_help_panel=MEMORY,
    ),
]
ShardingOption = Annotated[
    str,
    typer.Option(
        metavar="WHEN",
        help="Let each of these devices hold a part of the model: auto (where it does not fit on one), on, off.",
        rich_help_panel=MEMORY,
    ),
]
CheckSaved = Annotated[
    bool,
    typer.Option(
        help="At the end, load the saved model again and compare its loss with what was measured.",
        rich_help_panel=OUTPUT,
    ),
]


def use_language(name: str | None) -> str | None:
    """Say everything of this command in the language; the study's other processes inherit it."""
    import os

    from finestep.errors import BadInput
    from finestep.language.catalogue import LANGUAGES, VARIABLE

    if name is not None and name not in LANGUAGES:
        raise BadInput("`--lang` takes en or zh", value=name)
    if name is not None:
        os.environ[VARIABLE] = name
    return name


Language = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="en|zh",
        callback=use_language,
        help="Language of card, page and findings. [default: $FINESTEP_LANG, else English, and the browser's for the page]",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="The last line of standard output is the result as one JSON object.", rich_help_panel=OUTPUT
    ),
]
ReportTo = Annotated[
    str | None,
    typer.Option(
        "--report-to",
        metavar="NAMES",
        help="Write every trial to trackers too: tensorboard, wandb, mlflow, trackio, swanlab; several with commas.",
        rich_help_panel=OUTPUT,
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Serve the live page beside it, for this machine alone, and print its address.",
        rich_help_panel=OUTPUT,
    ),
]
