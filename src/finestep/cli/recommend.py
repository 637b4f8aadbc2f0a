"""`finestep recommend`: a starting recipe without training; prints, and decides nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finestep.cli import options as o

if TYPE_CHECKING:
    from finestep.flows.next_command import Asked
    from finestep.study import DataSpec

FIXED, ANSWER = "What you have fixed", "Answer"


def recommend(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Model folder or Hub name.", show_default=False)] = None,
    data: o.DataArgument = None,
    params: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Size of a model that is not at hand, e.g. 7B.", rich_help_panel=FIXED),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to assume instead of this machine: h100, 24GB, 4xa100, cpu.",
            rich_help_panel=FIXED,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="full, lora, qlora, dora, rslora, p-tuning, dpo, dpo-full, orpo, kto, ... [default: by model and memory]",
            rich_help_panel=FIXED,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=65536,
            help="Effective batch size: rows per optimizer step.",
            rich_help_panel=FIXED,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(metavar="N", min=0.01, max=1000, help="Passes over the data.", rich_help_panel=FIXED),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=4096, help="LoRA rank.", rich_help_panel=FIXED)
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(metavar="N", min=0.01, help="LoRA alpha.", rich_help_panel=FIXED)
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(metavar="N", min=0.0001, help="Beta of --method dpo, orpo or kto.", rich_help_panel=FIXED),
    ] = None,
    columns: o.Columns = None,
    data_format: o.Format = None,
    prompt: o.Prompt = None,
    completion: o.Completion = None,
    system: o.System = None,
    retention: Annotated[
        bool,
        typer.Option(
            "--retention", help="Prefer the rate that keeps other abilities of the model.", rich_help_panel=ANSWER
        ),
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Show where a number comes from, e.g. learning_rate.", rich_help_panel=ANSWER
        ),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Another tool's config or training script: say what to change in it.",
            rich_help_panel=ANSWER,
        ),
    ] = None,
    yaml: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the recipe for `train` and `tune` here.", rich_help_panel=ANSWER),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=ANSWER)] = False,
) -> None:
    """Recommend a starting recipe, with intervals and sources.

    For a model, data and hardware, from published recipes and measured laws; nothing is trained, and no torch is needed.
    """
    from finestep.cli import recommend_view as view
    from finestep.flows.recommend import recommend as run
    from finestep.rules.compose import Ask
    from finestep.survey.shipped import model_path

    place = model_path(model) if model else None
    texts = {"format": data_format, "prompt": prompt, "completion": completion, "system": system}
    named = _spec(data, columns, texts)
    if review is not None:
        from finestep.flows.review import review_config

        view.show_review(
            review_config(review, model=place, data=named, hardware=gpu, params=params, method=method), as_json=json
        )
        return
    ask = Ask(rank=rank, alpha=alpha, batch=batch, num_epochs=epochs, retention=retention, beta=beta)
    answer = run(place, named, method=method, hardware=gpu, params=params, ask=ask)
    if yaml is not None:
        view.write_yaml(answer, yaml)
    if json:
        view.show_json(answer)
    elif explain is not None:
        view.show_explanation(answer, explain)
    else:
        view.show(answer, _asked(context, model, data, yaml))


def _asked(context: typer.Context, model: str | None, data: str | None, written: Path | None) -> Asked:
    """What the user gave, for the command that goes on."""
    from finestep.flows.next_command import Asked

    reading = {
        "columns": "columns",
        "data_format": "format",
        "prompt": "prompt",
        "completion": "completion",
        "system": "system",
    }
    others = {name: name for name in ("params", "gpu", "method", "batch", "epochs", "rank", "alpha", "retention")}
    fixed = {"batch": "effective_batch_size", "rank": "lora.rank", "alpha": "lora.alpha", "retention": "learning_rate"}
    given = {name: value for name, value in context.params.items() if value not in (None, False)}
    shown = {name: "" if value is True else str(value) for name, value in given.items()}
    return Asked(
        model=model,
        data=data,
        reading={option: shown[name] for name, option in reading.items() if name in shown},
        fixed=tuple(field for name, field in fixed.items() if name in given),
        others={option: shown[name] for name, option in others.items() if name in shown},
        written=str(written) if written else None,
    )


def _spec(data: str | None, columns: str | None, texts: dict[str, str | None]) -> DataSpec | None:
    """The data as a specification with what the user says of its columns, or None."""
    from finestep.cli.values import checked, parse_columns
    from finestep.errors import BadInput
    from finestep.study import DataSpec

    if data is None:
        for name, value in {"columns": columns, **texts}.items():
            if value is not None:
                raise BadInput(f"`--{name}` says how data are read, and no data are named", value=value)
        return None
    return checked(DataSpec, "data", path=data, columns=parse_columns(columns), **texts)
