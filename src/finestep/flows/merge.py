"""Merge: an adapter and its base as one model in a new folder, made by a process that knows only transformers and PEFT."""

from __future__ import annotations

import json
from pathlib import Path

from finestep.disk import make_folder
from finestep.errors import BadInput
from finestep.executors.question import ask
from finestep.saved_model import ADAPTER_CONFIG, CONFIG, SavedModel, SavedRequest, read_saved
from finestep.study_layout import MODEL, SPEC

MODULE = "finestep.saved"


def merge(folder: Path, out: Path | None) -> dict[str, object]:
    """Merge an adapter into its base, into a new folder; where it is, and how far its logits are from the adapter's.

    Raises:
        BadInput: the folder holds no adapter that can be merged, or the new folder exists already.
    """
    target = (out or folder.with_name(folder.name + "-merged")).resolve()
    saved = _mergeable(folder)
    if target.exists():
        raise BadInput(
            "the merged model needs a new folder", value=str(target), next_step="give another one with --out"
        )
    make_folder(target.parent)
    answer = ask(MODULE, SavedRequest(purpose="merge", folder=str(folder.resolve()), out=str(target)))
    return {**answer, "base": saved.loading.base if saved else None}


def _mergeable(folder: Path) -> SavedModel | None:
    """What is known of the adapter in the folder."""
    if not folder.is_dir():
        raise BadInput("no such folder", value=str(folder), next_step="give the folder of an adapter")
    if not (folder / ADAPTER_CONFIG).is_file():
        raise _no_adapter(folder)
    saved = read_saved(folder)
    if saved is not None and saved.method == "qlora":
        raise BadInput(
            "an adapter that was trained on a base in 4 bits cannot be merged truly: the base in full precision is another model",
            value=str(folder),
            next_step="load the adapter as its README says, or train with --method lora to merge",
        )
    _check_base(folder)
    return saved


def _no_adapter(folder: Path) -> BadInput:
    if (folder / SPEC).is_file():
        return BadInput(
            "this is a study; `merge` takes the folder of an adapter",
            value=str(folder),
            next_step=f"give {folder / MODEL}",
        )
    if (folder / CONFIG).is_file():
        return BadInput("this is a whole model already; there is nothing to merge", value=str(folder))
    return BadInput(f"the folder of an adapter has an {ADAPTER_CONFIG}", value=str(folder))


def _check_base(folder: Path) -> None:
    """The base is there, and not quantised."""
    try:
        named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{ADAPTER_CONFIG} must name its base", place=str(folder)) from None
    base = Path(str(named)).expanduser()
    if base.is_absolute() and not base.is_dir():
        raise BadInput(
            "the base must be where the adapter says",
            value=str(base),
            place=f"{folder / ADAPTER_CONFIG}",
            next_step="put its place now into `base_model_name_or_path`",
        )
    try:
        config = json.loads((base / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if config.get("quantization_config"):
        raise BadInput(
            "an adapter cannot be merged into quantised weights",
            value=str(base),
            next_step="load the adapter on its base, or train one on the base in full precision",
        )
