"""What is saved is what was measured: a tuned model is loaded again by a process that knows only transformers and PEFT."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from finestep.disk import json_text, read_object, write_whole
from finestep.errors import BadInput, FinestepError
from finestep.executors.question import ask
from finestep.plain_text import shortened
from finestep.ready import Machine
from finestep.result import HowToLoad, RowAnswer, SavedCheck
from finestep.saved_model import CheckRows, SavedRequest, has_own_base, load_lines, read_saved
from finestep.study_layout import CHECK_ROWS

MODULE = "finestep.saved"
CHECKED = "checked.json"
TOLERANCE = 1e-3
"""Of 1 + the measured loss: what rounding in another batch and order may change."""
ALLOWED = f"may differ by {TOLERANCE:g} x (1 + loss)"
MOST_CHECK_S = 900.0
ANSWERS: TypeAdapter[tuple[RowAnswer, ...]] = TypeAdapter(tuple[RowAnswer, ...])


@dataclass(frozen=True)
class Reloaded:
    """What loading a model again has found: the verdict, and what it answers to a few validation rows."""

    check: SavedCheck
    answers: tuple[RowAnswer, ...] = ()


def check_saved(trial_folder: Path, model: Path, *, machine: Machine) -> Reloaded:
    """Load a trial's model again and hold its loss on a few validation rows against what training measured.

    It never fails a study: what it cannot do is a sentence. The answer is kept beside the trial, and asked for once.

    Args:
        model: the folder with the tuned model.
        machine: what trained it; the check uses the same device and threads.
    """
    known = known_check(trial_folder)
    if known is not None and known.check.checked:
        return known
    began = time.monotonic()
    try:
        found = _compared(trial_folder / CHECK_ROWS, model, machine)
    except FinestepError as error:
        found = _unchecked(str(error))
    except (OSError, ValueError) as error:
        found = _unchecked(f"{type(error).__name__}: {error}")
    check = found.check.model_copy(update={"seconds": round(time.monotonic() - began, 1)})
    answers = [answer.model_dump() for answer in found.answers]
    write_whole(trial_folder / CHECKED, json_text({**check.model_dump(), "answers": answers}))
    return Reloaded(check, found.answers)


def known_check(trial_folder: Path) -> Reloaded | None:
    """What an earlier check of this trial's model found; answers that cannot be read are left out."""
    found = read_object(trial_folder / CHECKED)
    rows = found.get("answers") if found is not None else None
    if not isinstance(rows, list):
        return None
    try:
        check = SavedCheck.model_validate(found, strict=True)
    except ValidationError:
        return None
    answers = [answer for one in rows for answer in _answer(one)]
    return Reloaded(check, tuple(answers))


def _answer(value: object) -> tuple[RowAnswer, ...]:
    try:
        return ANSWERS.validate_python((value,))
    except ValidationError:
        return ()


def how_to_load(folder: Path) -> HowToLoad | None:
    """Where the model is and how it is loaded; None for a model whose trainer did not say."""
    try:
        saved = read_saved(folder)
    except BadInput:
        return None
    if saved is None:
        return None
    lines = load_lines(saved, place=str(folder), has_own_base=has_own_base(folder))
    merge = shlex.join(["finestep", "merge", str(folder)]) if saved.method == "lora" else None
    return HowToLoad(folder=str(folder), load=tuple(lines), merge=merge)


def _compared(rows: Path, model: Path, machine: Machine) -> Reloaded:
    if not rows.is_file():
        return _unchecked("the rows that it would be checked on were not kept")
    measured = CheckRows.model_validate_json(rows.read_text(encoding="utf-8"))
    request = SavedRequest(
        purpose="check",
        folder=str(model),
        rows=str(rows),
        device=(machine.device or "cpu").partition(":")[0],
        num_threads=machine.num_threads,
    )
    answer = ask(MODULE, request, timeout_s=MOST_CHECK_S)
    loss, limit, number = float(str(answer["loss"])), TOLERANCE * (1 + measured.loss), len(measured.ids)
    agrees = abs(loss - measured.loss) <= limit
    check = SavedCheck(
        checked=True,
        agrees=agrees,
        num_rows=number,
        measured_loss=measured.loss,
        reloaded_loss=loss,
        tolerance=limit,
        sentence=_words(measured.loss, loss, number, agrees=agrees),
    )
    return Reloaded(check, ANSWERS.validate_python(answer["answers"]))


def _words(measured: float, loss: float, number: int, *, agrees: bool) -> str:
    rows = f"{number} validation rows"
    if agrees:
        return (
            f"loaded again by transformers and PEFT alone, it has the measured loss on {rows} ({loss:.4f}; {ALLOWED})"
        )
    return (
        f"WHAT IS SAVED IS NOT WHAT WAS MEASURED: loaded again by transformers and PEFT alone, it has a loss of {loss:.4f} "
        f"on {rows}, where training measured {measured:.4f} ({ALLOWED})"
    )


def _unchecked(reason: str) -> Reloaded:
    """The words of a check that could not be made."""
    return Reloaded(SavedCheck(checked=False, sentence=f"not checked by loading it again: {shortened(reason, 300)}"))
