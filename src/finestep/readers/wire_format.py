"""The protobuf wire format, enough to walk a message without its schema; every length is checked against the data."""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """The bytes are no protobuf message."""


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Triples of field number, wire type and value (an integer, or the bytes of a fixed or length-delimited field)."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield tag >> 3, kind, value
            continue
        size, position = _size(data, position, kind)
        if position + size > end:
            raise Malformed("a field is longer than its message")
        yield tag >> 3, kind, data[position : position + size]
        position += size


def as_double(value: int | bytes) -> float:
    """A little-endian double or float from a fixed field."""
    if isinstance(value, int) or len(value) not in (4, 8):
        raise Malformed("not a floating point field")
    return float(struct.unpack("<d" if len(value) == 8 else "<f", value)[0])


def as_text(value: int | bytes) -> str:
    """Text of a length-delimited field; broken UTF-8 becomes replacement characters."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else ""


def as_signed(value: int | bytes) -> int:
    """An int64 from its varint."""
    if not isinstance(value, int):
        raise Malformed("not an integer field")
    return value - (1 << 64) if value >= 1 << 63 else value


def _size(data: bytes, position: int, kind: int) -> tuple[int, int]:
    if kind == FIXED64:
        return 8, position
    if kind == FIXED32:
        return 4, position
    if kind == BYTES:
        return _varint(data, position)
    raise Malformed(f"unknown wire type {kind}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while shift < 70:
        if position >= len(data):
            raise Malformed("a number is cut off")
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
        shift += 7
    raise Malformed("a number is too long")
