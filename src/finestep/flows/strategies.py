"""`make_strategy` and `make_judge` under the name that they had in 0.1, for scripts; they live in `studies/strategies.py`."""

from __future__ import annotations

from importlib import import_module


def __getattr__(name: str) -> object:
    return getattr(import_module("finestep.studies.strategies"), name)
