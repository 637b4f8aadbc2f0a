"""The files of a PEFT adapter: which base it names, and where that base is found when the folder has moved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from finestep.disk import write_whole, writing
from finestep.errors import BadInput
from finestep.survey.weights import ADAPTER_CONFIG

COPIED_BYTES = 500_000_000
"""Files up to this size are copied, so that what damages one copy leaves the other whole."""

BASE = "base"
"""Folder beside the adapter of a classifier: the base's config with the labels, and links to its weights."""


def adapter_folder(model: str) -> Path | None:
    """The folder when `model` names that of a PEFT adapter, else None."""
    folder = Path(model).expanduser()
    return folder if (folder / ADAPTER_CONFIG).is_file() else None


def base_of(model: str) -> str:
    """The base of an adapter's folder; any other model is its own base.

    Raises:
        BadInput: the adapter names no base, or one that is not there any more.
    """
    folder = adapter_folder(model)
    if folder is None:
        return model
    if (folder / BASE / "config.json").is_file():
        return str(folder / BASE)
    name = str(read_adapter_config(folder)["base_model_name_or_path"])
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise BadInput(
            "the adapter's base is not where the adapter says",
            value=name,
            place=str(folder / ADAPTER_CONFIG),
            next_step="write its folder or Hub name into `base_model_name_or_path`",
        )
    return name


def read_adapter_config(folder: Path) -> dict[str, object]:
    """The parsed adapter_config.json.

    Raises:
        BadInput: it cannot be read, or names no base.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("the adapter's config cannot be read", value=type(error).__name__, place=str(path)) from None
    if not isinstance(config, dict) or not config.get("base_model_name_or_path"):
        raise BadInput(
            "an adapter must name its base",
            place=str(path),
            next_step="write the base's folder or Hub name into `base_model_name_or_path`",
        )
    return config


def point_at_own_base(folder: Path, place: Path | None = None) -> None:
    """Let a classifier's adapter name the base that stands beside it.

    Args:
        place: where the folder will stand; None: where it is now.
    """
    if (folder / BASE).is_dir() and (folder / ADAPTER_CONFIG).is_file():
        write_base_name(folder, str((place or folder).resolve() / BASE))


def write_base_name(folder: Path, name: str, *, revision: str | None = None) -> None:
    """Change the name of the base, in a new file: the old one may be linked from another folder."""
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"], config["revision"] = name, revision
    write_whole(path, json.dumps(config, indent=2, sort_keys=True))


def absolute_name(model: str) -> str:
    """A local model by its absolute path, which holds in any working directory; a Hub name as it is."""
    place = Path(model).expanduser()
    return str(place.resolve()) if place.is_dir() else model


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link where the file system has them, else a copy."""
    real = Path(source).resolve()
    try:
        os.link(real, target)
    except OSError:
        copy_file(real, target)


def copy_file(source: str | Path, target: str | Path) -> None:
    """A copy with its times; a full disk is told as such."""
    with writing(target, needed_bytes=Path(source).stat().st_size):
        shutil.copy2(source, target)


def own_copy(source: str | Path, target: str | Path) -> None:
    """A copy of a small file, a hard link to a large one: two names of one file would share its damage, and a copy takes room."""
    if Path(source).stat().st_size <= COPIED_BYTES:
        copy_file(source, target)
    else:
        link_or_copy(source, target)
