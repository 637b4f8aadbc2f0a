"""The validation loss is a property of the weights and the rows, of nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.train.batch import collate
from finestep.train.evaluate import check_metrics, evaluate, extra_metrics
from tests.train.runs import make_resident


@pytest.fixture(scope="module", params=["causal", "classification"])
def resident(request, shipped_model, instruct_file, label_file):
    resident = make_resident(shipped_model, instruct_file if request.param == "causal" else label_file, Recipe())
    resident.begin(Recipe())
    return resident


def test_no_batch_size_changes_it(resident):
    losses = [
        evaluate(resident.base, resident.data, resident.token_loss, batch_size=size)[0] for size in (1, 2, 3, 8, 16, 64)
    ]
    assert max(losses) - min(losses) < 1e-6 * max(losses)


def test_it_is_the_token_mean_of_the_model_alone(shipped_model, instruct_file):
    resident = make_resident(shipped_model, instruct_file, Recipe(method="full"))
    resident.begin(Recipe(method="full"))
    total, units, rows = 0.0, 0, resident.data.evaluation
    for row in range(len(rows)):
        batch = collate(rows, [row], pad_id=resident.data.pad_id, device=torch.device("cpu"))
        count = int((batch.labels_NS[:, 1:] != -100).sum())
        with torch.no_grad():
            total += resident.base(input_ids=batch.ids_NS, labels=batch.labels_NS).loss.item() * count
        units += count
    loss, metrics = evaluate(resident.base, resident.data, resident.token_loss)
    assert loss == pytest.approx(total / units, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(loss))


def test_labels_give_accuracy_and_macro_f1(shipped_model, label_file):
    resident = make_resident(shipped_model, label_file, Recipe())
    resident.begin(Recipe())
    loss, metrics = evaluate(resident.base, resident.data, resident.token_loss)
    assert loss == pytest.approx(math.log(3), abs=0.5), "a new head starts near chance"
    assert 0 <= metrics["accuracy"] <= 1
    assert 0 <= metrics["macro_f1"] <= 1


def longest_answer(predictions: list[str], references: list[str]) -> dict[str, float]:
    """A metric as a user writes it."""
    return {"rows": float(len(predictions)), "longest": float(max(map(len, references)))}


def test_a_metric_of_the_users_own(resident):
    metrics = extra_metrics(
        ("tests.train.test_evaluate:longest_answer", "exact_match"),
        resident.base,
        resident.tokenizer,
        resident.data,
        resident.token_loss,
    )
    assert metrics["rows"] == len(resident.data.evaluation)
    assert metrics["longest"] > 0
    assert 0 <= metrics["exact_match"] <= 1


def test_a_metric_that_is_not_there_is_refused_before_training():
    with pytest.raises(BadInput, match="metric"):
        check_metrics(("no_such_module_xyz:f",))
    with pytest.raises(BadInput, match="module:function"):
        check_metrics(("os",))


def test_where_memory_is_short_fewer_rows_are_evaluated_at_a_time(resident):
    whole = evaluate(resident.base, resident.data, resident.token_loss)
    seen = []

    def short(module, args, kwargs):
        seen.append(len(kwargs["input_ids"]))
        if seen[-1] > 5:
            raise torch.OutOfMemoryError("planted")

    hook = resident.base.register_forward_pre_hook(short, with_kwargs=True)
    try:
        assert evaluate(resident.base, resident.data, resident.token_loss)[0] == pytest.approx(whole[0], rel=1e-6)
    finally:
        hook.remove()
    assert [rows for rows in seen if rows > 5] == sorted({rows for rows in seen if rows > 5}, reverse=True), (
        "each size fails once"
    )
