"""`finestep diagnose`: what a training log says about its run, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finestep.cli import options as o


def diagnose(
    logs: Annotated[list[str], typer.Argument(help="Files, folders or globs of training logs, of any common trainer.")],
    method: Annotated[
        str | None,
        typer.Option(help="full, lora, qlora, prompt, p-tuning or prefix: a rate of 2e-2 is normal for p-tuning only."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What was trained: a folder, a name or a size such as 7B; with --method the rate is compared with the usual one.",
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(metavar="N", min=1, max=4096, help="LoRA rank of the run.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one self-contained page to this file.")] = None,
    language: o.Language = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Say in words what went wrong in a fine-tune.

    And what to change, from the training log of any common trainer.
    """
    from finestep.cli.log_report import print_json, print_result
    from finestep.flows.diagnose import diagnose_paths

    result = diagnose_paths(logs, method=method, model=model, rank=rank)
    if html is not None:
        from finestep.report.diagnosis_page import write_diagnosis_page

        write_diagnosis_page(result.reports, result.comparison, html)
    if json:
        print_json(result)
    else:
        print_result(result, html)
