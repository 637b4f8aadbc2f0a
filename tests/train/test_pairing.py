"""Shuffled labels are found by exchanging answers; a run on sound data is not accused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finestep.recipe import Recipe
from finestep.train.pairing import exchanged
from tests.train.runs import make_resident, run_trial

RECIPE = Recipe(learning_rate=5e-3, effective_batch_size=4, num_epochs=1, evaluation={"num_evaluations": 2})


@pytest.fixture(scope="module")
def rows(shipped_model) -> list[dict]:
    lines = (shipped_model.parent / "instruct.jsonl").read_text(encoding="utf-8").splitlines()[:360]
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
    chosen, others = exchanged(rows)
    for place, row in enumerate(chosen):
        old = rows.ids[rows.offsets[row] : rows.offsets[row + 1]]
        new = others.ids[others.offsets[place] : others.offsets[place + 1]]
        answer = others.trained[others.offsets[place] : others.offsets[place + 1]]
        length = int((~answer).sum())
        assert old[:length].tolist() == new[:length].tolist()
        assert old[length:].tolist() != new[length:].tolist()
