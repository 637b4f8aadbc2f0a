"""Rows from files: JSON lines, JSON, CSV, Parquet, Arrow, plain text, or a data set of the Hub; not what rows mean.

Every complaint names the file and the row. Nothing is skipped silently.
"""

from __future__ import annotations

import csv
import functools
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from finestep.errors import BadInput, MissingDependency
from finestep.survey.delimiters import dialect_of, named_columns
from finestep.survey.files import LINES, TABLES, check_kind, find_files
from finestep.survey.opening import encoding_note, kind_of, opened_text, other_encoding

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import RecordBatch

Row = dict[str, object]
Found = tuple[int, Callable[[], Row]]
"""A row's number and how to make it, so that a row that is not wanted is never made."""
MAX_ROW_BYTES = 32 * 1024 * 1024
MOST_JSON_CHARACTERS = 16 * MAX_ROW_BYTES
BATCH_ROWS, ROWS_AT_ONCE = 4096, 256
LINES_LOOKED_AT = 200


def read_rows(path: str, *, limit: int | None = None, validation: bool = False) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a file, of the files of a folder, or of a Hub data set.

    Args:
        validation: the rows of the folder's validation files instead.

    Raises:
        BadInput: the path does not exist, or a row cannot be read.
    """
    for count, (number, make) in enumerate(_found(path, validation)):
        if limit is not None and count >= limit:
            return
        yield number, make()


def sampled_rows(path: str, most: int, *, seed: int = 0) -> tuple[int, list[tuple[int, Row]]]:
    """(number of rows, at most `most` of them by chance, in their order); only chosen rows are parsed and held."""
    chance = random.Random(seed)
    held: list[tuple[int, int, Row]] = []
    total = 0
    for number, make in _found(path, False):
        if total < most:
            held.append((total, number, make()))
        elif (place := int(chance.random() * (total + 1))) < most:
            held[place] = (total, number, make())
        total += 1
    return total, [(number, row) for _, number, row in sorted(held, key=lambda one: one[0])]


def data_files(path: str) -> list[Path]:
    """All files that a study of `path` reads, to train and to validate; empty when it is a Hub name."""
    found = find_files(path)
    return [*found.train, *found.validation]


def source_notes(path: str) -> list[str]:
    """What to say about how the files were found and decoded."""
    found = find_files(path)
    notes = list(found.notes)
    for file in [*found.train, *found.validation]:
        if kind_of(file) in LINES | TABLES | {".json", ".txt"} and (note := encoding_note(file)):
            notes.append(note)
        if kind_of(file) in TABLES:
            notes += dialect_of(file).notes
    return notes


def _found(path: str, validation: bool) -> Iterator[Found]:
    files = find_files(path)
    if not files.train:
        yield from _hub_rows(path)
    for file in files.validation if validation else files.train:
        yield from _file_rows(file)


def _file_rows(file: Path) -> Iterator[Found]:
    kind = check_kind(file)
    if kind in LINES:
        reader = _jsonl
    elif kind in TABLES:
        reader = _csv
    else:
        reader = {".json": _json, ".parquet": _parquet, ".pq": _parquet, ".arrow": _arrow}.get(kind, _text)
    if file.stat().st_size == 0:
        raise BadInput("the data file is empty", value=str(file))
    try:
        yield from reader(file)
    except UnicodeDecodeError as error:
        raise other_encoding(error, file) from None
    except (PermissionError, IsADirectoryError) as error:
        raise BadInput("the data file must be readable", value=type(error).__name__, place=str(file)) from None


def _jsonl(file: Path) -> Iterator[Found]:
    with opened_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, functools.partial(_line_row, line, file, number)


def _line_row(line: str, file: Path, number: int) -> Row:
    place = f"{file}:{number}"
    is_list = line.strip() == "["
    value = None if is_list else _parse_json(line, place, "write one whole object a line, e.g. by `jq -c . FILE`")
    if is_list or isinstance(value, list):
        raise BadInput(
            "every row must be an object with named fields; this file holds a list",
            place=place,
            next_step=f"name it {file.name.partition('.')[0]}.json",
        )
    return _as_row(value, place)


def _json(file: Path) -> Iterator[Found]:
    """A list of objects, a mapping with one such list, a column a list, or one object a line after all."""
    with opened_text(file) as handle:
        text = handle.read(MOST_JSON_CHARACTERS + 1)
    if len(text) > MOST_JSON_CHARACTERS:
        raise BadInput("the file is too large for .json; use .jsonl or .parquet", place=str(file))
    if _is_one_a_line(text):
        yield from _jsonl(file)
        return
    tree = _parse_json(text, str(file)) if text.lstrip()[:1] in ("[", "{") else None
    rows = _list_in(tree)
    if rows is None:
        raise BadInput(
            "a .json data file must hold a list of objects",
            value=f"the names {', '.join(map(str, list(tree)[:6]))}" if isinstance(tree, dict) else type(tree).__name__,
            place=str(file),
            next_step="for one object a line, name the file .jsonl; for several lists, write each to a file of its own",
        )
    for number, row in enumerate(rows, start=1):
        yield number, functools.partial(_as_row, row, f"{file}, row {number}")


def _is_one_a_line(text: str) -> bool:
    lines = [line for line in text.lstrip()[:MAX_ROW_BYTES].split("\n", 2)[:2] if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines):
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except ValueError:
        return False


def _list_in(tree: object) -> list[object] | None:
    if not isinstance(tree, dict):
        return tree if isinstance(tree, list) else None
    if isinstance(data := tree.get("data"), list):
        return data
    columns = {name: list(column.values()) if isinstance(column, dict) else column for name, column in tree.items()}
    lists: list[list[object]] = [column for column in columns.values() if isinstance(column, list)]
    if len(lists) == len(columns) > 1 and len({len(column) for column in lists}) == 1 and _are_cells(lists):
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*lists, strict=True)]
    whole: list[list[object]] = [column for column in tree.values() if isinstance(column, list)]
    return whole[0] if len(whole) == 1 else None


def _are_cells(lists: list[list[object]]) -> bool:
    return all(not isinstance(cell, dict) for column in lists for cell in column[:50])


def _parse_json(text: str, place: str, next_step: str = "") -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        law = f"not valid JSON ({error.msg}, column {error.colno})"
        raise BadInput(law, place=place, next_step=next_step) from None
    except (RecursionError, ValueError) as error:
        raise BadInput("not valid JSON", value=str(error)[:80], place=place) from None


def _as_row(value: object, place: str) -> Row:
    if not isinstance(value, dict):
        raise BadInput("every row must be an object with named fields", value=type(value).__name__, place=place)
    return value


def _csv(file: Path) -> Iterator[Found]:
    csv.field_size_limit(MAX_ROW_BYTES)
    dialect = dialect_of(file)
    with opened_text(file, newline="") as handle:
        reader = csv.reader(handle, delimiter=dialect.delimiter)
        try:
            for _ in range(dialect.lines_before_header):
                next(reader)
            header = next((fields for fields in reader if fields), None)
            if not header:
                raise BadInput("a CSV file needs a header line", place=str(file))
            names, number = named_columns(header)[0], 0
            for fields in reader:
                if fields:
                    number += 1
                    yield number, functools.partial(_csv_row, names, fields, file, reader.line_num)
        except csv.Error as error:
            raise BadInput(f"not valid CSV ({error})", place=f"{file}:{reader.line_num}") from None


def _csv_row(names: list[str], fields: list[str], file: Path, line: int) -> Row:
    if len(fields) != len(names):
        raise BadInput(
            f"every CSV row needs {len(names)} fields ({', '.join(names)})",
            value=f"{len(fields)} fields",
            place=f"{file}:{line}",
            next_step="put text that holds the separator between double quotes",
        )
    return dict(zip(names, fields, strict=True))


def _parquet(file: Path) -> Iterator[Found]:
    arrow, _ = _pyarrow()
    import pyarrow.parquet as parquet

    try:
        table = parquet.ParquetFile(file, page_checksum_verification=True)
        yield from _batches(table.iter_batches(batch_size=BATCH_ROWS), file)
    except (arrow.ArrowException, OSError) as error:
        raise BadInput(
            "not a valid Parquet file, or one of its pages is damaged",
            value=str(error)[:120],
            place=str(file),
            next_step="fetch it again",
        ) from None


def _arrow(file: Path) -> Iterator[Found]:
    """As `datasets` saves them: a stream of record batches."""
    arrow, ipc = _pyarrow()
    try:
        with arrow.memory_map(str(file)) as source:
            try:
                batches = ipc.open_stream(source)
            except arrow.ArrowInvalid:
                whole = ipc.open_file(source)
                batches = (whole.get_batch(place) for place in range(whole.num_record_batches))
            yield from _batches(batches, file)
    except (arrow.ArrowException, OSError) as error:
        raise BadInput("not a valid Arrow file", value=str(error)[:120], place=str(file)) from None


def _batches(batches: Iterable[RecordBatch], file: Path) -> Iterator[Found]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            part = batch.slice(start, ROWS_AT_ONCE)
            rows: Callable[[], list[Row]] = functools.cache(functools.partial(_listed, part, file))
            for place in range(part.num_rows):
                number += 1
                yield number, functools.partial(_batch_row, rows, place)


def _listed(part: RecordBatch, file: Path) -> list[Row]:
    try:
        return list(part.to_pylist())
    except (UnicodeDecodeError, ValueError, OverflowError) as error:
        raise BadInput(
            "the rows cannot be read: one of the file's pages is damaged",
            value=str(error)[:80],
            place=str(file),
            next_step="fetch it again",
        ) from None


def _batch_row(rows: Callable[[], list[Row]], place: int) -> Row:
    return rows()[place]


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError:
        raise MissingDependency("pyarrow", needed_for="reading Parquet and Arrow", extra="train") from None
    return pyarrow, ipc


def _text(file: Path) -> Iterator[Found]:
    """Documents are separated by blank lines; in a file without any, every line is one."""
    with opened_text(file) as handle:
        text = handle.read()
    documents = re.split(r"\n\s*\n", text.strip())
    if len(documents) == 1:
        documents = text.strip().splitlines()
    _refuse_tables(documents, file)
    for number, document in enumerate(documents, start=1):
        yield number, functools.partial(dict, text=document.strip("\n"))


def _refuse_tables(documents: list[str], file: Path) -> None:
    """Lines of a table, or with labels in front, must not be learned as if they were prose."""
    lines = [line for document in documents[:LINES_LOOKED_AT] for line in document.splitlines()][:LINES_LOOKED_AT]
    tabs = {line.count("\t") for line in lines}
    if len(lines) > 1 and len(tabs) == 1 and 0 not in tabs:
        raise BadInput(
            f"every line has {tabs.pop() + 1} fields with tabs between: this is a table, not text",
            place=str(file),
            next_step=f"name it {file.stem}.tsv, with the names of the columns in the first line",
        )
    if lines and sum(line.startswith("__label__") for line in lines) > len(lines) / 2:
        raise BadInput(
            "lines begin with labels (`__label__...`, as for fastText): this is no text to write",
            place=str(file),
            next_step="write a .csv or .jsonl with the columns `text` and `label`",
        )


def _hub_rows(name: str) -> Iterator[Found]:
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
    for number in range(len(rows)):
        yield number + 1, functools.partial(_hub_row, rows, number)


def _hub_row(rows: Dataset, place: int) -> Row:
    return dict(rows[place])
