"""One recorded real run of each planted fault, and clean ones: the fault is named, and clean runs are left alone.

`python -m benchmarks.planted_faults` trains them; ten seeds of each are judged there.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.planted_faults.__main__ import is_false_alarm, is_named, judged
from benchmarks.planted_faults.plants import CLEAN, FAULTS
from benchmarks.planted_faults.runs import Record, from_columns

LINES = (Path(__file__).parent / "planted_runs.jsonl").read_text(encoding="utf-8").splitlines()
RECORDS: dict[str, Record] = {record.plant: record for record in map(from_columns, map(json.loads, LINES))}
RECORDED_FAULTS = [plant for plant in FAULTS if plant.name in RECORDS]
RECORDED_CLEAN = [plant for plant in CLEAN if plant.name in RECORDS]


@pytest.mark.parametrize("plant", RECORDED_FAULTS, ids=lambda plant: plant.name)
def test_a_planted_fault_is_named(plant) -> None:
    assert is_named(plant, judged(RECORDS[plant.name]))


@pytest.mark.parametrize("plant", RECORDED_CLEAN, ids=lambda plant: plant.name)
def test_a_clean_run_is_left_alone(plant) -> None:
    assert not is_false_alarm(judged(RECORDS[plant.name]))


def test_every_fault_is_recorded() -> None:
    assert {plant.name for plant in FAULTS} <= set(RECORDS)
    assert len(RECORDED_CLEAN) >= 2
