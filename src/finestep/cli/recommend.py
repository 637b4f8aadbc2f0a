"""`finestep recommend`: a starting recipe without training; prints, and decides nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from finestep.study import DataSpec


def recommend(
    model: Annotated[str | None, typer.Argument(help="Model folder or Hub name.", show_default=False)] = None,
    data: Annotated[str | None, typer.Argument(help="Data file, folder or Hub name.", show_default=False)] = None,
    method: Annotated[str | None, typer.Option(help="full, lora, qlora, dora, rslora, pissa, p-tuning, ...")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="What to assume instead of this machine: h100, 24GB, 4xa100, cpu.")
    ] = None,
    params: Annotated[str | None, typer.Option(help="Size of a model that is not at hand, e.g. 7B.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, max=4096, help="LoRA rank that you want.")] = None,
    alpha: Annotated[float | None, typer.Option(min=0.01, help="LoRA alpha that you want.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=65536, help="Effective batch size that you want.")] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="Passes over the data that you want.")
    ] = None,
    retention: Annotated[bool, typer.Option("--retention", help="Prefer the rate that keeps other abilities.")] = False,
    explain: Annotated[str | None, typer.Option(help="Show where a number comes from, e.g. learning_rate.")] = None,
    review: Annotated[
        Path | None, typer.Option("--from", help="Another framework's config: say what to change in it.")
    ] = None,
    yaml: Annotated[Path | None, typer.Option(help="Write the recipe for `train` and `tune` to this file.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Which column is which, e.g. prompt=question,completion=answer.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recommend a starting recipe for a model, data and hardware, with intervals and sources."""
    from finestep.cli import recommend_view as view
    from finestep.flows.recommend import recommend as run
    from finestep.rules.compose import Ask

    if review is not None:
        from finestep.flows.review import review_config

        view.show_review(
            review_config(review, model=model, data=_spec(data, columns), hardware=gpu, params=params), as_json=json
        )
        return
    ask = Ask(rank=rank, alpha=alpha, batch=batch, num_epochs=epochs, retention=retention)
    answer = run(model, _spec(data, columns), method=method, hardware=gpu, params=params, ask=ask)
    if yaml is not None:
        view.write_yaml(answer, yaml)
    if json:
        view.show_json(answer)
    elif explain is not None:
        view.show_explanation(answer, explain)
    else:
        view.show(answer, model=model, data=data, written=yaml)


def _spec(data: str | None, columns: str | None) -> DataSpec | None:
    """The data as a specification with the user's columns, or None."""
    from finestep.errors import BadInput
    from finestep.study import DataSpec

    if data is None:
        return None
    pairs = [pair.partition("=") for pair in columns.split(",")] if columns else []
    if any(not (name and equals and column) for name, equals, column in pairs):
        raise BadInput(
            "`--columns` takes name=column pairs", value=columns, next_step="e.g. prompt=question,completion=answer"
        )
    return DataSpec(path=data, columns={name.strip(): column.strip() for name, _, column in pairs})
