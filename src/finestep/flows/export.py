"""Export: a recipe, with what is known of the run, as another framework's files."""

from __future__ import annotations

from pathlib import Path

from finestep.errors import BadInput
from finestep.export.exported import ExportContext, Exported
from finestep.export.registry import exporter
from finestep.recipe import Recipe
from finestep.rules.duration import num_steps
from finestep.store.recipe_file import read_recipe


def export_recipe(
    recipe: Path | Recipe, framework: str, *, model: str, data: str, num_rows: int | None = None
) -> Exported:
    """The files of `framework` for a recipe; `num_rows` (training rows) turns shares of the run into steps."""
    if num_rows is not None and num_rows < 1:
        raise BadInput("the number of training rows must be >= 1", value=num_rows)
    loaded = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    steps = num_steps(num_rows, epochs=loaded.num_epochs, batch=loaded.effective_batch_size) if num_rows else None
    return exporter(framework).write(loaded, ExportContext(model=model, data=data, num_steps=steps))


def count_rows(data: str) -> int | None:
    """Training rows of a data file after the validation split; None when `data` is no local file."""
    from finestep.study import DataSpec
    from finestep.survey.data_sample import data_facts

    return data_facts(DataSpec(path=data)).num_rows if Path(data).expanduser().exists() else None
