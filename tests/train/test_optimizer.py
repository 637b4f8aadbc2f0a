"""AdamW as the papers have it, and the table that says who learns how fast."""

from __future__ import annotations

import math

import pytest
import torch

from finestep.recipe import OptimizerGroup
from finestep.train.optimizer import parameter_table
from finestep.train.update import UpdatePlan
from finestep.train.whole_model import WholeModel, trained


def _parameters():
    torch.manual_seed(0)
    names = {
        "model.embed_tokens.weight": (8, 4),
        "model.layers.0.q.weight": (4, 4),
        "model.layers.0.norm.weight": (4,),
        "model.layers.1.q.weight": (4, 4),
        "score.weight": (3, 4),
        "score.bias": (3,),
    }
    return {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in names.items()}


def test_the_table_of_parameters():
    settings = OptimizerGroup(weight_decay=0.1, layerwise_decay=0.5, head_lr_multiplier=8.0)
    table = {row.name: row for row in parameter_table(_parameters(), settings, ["score.weight", "score.bias"])}
    assert table["score.weight"].lr_factor == 8.0
    assert table["model.layers.1.q.weight"].lr_factor == 0.5
    assert table["model.layers.0.q.weight"].lr_factor == 0.25
    assert table["model.embed_tokens.weight"].lr_factor == 0.125
    assert table["model.layers.0.norm.weight"].weight_decay == 0.0
    assert table["score.bias"].weight_decay == 0.0
    assert table["score.weight"].weight_decay == 0.1


def _whole(parameters):
    """The rows of a model that has just these parameters."""
    model = torch.nn.Module()
    model.named_parameters = lambda **_: parameters.items()
    rows = WholeModel(model)
    rows.join(0, parameters, scale=1.0)
    return rows


def _planned(settings, num_steps, rate, **more):
    return UpdatePlan(settings, (), num_steps=num_steps, learning_rate=rate, **more)


def _step(rows, plan, gradients, loss=1.0):
    for name, value in trained(rows.model).items():
        value.grad = gradients[name].clone()
    rows.add_losses(torch.tensor([loss]))
    return rows.update({0: plan})[0]


@pytest.mark.parametrize("bias_correction", [True, False])
def test_adamw_against_its_formula(bias_correction):
    settings = OptimizerGroup(
        weight_decay=0.1, bias_correction=bias_correction, max_grad_norm=None, beta1=0.8, beta2=0.95
    )
    value = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    rows = _whole({"w": value})
    expected, first, second = value.detach().clone().double(), torch.zeros(1, 2).double(), torch.zeros(1, 2).double()
    for step in range(1, 6):
        gradient = torch.tensor([[0.3, -0.1]]) * step
        _step(rows, _planned(settings, step, 0.01), {"w": gradient})
        first = 0.8 * first + 0.2 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        unbiased = (first / (1 - 0.8**step), second / (1 - 0.95**step)) if bias_correction else (first, second)
        expected = expected - 0.01 * 0.1 * expected - 0.01 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        assert torch.allclose(value.double(), expected, atol=1e-6)


def test_the_update_norm_is_that_of_the_real_change():
    parameters = _parameters()
    settings = OptimizerGroup(weight_decay=0.1, layerwise_decay=0.5)
    rows = _whole(parameters)
    for step in range(1, 4):
        before = {name: value.detach().clone() for name, value in parameters.items()}
        found = _step(
            rows, _planned(settings, step, 0.02), {name: torch.randn_like(value) for name, value in parameters.items()}
        )
    change = math.sqrt(sum(((value - before[name]) ** 2).sum().item() for name, value in parameters.items()))
    weights = math.sqrt(sum((value**2).sum().item() for value in parameters.values()))
    assert (found.update_norm, found.weight_norm) == pytest.approx((change, weights), rel=1e-4)


def test_clipping_tells_the_norm_before_it():
    value = torch.nn.Parameter(torch.zeros(4))
    settings = OptimizerGroup(max_grad_norm=1.0, beta1=0.0, beta2=0.5, epsilon=1.0, bias_correction=False)
    found = _step(_whole({"w": value}), _planned(settings, 1, 1.0), {"w": torch.full((4,), 5.0)})
    assert (found.grad_norm, found.was_clipped) == (10.0, True)
    clipped = 0.5  # each of four equal entries of a vector of norm 1
    assert value.tolist() == pytest.approx([-clipped / (math.sqrt(0.5 * clipped**2) + 1)] * 4, rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "entry", "highest"),
    [
        (math.nan, 1.0, math.inf),
        (1.0, math.nan, math.inf),
        (1.0, math.inf, math.inf),
        (2.0, 1.0, 1.5),
        (1.0, 1.0, -math.inf),
    ],
)
def test_a_step_that_must_not_be_made_changes_nothing(loss, entry, highest):
    """Neither weights nor moments: the next good step is the same as without it."""
    settings, found = OptimizerGroup(), {}
    for is_troubled in (False, True):
        value = torch.nn.Parameter(torch.ones(3))
        rows = _whole({"w": value})
        _step(rows, _planned(settings, 1, 0.1), {"w": torch.tensor([1.0, 2.0, 3.0])})
        if is_troubled:
            before = value.detach().clone()
            plan = _planned(settings, 2, 0.1, highest_loss=highest)
            assert not _step(rows, plan, {"w": torch.tensor([1.0, entry, 3.0])}, loss).was_updated
            assert torch.equal(value, before)
        assert _step(rows, _planned(settings, 2, 0.1), {"w": torch.tensor([2.0, 1.0, 1.0])}).was_updated
        found[is_troubled] = value.detach().clone()
    assert torch.equal(found[True], found[False])
