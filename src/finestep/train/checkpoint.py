"""Checkpoints that are whole or absent: written aside, synced, renamed, with a manifest of sizes and SHA-256.

safetensors and JSON only; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from finestep.disk import new_folder, remove_leftovers, write_whole
from finestep.store import sealed
from finestep.store.sealed import checkpoints_in, drop_old_checkpoints, find_fault

STATE = "state.json"
Tensors = Mapping[str, torch.Tensor]


def save_checkpoint(folder: Path, *, step: int, state: Mapping[str, object], tensors: Mapping[str, Tensors]) -> Path:
    """Write checkpoint `step` into `folder` and drop all but the two newest.

    Args:
        state: small values, kept as JSON.
        tensors: file stem -> named tensors, e.g. `weights`, `optimizer`, `best`.
    """
    final = folder / f"step-{step:08d}"
    remove_leftovers(folder)
    needed = sum(value.numel() * value.element_size() for named in tensors.values() for value in named.values())
    with new_folder(final, needed_bytes=needed) as partial:
        for stem, named in tensors.items():
            if named:
                whole = {name: value.detach().contiguous() for name, value in named.items()}
                save_file(whole, partial / f"{stem}.safetensors")
        write_whole(partial / STATE, json.dumps(dict(state)))
        seal(partial)
    sync_folder(folder)
    drop_old_checkpoints(folder)
    return final


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """(newest valid checkpoint, what is wrong with each newer one that was skipped)."""
    skipped: list[str] = []
    for candidate in checkpoints_in(folder):
        fault = find_fault(candidate)
        if fault is None:
            return candidate, skipped
        skipped.append(f"{candidate.name}: {fault}")
    return None, skipped


def load_checkpoint(checkpoint: Path) -> tuple[dict[str, object], dict[str, dict[str, torch.Tensor]]]:
    """(state, tensors by file stem)."""
    state: dict[str, object] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return state, {file.stem: load_file(file) for file in sorted(checkpoint.glob("*.safetensors"))}


def seal(folder: Path) -> None:
    """Write the manifest of a folder with all that is in it, and sync everything to disk."""
    for file in sealed.seal(folder):
        _sync_file(file)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_file(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
