"""Files of JSON lines, whose torn last line is never fatal; how they are written is `finestep.disk`'s."""

from __future__ import annotations

from pathlib import Path

from finestep.disk import append_line, write_whole

__all__ = ["append_line", "read_lines", "write_whole"]


def read_lines(path: Path) -> list[str]:
    """All lines, empty ones left out; no file that can be read, no lines."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return []
    return [line for line in text.split("\n") if line.strip("\x00 \r\t")]
