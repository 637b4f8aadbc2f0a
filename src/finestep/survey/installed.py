"""Which packages are installed, asked without importing any."""

from __future__ import annotations

import importlib.util
import sys
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


def leave_out_bitsandbytes() -> None:
    """Let PEFT start without bitsandbytes in this process, which needs it for weights in 4 or 8 bits alone.

    PEFT imports it wherever it is installed, and that takes a quarter of the time in which a worker starts.
    """
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
