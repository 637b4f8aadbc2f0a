"""Logs in text: dictionaries printed by the Hugging Face Trainer, torchtune's disk logger, mmengine lines, own epoch
blocks.

Progress bars glued to a row, carriage returns and rows cut by a kill are normal here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.column_names import Role, role_of
from finestep.readers.json_logs import decoded, rows_of
from finestep.readers.limits import MAX_NAMES, MAX_ROW_CHARS
from finestep.readers.row_table import RowTable
from finestep.readers.text_stream import batches, lines

_PRINTED_ROW = re.compile(r"\{\s*'[^{}]{1,20000}\}")
_BARE_WORD = re.compile(r"(?<=[:\s,\[])(-?)(nan|inf|None|True|False)(?=[\s,}\]])")
_BAR = re.compile(r"(\d{1,9})/(\d{1,9}) \[")
_TORCHTUNE = re.compile(r"^Step (\d+) \| ")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Inf)"
_PAIR = re.compile(
    r"([A-Za-z][\w./]{0,40}(?: [A-Za-z][\w./]{0,20}){0,2}) ?[:=|] ?(" + _NUMBER + r")(?:/(\d+))?(?![\w.])"
)
_MMENGINE = re.compile(r"Epoch\((\w+)\)\s*\[(\d+)\](?:\s*\[\s*(\d+)/(\d+)\])?")
_WORDS = {"nan": "NaN", "inf": "Infinity", "None": "null", "True": "true", "False": "false"}
_COUNTERS = ("epoch", "step")


def read_text(path: Path) -> list[TrainingLog]:
    """A terminal's output or a text log, whatever its kind; the kind is found from the first megabyte of lines."""
    stream = lines(path)
    first = list(_first_lines(stream))
    reader, format_name = _reader_for(first)
    table = RowTable()
    reader(chain(first, stream), table)
    return table.logs(name=path.name, source=str(path), format=format_name)


def _first_lines(stream: Iterator[str]) -> Iterator[str]:
    size = 0
    for line in islice(stream, 20000):
        yield line
        size += len(line)
        if size > MAX_ROW_CHARS:
            return


def _reader_for(first: list[str]):
    if any(_PRINTED_ROW.search(line) for line in first):
        return _read_printed_rows, "Hugging Face Trainer output"
    if any(_TORCHTUNE.match(line) for line in first):
        return _read_torchtune, "torchtune disk log"
    return _read_pairs, "text log"


def _read_printed_rows(stream: Iterator[str], table: RowTable) -> None:
    printed = (text for line in stream if "{" in line for text in _PRINTED_ROW.findall(line))
    for texts in batches(printed):
        rows = rows_of(texts, _decode_printed)
        table.num_skipped += rows.count(None)
        whole = [row for row in rows if row is not None]
        if any("train_runtime" in whole[index] for index in table.add_many(whole)):
            table.notes = ["the file holds the final row of at least one run"]
        if table.is_full:
            return


def _decode_printed(text: str) -> object:
    """The value of Python's own notation of dictionaries, as far as logs need it."""
    if any(word in text for word in _WORDS):
        text = _BARE_WORD.sub(lambda match: match.group(1) + _WORDS[match.group(2)], text).replace("-NaN", "NaN")
    return decoded(text.replace("'", '"'))


def _read_torchtune(stream: Iterator[str], table: RowTable) -> None:
    for line in stream:
        match = _TORCHTUNE.match(line)
        if match:
            pairs = (word.partition(":")[::2] for word in line[match.end() : MAX_ROW_CHARS].split()[:MAX_NAMES])
            table.add({"step": match.group(1), **dict(pairs)})
        if table.is_full:
            return


def _read_pairs(stream: Iterator[str], table: RowTable) -> None:
    """Rows from `name: value` pairs; a counter (epoch, step) or a repeated name begins the next row."""
    row: dict[str, object] = {}
    for line in stream:
        if len(line) > MAX_ROW_CHARS or table.is_full:
            continue
        for name, value, role in _pairs_of(line[:20000]):
            if name in row or (role.slot in _COUNTERS and any(not _is_counter(key) for key in row)):
                _add_row(row, table)
                row = {
                    key: old for key, old in row.items() if _is_counter(key) and role.slot != "epoch" and key != name
                }
            row[name] = value
    _add_row(row, table)


def _add_row(row: dict[str, object], table: RowTable) -> None:
    if any(not _is_counter(key) for key in row):
        table.add(row)


def _is_counter(name: str) -> bool:
    role = role_of(name)
    return role is not None and role.slot in _COUNTERS


def _pairs_of(line: str) -> Iterator[tuple[str, str, Role]]:
    mmengine = _MMENGINE.search(line)
    split = "eval/" if mmengine and mmengine.group(1) != "train" else ""
    if mmengine:
        yield "epoch", mmengine.group(2), Role("train", "epoch")
        line = line[mmengine.end() :]
    for match in _PAIR.finditer(line):
        words = match.group(1).strip().lower().split(" ")
        for start in range(len(words)):
            name = "_".join(words[start:])
            role = role_of(split + name)
            if role is not None and role.split in ("train", "eval"):
                yield split + name, match.group(2), role
                break
