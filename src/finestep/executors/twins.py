"""Trials that were to train at different rates and had the same losses to the last digit: one of the rates was not used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finestep.disk import json_text, read_object, write_whole
from finestep.errors import BadInput
from finestep.trainers.agreement import same_training

SEEN = "seen.json"
MOST_LOSSES = 200
DIFFERENT = 1.2
"""Rates that are nearer than this factor may well print the same digits."""
FEWEST_DIGITS = 5
"""Digits of a validation loss that two different runs do not share by chance."""


def remember(
    folder: Path, rate: float, losses: Sequence[float], eval_loss: float | None, *, is_checked: bool = False
) -> None:
    """Keep what a trial was asked and what it logged beside it.

    Args:
        is_checked: its log said the rate that was asked for.
    """
    kept = {
        "learning_rate": rate,
        "losses": list(losses)[:MOST_LOSSES],
        "eval_loss": eval_loss,
        "is_checked": is_checked,
    }
    write_whole(folder / SEEN, json_text(kept))


def refuse_twins(folder: Path) -> None:
    """Compare a trial with all others of its study.

    Raises:
        BadInput: another one had the same losses at another rate.
    """
    mine = read_object(folder / SEEN)
    if mine is None:
        return
    for other, seen in _others(folder):
        ratio = mine["learning_rate"] / seen["learning_rate"]
        if max(ratio, 1 / ratio) >= DIFFERENT and _are_alike(mine, seen):
            rates = f"{mine['learning_rate']:.3g} and {seen['learning_rate']:.3g}"
            raise BadInput(
                f"trials {int(folder.name)} and {int(other.name)} were to train at {rates}, and their losses are the same "
                "to the last digit: the learning rate does not reach the training",
                place=str(folder),
                next_step="see in the trainer's own log which rate it used",
            )


def _are_alike(mine: dict[str, Any], other: dict[str, Any]) -> bool:
    fewest = 12 if mine["is_checked"] and other["is_checked"] else 4
    first, second = mine["losses"], other["losses"]
    if min(len(first), len(second)) >= fewest:
        return same_training(first, second)
    if first or second or mine["is_checked"]:
        return False
    one, two = mine["eval_loss"], other["eval_loss"]
    if one is None or one != two or not math.isfinite(one):
        return False
    return len(f"{one:.12g}".replace(".", "").lstrip("0")) >= FEWEST_DIGITS


def _others(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.parent.glob(f"*/{SEEN}")):
        seen = read_object(path)
        if path.parent != folder and path.parent.name.isdecimal() and _is_sound(seen):
            assert seen is not None
            yield path.parent, seen


def _is_sound(seen: dict[str, Any] | None) -> bool:
    try:
        return bool(seen and seen["learning_rate"] > 0 and isinstance(seen["losses"], list) and "eval_loss" in seen)
    except (KeyError, TypeError):
        return False
