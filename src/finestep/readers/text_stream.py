"""Text files in bounded pieces: chunks, lines (also those ended by a carriage return) and flat `{...}` objects.

No piece is ever longer than the limit, whatever the file holds; bytes that are no UTF-8 become replacement characters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from finestep.readers.limits import MAX_ROW_CHARS, ROWS_AT_ONCE

CHUNK_BYTES = 1 << 20

_FLAT_OBJECT = re.compile(r"(\{[^{}]*\})")


def chunks(path: Path) -> Iterator[str]:
    """The file's text in pieces of about a megabyte."""
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        while data := file.read(CHUNK_BYTES):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)


def lines(path: Path) -> Iterator[str]:
    """Lines without their ends; a line over the limit is cut into pieces."""
    for pieces in line_lists(path):
        yield from pieces


def line_lists(path: Path) -> Iterator[list[str]]:
    """The same lines, those of a chunk together, which is faster where there are many."""
    rest = ""
    for chunk in chunks(path):
        text = rest + chunk
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        pieces = text.split("\n")
        rest = pieces.pop()
        if len(rest) > MAX_ROW_CHARS:
            pieces.append(rest)
            rest = ""
        yield pieces
    if rest:
        yield [rest]


def flat_objects(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Pairs of the texts around innermost `{...}` objects and those objects, a chunk of the file at a time.

    Works on torn and nested JSON alike, in linear time, because it never needs the closing of what is around.
    """
    buffer = ""
    for chunk in chunks(path):
        pieces = _FLAT_OBJECT.split(buffer + chunk)
        buffer = pieces.pop()
        around, objects = pieces[::2], pieces[1::2]
        if len(buffer) > MAX_ROW_CHARS:
            around.append(buffer[:-1024])
            buffer = buffer[-1024:]
        yield around, objects
    yield [buffer], []


def batches(lists: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    """The texts of each list in parts of bounded length and size, because many are decoded faster together."""
    for texts in lists:
        size = sum(map(len, texts))
        count = max(1, min(ROWS_AT_ONCE, MAX_ROW_CHARS // 2 * len(texts) // max(size, 1)))
        for start in range(0, len(texts), count):
            yield texts[start : start + count]


def head(path: Path, num_bytes: int = 65536) -> bytes:
    """The first bytes of the file."""
    with path.open("rb") as file:
        return file.read(num_bytes)
