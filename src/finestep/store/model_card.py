"""The README of a tuned model: what it was made from, how good it is, and the lines that load it; and `finestep.json` beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from finestep.disk import read_object
from finestep.plain_text import shortened
from finestep.saved_model import (
    ADAPTER_CONFIG,
    CLASSIFIER,
    FILE,
    PEFT_CLASSES,
    SavedModel,
    base_lines,
    has_own_base,
    load_lines,
)
from finestep.store.records import write_whole

README = "README.md"
MOST_LABELS = 40
METHOD_WORDS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA (a LoRA adapter on a base in 4 bits)"}
DATASET_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def write_card(folder: Path, saved: SavedModel, *, name: str) -> None:
    """Write README.md and finestep.json into a model's folder, in place of what a library has put there."""
    write_whole(folder / FILE, saved.model_dump_json(indent=1))
    adapter = _adapter(folder)
    found = adapter.get("target_modules") or saved.recipe.lora.target_modules
    layers = [found] if isinstance(found, str) else sorted(map(str, found)) if isinstance(found, list | tuple) else []
    text = model_card(
        saved,
        name=name,
        base=str(adapter.get("base_model_name_or_path") or saved.loading.base),
        has_own_base=has_own_base(folder),
        layers=layers,
    )
    write_whole(folder / README, text)


def model_card(saved: SavedModel, *, name: str, base: str, has_own_base: bool, layers: Sequence[str] = ()) -> str:
    """The README as Markdown with the Hub's front matter.

    Args:
        base: how the adapter names its base.
        has_own_base: a classifier's base stands beside its adapter.
        layers: names of the layers with an adapter.
    """
    lines = load_lines(saved, place=".", has_own_base=has_own_base)
    parts = [
        _front_matter(saved),
        f"# {_cell(name)}\n",
        _what(saved),
        _table(_made(saved, layers)),
        "## Figures\n",
        _table(_figures(saved)),
        _precision(saved),
        "## Load it\n",
        "In this folder, or with its path in place of the dot:\n",
        "```python\n" + "\n".join(lines) + "\n```\n",
    ]
    if saved.is_adapter:
        parts += ["## Its base\n", _base_words(saved, base, has_own_base=has_own_base)]
    return "\n".join(parts).encode("utf-8", "replace").decode("utf-8")


def _front_matter(saved: SavedModel) -> str:
    is_classifier = saved.loading.auto_class == CLASSIFIER
    values: dict[str, str | list[str]] = {
        "base_model": saved.loading.base,
        "library_name": "peft" if saved.is_adapter else "transformers",
        "pipeline_tag": "text-classification" if is_classifier else "text-generation",
        "datasets": [_dataset_name(saved.trained_on.data)],
        "tags": ["finestep", saved.method, *(["merged"] if saved.merged else [])],
    }
    rows = [
        f"{key}: {json.dumps(value)}"
        if isinstance(value, str)
        else f"{key}:\n" + "\n".join(f"- {json.dumps(each)}" for each in value)
        for key, value in values.items()
    ]
    return "---\n" + "\n".join(rows) + "\n---\n"


def _dataset_name(path: str) -> str:
    """A Hub name as it is; of a file its name without the ending, in the Hub's alphabet."""
    if DATASET_NAME.fullmatch(path) and "/" in path and not Path(path).suffix:
        return path
    return re.sub(r"[^\w.-]+", "-", Path(path.rstrip("/")).stem).strip("-.") or "data"


def _what(saved: SavedModel) -> str:
    kind = "classifier" if saved.loading.auto_class == CLASSIFIER else "language model"
    how = f"by {METHOD_WORDS[saved.method]}"
    what = "An adapter for a" if saved.is_adapter else "A"
    then = ", then merged into its base" if saved.merged else ""
    return f"{what} {kind}, trained {how} with finestep{then}.\n"


def _made(saved: SavedModel, layers: Sequence[str]) -> list[tuple[str, str]]:
    recipe = saved.recipe
    rows = [
        (
            "base",
            _code(saved.loading.base)
            + (f" at revision {_code(saved.loading.revision)}" if saved.loading.revision else ""),
        )
    ]
    counts = f", {saved.trained_on.num_rows:,} rows to train on" if saved.trained_on.num_rows else ""
    counts += f", {saved.trained_on.num_eval_rows:,} to validate" if saved.trained_on.num_eval_rows else ""
    rows.append(("data", _code(saved.trained_on.data) + counts))
    if saved.labels:
        shown = ", ".join(_code(label) for label in saved.labels[:MOST_LABELS])
        more = f" and {len(saved.labels) - MOST_LABELS} more" if len(saved.labels) > MOST_LABELS else ""
        rows.append((f"{len(saved.labels)} labels", shown + more))
    if saved.method != "full":
        where = f", on {_cell(', '.join(layers))}" if layers else ""
        rows.append(("adapter", f"rank {recipe.lora.rank}, alpha {recipe.lora.alpha:g}{where}"))
    return [
        *rows,
        ("learning rate", f"{recipe.learning_rate:.3g}, {recipe.schedule.name} schedule"),
        ("effective batch", str(recipe.effective_batch_size)),
        ("epochs", f"{recipe.num_epochs:g}"),
        *([("longest row", f"{saved.trained_on.max_length} tokens")] if saved.trained_on.max_length else []),
        ("seed", str(recipe.seed)),
    ]


def _figures(saved: SavedModel) -> list[tuple[str, str]]:
    unit = "nats a row" if saved.loading.auto_class == CLASSIFIER else "nats a token that carries loss"
    words = {"eval_loss": f"validation loss, {unit}", "base_eval_loss": "the same before training"}
    return [(_cell(words.get(name, name.replace("_", " "))), f"{value:.4g}") for name, value in saved.figures.items()]


def _precision(saved: SavedModel) -> str:
    where = (
        "weights in " + saved.loading.dtype + (", computed under bfloat16 autocast" if saved.loading.autocast else "")
    )
    whose = " They are the adapter's, before it was merged." if saved.merged else ""
    return f"Measured on the validation rows, {where}.{whose} In another precision they move a little.\n"


def _base_words(saved: SavedModel, base: str, *, has_own_base: bool) -> str:
    """Where the base must be, and what to do when it is elsewhere."""
    if has_own_base:
        text = (
            "The base stands beside the adapter, with the labels in its config. The adapter names it by its whole path."
        )
        return (
            f"{text} After moving the folder, put the new one into `base_model_name_or_path` of `{ADAPTER_CONFIG}`.\n"
        )
    if Path(base).is_absolute():
        text = f"The adapter names its base by its path, {_code(base)}, and needs it there."
    else:
        text = f"The adapter names its base, {_code(base)}, which is fetched from the Hub."
    text += f" For a base at another place, change `base_model_name_or_path` in `{ADAPTER_CONFIG}`"
    if saved.loading.auto_class not in PEFT_CLASSES or saved.labels:
        return text + ".\n"
    lines = base_lines(saved, place=".", base="PATH_OF_THE_BASE")
    return text + ", or name it:\n\n```python\n" + "\n".join(lines) + "\n```\n"


def _adapter(folder: Path) -> Mapping[str, object]:
    """What PEFT wrote about an adapter; empty for a whole model."""
    return read_object(folder / ADAPTER_CONFIG) or {}


def _table(rows: list[tuple[str, str]]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _cell(text: str) -> str:
    """Text that cannot end a cell of a table or become markup."""
    return re.sub(r"([|\\`*_<>\[\]#])", r"\\\1", shortened(text, 200))


def _code(text: str | None) -> str:
    return "`" + shortened(text or "", 300).replace("`", "'").replace("|", "/") + "`"
