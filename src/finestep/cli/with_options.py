"""Options of `tune --with` and `train --with`: somebody's config, and how its trainer is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finestep.cli.options import COMMAND

CONFIG = "A config of another trainer"

With = Annotated[
    Path | None,
    typer.Option(
        "--with",
        metavar="FILE",
        help="Train by another trainer, with this config of its own (TRL, LLaMA-Factory, ms-swift, litgpt, Axolotl, ...).",
        rich_help_panel=CONFIG,
    ),
]
Trainer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whose config it is, where that cannot be told.", rich_help_panel=CONFIG),
]
Rows = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="FILE", help="Rows for `--with`, instead of those that it names.", rich_help_panel=CONFIG
    ),
]
Launcher = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="How it is started: 'accelerate launch train.py {config}'. [default: the trainer's own command]",
        rich_help_panel=CONFIG,
    ),
]
Python = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="The interpreter of the trainer's own environment.", rich_help_panel=CONFIG),
]
Parallel = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Trials of `--with` at the same time; they share out the GPUs.",
        rich_help_panel=CONFIG,
    ),
]
Guard = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME<=NUMBER",
        help="Choose no trial whose last evaluation breaks this: 'eval_kl<=0.5'. May be repeated.",
        rich_help_panel=CONFIG,
    ),
]
CheckLog = Annotated[
    bool,
    typer.Option(
        help="Stop when the log of `--command` says another learning rate than it was told.", rich_help_panel=COMMAND
    ),
]
OF_WITH = ("trainer", "with_data", "launcher", "python", "parallel", "guard")
"""Options that only `--with` takes."""
NOT_OF_WITH = (
    "recipe", "model", "data", "recipe_file", "setting", "unsafe_pickle", "trust_remote_code", "columns", "data_format", "prompt",
    "completion", "system", "template", "max_length", "tuned", "scaling", "metric", "general_text", "max_forgetting",
    "device", "threads", "pack", "command", "result", "rows", "check_saved", "check_log", "on_trouble",
)  # fmt: skip
"""Options that a config of its own decides, or that another trainer is not told."""
