"""Append-only files of JSON lines, whose torn last line is mended and never fatal; and small files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path


def append_line(path: Path, line: str) -> None:
    """Append one line; what a torn line left behind is closed first."""
    with path.open("ab") as handle:
        torn = handle.tell() > 0 and not _ends_with_newline(path)
        handle.write((b"\n" if torn else b"") + line.encode("utf-8") + b"\n")


def write_whole(path: Path, text: str) -> None:
    """Write a small file whole or not at all: aside, synced, renamed."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, path)


def read_lines(path: Path) -> list[str]:
    """All lines, empty ones left out; no file, no lines."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.split("\n") if line.strip("\x00 \r\t")]


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as handle:
        handle.seek(-1, 2)
        return handle.read(1) == b"\n"
