"""Checkpoints that are whole or absent: written aside, synced, renamed, with a manifest of sizes and SHA-256.

safetensors and JSON only; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

MANIFEST = "manifest.json"
STATE = "state.json"
NUM_KEPT = 2
Tensors = Mapping[str, torch.Tensor]


def save_checkpoint(folder: Path, *, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensors]) -> Path:
    """Write checkpoint `step` into `folder` and drop all but the two newest.

    Args:
        state: small values, kept as JSON.
        tensors: file stem -> named tensors, e.g. `weights`, `optimizer`, `best`.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f".partial-{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for stem, named in tensors.items():
        if named:
            save_file(
                {name: value.detach().contiguous() for name, value in named.items()}, partial / f"{stem}.safetensors"
            )
    (partial / STATE).write_text(json.dumps(dict(state)), encoding="utf-8")
    seal(partial)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    sync_folder(folder)
    for old in _numbered(folder)[NUM_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """(newest valid checkpoint, what is wrong with each newer one that was skipped)."""
    skipped: list[str] = []
    for candidate in _numbered(folder):
        fault = find_fault(candidate)
        if fault is None:
            return candidate, skipped
        skipped.append(f"{candidate.name}: {fault}")
    return None, skipped


def load_checkpoint(checkpoint: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """(state, tensors by file stem)."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return state, {file.stem: load_file(file) for file in sorted(checkpoint.glob("*.safetensors"))}


def seal(folder: Path) -> None:
    """Write the manifest of a folder with all that is in it, and sync everything to disk."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)
    hashes: dict[tuple[int, int], str] = {}
    manifest = {}
    for file in files:
        stat = file.stat()
        place = (stat.st_dev, stat.st_ino)
        if place not in hashes:  # the same weights may be linked twice
            hashes[place] = _sha256(file)
        manifest[file.relative_to(folder).as_posix()] = {"bytes": stat.st_size, "sha256": hashes[place]}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in [*files, folder / MANIFEST]:
        _sync_file(file)
    sync_folder(folder)


def find_fault(folder: Path) -> str | None:
    """What is wrong with a sealed folder, in words; None when all sizes and hashes hold."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
            if _sha256(file) != entry["sha256"]:
                return f"{name} is damaged"
    except FileNotFoundError:
        return "the manifest is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return "the manifest is damaged"
    return None


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


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
