"""The micro-batch that memory is known to allow in a study; learned from the first trial that ran out, and kept on disk."""

from __future__ import annotations

from pathlib import Path

from finestep.disk import json_text, read_object, write_whole

FILE = "memory.json"


class MemoryLimit:
    """Rows of a forward pass that memory allows.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path):
        self._path = folder / FILE

    @property
    def rows(self) -> int | None:
        """The most rows of a pass; None while nothing ran out."""
        found = (read_object(self._path) or {}).get("micro_batch_size")
        return found if isinstance(found, int) and found > 0 else None

    def ran_out_at(self, rows: int) -> str:
        """Remember that so many were too many; answers with what is tried next, in words."""
        allowed = max(1, min(rows // 2, self.rows or rows))
        write_whole(self._path, json_text({"micro_batch_size": allowed, "ran_out_at": rows}))
        return f"memory ran out at micro-batch {rows}: again with {allowed}, and as many more accumulated"
