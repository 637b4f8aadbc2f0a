"""What a study has that its nodes must have too: the versions and the model, which are compared, and the data, which are sent."""

from __future__ import annotations

from pathlib import Path

from finestep.cluster.cargo import Cargo
from finestep.protocol import SessionRequest
from finestep.survey.fingerprint import fingerprint
from finestep.survey.rows import data_files


def description(request: SessionRequest) -> dict[str, str]:
    """What nodes must have in common with this machine, by name."""
    found = fingerprint(request.model.path, request.data.path)
    own = {name: value for name, value in found.items() if name.startswith(("version_", "model_"))}
    return {**own, "python": ".".join(found["python"].split(".")[:2])}


def study_files(request: SessionRequest) -> dict[str, Cargo]:
    """The files of the study by the field of the session that names them; a Hub name has none."""
    named = {"path": request.data.path, "eval_path": request.data.eval_path}
    files = {field: data_files(path) for field, path in named.items() if path is not None}
    if request.retention is not None:
        files["text_path"] = [Path(request.retention.text_path)]
    return {field: {file.name: file.read_bytes() for file in found} for field, found in files.items() if found}
