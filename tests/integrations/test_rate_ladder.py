"""One script, four rates: a plain Trainer on the shipped model is called too low, healthy, too high and lost."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from benchmarks.rate_ladder import BATCH, BEST, encoded_rows, judged_by_state  # noqa: E402
from benchmarks.rate_ladder import trained as train_plainly  # noqa: E402

from finestep.integrations.transformers import FinestepCallback  # noqa: E402
from finestep.survey.shipped import SHIPPED_MODEL  # noqa: E402

STEPS, HELD_BACK = 50, 32
ALLOWED = {
    2e-5: {"lr_too_low"},
    5e-3: {"healthy", "undertrained"},
    0.05: {"lr_too_high_unstable", "lr_too_high_diverged"},
    0.5: {"lr_too_high_diverged"},
}
"""Fifty steps are few: the best rate may be told to go on, and then with the same rate."""


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(SHIPPED_MODEL)


@pytest.fixture(scope="module")
def rows(tokenizer):
    return encoded_rows(tokenizer, most=STEPS * BATCH + HELD_BACK)


def trained(folder: Path, rate: float, rows, tokenizer, callbacks=()):
    return train_plainly(
        rate, rows, tokenizer, folder, steps=STEPS, held_back=HELD_BACK, evaluate_every=10, callbacks=callbacks
    )


@pytest.fixture(scope="module")
def watched(rows, tokenizer, tmp_path_factory):
    """A run with the callback, and the callback; each rate is trained once."""

    @functools.cache
    def run(rate: float):
        callback = FinestepCallback()
        return callback, trained(tmp_path_factory.mktemp("watched") / "run", rate, rows, tokenizer, [callback])

    return run


@pytest.mark.parametrize("rate", sorted(ALLOWED))
def test_only_the_rate_differs(rate: float, tmp_path: Path, watched) -> None:
    callback, trainer = watched(rate)
    with_callback = callback.diagnosis()
    without = judged_by_state(trainer.state, tmp_path)
    assert {with_callback.label, without.label} <= ALLOWED[rate], (with_callback.findings, without.findings)
    assert math.isclose(callback.evaluations[0].eval_loss, trainer.state.log_history[0]["eval_loss"])
    if with_callback.label not in ("healthy", "undertrained"):
        advised = _rate_in(with_callback.verdict.advice)
        assert abs(math.log(advised / BEST)) < abs(math.log(rate / BEST))


def _rate_in(advice: str) -> float:
    return float(re.search(r"about ([\d.]+(?:e-\d+)?)", advice).group(1))


def test_the_measurement_of_the_base_changes_nothing(tmp_path: Path, rows, tokenizer, watched) -> None:
    def losses(trainer) -> list[float]:
        return [row["loss"] for row in trainer.state.log_history if "loss" in row]

    assert losses(trained(tmp_path / "plain", BEST, rows, tokenizer)) == losses(watched(BEST)[1])
