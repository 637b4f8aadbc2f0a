"""W&B offline files (run-*.wandb): the history rows of a run, without the wandb package.

Format: a 7-byte file header, then LevelDB log blocks of 32 KiB with 7-byte record headers (crc u32, length u16, kind
u8);
a record is a protobuf whose history items are {key or nested_key, value_json}. A torn end ends the reading.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.json_logs import decoded
from finestep.readers.limits import MAX_MESSAGE_BYTES
from finestep.readers.row_table import RowTable
from finestep.readers.wire_format import Malformed, as_text, fields

_BLOCK = 32768
_FILE_HEADER = 7
_HISTORY = 2
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def is_wandb_file(start: bytes) -> bool:
    """True for the header that W&B writes."""
    return start[:4] == b":W&B"


def read_wandb(path: Path) -> list[TrainingLog]:
    """The history of one offline run."""
    table = RowTable()
    for data in _records(path):
        try:
            for field, _, value in fields(data):
                if field == _HISTORY and isinstance(value, bytes):
                    table.add(_history_row(value))
        except (Malformed, struct.error):
            table.num_skipped += 1
        if table.is_full:
            break
    return table.logs(name=path.name, source=str(path), format="W&B offline file")


def _history_row(data: bytes) -> dict[str, object]:
    row: dict[str, object] = {}
    for field, _, value in fields(data):
        if field != 1 or not isinstance(value, bytes):
            continue
        names: list[str] = []
        text = ""
        for inner, _, item in fields(value):
            if inner in (1, 2) and isinstance(item, bytes):
                names.append(as_text(item))
            elif inner == 16:
                text = as_text(item)
        row["/".join(name for name in names if name)[:200]] = decoded(text[:4096])
    return row


def _records(path: Path) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for kind, data in _fragments(path):
        if kind in (_FULL, _FIRST):
            parts, size = [], 0
        parts.append(data)
        size += len(data)
        if size > MAX_MESSAGE_BYTES:
            parts, size = [], 0
        elif kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts, size = [], 0


def _fragments(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        skip = _FILE_HEADER
        while block := file.read(_BLOCK):
            position, skip = skip, 0
            while position + 7 <= len(block):
                length, kind = struct.unpack("<HB", block[position + 4 : position + 7])
                if kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                    break
                data = block[position + 7 : position + 7 + length]
                if len(data) < length:
                    return
                yield kind, data
                position += 7 + length
