"""Which packages are installed, asked without importing any."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from finestep.errors import MissingDependency

TRAINING = ("torch", "transformers", "peft", "safetensors", "sklearn")
PROBING = ("torch", "transformers", "peft")
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Packages that are installed under another name than they are imported."""


def check_installed(packages: Sequence[str], *, needed_for: str, extra: str = "train") -> None:
    """Raise MissingDependency for the first package that cannot be imported."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(DISTRIBUTIONS.get(package, package), needed_for=needed_for, extra=extra)
