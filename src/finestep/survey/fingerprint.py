"""Fingerprints of data, model and versions: what must not change while a study goes on."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from finestep.survey.rows import data_files

VERSIONED = ("finestep", "torch", "transformers", "tokenizers", "peft")
WHOLE_FILE_BYTES = 256 * 1024 * 1024
EDGE_BYTES = 4 * 1024 * 1024


def fingerprint(model: str, data: str, eval_data: str | None = None) -> dict[str, str]:
    """Named hashes and versions.

    Weights over 256 MB are hashed by size and their first and last 4 MB; a Hub name stands for itself. A package that is
    not installed has no version.
    """
    out = {"data_sha256": data_hash(data), "model_sha256": model_hash(model), "python": platform.python_version()}
    if eval_data:
        out["eval_data_sha256"] = data_hash(eval_data)
    return out | {f"version_{name}": found for name in VERSIONED if (found := installed_version(name))}


def data_hash(path: str) -> str:
    """Hash of a data file, of all files of a folder, or of a Hub name."""
    return _files_hash(data_files(path)) or f"hub:{path}"


def model_hash(path: str) -> str:
    """Hash of a model folder's config, tokenizer and weights, or of a Hub name."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return f"hub:{path}"
    kinds = {".json", ".safetensors", ".txt", ".model", ".jinja", ".bin"}
    return _files_hash(sorted(file for file in folder.iterdir() if file.suffix in kinds and file.is_file()))


def _files_hash(files: list[Path]) -> str:
    if not files:
        return ""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + _file_hash(file))
    return total.hexdigest()


def _file_hash(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as handle:
        if size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(handle, "sha256").digest()
        digest = hashlib.sha256(str(size).encode() + handle.read(EDGE_BYTES))
        handle.seek(-EDGE_BYTES, 2)
        digest.update(handle.read())
        return digest.digest()


def installed_version(name: str) -> str | None:
    """Version of a package, or None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
