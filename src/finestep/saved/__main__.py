"""The door: `python -m finestep.saved request.json`; it answers in JSON lines as the worker does."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path

from pydantic import ValidationError

from finestep.errors import BadInput, FinestepError, cause_words
from finestep.executors.spoken import Line, be_quiet
from finestep.saved_model import FILE, CheckRows, SavedModel, SavedRequest, read_saved
from finestep.survey.installed import TRAINING, check_installed, leave_out_bitsandbytes


def main(path: str) -> int:
    """Answer one request with `finished` or `error`."""
    be_quiet()
    say = Line(unheard=lambda: None).send
    try:
        say("finished", _answer(SavedRequest.model_validate_json(Path(path).read_text(encoding="utf-8"))))
    except FinestepError as error:
        say("error", {"error": type(error).__name__, "text": str(error)})
        return error.exit_code
    except (ValidationError, Exception) as error:
        traceback.print_exc()
        say("error", {"error": "WorkerFailed", "text": cause_words(error)})
        return 1
    return 0


def _answer(request: SavedRequest) -> dict[str, object]:
    check_installed(TRAINING, needed_for="loading a saved model")
    import torch

    warnings.filterwarnings("ignore")
    if request.num_threads:
        torch.set_num_threads(request.num_threads)
    folder = Path(request.folder)
    saved = read_saved(folder)
    if saved is not None and saved.method != "qlora":
        leave_out_bitsandbytes()
    if request.purpose == "merge":
        return _merge(folder, saved, Path(str(request.out)))
    from finestep.saved.check import check

    if saved is None:
        raise BadInput(f"a saved model to be checked needs its {FILE}", place=request.folder)
    rows = CheckRows.model_validate_json(Path(str(request.rows)).read_text(encoding="utf-8"))
    return check(folder, saved, rows, device=request.device)


def _merge(folder: Path, saved: SavedModel | None, out: Path) -> dict[str, object]:
    from finestep.saved.merge import foreign_adapter, merge

    known = saved or foreign_adapter(folder)
    if known is None:
        raise BadInput(
            f"only an adapter for text can be merged without a {FILE}",
            place=str(folder),
            next_step="load it in Python with its own class and call `merge_and_unload()`",
        )
    return merge(folder, known, out)


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(code)  # taking torch apart would take half a second
