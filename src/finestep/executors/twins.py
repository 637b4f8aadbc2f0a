"""Trials that were to train at different rates and had the same losses to the last digit: one of the rates was not used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from finestep.disk import json_text, read_object, write_whole
from finestep.errors import BadInput
from finestep.trainers.agreement import same_training

SEEN = "seen.json"
MOST_LOSSES = 200
DIFFERENT = 1.2
"""Rates that are nearer than this factor may well print the same digits."""
FEWEST_DIGITS = 5
"""Digits of a validation loss that two different runs do not share by chance."""


class Seen(BaseModel):
    """What a trial was asked and what it logged."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    learning_rate: float = Field(gt=0)
    losses: tuple[float, ...] = ()
    eval_loss: float | None = None
    is_checked: bool = Field(False, description="Its log said the rate that was asked for.")


def remember(folder: Path, seen: Seen) -> None:
    """Keep it beside the trial."""
    kept = seen.model_copy(update={"losses": seen.losses[:MOST_LOSSES]})
    write_whole(folder / SEEN, json_text(kept.model_dump()))


def refuse_twins(folder: Path) -> None:
    """Compare a trial with all others of its study.

    Raises:
        BadInput: another one had the same losses at another rate.
    """
    mine = _read(folder / SEEN)
    if mine is None:
        return
    for other, seen in _others(folder):
        ratio = mine.learning_rate / seen.learning_rate
        if max(ratio, 1 / ratio) >= DIFFERENT and _are_alike(mine, seen):
            rates = f"{mine.learning_rate:.3g} and {seen.learning_rate:.3g}"
            raise BadInput(
                f"trials {int(folder.name)} and {int(other.name)} were to train at {rates}, and their losses are the same "
                "to the last digit: the learning rate does not reach the training",
                place=str(folder),
                next_step="see in the trainer's own log which rate it used",
            )


def _are_alike(mine: Seen, other: Seen) -> bool:
    fewest = 12 if mine.is_checked and other.is_checked else 4
    if min(len(mine.losses), len(other.losses)) >= fewest:
        return same_training(mine.losses, other.losses)
    if mine.losses or other.losses or mine.is_checked:
        return False
    loss = mine.eval_loss
    if loss is None or loss != other.eval_loss or not math.isfinite(loss):
        return False
    return len(f"{loss:.12g}".replace(".", "").lstrip("0")) >= FEWEST_DIGITS


def _others(folder: Path) -> Iterator[tuple[Path, Seen]]:
    for path in sorted(folder.parent.glob(f"*/{SEEN}")):
        if path.parent != folder and path.parent.name.isdecimal() and (seen := _read(path)) is not None:
            yield path.parent, seen


def _read(path: Path) -> Seen | None:
    try:
        return Seen.model_validate(read_object(path))
    except ValueError:
        return None
