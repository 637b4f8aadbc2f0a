"""What was done in a trial because memory was short, in the words that were said while it trained; read from its folder."""

from __future__ import annotations

from pathlib import Path

from finestep.store.tail import Tail
from finestep.study_layout import NOTES

BEGINNINGS = ("out of memory: ", "memory ran out at ")
"""Of finestep's own trainer, and of another trainer that is started again with fewer rows a pass."""


def memory_words(trial: Path) -> tuple[str, ...]:
    """Each once, in their order; empty where memory was never short.

    Args:
        trial: the folder of the trial.
    """
    texts = (str(one.get("text", "")) for one in Tail(trial / NOTES).read())
    return tuple(dict.fromkeys(text for text in texts if text.startswith(BEGINNINGS)))
