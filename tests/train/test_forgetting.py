"""What a tuned model forgets is measured against its base, and a budget of forgetting decides which state is kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec, RetentionSpec
from finestep.survey.shipped import SHIPPED_GENERAL_TEXT
from finestep.train.forgetting import ROW_TOKENS
from finestep.train.resident import Resident
from tests.train.runs import run_trial

RECIPE = Recipe(learning_rate=3e-3, num_epochs=1, effective_batch_size=8, evaluation={"num_evaluations": 3})


def resident_with(model: Path, data: Path, *, max_forgetting: float | None = None, method: str = "lora") -> Resident:
    return Resident(
        ModelSpec(path=str(model), device="cpu"),
        DataSpec(path=str(data), max_length=96),
        RECIPE.changed(method=method),
        retention=RetentionSpec(text_path=str(SHIPPED_GENERAL_TEXT), max_forgetting=max_forgetting),
    )


def reference_kl(base, tuned, ids: torch.Tensor) -> float:
    """The slow twin: one row at a time, by the definition."""
    total = count = 0.0
    for row in ids:
        p = base(row[None]).logits[0, :-1].double().softmax(-1)
        q = tuned(row[None]).logits[0, :-1].double().softmax(-1)
        total += float((p * (p / q).log()).sum())
        count += len(row) - 1
    return total / count


def test_kl_and_perplexity_agree_with_their_definition(shipped_model, instruct_file, tmp_path):
    resident = resident_with(shipped_model, instruct_file)
    run = run_trial(resident, RECIPE, tmp_path)
    before, after = run.evaluations[0].metrics, run.evaluations[-1].metrics
    assert before["kl_to_base"] == pytest.approx(0.0, abs=1e-5)
    assert before["general_perplexity"] == pytest.approx(before["base_general_perplexity"], rel=1e-4)
    assert after["kl_to_base"] > 0.01
    ids = resident.forgetting_watch._ids_NS[:4]
    resident.forgetting_watch._ids_NS = ids
    tuned = resident.tuned(RECIPE, run.weights)
    with torch.no_grad(), tuned.disable_adapter():
        resident.forgetting_watch.learn_base(tuned)
    with torch.no_grad():
        measured = resident.forgetting_watch.measure(tuned)
        logits = tuned(ids).logits[:, :-1].log_softmax(-1)
        mean = -logits.gather(-1, ids[:, 1:, None]).mean().item()

        def base(row: torch.Tensor):
            with tuned.disable_adapter():
                return tuned(row)

        assert measured["kl_to_base"] == pytest.approx(reference_kl(base, tuned, ids), rel=2e-3)
    assert measured["general_perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)


def test_a_budget_of_forgetting_decides_which_state_is_kept(shipped_model, instruct_file, tmp_path):
    free = run_trial(resident_with(shipped_model, instruct_file), RECIPE, tmp_path / "free")
    moved = [record.metrics["kl_to_base"] for record in free.evaluations[1:]]
    assert free.outcome.metrics["kl_to_base"] == moved[-1] > moved[0]
    within = resident_with(shipped_model, instruct_file, max_forgetting=(moved[0] + moved[1]) / 2)
    bound = run_trial(within, RECIPE, tmp_path / "bound")
    assert bound.outcome.metrics["kl_to_base"] == pytest.approx(moved[0], rel=1e-3)
    assert bound.outcome.best_step < bound.outcome.cost.num_steps
    none = run_trial(resident_with(shipped_model, instruct_file, max_forgetting=1e-9), RECIPE, tmp_path / "none")
    assert none.outcome.eval_loss is None
    assert none.outcome.state == "completed"
    assert none.outcome.forgets_too_much
    assert none.outcome.forgetting.kl_at_end == pytest.approx(moved[-1], rel=1e-3)
    assert "over the limit of 1e-09; no state before was within it either" in none.outcome.reason
    assert bound.outcome.forgets_too_much
    assert bound.outcome.metrics["kl_to_base"] != bound.outcome.forgetting.kl_at_end
    assert not free.outcome.forgets_too_much


def test_a_full_fine_tune_is_watched_too(shipped_model, instruct_file, tmp_path):
    recipe = RECIPE.changed(method="full", learning_rate=3e-4, num_epochs=0.5)
    run = run_trial(resident_with(shipped_model, instruct_file, method="full"), recipe, tmp_path)
    assert run.evaluations[0].metrics["kl_to_base"] == pytest.approx(0.0, abs=1e-5)
    assert run.evaluations[-1].metrics["kl_to_base"] > 1e-3


def test_a_text_that_is_too_short_is_refused(shipped_model, instruct_file, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("Hello.", encoding="utf-8")
    spec = RetentionSpec(text_path=str(short))
    with pytest.raises(BadInput, match=f"at least {ROW_TOKENS} tokens"):
        Resident(
            ModelSpec(path=str(shipped_model), device="cpu"), DataSpec(path=str(instruct_file)), RECIPE, retention=spec
        )
