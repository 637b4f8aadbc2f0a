"""From a path to training logs: which files in a folder are logs, and which reader fits a file, judged by its
content."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.disk import refuse_special
from finestep.errors import BadInput
from finestep.readers.delimited import delimiter_of, read_delimited
from finestep.readers.json_logs import decoded, flattened, is_own_steps, read_json, read_json_lines, read_own_steps
from finestep.readers.limits import MAX_FILES
from finestep.readers.mlflow_files import is_run_folder, read_run_folder
from finestep.readers.sqlite_logs import SQLITE_START, BrokenDatabase, read_sqlite
from finestep.readers.tensorboard_events import is_event_file, read_events
from finestep.readers.text_logs import read_text
from finestep.readers.text_stream import head
from finestep.readers.wandb_records import is_wandb_file, read_wandb

Reader = Callable[[Path], list[TrainingLog]]

_MAX_DEPTH = 6
_JSON_START = re.compile(r"\{\s*[\"}]|\[\s*[\[{\]]")
_KNOWN_NAMES = re.compile(
    r"^(?:trainer_state\.json|trainer_log\.jsonl|logging\.jsonl|metrics\.csv|steps\.jsonl|events\.out\.tfevents.*|run-.*\.wandb"
    r"|mlflow\.db|log_\d+\.txt|.*\.tfevents)$"
)
_LOG_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".tsv", ".log", ".txt", ".out", ".wandb", ".db", ".tfevents"})
_SKIPPED_FOLDERS = frozenset({".git", "node_modules", "__pycache__", ".venv"})


def find_logs(pattern: str) -> list[Path]:
    """Files (and MLflow run folders) that a path, a folder or a glob names; BadInput when there is none."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = _in_folder(path)
    elif path.exists():
        found = [path]
    else:
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))[:MAX_FILES]]
        found = [each for each in found if each.is_file() or is_run_folder(each)]
    if not found:
        raise BadInput("a log must be an existing file, folder or glob", value=pattern, next_step="check the path")
    return found


def read_logs(path: Path) -> list[TrainingLog]:
    """The runs in one file or MLflow run folder; BadInput when it cannot be read or holds no training log."""
    refuse_special(path)
    try:
        logs = read_run_folder(path) if path.is_dir() else reader_of(path)(path)
    except BrokenDatabase as error:
        raise BadInput(f"the SQLite file is broken ({error})", place=str(path)) from error
    except OSError as error:
        raise BadInput(f"the log cannot be read ({error.strerror})", place=str(path)) from error
    return logs


def reader_of(path: Path) -> Reader:
    """The reader for a file, from its first bytes; anything unknown is read as text."""
    if is_own_steps(path):
        return read_own_steps
    start = head(path)
    if start.startswith(SQLITE_START):
        return read_sqlite
    if is_wandb_file(start):
        return read_wandb
    if is_event_file(start):
        return read_events
    text = start.decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith(("{'", "[{'", "log_history")):
        return read_text
    if _JSON_START.match(text):
        return _json_reader(text)
    return read_delimited if delimiter_of(path) else read_text


def _json_reader(text: str) -> Reader:
    first, newline, rest = text.partition("\n")
    row = decoded(first) if text.startswith("{") else None
    if isinstance(row, dict) and (not rest.strip() or rest.lstrip().startswith("{")):
        # A document in one line (a trainer state, lists of losses) is no row, although it is no more than a line.
        is_document = '"log_history"' in first or (not rest.strip() and _holds_lists(row))
        return read_json if is_document else read_json_lines
    is_torn = text.startswith("{") and newline and not first.rstrip().endswith(("{", ",", "["))
    return read_json_lines if is_torn and rest.lstrip().startswith("{") else read_json


def _holds_lists(row: Mapping[str, object]) -> bool:
    return any(isinstance(value, list) for _, value in flattened(row))


def _in_folder(folder: Path) -> list[Path]:
    files = list(_walk(folder))
    known = [path for path in files if _KNOWN_NAMES.match(path.name) or path.is_dir()]
    beside = [path for path in files if path.parent == folder and path.suffix in _LOG_SUFFIXES and path not in known]
    return _without_duplicates(known) if known else beside


def _walk(folder: Path) -> Iterator[Path]:
    count = 0
    for root, folders, names in os.walk(folder):
        path = Path(root)
        if is_run_folder(path):
            folders.clear()
            yield path
            continue
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS)
        if len(path.relative_to(folder).parts) >= _MAX_DEPTH:
            folders.clear()
        for name in sorted(names):
            count += 1
            if count > 20 * MAX_FILES:
                return
            yield path / name


def _without_duplicates(paths: list[Path]) -> list[Path]:
    """Of the checkpoints of one run only the last, and no trainer_log.jsonl beside a trainer state."""
    chosen: dict[tuple[str, str], tuple[float, Path]] = {}
    for path in paths:
        checkpoint = re.fullmatch(r"checkpoint-(\d+)", path.parent.name)
        run = path.parent.parent if checkpoint else path.parent
        order = float(checkpoint.group(1)) if checkpoint else float("inf")
        key = (str(run), path.name)
        if key not in chosen or order > chosen[key][0]:
            chosen[key] = (order, path)
    with_state = {run for run, name in chosen if name == "trainer_state.json"}
    kept = [
        path for (run, name), (_, path) in chosen.items() if not (name == "trainer_log.jsonl" and run in with_state)
    ]
    return kept[:MAX_FILES]
