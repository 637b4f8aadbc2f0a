"""What is saved is what was measured: a tuned model is loaded again by a process that knows only transformers and PEFT."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finestep.disk import json_text, make_folder, read_object
from finestep.errors import BadInput, FinestepError
from finestep.executors.question import ask
from finestep.plain_text import shortened
from finestep.saved_model import (
    ADAPTER_CONFIG,
    CONFIG,
    CheckRows,
    SavedModel,
    SavedRequest,
    has_own_base,
    load_lines,
    read_saved,
)
from finestep.store.model_card import CHECK_ROWS
from finestep.store.records import write_whole
from finestep.store.study_files import SPEC

MODULE = "finestep.saved"
CHECKED = "checked.json"
TOLERANCE = 1e-3
"""Of 1 + the measured loss: what rounding in another batch and order may change."""
ALLOWED = f"may differ by {TOLERANCE:g} x (1 + loss)"
MOST_CHECK_S = 900.0


def check_saved(trial_folder: Path, model: Path, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Load a trial's model again and hold its loss on a few validation rows against what training measured.

    It never fails a study: what it cannot do is a sentence. The answer is kept beside the trial, and asked for once.

    Args:
        model: the folder with the tuned model.
        facts: of the machine that trained: device, threads.
    """
    known = known_check(trial_folder)
    if known and known["checked"]:
        return known
    began = time.monotonic()
    try:
        found = _compared(trial_folder / CHECK_ROWS, model, facts)
    except FinestepError as error:
        found = _unchecked(str(error))
    except (OSError, ValueError) as error:
        found = _unchecked(f"{type(error).__name__}: {error}")
    found["seconds"] = round(time.monotonic() - began, 1)
    write_whole(trial_folder / CHECKED, json_text(found))
    return found


def known_check(trial_folder: Path) -> dict[str, Any] | None:
    """What an earlier check of this trial's model found."""
    found = read_object(trial_folder / CHECKED)
    kinds = {"checked": bool, "agrees": bool | None, "sentence": str, "answers": list}
    if found is None or not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
        return None
    found["answers"] = [one for one in found["answers"] if _is_answer(one)]
    return found


def _is_answer(one: object) -> bool:
    names = (
        ("text", "predicted", "true")
        if isinstance(one, dict) and "predicted" in one
        else ("prompt", "answer", "expected")
    )
    return isinstance(one, dict) and all(isinstance(one.get(name), str) for name in names)


def saved_part(trial_folder: Path | None, model: Path | None) -> dict[str, Any]:
    """Of a study's result: is the saved model what was measured, what it answers, and how it is used; None where not known."""
    if trial_folder is None or model is None:
        return {"saved": None, "answers": [], "use": None}
    check = dict(known_check(trial_folder) or {})
    answers = check.pop("answers", [])
    return {"saved": check or None, "answers": answers, "use": _use(model.resolve())}


def _use(folder: Path) -> dict[str, Any] | None:
    """Where the model is and how it is loaded; None for a model whose trainer did not say."""
    try:
        saved = read_saved(folder)
    except BadInput:
        return None
    if saved is None:
        return None
    use: dict[str, Any] = {
        "folder": str(folder),
        "load": load_lines(saved, place=str(folder), has_own_base=has_own_base(folder)),
    }
    if saved.method == "lora":
        use["merge"] = shlex.join(["finestep", "merge", str(folder)])
    return use


def _compared(rows: Path, model: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    if not rows.is_file():
        return _unchecked("the rows that it would be checked on were not kept")
    measured = CheckRows.model_validate_json(rows.read_text(encoding="utf-8"))
    request = SavedRequest(
        purpose="check",
        folder=str(model),
        rows=str(rows),
        device=str(facts.get("device", "cpu")).partition(":")[0],
        num_threads=facts.get("num_threads"),
    )
    answer = ask(MODULE, request, timeout_s=MOST_CHECK_S)
    loss, limit, number = float(answer["loss"]), TOLERANCE * (1 + measured.loss), len(measured.ids)
    agrees = abs(loss - measured.loss) <= limit
    return {
        "checked": True,
        "agrees": agrees,
        "num_rows": number,
        "measured_loss": measured.loss,
        "reloaded_loss": loss,
        "tolerance": limit,
        "sentence": _words(measured.loss, loss, number, agrees=agrees),
        "answers": answer["answers"],
    }


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


def _unchecked(reason: str) -> dict[str, Any]:
    """The words of a check that could not be made."""
    return {
        "checked": False,
        "agrees": None,
        "sentence": f"not checked by loading it again: {shortened(reason, 300)}",
        "answers": [],
    }


def merge(folder: Path, out: Path | None) -> dict[str, Any]:
    """Merge an adapter into its base, into a new folder; where it is, and how far its logits are from the adapter's.

    Raises:
        BadInput: the folder holds no adapter that can be merged, or the new folder exists already.
    """
    target = (out or folder.with_name(folder.name + "-merged")).resolve()
    saved = _mergeable(folder)
    if target.exists():
        raise BadInput(
            "the merged model needs a new folder", value=str(target), next_step="give another one with --out"
        )
    make_folder(target.parent)
    answer = ask(MODULE, SavedRequest(purpose="merge", folder=str(folder.resolve()), out=str(target)))
    return {**answer, "base": saved.base if saved else None}


def _mergeable(folder: Path) -> SavedModel | None:
    """What is known of the adapter in the folder."""
    if not folder.is_dir():
        raise BadInput("no such folder", value=str(folder), next_step="give the folder of an adapter")
    if not (folder / ADAPTER_CONFIG).is_file():
        raise _no_adapter(folder)
    saved = read_saved(folder)
    if saved is not None and saved.method == "qlora":
        raise BadInput(
            "an adapter that was trained on a base in 4 bits cannot be merged truly: the base in full precision is another model",
            value=str(folder),
            next_step="load the adapter as its README says, or train with --method lora to merge",
        )
    _check_base(folder)
    return saved


def _no_adapter(folder: Path) -> BadInput:
    if (folder / SPEC).is_file():
        return BadInput(
            "this is a study; `merge` takes the folder of an adapter",
            value=str(folder),
            next_step=f"give {folder / 'model'}",
        )
    if (folder / CONFIG).is_file():
        return BadInput("this is a whole model already; there is nothing to merge", value=str(folder))
    return BadInput(f"the folder of an adapter has an {ADAPTER_CONFIG}", value=str(folder))


def _check_base(folder: Path) -> None:
    """The base is there, and not quantised."""
    try:
        named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{ADAPTER_CONFIG} must name its base", place=str(folder)) from None
    base = Path(str(named)).expanduser()
    if base.is_absolute() and not base.is_dir():
        raise BadInput(
            "the base must be where the adapter says",
            value=str(base),
            place=f"{folder / ADAPTER_CONFIG}",
            next_step="put its place now into `base_model_name_or_path`",
        )
    try:
        config = json.loads((base / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if config.get("quantization_config"):
        raise BadInput(
            "an adapter cannot be merged into quantised weights",
            value=str(base),
            next_step="load the adapter on its base, or train one on the base in full precision",
        )
