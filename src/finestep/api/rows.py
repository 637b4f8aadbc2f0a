"""Data that a program holds in memory, as a file that a study can name and find again; it does not say what rows mean."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path

from finestep.disk import write_whole
from finestep.errors import BadInput
from finestep.store.probe_cache import cache_folder

Rows = str | Path | Mapping[str, object] | Iterable[Mapping[str, object]]
"""A path or Hub name; a list of rows; a column a list; a DataFrame of pandas; a `Dataset` of `datasets`."""
NEXT_STEP = "give a path, a list of dicts, a dict of lists, a pandas DataFrame or a datasets.Dataset"


def data_path(data: Rows) -> str:
    """The path of data; what is in memory is written to the cache, under a name that its content gives.

    Raises:
        BadInput: the data are of no known kind, or a cell cannot be written as JSON.
    """
    if isinstance(data, str | Path):
        return str(data)
    rows = _rows(data)
    text = "".join(_line(row, number) for number, row in enumerate(rows, start=1))
    if not text:
        raise BadInput("the data hold no rows", value=type(data).__name__, next_step=NEXT_STEP)
    path = cache_folder() / "rows" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return str(path)


def _rows(data: object) -> Iterable[Mapping[str, object]]:
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        rows: list[Mapping[str, object]] = data.to_dict(orient="records")  # pandas
        return rows
    if isinstance(data, Mapping):
        if any(hasattr(part, "column_names") for part in data.values()):
            raise BadInput(
                "one data set is needed; this is a dictionary of several",
                value=", ".join(map(str, data)),
                next_step="give one of them, e.g. data['train'], and another as eval_data",
            )
        return _by_column(data)
    if not isinstance(data, Iterable):
        raise BadInput("these data are of no known kind", value=type(data).__name__, next_step=NEXT_STEP)
    return data


def _by_column(columns: Mapping[str, object]) -> list[dict[str, object]]:
    lengths = {name: len(column) for name, column in columns.items() if isinstance(column, list | tuple)}
    if len(lengths) != len(columns) or len(set(lengths.values())) != 1:
        raise BadInput("every column must be a list, all of one length", value=lengths or list(columns))
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _line(row: object, number: int) -> str:
    if not isinstance(row, Mapping):
        raise BadInput(
            "every row must be a dict with named fields",
            value=type(row).__name__,
            place=f"row {number}",
            next_step=NEXT_STEP,
        )
    try:
        return json.dumps({name: _cell(value) for name, value in row.items()}, default=_plain) + "\n"
    except (TypeError, ValueError) as error:
        raise BadInput(f"a cell cannot be written as JSON ({error})", place=f"row {number}") from None


def _cell(value: object) -> object:
    """Empty cells of a table are no numbers."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain(value: object) -> object:
    """Numbers of numpy, times and arrays as JSON knows them."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        raise TypeError("bytes, e.g. of a picture; finestep trains on text")
    raise TypeError(f"a {type(value).__name__}")
