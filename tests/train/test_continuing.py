"""An adapter that exists goes on where it was left, with its own rank and layers."""

from __future__ import annotations

import pytest
import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.studies.continuing import continued
from tests.train.runs import make_resident, run_trial


def recipe_of(**changes) -> Recipe:
    return Recipe.model_validate(
        {"learning_rate": 3e-3, "effective_batch_size": 8, "lora": {"rank": 4, "alpha": 8}, **changes}
    )


@pytest.fixture(scope="module", params=["chat", "labels"])
def first(request, shipped_model, instruct_file, label_file, tmp_path_factory):
    """(folder of a trained adapter, its data, its validation loss)."""
    data, folder = instruct_file if request.param == "chat" else label_file, tmp_path_factory.mktemp(request.param)
    resident = make_resident(shipped_model, data, recipe_of())
    run = run_trial(resident, recipe_of(), folder / "trial")
    resident.save_tuned(recipe_of(), run.weights, str(folder / "adapter"))
    return folder / "adapter", data, run.outcome.eval_loss


def test_it_starts_at_the_loss_where_it_was_left_and_goes_on(first, tmp_path):
    folder, data, loss = first
    recipe = continued(str(folder), recipe_of(lora={"rank": 16, "alpha": 32}), [])
    assert (recipe.lora.rank, recipe.lora.alpha) == (4, 8)
    resident = make_resident(folder, data, recipe)
    run = run_trial(resident, recipe, tmp_path / "trial")
    assert run.outcome.base_eval_loss == pytest.approx(loss, rel=1e-5)
    assert run.outcome.eval_loss != loss, "it is trained further"
    resident.save_tuned(recipe, run.weights, str(tmp_path / "adapter"))
    again = make_resident(tmp_path / "adapter", data, recipe)
    second = run_trial(again, recipe, tmp_path / "second")
    assert second.outcome.base_eval_loss == pytest.approx(run.outcome.eval_loss, rel=1e-5)


def test_trials_share_a_pass_from_the_same_start(first):
    folder, data, _ = first
    recipe = continued(str(folder), recipe_of(), [])
    resident = make_resident(folder, data, recipe)
    assert resident.why_alone(recipe) is None
    values = resident.initial_values(recipe)
    assert all(torch.equal(value, resident.initial_values(recipe)[name]) for name, value in values.items())
    assert any(value.abs().max() > 0 for name, value in values.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("changes", "own", "law"),
    [
        ({"method": "full"}, [], "an adapter goes on as an adapter"),
        ({"lora": {"rank": 8, "alpha": 8}}, ["lora.rank"], "`lora.rank` must be the adapter's own"),
    ],
)
def test_what_an_adapter_cannot_change_is_refused(first, changes, own, law):
    with pytest.raises(BadInput, match=law):
        continued(str(first[0]), recipe_of(**changes), own)


def test_other_models_keep_their_recipe(shipped_model):
    assert continued(str(shipped_model), recipe_of(), ["lora.rank"]) == recipe_of()
