"""Text files in bounded pieces: chunks, lines (also those ended by a carriage return) and flat `{...}` objects.

No piece is ever longer than the limit, whatever the file holds; bytes that are no UTF-8 become replacement characters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from finestep.readers.limits import MAX_ROW_CHARS, ROWS_AT_ONCE

CHUNK_BYTES = 1 << 20

_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")


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
    rest = ""
    for chunk in chunks(path):
        pieces = (rest + chunk).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        rest = pieces.pop()
        yield from pieces
        if len(rest) > MAX_ROW_CHARS:
            yield rest
            rest = ""
    if rest:
        yield rest


def flat_objects(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of the text before an innermost `{...}` and that object; the last pair has an empty object.

    Works on torn and nested JSON alike, in linear time, because it never needs the closing of what is around.
    """
    buffer = ""
    for chunk in chunks(path):
        buffer += chunk
        end = 0
        for match in _FLAT_OBJECT.finditer(buffer):
            yield buffer[end : match.start()], match.group()
            end = match.end()
        buffer = buffer[end:]
        if len(buffer) > MAX_ROW_CHARS:
            yield buffer[:-1024], ""
            buffer = buffer[-1024:]
    yield buffer, ""


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Neighbouring texts in lists of bounded length and size, because many are decoded faster together."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) == ROWS_AT_ONCE or size > MAX_ROW_CHARS // 2:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def head(path: Path, num_bytes: int = 65536) -> bytes:
    """The first bytes of the file."""
    with path.open("rb") as file:
        return file.read(num_bytes)
