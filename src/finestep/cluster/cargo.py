"""Files of a trial as messages between machines that share no disk: what travels with an event, and how it is put down whole.

A checkpoint and a model are sealed folders (`store/sealed.py`): what arrives is compared with the manifest before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from finestep.disk import make_folder, new_folder, write_whole
from finestep.store.sealed import checkpoints_in, drop_old_checkpoints, find_fault, seal
from finestep.study_layout import CHECK_ROWS, CHECKPOINTS, MODEL
from finestep.survey.adapter_files import BASE, point_at_own_base

PART_BYTES = 32 * 2**20
Parts = list[object]
"""A large file: its parts, each a reference to an object in the store of Ray."""
Cargo = dict[str, bytes | Parts]
"""Path inside of the trial's folder -> what is in the file."""


class CargoDamaged(Exception):
    """What arrived is not what its manifest says."""


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of a trial, if it has any."""
    return next(iter(checkpoints_in(folder / CHECKPOINTS)), None)


def packed(folder: Path, names: list[str], *, put: Callable[[bytes], object] | None = None) -> Cargo:
    """The files of some names, and all in folders of some names; large files in parts that `put` stores."""
    cargo: Cargo = {}
    for name in names:
        place = folder / name
        for file in [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []:
            if file.is_file():
                cargo[file.relative_to(folder).as_posix()] = _content(file, put)
    return cargo


def _content(file: Path, put: Callable[[bytes], object] | None) -> bytes | Parts:
    if put is None or file.stat().st_size <= 2 * PART_BYTES:
        return file.read_bytes()
    with file.open("rb") as handle:
        return [put(part) for part in iter(lambda: handle.read(PART_BYTES), b"")]


def unpack_checkpoint(folder: Path, cargo: Cargo, *, get: Callable[[object], bytes]) -> None:
    """Put a checkpoint in its place, whole or not at all, and drop all but the two newest.

    Raises:
        CargoDamaged: it is not what its manifest says.
    """
    steps = {Path(name).parts[1] for name in cargo if name.startswith(f"{CHECKPOINTS}/")}
    for step in steps:
        _unpack_sealed(folder / CHECKPOINTS / step, _within(cargo, f"{CHECKPOINTS}/{step}"), get=get)
    drop_old_checkpoints(folder / CHECKPOINTS)


def unpack_model(folder: Path, cargo: Cargo, *, get: Callable[[object], bytes]) -> None:
    """Put the tuned model in its place; a classifier's adapter names the base beside it by its place here.

    Raises:
        CargoDamaged: it is not what its manifest says.
    """
    make_folder(folder)
    if model := _within(cargo, MODEL):
        _unpack_sealed(folder / MODEL, model, get=get)
        if (folder / MODEL / BASE).is_dir():
            point_at_own_base(folder / MODEL)
            seal(folder / MODEL)
    rows = cargo.get(CHECK_ROWS)
    if isinstance(rows, bytes):
        write_whole(folder / CHECK_ROWS, rows)


def unpack_plain(folder: Path, cargo: Cargo) -> None:
    """Files that are no sealed folder of ours: data, or a checkpoint on its way to a node, which its reader checks."""
    for name, content in cargo.items():
        make_folder((folder / name).parent)
        write_whole(folder / name, cast("bytes", content))


def _unpack_sealed(final: Path, files: Mapping[str, bytes | Parts], *, get: Callable[[object], bytes]) -> None:
    with new_folder(final) as partial:
        for name, content in files.items():
            make_folder((partial / name).parent)
            with (partial / name).open("xb") as handle:
                for part in [content] if isinstance(content, bytes) else map(get, content):
                    handle.write(part)
        if (fault := find_fault(partial)) is not None:
            raise CargoDamaged(f"{final.name}: {fault}")


def _within(cargo: Cargo, folder: str) -> Cargo:
    inside = f"{folder}/"
    return {name.removeprefix(inside): content for name, content in cargo.items() if name.startswith(inside)}
