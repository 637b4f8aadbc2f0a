"""TensorBoard event files: scalars by tag and step, and the Trainer's arguments when it left them as text.

Format: TFRecord frames (u64 length, u32 crc, data, u32 crc) of Event{1: wall time, 2: step, 5: Summary}; checksums
are not
checked, a torn last frame ends the reading.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.json_logs import decoded
from finestep.readers.limits import MAX_MESSAGE_BYTES, number
from finestep.readers.row_table import RowTable
from finestep.readers.wire_format import BYTES, FIXED32, Malformed, as_double, as_signed, as_text, fields

_FLOAT, _DOUBLE = 1, 2
_ARGUMENT_NAMES = {
    "max_steps": "max_steps", "num_train_epochs": "num_epochs", "learning_rate": "peak_learning_rate",
    "max_grad_norm": "max_grad_norm", "logging_steps": "logging_steps",
}  # fmt: skip


def is_event_file(start: bytes) -> bool:
    """True for a file whose first frame holds the version text of an event file."""
    return b"brain.Event:" in start[:64]


def read_events(path: Path) -> list[TrainingLog]:
    """One event file; all scalars of one step become one row."""
    table = RowTable()
    row: dict[str, object] = {}
    for step, tag, value in _scalars(path, table):
        if row and (row["step"] != step or tag in row):
            table.add(row)
            row = {}
        row["step"] = step
        row[tag] = value
        if table.is_full:
            break
    if row:
        table.add(row)
    return table.logs(name=path.name, source=str(path), format="TensorBoard events")


def last_step(folder: Path) -> int | None:
    """The last step in the event files of a folder; None when there is none."""
    found = [step for path in sorted(folder.glob("events.out.tfevents.*")) for step, _, _ in _scalars(path, RowTable())]
    return max(found, default=0) if any(folder.glob("events.out.tfevents.*")) else None


def _scalars(path: Path, table: RowTable) -> Iterator[tuple[int, str, float]]:
    for data in _frames(path):
        try:
            step, summary = _event(data)
            for tag, value in _summary_values(summary):
                if isinstance(value, float):
                    yield step, tag, value
                elif tag.startswith("args"):
                    _take_arguments(value, table)
        except (Malformed, struct.error):
            table.num_skipped += 1


def _frames(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while len(header := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", header[:8])
            if length > MAX_MESSAGE_BYTES:
                return
            data = file.read(length)
            if len(data) < length:
                return
            file.seek(4, 1)
            yield data


def _event(data: bytes) -> tuple[int, bytes]:
    step, summary = 0, b""
    for field, kind, value in fields(data):
        if field == 2 and kind == 0:
            step = as_signed(value)
        elif field == 5 and isinstance(value, bytes):
            summary = value
    return step, summary


def _summary_values(summary: bytes) -> Iterator[tuple[str, float | str]]:
    for field, kind, value in fields(summary):
        if field != 1 or kind != BYTES or isinstance(value, int):
            continue
        tag = ""
        result: float | str | None = None
        for inner, inner_kind, item in fields(value):
            if inner == 1:
                tag = as_text(item)
            elif inner == 2 and inner_kind == FIXED32:
                result = as_double(item)
            elif inner == 8 and isinstance(item, bytes):
                result = _tensor(item)
        if result is not None:
            yield tag, result


def _tensor(data: bytes) -> float | str | None:
    """A scalar tensor's value, or its text."""
    dtype, content = 0, b""
    for field, kind, value in fields(data):
        if field == 1 and isinstance(value, int):
            dtype = value
        elif field in (4, 5, 6) and isinstance(value, bytes):
            content = value
        elif field == 8 and kind == BYTES:
            return as_text(value)
    if (dtype == _FLOAT and len(content) == 4) or (dtype == _DOUBLE and len(content) == 8):
        return as_double(content)
    return None


def _take_arguments(text: float | str, table: RowTable) -> None:
    start = str(text).find("{")
    value = decoded(str(text)[start:]) if start >= 0 else None
    if not isinstance(value, dict):
        return
    for name, target in _ARGUMENT_NAMES.items():
        parsed = number(value.get(name))
        if 0 < parsed < 1e15:
            table.context[target] = parsed
    for precision in ("fp16", "bf16"):
        if value.get(precision) is True:
            table.context["precision"] = precision
