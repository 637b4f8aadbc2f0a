"""Trackers by name: which package each needs, and its sink. Nothing is imported before it is wanted."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from finestep.errors import BadInput, MissingDependency, did_you_mean
from finestep.trackers.sink import Sink

PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "swanlab": "swanlab",
}
CLASSES = {
    "tensorboard": "TensorBoardSink",
    "wandb": "WandbSink",
    "mlflow": "MlflowSink",
    "trackio": "TrackioSink",
    "swanlab": "SwanLabSink",
}


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """The trackers of `--report-to`, checked before anything runs.

    Raises:
        BadInput: one is not known.
        MissingDependency: its package is not installed.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    for name in names:
        if ":" in name:
            continue
        if name not in PACKAGES:
            raise BadInput(
                f"unknown tracker{did_you_mean(name, PACKAGES)}",
                value=name,
                place="--report-to",
                next_step="known: " + ", ".join(PACKAGES) + "; or a class of your own, module:Class",
            )
        if find_spec(PACKAGES[name]) is None:
            raise MissingDependency(PACKAGES[name], needed_for=f"--report-to {name}", extra="trackers")
    return names


def make_sink(name: str, folder: Path, study: str) -> Sink:
    """The sink of a tracker, or of the user's own class."""
    module, _, kind = name.partition(":")
    if not kind:
        module, kind = f"finestep.trackers.to_{name}", CLASSES[name]
    made: Sink = getattr(import_module(module), kind)(folder, study)
    return made
