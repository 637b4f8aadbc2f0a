"""Two steps before a study: does the framework start, read the file and evaluate, and what do start and step cost?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from finestep.disk import read_object, write_whole

STEPS = 2
FILE = "preflight.json"


class Preflight(BaseModel):
    """What two steps have shown."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    asked: str
    """Of what was started: another file or launcher needs another preflight."""
    num_rows: int | None = None
    """Training rows as the framework counts them: after its own cutting, packing and leaving out."""
    fixed_s: float = 0.0
    """Seconds of a trial that do not depend on its length: start, evaluation, end."""
    step_s: float = 0.0
    metrics: tuple[str, ...] = ()
    """What its evaluation measures."""
    num_rates: int = 0
    """Rows of its log that say a learning rate."""

    def run_s(self, num_steps: int) -> float:
        """Seconds of a trial of so many steps."""
        return self.fixed_s + num_steps * self.step_s

    def fixed_share(self, num_steps: int) -> float:
        """The share of a run that does not depend on its length."""
        return self.fixed_s / max(self.run_s(num_steps), 1e-9)


def hash_of(*texts: str) -> str:
    """What was asked for, in 16 hex digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def known_preflight(folder: Path, asked: str) -> Preflight | None:
    """An earlier preflight of the same file and launcher."""
    found = read_object(folder / FILE)
    try:
        known = Preflight.model_validate(found) if found else None
    except ValueError:
        return None
    return known if known is not None and known.asked == asked else None


def keep_preflight(folder: Path, found: Preflight) -> None:
    """Remember it, so that a study that goes on does not fly again."""
    write_whole(folder / FILE, found.model_dump_json())
