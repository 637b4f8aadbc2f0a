"""A folder sealed by a manifest of sizes and SHA-256: whole, or with a fault that can be named. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from finestep.disk import read_object, remove, write_whole

MANIFEST = "manifest.json"
CHECKPOINTS_KEPT = 2


def checkpoints_in(folder: Path) -> list[Path]:
    """A trial's checkpoints, the newest first; nothing is said of their soundness."""
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def drop_old_checkpoints(folder: Path) -> None:
    """Keep the newest, and the one before it in case the newest is damaged."""
    for old in checkpoints_in(folder)[CHECKPOINTS_KEPT:]:
        remove(old)


def seal(folder: Path) -> list[Path]:
    """Write the manifest of a folder with all that is in it; the files, the manifest last."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)
    hashes: dict[tuple[int, int], str] = {}
    manifest = {}
    for file in files:
        stat = file.stat()
        place = (stat.st_dev, stat.st_ino)
        if place not in hashes:  # the same weights may be linked twice
            hashes[place] = _sha256(file)
        manifest[file.relative_to(folder).as_posix()] = {"bytes": stat.st_size, "sha256": hashes[place]}
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1))
    return [*files, folder / MANIFEST]


def find_fault(folder: Path, *, but: Collection[str] = ()) -> str | None:
    """What is wrong with a sealed folder, in words; None when all sizes and hashes hold.

    Args:
        but: names of files that may differ.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest.items():
            file = folder / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                return "the manifest names a file outside"
            if name in but:
                continue
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
            if _sha256(file) != entry["sha256"]:
                return f"{name} is damaged"
    except FileNotFoundError:
        return "the manifest is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "the manifest is damaged"
    return None


def read_manifest(folder: Path) -> dict[str, object] | None:
    """The manifest of a sealed folder; None when it cannot be read."""
    return read_object(folder / MANIFEST)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
