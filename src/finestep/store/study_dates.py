"""When a study was worked on, as its database says; the dates of its files would be those of the last copy."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

QUESTION = "SELECT MIN(datetime_start), MAX(datetime_complete) FROM trials"


def study_dates(database: Path) -> tuple[str, str]:
    """(when the first trial was begun, when the last one ended) as `2026-03-01 14:05`; empty where it is not known."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            row = opened.execute(QUESTION).fetchone()
    except sqlite3.Error:
        return "", ""
    begun, ended = (str(value)[:16] if value else "" for value in row)
    return begun, ended
