"""Rows from files: JSONL, JSON, CSV, Parquet, plain text, or a data set of the Hub; it knows nothing of what rows mean.

Every complaint names the file and the row. Nothing is skipped silently.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finestep.errors import BadInput, MissingDependency

Row = dict[str, Any]
SUFFIXES = {".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md"}
MAX_ROW_BYTES = 32 * 1024 * 1024


def read_rows(path: str, *, limit: int | None = None) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a file, of all files of a folder, or of a Hub data set.

    Raises:
        BadInput: the path does not exist, or a row cannot be read.
    """
    rows = _all_rows(path)
    for count, (number, row) in enumerate(rows):
        if limit is not None and count >= limit:
            return
        yield number, row


def data_files(path: str) -> list[Path]:
    """The files that `path` stands for, sorted; empty when it is a Hub name."""
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise BadInput("the folder holds no data file", value=path, next_step=f"known kinds: {_known()}")
        return files
    if place.exists():
        return [place]
    if place.suffix.lower() in SUFFIXES or path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise BadInput("no such data file", value=path, next_step="give a file, a folder or a Hub name (owner/name)")
    return []


def _all_rows(path: str) -> Iterator[tuple[int, Row]]:
    files = data_files(path)
    if not files:
        yield from _hub_rows(path)
    for file in files:
        yield from _file_rows(file)


def _file_rows(file: Path) -> Iterator[tuple[int, Row]]:
    readers = {
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
        ".txt": _text,
        ".md": _text,
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise BadInput("unknown kind of data file", value=file.name, next_step=f"known kinds: {_known()}")
    if file.stat().st_size == 0:
        raise BadInput("the data file is empty", value=str(file))
    try:
        yield from reader(file)
    except UnicodeDecodeError as error:
        raise BadInput("text must be UTF-8", value=f"byte {error.start}", place=str(file)) from None
    except (PermissionError, IsADirectoryError) as error:
        raise BadInput("the data file must be readable", value=type(error).__name__, place=str(file)) from None


def _known() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))


def _jsonl(file: Path) -> Iterator[tuple[int, Row]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _as_row(_parse_json(line, f"{file}:{number}"), f"{file}:{number}")


def _json(file: Path) -> Iterator[tuple[int, Row]]:
    text = file.read_text(encoding="utf-8-sig")
    tree = _parse_json(text, str(file)) if text.lstrip()[:1] in ("[", "{") else None
    if isinstance(tree, dict):
        lists = [value for value in tree.values() if isinstance(value, list)]
        tree = tree["data"] if isinstance(tree.get("data"), list) else lists[0] if len(lists) == 1 else None
    if not isinstance(tree, list):
        raise BadInput(
            "a .json data file must hold a list of objects",
            place=str(file),
            next_step="for one object a line, name the file .jsonl",
        )
    for number, row in enumerate(tree, start=1):
        yield number, _as_row(row, f"{file}, row {number}")


def _parse_json(text: str, place: str) -> Any:
    if len(text) > MAX_ROW_BYTES * 16:
        raise BadInput("the file is too large for .json; use .jsonl or .parquet", place=place)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"not valid JSON ({error.msg}, column {error.colno})", place=place) from None
    except (RecursionError, ValueError) as error:
        raise BadInput("not valid JSON", value=str(error)[:80], place=place) from None


def _as_row(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise BadInput("every row must be an object with named fields", value=type(value).__name__, place=place)
    return value


def _csv(file: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    with file.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        if not reader.fieldnames:
            raise BadInput("a CSV file needs a header line", place=str(file))
        try:
            for number, row in enumerate(reader, start=1):
                _check_width(row, reader.fieldnames, f"{file}:{reader.line_num}")
                yield number, row
        except csv.Error as error:
            raise BadInput(f"not valid CSV ({error})", place=f"{file}:{reader.line_num}") from None


def _check_width(row: Row, names: Any, place: str) -> None:
    if None in row or any(row[name] is None for name in names):
        raise BadInput(
            f"every CSV row needs {len(names)} fields ({', '.join(names)})",
            place=place,
            next_step="put text that holds commas between double quotes",
        )


def _parquet(file: Path) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingDependency("pyarrow", needed_for="reading Parquet", extra="train") from None
    try:
        table = parquet.ParquetFile(file)
    except (arrow.ArrowInvalid, OSError) as error:
        raise BadInput("not a valid Parquet file", value=str(error)[:120], place=str(file)) from None
    number = 0
    for batch in table.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _text(file: Path) -> Iterator[tuple[int, Row]]:
    """Documents are separated by blank lines; in a file without any, every line is one."""
    text = file.read_text(encoding="utf-8-sig")
    documents = re.split(r"\n\s*\n", text.strip())
    if len(documents) == 1:
        documents = text.strip().splitlines()
    for number, document in enumerate(documents, start=1):
        yield number, {"text": document.strip("\n")}


def _hub_rows(name: str) -> Iterator[tuple[int, Row]]:
    try:
        import datasets
    except ImportError:
        raise BadInput(
            f"no file or folder named `{name}`, and reading Hub data sets needs the package `datasets`",
            next_step="check the path, or run `pip install 'finestep[hub]'`",
        ) from None
    try:
        rows = datasets.load_dataset(name, split="train")
    except Exception as error:
        raise BadInput("the Hub data set could not be read", value=f"{name}: {str(error)[:160]}") from None
    for number, row in enumerate(rows, start=1):
        yield number, dict(row)
