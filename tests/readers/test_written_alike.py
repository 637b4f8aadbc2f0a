"""A long log whose rows differ in nothing but their numbers is read at once, and to the same values as row by row."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.open_logs import read_logs
from finestep.readers.written_alike import numbers_of

NUM_ROWS = 3000
ROWS = [
    {"step": n, "loss": round(1 + 2 * math.exp(-n / 400) + 0.01 * (n * 7 % 5), 6), "learning_rate": 2e-5 * (1 - n / NUM_ROWS),
     "epoch": n / 1000}
    for n in range(1, NUM_ROWS + 1)
]  # fmt: skip
WRITTEN = {
    "log.jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "trainer_state.json": lambda rows: json.dumps({"log_history": rows, "max_steps": NUM_ROWS}, indent=2),
    "log.csv": lambda rows: (
        "step,loss,learning_rate,epoch\n"
        + "".join(f"{row['step']},{row['loss']},{row['learning_rate']},{row['epoch']}\n" for row in rows)
    ),
    "out.log": lambda rows: "".join(f"{row}\n" for row in rows),
}


def read(tmp_path: Path, name: str, text: str) -> TrainingLog:
    path = tmp_path / name
    path.write_text(text)
    [log] = read_logs(path)
    return log


@pytest.mark.parametrize("name", WRITTEN)
def test_every_value_arrives(name: str, tmp_path: Path) -> None:
    train = read(tmp_path, name, WRITTEN[name](ROWS)).train
    for column in ("step", "loss", "learning_rate", "epoch"):
        assert getattr(train, column).tolist() == [row[column] for row in ROWS], column


@pytest.mark.parametrize("name", WRITTEN)
def test_rows_that_are_not_alike_are_read_too(name: str, tmp_path: Path) -> None:
    text = WRITTEN[name](ROWS)
    broken = str(ROWS[1499]["loss"])
    assert text.count(broken) >= 1
    train = read(
        tmp_path, name, text.replace(broken, "NaN" if name.endswith("n") else "nan" if name[0] == "o" else '"NaN"', 1)
    ).train
    assert len(train) == NUM_ROWS
    assert np.isinf(train.loss).sum() == 1
    assert np.isfinite(train.learning_rate).all()


def test_another_order_of_names_is_no_mistake(tmp_path: Path) -> None:
    mixed = [dict(reversed(row.items())) if n % 3 == 0 else row for n, row in enumerate(ROWS)]
    train = read(tmp_path, "log.jsonl", WRITTEN["log.jsonl"](mixed)).train
    assert train.loss.tolist() == [row["loss"] for row in ROWS]


@pytest.mark.parametrize(
    "second",
    [
        '{"step": 2, "loss": }',
        '{"step": 2, "loss": 1.2.3}',
        '{"loss": 2, "step": 1.5}',
        '{"step": 2, "loss": 1.5, "lr": 1}',
        '{"step": "2", "loss": 1.5}',
    ],
)
def test_texts_that_differ_in_more_are_left_alone(second: str) -> None:
    assert numbers_of(['{"step": 1, "loss": 2.5}', second], {"step": 1, "loss": 2.5}) is None
