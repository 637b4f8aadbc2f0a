"""The folder of a study before it is opened: can it be written, is it free, and does it belong to the study that is asked for."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from finestep.disk import beside, make_folder, open_new, read_object, write_whole, writing
from finestep.errors import BadInput, EnvironmentFault, StudyBusy, StudyChanged
from finestep.store.study_files import StudyFile, read_study_file
from finestep.study import StudySpec
from finestep.study_layout import LOCK, SPEC, TRIALS

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT_VERSION = 1
MAY_CHANGE = {"name", "num_threads"}
PATHS = {"data.path", "data.eval_path", "model.path", "retention.text_path"}
"""The same file may be named from another folder; what is in it is in the fingerprint."""


def check_folder(folder: Path) -> None:
    """The folder can be made and written, and what is inside leads nowhere else.

    Raises:
        BadInput: `--out` is no place for a study.
        EnvironmentFault: the study exists, and its disk takes no more.
    """
    is_old = (folder / SPEC).exists() if _is_name(folder) else False
    try:
        str(folder).encode("utf-8")
        make_folder(folder)
        probe = beside(folder / SPEC)
        with writing(folder), open_new(probe) as handle:
            handle.write(b"x")
        probe.unlink()
    except EnvironmentFault as fault:
        if is_old or _is_short(fault):
            raise
        raise BadInput(
            "the folder of a study must be one that can be written", value=f"{folder}: {fault.what}", place="--out"
        ) from None
    except ValueError as error:
        raise BadInput(
            "the folder of a study must have a valid name", value=f"{folder}: {error}", place="--out"
        ) from None
    if (folder / TRIALS).is_symlink():
        raise BadInput(
            "inside a study finestep writes through no symbolic link",
            value=str(folder / TRIALS),
            next_step="put the whole study where the link leads, with --out",
        )


def lock_study(folder: Path) -> BaseFileLock:
    """The lock of a study, held.

    Raises:
        StudyBusy: another process holds it.
    """
    from filelock import FileLock, Timeout

    place = folder / LOCK
    if place.is_symlink() or place.is_dir():
        raise BadInput("the lock of a study is a plain file", value=str(place), next_step="remove what is in its place")
    lock = FileLock(str(place), thread_local=False)
    try:
        with writing(place):
            lock.acquire(timeout=1.0)
    except Timeout:
        raise StudyBusy(
            f"another finestep process works on {folder}; wait for it, or give another folder with --out"
        ) from None
    return lock


def is_locked(folder: Path) -> bool:
    """True while another process holds the lock of a study; nothing is written to find out."""
    import fcntl

    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def agree(
    path: Path,
    spec: StudySpec,
    fingerprint: Mapping[str, str],
    *,
    is_new: bool,
    more: Mapping[str, object] | None = None,
) -> None:
    """Write `study.json`, or check that the one on disk says the same; a study without trials is free to change."""
    wanted = StudyFile(spec=json.loads(spec.model_dump_json()), fingerprint=dict(fingerprint))
    if is_new:
        known = read_object(path) or {}
        values = {"format": FORMAT_VERSION, "spec": wanted.spec, "fingerprint": wanted.fingerprint, **(more or {})}
        write_whole(path, json.dumps({**values, "id": known.get("id") or uuid.uuid4().hex}, indent=1))
        return
    found = read_study_file(path.parent)
    for name, old, new in _differences(found, wanted):
        raise StudyChanged(
            f"the study in {path.parent} was made with {name} = {_short(old)}, and now it is {_short(new)}; "
            "give the old value, or another folder with --out"
        )


def _differences(found: StudyFile, wanted: StudyFile) -> list[tuple[str, object, object]]:
    """(name, old, new) of what differs. A version that is not known now trains nothing, so it cannot disagree."""
    old = {**_flat(_filled(found.spec)), **_flat(found.fingerprint)}
    new = {**_flat(wanted.spec), **_flat(wanted.fingerprint)}
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if name not in MAY_CHANGE
        and old.get(name) != new.get(name)
        and not (name in PATHS and _same_place(old.get(name), new.get(name)))
        and not (name.startswith("version_") and name not in new)
    ]


def _same_place(old: object, new: object) -> bool:
    """True for two names of one file or folder on this machine."""
    if not (isinstance(old, str) and isinstance(new, str)):
        return False
    places = [Path(name).expanduser() for name in (old, new)]
    return all(place.exists() for place in places) and places[0].resolve() == places[1].resolve()


def _filled(spec: Mapping[str, object]) -> Mapping[str, object]:
    """The specification on disk with the fields that there were not yet when it was written, at their defaults."""
    try:
        return dict(json.loads(StudySpec.model_validate(spec).model_dump_json()))
    except ValidationError:
        return spec


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:28] + "..." + text[-28:]


def _is_name(folder: Path) -> bool:
    """False for a path that no file system takes."""
    try:
        folder.exists()
    except (OSError, ValueError):
        return False
    return True


def _is_short(fault: EnvironmentFault) -> bool:
    """True for what time or a little work fixes: space, not the wrong place."""
    return fault.next_step is not None and fault.next_step.startswith("free")
