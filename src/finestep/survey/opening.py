"""One data file as text: its compression and its encoding, both found out from the file; it knows nothing of rows.

A file that is not UTF-8 is read as UTF-16, UTF-32 or cp1252 where its bytes say so, and `encoding_note` tells.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

from finestep.errors import BadInput

COMPRESSIONS: dict[str, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
UNPACK_FIRST = {
    ".zip": "unzip",
    ".zst": "zstd -d",
    ".tar": "tar xf",
    ".tgz": "tar xzf",
    ".7z": "7z x",
    ".rar": "unrar x",
}
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SNIFFED_BYTES, PIECE_BYTES = 64 * 2**20, 2**20
MOST_HIGH_BYTES = 0.3
"""Western text in cp1252 has a few letters beyond ASCII; text in another script has mostly such bytes."""
BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def kind_of(file: Path) -> str:
    """The suffix that says how rows are laid out, without a compression's, e.g. `.jsonl` of `rows.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return (
        (suffixes[-2] if len(suffixes) > 1 else "")
        if suffixes[-1:] and suffixes[-1] in COMPRESSIONS
        else "".join(suffixes[-1:])
    )


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked."""
    opener = COMPRESSIONS.get(file.suffix.lower())
    try:
        with cast("IO[bytes]", opener(file) if opener else file.open("rb")) as handle:
            yield handle
    except BROKEN as error:
        raise BadInput(
            "the compressed file is damaged or cut off",
            value=str(error)[:80] or type(error).__name__,
            place=str(file),
            next_step="fetch it again",
        ) from None


@contextmanager
def opened_text(file: Path, *, newline: str | None = None) -> Iterator[IO[str]]:
    """The text of a file, unpacked and decoded."""
    encoding = encoding_of(file)
    with opened(file) as handle:
        yield io.TextIOWrapper(handle, encoding=encoding, newline=newline)


def encoding_of(file: Path) -> str:
    """The encoding of a text file: by its first bytes, else UTF-8 if it is, else cp1252 if it can be.

    Raises:
        BadInput: the bytes are in none of these encodings.
    """
    about = file.stat()
    return _encoding(file, about.st_mtime_ns, about.st_size)


def encoding_note(file: Path) -> str | None:
    """What to say about an encoding that is not UTF-8; None for UTF-8."""
    encoding = encoding_of(file)
    if encoding.startswith("utf-8"):
        return None
    doubt = "; if letters look wrong, convert it: iconv -f ENCODING -t UTF-8" if encoding == "cp1252" else ""
    return f"{file.name} is read as {encoding}{doubt}"


@lru_cache(maxsize=256)
def _encoding(file: Path, changed: int, size: int) -> str:
    with opened(file) as handle:
        head = handle.read(PIECE_BYTES)
        for mark, name in BOMS:
            if head.startswith(mark):
                return name
        if (guess := _utf16_without_mark(head)) is not None:
            return guess
        if _is_utf8(head, handle):
            return "utf-8-sig"
    return _western(head, file)


def _is_utf8(head: bytes, rest: IO[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    piece, seen = head, 0
    try:
        while piece and seen < SNIFFED_BYTES:
            decoder.decode(piece)
            seen += len(piece)
            piece = rest.read(PIECE_BYTES)
        decoder.decode(b"", final=not piece)
    except UnicodeDecodeError:
        return False
    return True


def _utf16_without_mark(head: bytes) -> str | None:
    """Latin text in UTF-16 has a zero in every other byte."""
    even, odd = head[0:4096:2], head[1:4096:2]
    if not odd or (even.count(0) + odd.count(0)) < 0.4 * len(even):
        return None
    return "utf-16-le" if odd.count(0) > even.count(0) else "utf-16-be"


def _western(head: bytes, file: Path) -> str:
    high = sum(byte >= 0x80 for byte in head) / max(len(head), 1)
    try:
        head.decode("cp1252")
        is_text = b"\0" not in head and high <= MOST_HIGH_BYTES
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise BadInput(
            "text must be UTF-8, UTF-16 or cp1252",
            place=str(file),
            next_step=f"convert it: iconv -f ENCODING -t UTF-8 {file.name} > new-{file.name}",
        )
    return "cp1252"


def other_encoding(error: UnicodeDecodeError, file: Path) -> BadInput:
    """The error for a text that is not all in the encoding in which it begins."""
    return BadInput(
        f"text must be {error.encoding} throughout, as it begins",
        value=f"byte {error.start}",
        place=str(file),
        next_step="convert it: iconv -f ENCODING -t UTF-8",
    )
