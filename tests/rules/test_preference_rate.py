"""Rates of DPO, ORPO and KTO: what was published, one vote a publisher, and a width that does not pretend to know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finestep.flows.recommend import recommend
from finestep.knowledge.evidence import evidence
from finestep.knowledge.preference import preference_runs
from finestep.rules.compose import Ask
from finestep.rules.preference_rate import (
    BETA_SLOPE,
    METHODS,
    SIZE_SLOPE,
    SOURCE,
    preference_terms,
    spread,
    votes_of,
)

TEMPLATES = ("axolotl", "torchtune")
"""Publishers whose example files repeat one rate for all models."""


def rate(method, *, params="7B", beta=None):
    answer = recommend(params=params, method=method, ask=Ask(beta=beta))
    return answer.estimates["learning_rate"]


def test_every_run_says_where_it_was_read():
    runs = preference_runs()
    assert len(runs) == len({run.id for run in runs}) >= 50
    assert all(run.source_url.startswith("https://") for run in runs)
    assert {run.objective for run in runs} == {"dpo", "orpo", "kto"}
    assert evidence(SOURCE).confidence == "read"


def test_the_slopes_are_those_of_the_packaged_runs():
    full = [
        run
        for run in preference_runs()
        if run.objective == "dpo" and not run.is_adapter and run.publisher not in TEMPLATES
    ]
    size = np.log10([run.params / 7e9 for run in full])
    rates = np.log10([run.learning_rate for run in full])
    assert np.polyfit(size, rates, 1)[0] == pytest.approx(SIZE_SLOPE, abs=0.01)
    stated = [run for run in full if run.beta and run.beta < 1]
    table = np.array([[1, math.log10(run.params / 7e9), math.log10(run.beta)] for run in stated])
    found = np.linalg.lstsq(table, np.log10([run.learning_rate for run in stated]), rcond=None)[0]
    assert found[2] == pytest.approx(BETA_SLOPE, abs=0.01)


def test_the_interval_holds_what_most_publishers_use():
    for objective, is_adapter, method in (("dpo", True, "dpo"), ("dpo", False, "dpo-full")):
        votes = votes_of(objective, is_adapter=is_adapter)
        found = rate(method)
        inside = sum(found.low <= 10**vote <= found.high for vote in votes)
        assert inside >= 0.6 * len(votes)


def test_preferences_are_learned_at_a_fraction_of_the_rate_of_answers():
    assert rate("dpo-full").value < rate("full").value / 5
    assert rate("dpo").value < rate("lora").value / 3
    assert rate("dpo-full").value < rate("dpo").value
    assert rate("orpo-full").value > rate("dpo-full").value


def test_size_and_beta_move_the_rate_a_little():
    assert rate("dpo-full", params="70B").value < rate("dpo-full", params="1B").value
    assert rate("dpo", beta=0.01).value < rate("dpo", beta=0.5).value
    assert rate("orpo", beta=0.01).value == rate("orpo", beta=0.5).value


def test_little_evidence_is_wide():
    assert spread([1.0]) >= 0.5
    assert spread([1.0, 1.01, 1.02]) >= 0.5
    width = {method: math.hypot(*(term.sd for term in preference_terms(method, params=7e9))) for method in METHODS}
    assert width["kto"] > width["dpo"]
    assert all(sd >= 0.3 for sd in width.values())


def test_the_answer_says_that_another_trainer_is_needed():
    answer = recommend(params="7B", method="dpo")
    assert answer.recipe is None
    assert any("--with" in note for note in answer.notes)
