"""Export: a recipe, with the rows and what is known of the run, as files that another framework starts from."""

from __future__ import annotations

import math
from pathlib import Path

from finestep.errors import BadInput
from finestep.export.exported import ExportContext, Exported, micro_batch
from finestep.export.registry import exporter, framework_name
from finestep.export.rows import ExportData, Row
from finestep.facts import HardwareFacts
from finestep.recipe import Recipe
from finestep.store.recipe_file import read_recipe
from finestep.store.study_files import read_ready
from finestep.study import DataSpec
from finestep.survey.adapter_files import absolute_name
from finestep.survey.example import Example
from finestep.survey.shipped import model_path

LEAST_DEFAULT = 1024
"""The smallest default of the frameworks: a model that reads more than this is cut by none of them beyond its context."""


def export_recipe(
    recipe: Path | Recipe,
    framework: str,
    *,
    model: str,
    data: str | DataSpec,
    num_rows: int | None = None,
    hardware: HardwareFacts | str | None = None,
) -> Exported:
    """The files of `framework` for a recipe.

    Local data are split as finestep splits them, and written in the framework's own format; steps and warmup are counted from
    those rows.

    Args:
        num_rows: training rows, for data that are not here.
        hardware: the machine that will train; None = this one.
    """
    if num_rows is not None and num_rows < 1:
        raise BadInput("the number of training rows must be >= 1", value=num_rows)
    framework = framework_name(framework)
    loaded = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    loaded = _with_length(loaded, recipe, model_path(model))
    spec = data if isinstance(data, DataSpec) else DataSpec(path=data)
    place = model_path(model)
    rows = export_data(spec, place)
    counted = num_rows if rows is None else len(rows.train)
    context = ExportContext(
        model=absolute_name(place),
        data=spec.path,
        num_steps=None if counted is None else framework_steps(framework, loaded, counted),
        rows=rows,
        **_about_model(place),  # type: ignore[arg-type]
        **_about_machine(hardware),  # type: ignore[arg-type]
    )
    return exporter(framework).write(loaded, context)


def _with_length(recipe: Recipe, source: Path | Recipe, model: str) -> Recipe:
    """The recipe with the length at which its rows are cut, where it leaves that open: as its study did, or as the model must.

    Other frameworks have defaults of their own, which may lie beyond what the model can read.
    """
    if recipe.max_length is not None:
        return recipe
    ready = None if isinstance(source, Recipe) else read_ready(source.parent)
    length = ready.card.max_length if ready is not None else None
    if length is None:
        context = _context(model)
        length = context if context is not None and context <= LEAST_DEFAULT else None
    return recipe.changed(max_length=length)


def _context(model: str) -> int | None:
    """Tokens that a model can read; None where its files are not here or do not say."""
    from finestep.survey.model import model_facts

    try:
        return model_facts(model).shape.context_length
    except BadInput:
        return None


def framework_steps(framework: str, recipe: Recipe, num_rows: int) -> int:
    """Optimizer steps that the framework itself will count: the Trainer rounds each epoch up, litgpt rounds down.

    >>> framework_steps("trl", Recipe(effective_batch_size=32, micro_batch_size=4), 100)
    4
    """
    micro = micro_batch(recipe)
    batches = math.ceil(num_rows / (micro * recipe.num_devices))
    accumulation = recipe.accumulation_steps(micro)
    if framework == "litgpt":
        return max(1, int(recipe.num_epochs * batches / accumulation + 1e-9))
    return max(1, math.ceil(recipe.num_epochs * max(1, math.ceil(batches / accumulation)) - 1e-9))


def export_data(spec: DataSpec, model: str) -> ExportData | None:
    """The rows of local data; None when they are not here."""
    from finestep.survey.split import split_data

    if not Path(spec.path).expanduser().exists():
        return None
    split = split_data(spec)
    notes = list(split.notes)
    if any(turn.calls or turn.reasoning or row.tools for row in split.train for turn in row.turns):
        notes.append("tool calls and reasoning: only the contents of the messages are written")
    return ExportData(
        train=tuple(map(_row, split.train)),
        evaluation=tuple(map(_row, split.evaluation)),
        has_template=_has_template(Path(model).expanduser()),
        notes=tuple(notes),
    )


def _row(example: Example) -> Row:
    messages = tuple((turn.role, turn.content) for turn in example.turns)
    text = f"{example.text}\n{example.pair}" if example.pair else example.text
    return Row(messages, text, example.label)


def _has_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder has a chat template; a model that is not here is taken to have one."""
    if not folder.is_dir():
        return True
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    try:
        return '"chat_template"' in (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _about_model(model: str) -> dict[str, object]:
    from finestep.survey.model import model_config
    from finestep.survey.model_name import facts_from_name

    folder = Path(model).expanduser()
    if not folder.is_dir():
        named = facts_from_name(model)
        return {"family": named.family if named else None}
    family = (model_config(model) or {}).get("model_type")
    return {"is_local": True, "family": family, "is_own_model": facts_from_name(folder.name) is None}


def _about_machine(hardware: HardwareFacts | str | None) -> dict[str, object]:
    from finestep.survey.hardware import hardware_facts

    facts = hardware if isinstance(hardware, HardwareFacts) else hardware_facts(hardware)
    on_gpu = {True: "bf16", False: "fp16"}[facts.supports_bf16]
    return {"device": facts.device, "precision": on_gpu if facts.device == "cuda" else "fp32"}
