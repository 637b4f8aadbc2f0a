"""Where a framework's config names its rows, and what it must say so that all trials train and validate on the same two files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from finestep.trainers.framework import Framework
from finestep.trainers.plan import value_at

Tree = Mapping[str, object]


@dataclass(frozen=True)
class Rows:
    """The rows that a file names.

    Attributes:
        files: local files of rows, each to be split; empty when the rows are not here.
        has_evaluation: the file names validation rows, or a share, itself.
        settings: from the folder with the two files of each, what the config must say, by dotted name.
        train, evaluation: how the two files are called; `{}` is the number of the source file.
        extra: further files of that folder, from its path.
        as_list: the framework reads one JSON list, not a JSON object a line.
        note: what to say of rows that are not split here.
    """

    files: tuple[Path, ...] = ()
    has_evaluation: bool = False
    settings: Callable[[Path], Mapping[str, object]] = field(default=lambda folder: {})
    train: str = "train.jsonl"
    evaluation: str = "eval.jsonl"
    extra: Callable[[Path], dict[str, str]] = field(default=lambda folder: {})
    as_list: bool = False
    note: str = ""


def rows_of(framework: Framework, tree: Tree, base: Path) -> Rows:
    """The rows that a config names.

    Args:
        base: the folder that its relative paths begin in.
    """
    stated = [path for path in framework.validation.named_rows if value_at(tree, path) not in (None, 0, 0.0, [], "")]
    if stated and framework.name != "hf":
        return Rows(has_evaluation=True)
    return _READERS[framework.name](tree, base)


def files_for(rows: Rows, folder: Path, index: int = 0) -> tuple[Path, Path]:
    """(training file, validation file) of one source."""
    return folder / rows.train.format(index), folder / rows.evaluation.format(index)


def _local(value: object, base: Path) -> Path | None:
    """A file that is here, or None."""
    if not isinstance(value, str) or not value:
        return None
    path = Path(value).expanduser()
    path = path if path.is_absolute() else base / path
    return path if path.is_file() else None


def _trl(tree: Tree, base: Path) -> Rows:
    """A folder with `train` and `test` files is what `dataset_name` takes; a mixture has no validation file of its own."""
    mixture, name = tree.get("datasets"), tree.get("dataset_name")
    files: tuple[Path, ...] = ()
    if isinstance(mixture, list) and len(mixture) == 1 and isinstance(mixture[0], Mapping):
        stated = mixture[0].get("data_files")
        stated = next(iter(stated.values()), None) if isinstance(stated, Mapping) else stated
        stated = stated[0] if isinstance(stated, list) and len(stated) == 1 else stated
        files = tuple(filter(None, [_local(stated, base)]))
    elif isinstance(name, str) and (base / name).expanduser().is_dir():
        folder = (base / name).expanduser()
        if any(folder.glob(f"*{tree.get('dataset_test_split', 'test')}*")):
            return Rows(has_evaluation=True)
        found = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".jsonl", ".csv", ".parquet")]
        files = tuple(found[:1]) if len(found) == 1 else ()

    def settings(folder: Path) -> dict[str, object]:
        own: dict[str, object] = {"dataset_name": str(folder)}
        own |= {"datasets": []} if "datasets" in tree else {}
        own |= {key: None for key in ("dataset_config", "test_split_size") if tree.get(key) is not None}
        stated = {"dataset_train_split": "train", "dataset_test_split": "test"}
        return own | {key: value for key, value in stated.items() if key in tree}

    named = f"`{name}` must have a split called `{tree.get('dataset_test_split', 'test')}` to validate on"
    return Rows(files, settings=settings, evaluation="test.jsonl", note=named if not files else "")


def _llama_factory(tree: Tree, base: Path) -> Rows:
    """Each data set's entry in `dataset_info.json` is copied, once for the rows to train on and once for those held out."""
    names = [one.strip() for one in str(tree.get("dataset") or "").split(",") if one.strip()]
    place = base / str(tree.get("dataset_dir") or "data")
    try:
        info = json.loads((place / "dataset_info.json").read_text(encoding="utf-8"))
        entries = [info[name] for name in names]
        files = [_local(entry.get("file_name"), place) for entry in entries]
    except (OSError, ValueError, KeyError, AttributeError):
        return Rows(note="`dataset_info.json` does not name local rows")
    if not files or any(path is None for path in files):
        return Rows(note="its rows are not local files")

    def settings(folder: Path) -> dict[str, object]:
        return {
            "dataset": ",".join(names),
            "eval_dataset": ",".join(f"{name}_held_out" for name in names),
            "dataset_dir": str(folder),
            **({} if tree.get("media_dir") else {"media_dir": str(place)} if _has_media(entries) else {}),
        }

    def extra(folder: Path) -> dict[str, str]:
        own: dict[str, object] = {}
        for index, (name, entry) in enumerate(zip(names, entries, strict=True)):
            train, held_out = f"train_{index}.jsonl", f"eval_{index}.jsonl"
            own |= {name: {**entry, "file_name": train}, f"{name}_held_out": {**entry, "file_name": held_out}}
        return {"dataset_info.json": json.dumps(own, indent=2) + "\n"}

    return Rows(tuple(path for path in files if path), False, settings, "train_{}.jsonl", "eval_{}.jsonl", extra)


def _has_media(entries: Sequence[Mapping[str, object]]) -> bool:
    named = [columns for entry in entries if isinstance(columns := entry.get("columns"), dict)]
    return any(kind in columns for columns in named for kind in ("images", "videos", "audios"))


def _swift(tree: Tree, base: Path) -> Rows:
    names = tree.get("dataset")
    names = [names] if isinstance(names, str) else names if isinstance(names, list) else []
    files = [_local(name, base) for name in names]
    if not files or any(path is None for path in files):
        return Rows(note="its rows are not local files")

    def settings(folder: Path) -> dict[str, object]:
        return {
            "dataset": [str(folder / f"train_{index}.jsonl") for index in range(len(files))],
            "val_dataset": [str(folder / f"eval_{index}.jsonl") for index in range(len(files))],
            "split_dataset_ratio": 0.0,
        }

    return Rows(tuple(path for path in files if path), False, settings, "train_{}.jsonl", "eval_{}.jsonl")


def _litgpt(tree: Tree, base: Path) -> Rows:
    """Its JSON data module takes a folder with `train.json` and `val.json`; the others split by a seed of their own."""
    data = tree.get("data")
    stated = value_at(tree, ("data", "init_args", "json_path"))
    if not str(value_at(tree, ("data", "class_path")) or data or "").endswith("JSON"):
        return Rows(has_evaluation=True)
    if isinstance(stated, str) and (base / stated).expanduser().is_dir():
        return Rows(has_evaluation=True)
    file = _local(stated, base)

    def settings(folder: Path) -> dict[str, object]:
        return {"data.init_args.json_path": str(folder)}

    return Rows((file,) if file else (), False, settings, "train.json", "val.json", as_list=True)


def _axolotl(tree: Tree, base: Path) -> Rows:
    sets = tree.get("datasets")
    sets = [one for one in sets if isinstance(one, Mapping)] if isinstance(sets, list) else []
    files = [_local(one.get("path"), base) for one in sets]
    if not files or any(path is None for path in files):
        return Rows(note="its rows are not local files")

    def settings(folder: Path) -> dict[str, object]:
        own: dict[str, object] = {
            f"datasets.{index}.path": str(folder / f"train_{index}.jsonl") for index in range(len(sets))
        }
        held_out = [
            {**one, "path": str(folder / f"eval_{index}.jsonl"), "ds_type": "json", "split": "train"}
            for index, one in enumerate(sets)
        ]
        own |= {f"datasets.{index}.ds_type": "json" for index in range(len(sets))}
        return own | {"test_datasets": held_out, "val_set_size": 0.0}

    return Rows(tuple(path for path in files if path), False, settings, "train_{}.jsonl", "eval_{}.jsonl")


def _unsloth(tree: Tree, base: Path) -> Rows:
    return Rows(has_evaluation=True, note="rows: as the file names them")


PAIRS = (
    ("train_file", "validation_file"),
    ("train_file", "eval_file"),
    ("train_data", "eval_data"),
    ("train_path", "eval_path"),
    ("train_data_path", "eval_data_path"),
    ("data_path", "eval_data_path"),
    ("dataset", "eval_dataset"),
)
"""How scripts call their training rows and their validation rows."""


def _pair(train: str, evaluation: str, folder: Path) -> dict[str, object]:
    return {train: str(folder / "train.jsonl"), evaluation: str(folder / "eval.jsonl")}


def _script(tree: Tree, base: Path) -> Rows:
    """Only a pair of names that the file itself knows can be used: what a script takes besides is its own affair."""
    for train, evaluation in PAIRS:
        if train in tree and evaluation in tree:
            if tree.get(evaluation):
                return Rows(has_evaluation=True)
            file = _local(tree.get(train), base)
            if file is not None:
                return Rows((file,), settings=partial(_pair, train, evaluation))
    return Rows(has_evaluation=True, note="the script must hold rows out by itself: its file names none")


_READERS: dict[str, Callable[[Tree, Path], Rows]] = {
    "hf": _script,
    "trl": _trl,
    "llamafactory": _llama_factory,
    "ms-swift": _swift,
    "litgpt": _litgpt,
    "axolotl": _axolotl,
    "unsloth": _unsloth,
}
