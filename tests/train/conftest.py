"""The model of these tests: the shipped one without its upper layers, since what a pass costs here is its number of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.reliability.studies import small_model

LAYERS = 2


@pytest.fixture(scope="session")
def shipped_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "base"
    small_model(place, layers=LAYERS)
    return place
