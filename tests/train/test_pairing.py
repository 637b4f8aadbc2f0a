"""Shuffled labels are found by exchanging answers; a run on sound data is not accused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finestep.diagnosis.pairing import pairing_findings
from finestep.recipe import Recipe
from finestep.train.pairing import exchanged
from tests.train.runs import make_resident, run_trial

RECIPE = Recipe(learning_rate=5e-3, effective_batch_size=4, num_epochs=1, evaluation={"num_evaluations": 2})


@pytest.fixture(scope="module")
def rows(whole_model) -> list[dict]:
    lines = (whole_model.parent / "instruct.jsonl").read_text(encoding="utf-8").splitlines()[:360]
    return [json.loads(line) for line in lines]


def codes_after(model: Path, rows: list[dict], folder: Path) -> list[str]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = run_trial(make_resident(model, path, RECIPE), RECIPE, folder)
    return [finding.code for finding in run.outcome.findings]


def test_answers_of_other_prompts_are_found(shipped_model, rows, tmp_path):
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [{**row, "output": rows[other]["output"]} for row, other in zip(rows, order, strict=True)]
    assert "answers_unrelated" in codes_after(shipped_model, shuffled, tmp_path)


def test_sound_rows_are_not_accused(shipped_model, rows, tmp_path):
    assert "answers_unrelated" not in codes_after(shipped_model, rows, tmp_path)


def test_prompts_stay_and_answers_go_round(shipped_model, instruct_file):
    rows = make_resident(shipped_model, instruct_file, RECIPE).data.evaluation
    chosen, others, partner = exchanged(rows)
    for place, row in enumerate(chosen):
        old = rows.ids[rows.offsets[row] : rows.offsets[row + 1]]
        new = others.ids[others.offsets[place] : others.offsets[place + 1]]
        answer = others.trained[others.offsets[place] : others.offsets[place + 1]]
        length = int((~answer).sum())
        assert old[:length].tolist() == new[:length].tolist()
        assert old[length:].tolist() != new[length:].tolist()
        theirs = rows.ids[: rows.offsets[chosen[partner[place]] + 1]]
        assert new[length:].tolist() == theirs[len(theirs) - (len(new) - length) :].tolist()


@pytest.mark.parametrize(
    ("gap", "error", "is_said"),
    [(0.003, 0.014, True), (0.015, 0.116, False), (0.022, 0.008, False), (0.001, 0.001, True), (2.5, 0.2, False)],
)
def test_what_is_known_too_badly_is_not_said(gap, error, is_said):
    """0.022 is small, but it is not nothing; and a gap of 0.015 that may as well be 0.2 says nothing."""
    assert bool(pairing_findings(gap, error)) == is_said
