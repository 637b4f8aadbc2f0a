"""Which files a path stands for: one file, or a folder's training and validation files; it never opens them for rows.

Test files are never trained on. What a folder holds besides is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from finestep.errors import BadInput
from finestep.survey.opening import COMPRESSIONS, UNPACK_FIRST, kind_of

LINES = {".jsonl", ".ndjson", ".jsonlines", ".jl"}
TABLES = {".csv", ".tsv", ".tab"}
COLUMNAR = {".parquet", ".pq", ".arrow"}
TEXTS = {".txt", ".text", ".md"}
SUFFIXES = LINES | TABLES | COLUMNAR | TEXTS | {".json"}
SAVE_FIRST = {".xlsx", ".xls", ".ods", ".numbers"}
METADATA = {
    "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "metadata.json",
    "package.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "indices.arrow",
}  # fmt: skip
PAPERS = {
    "readme",
    "license",
    "licence",
    "changelog",
    "citation",
    "notice",
    "contributing",
    "requirements",
    "datasheet",
}
SPLITS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "heldout", "holdout"),
}
SHOWN = 4


@dataclass(frozen=True)
class DataFiles:
    """The files to train on, those to validate on (empty: split rows off), and what to say about the rest."""

    train: list[Path]
    validation: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_files(path: str) -> DataFiles:
    """The files that `path` stands for; none when it is a Hub name.

    Raises:
        BadInput: there is no such file, it is of a kind that cannot be read, or the folder holds no data.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return _of_folder(place)
    if place.is_file():
        return DataFiles([place])
    if place.exists():
        raise BadInput(
            "the data must be an ordinary file, which can be read twice",
            value="a pipe or device",
            place=path,
            next_step="write it to a file first",
        )
    if kind_of(place) in SUFFIXES or path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise BadInput("no such data file", value=path, next_step="give a file, a folder or a Hub name (owner/name)")
    return DataFiles([])


def known_kinds() -> str:
    """The kinds of files that can be read, for messages."""
    return (
        ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))
        + ", each also as "
        + ", ".join(sorted(COMPRESSIONS))
    )


def check_kind(file: Path) -> str:
    """The kind of a data file, by its name.

    Raises:
        BadInput: it is not a kind that can be read; the error says what to do.
    """
    kind, last = kind_of(file), file.suffix.lower()
    if kind in SUFFIXES:
        return kind
    next_step = f"known kinds: {known_kinds()}"
    if last in SAVE_FIRST:
        next_step = "save the sheet as CSV (UTF-8)"
    elif last in UNPACK_FIRST:
        next_step = f"unpack it first: {UNPACK_FIRST[last]} {file.name}"
    raise BadInput("unknown kind of data file", value=file.name, next_step=next_step)


def split_of(file: Path, folder: Path) -> str | None:
    """`train`, `validation` or `test` by the name of the file, or of the nearest folder that says; None when none does.

    >>> split_of(Path("d/data/test-00000-of-00001.parquet"), Path("d")), split_of(Path("d/latest.csv"), Path("d"))
    ('test', None)
    """
    inside = file.relative_to(folder)
    for part in (inside.name.partition(".")[0], *reversed(inside.parts[:-1])):
        words = [word for word in re.split(r"[^a-z]+", part.lower()) if word]
        for split, names in SPLITS.items():
            if any(word in names for word in words):
                return split
    return None


def _of_folder(folder: Path) -> DataFiles:
    everything = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file, folder)]
    data = [file for file in everything if _is_data(file)]
    tables = [file for file in data if kind_of(file) not in TEXTS]
    data = tables or data
    by_split: dict[str | None, list[Path]] = {}
    for file in data:
        by_split.setdefault(split_of(file, folder), []).append(file)
    train = by_split.get("train") or by_split.get(None) or []
    if not train:
        held = [file for files in by_split.values() for file in files]
        what = (
            "the folder holds no file to train on, only validation or test" if held else "the folder holds no data file"
        )
        next_step = "name one file itself" if held else f"known kinds: {known_kinds()}"
        raise BadInput(what, value=str(folder), next_step=next_step)
    validation = by_split.get("validation", [])
    rest = [file for file in everything if file not in train and file not in validation]
    notes = [f"the rows of {len(train)} files are trained on: {_names(train, folder)}"] if len(train) > 1 else []
    notes += [f"`{_names(validation, folder)}` is for validation"] if validation else []
    test = [file for file in rest if file in by_split.get("test", [])]
    notes += [f"`{_names(test, folder)}` is not used: test rows are never trained on"] if test else []
    ignored = [file for file in rest if file not in test]
    notes += [f"not data, or not of a named split, and not used: {_names(ignored, folder)}"] if ignored else []
    return DataFiles(train, validation, notes)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) or part == "cache" for part in file.relative_to(folder).parts)


def _is_data(file: Path) -> bool:
    is_paper = file.name.partition(".")[0].lower() in PAPERS and kind_of(file) in TEXTS
    return (
        kind_of(file) in SUFFIXES and not is_paper and file.name not in METADATA and not file.name.startswith("cache-")
    )


def _names(files: list[Path], folder: Path) -> str:
    names = [str(file.relative_to(folder)) for file in files]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
