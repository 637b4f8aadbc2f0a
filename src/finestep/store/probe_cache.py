"""Answers of probes, kept by model, data, method, device and versions; a change of any of them means a new question."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from pydantic import ValidationError

from finestep.probe import Measured
from finestep.store.records import write_whole

LAYOUT = 1


def cache_folder() -> Path:
    """`$FINESTEP_CACHE`, else `finestep` in the user's cache folder."""
    own = os.environ.get("FINESTEP_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "finestep"


def probe_file(question: dict[str, object]) -> Path:
    """Where the answer to a question is kept."""
    text = json.dumps({"layout": LAYOUT, **question}, sort_keys=True)
    return cache_folder() / "probes" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def read_probe(path: Path) -> Measured | None:
    """The answer, or None when there is none that can be read."""
    try:
        return Measured.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def write_probe(path: Path, answer: Measured) -> None:
    """Keep an answer; a folder that cannot be written is no reason to fail."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, answer.model_dump_json())
