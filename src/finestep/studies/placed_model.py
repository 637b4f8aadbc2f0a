"""The chosen trial's model at `model/`: whole by its manifest or not placed, and never another trial's."""

from __future__ import annotations

import shutil
from pathlib import Path

from finestep.disk import new_folder, remove
from finestep.saved_model import ADAPTER_CONFIG
from finestep.store.sealed import MANIFEST, find_fault, read_manifest
from finestep.store.study_files import StudyFiles
from finestep.study_layout import MODEL
from finestep.survey.adapter_files import own_copy, point_at_own_base
from finestep.trial import Trial


def place_model(store: StudyFiles, best: Trial) -> str | None:
    """Put the best trial's model at `model/`; what to say when it is damaged, None when all is well.

    A damaged one is not placed; a whole copy of it that stands at `model/` already stays.
    """
    source, target = store.trial_folder(best.number) / MODEL, store.folder / MODEL
    if source.is_symlink():
        return f"the model of trial {best.number} is a symbolic link, and was not followed"
    fault = _fault(source)
    if fault is None and source.is_dir():
        _place(source, target)
        return None
    if source.is_dir() or _kept_its_model(best):
        if _is_copy_of(source, target):
            return f"the model of trial {best.number} is damaged ({fault}); its copy in {MODEL}/ is whole"
        remove(target)
        what = f"the model of trial {best.number} is damaged ({fault})"
        return f"{what}: there is no {MODEL}/; train its recipe again with `finestep train`"
    remove(target)
    return None


def _kept_its_model(best: Trial) -> bool:
    return best.outcome is not None and best.outcome.model_dir is not None


def _fault(source: Path) -> str | None:
    """What is wrong with a sealed model; a folder without a manifest is another trainer's, and taken as it is."""
    if not source.is_dir():
        return "it is missing"
    if not (source / MANIFEST).exists() and not (source / "finestep.json").exists():
        return None
    return find_fault(source)


def _place(source: Path, target: Path) -> None:
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    with new_folder(target, needed_bytes=size) as partial:
        partial.rmdir()
        shutil.copytree(source, partial, copy_function=own_copy, symlinks=True)
        point_at_own_base(partial, target)


def _is_copy_of(source: Path, target: Path) -> bool:
    """True when `model/` is whole, and the same model as the damaged one, by what their manifests say of the weights."""
    if target.is_symlink() or find_fault(target, but=(ADAPTER_CONFIG,)) is not None:
        return False
    own, theirs = read_manifest(target), read_manifest(source)
    return theirs is None or own == theirs
