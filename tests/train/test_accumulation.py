"""The effective batch is what counts: how it is cut into micro-batches changes nothing but rounding.

Adam turns a gradient below its epsilon, whose sign is rounding, into a step of the size of the rate (at 1e-8 one weight in
2,048 differs by 2e-5), so these runs use the baseline's rates and an epsilon above that noise.
"""

from __future__ import annotations

import pytest

from finestep.recipe import Recipe
from tests.train.runs import largest_difference, make_resident, run_trial


@pytest.mark.parametrize("method", ["lora", "full"])
def test_causal_1x16_4x4_16x1(method, shipped_model, instruct_file, tmp_path):
    rate = 2e-4 if method == "lora" else 2e-5
    recipe = Recipe(
        method=method,
        learning_rate=rate,
        effective_batch_size=16,
        num_epochs=0.75,
        evaluation={"num_evaluations": 1},
        optimizer={"epsilon": 1e-6},
    )
    resident = make_resident(shipped_model, instruct_file, recipe)
    runs = [run_trial(resident, recipe.changed(micro_batch_size=micro), tmp_path / str(micro)) for micro in (1, 4, 16)]
    assert len(runs[0].steps) == 5
    for other in runs[1:]:
        assert other.losses == pytest.approx(runs[0].losses, abs=1e-5)
        assert largest_difference(other.weights, runs[0].weights) < 1e-5


def test_the_last_partial_batch_and_unequal_micro_batches_count_by_tokens(shipped_model, instruct_file, tmp_path):
    recipe = Recipe(
        learning_rate=2e-4,
        effective_batch_size=10,
        num_epochs=0.5,
        evaluation={"num_evaluations": 1},
        optimizer={"epsilon": 1e-6},
    )
    resident = make_resident(shipped_model, instruct_file, recipe)
    runs = [run_trial(resident, recipe.changed(micro_batch_size=micro), tmp_path / str(micro)) for micro in (3, 10)]
    assert runs[0].steps[-1].num_loss_tokens < runs[0].steps[0].num_loss_tokens, "the last step is a partial batch"
    assert runs[1].losses == pytest.approx(runs[0].losses, abs=1e-5)
    assert largest_difference(runs[1].weights, runs[0].weights) < 1e-5


@pytest.mark.parametrize("method", ["lora", "full"])
def test_classification_1x16_4x4_16x1(method, shipped_model, label_file, tmp_path):
    rate = 2e-4 if method == "lora" else 2e-5
    recipe = Recipe(
        method=method,
        learning_rate=rate,
        effective_batch_size=16,
        num_epochs=1,
        evaluation={"num_evaluations": 1},
        optimizer={"epsilon": 1e-6},
    )
    resident = make_resident(shipped_model, label_file, recipe)
    runs = [run_trial(resident, recipe.changed(micro_batch_size=micro), tmp_path / str(micro)) for micro in (1, 4, 16)]
    for other in runs[1:]:
        assert other.losses == pytest.approx(runs[0].losses, abs=1e-5)
        assert largest_difference(other.weights, runs[0].weights) < 1e-5
    assert runs[0].steps[0].loss < 2.5, "the loss is a mean over rows, not multiplied by the accumulation steps"


def test_batches_of_other_sizes_see_the_same_rows_in_the_same_order(shipped_model, instruct_file):
    import numpy as np

    from finestep.train.order import Order

    lengths = np.arange(1, 101)
    small = Order(lengths, Recipe(effective_batch_size=4, num_epochs=2))
    large = Order(lengths, Recipe(effective_batch_size=32, num_epochs=2))
    seen = [
        np.concatenate([order.rows_of_step(step) for step in range(1, order.num_steps + 1)]) for order in (small, large)
    ]
    assert (seen[0] == seen[1]).all()
    assert sorted(seen[0][:100]) == list(range(100)), "an epoch shows every row once"
    assert (seen[0][:100] != seen[0][100:]).any(), "epochs are shuffled anew"
