"""AdamW as the papers have it, and the table that says who learns how fast."""

from __future__ import annotations

import math

import pytest
import torch

from finestep.recipe import OptimizerGroup
from finestep.train.optimizer import Optimizer, gradient_norms, parameter_table
from finestep.train.whole_model import WholeModel


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
    model.named_parameters = lambda: parameters.items()
    rows = WholeModel(model)
    rows.join(0, parameters, scale=1.0)
    return rows


@pytest.mark.parametrize("bias_correction", [True, False])
def test_adamw_against_its_formula(bias_correction):
    settings = OptimizerGroup(
        weight_decay=0.1, bias_correction=bias_correction, max_grad_norm=None, beta1=0.8, beta2=0.95
    )
    value = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    optimizer, rows = Optimizer(settings), _whole({"w": value})
    expected, first, second = value.detach().clone().double(), torch.zeros(1, 2).double(), torch.zeros(1, 2).double()
    for step in range(1, 6):
        gradient = torch.tensor([[0.3, -0.1]]) * step
        value.grad = gradient.clone()
        optimizer.step(rows.slices(0, settings, []), 0.01)
        first = 0.8 * first + 0.2 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        unbiased = (first / (1 - 0.8**step), second / (1 - 0.95**step)) if bias_correction else (first, second)
        expected = expected - 0.01 * 0.1 * expected - 0.01 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        assert torch.allclose(value.double(), expected, atol=1e-6)


def test_the_update_norm_is_that_of_the_real_change():
    parameters = _parameters()
    settings = OptimizerGroup(weight_decay=0.1, layerwise_decay=0.5)
    optimizer, rows = Optimizer(settings), _whole(parameters)
    for _ in range(3):
        before = {name: value.detach().clone() for name, value in parameters.items()}
        for value in parameters.values():
            value.grad = torch.randn_like(value)
        slices = rows.slices(0, settings, [])
        optimizer.step(slices, 0.02)
    change = math.sqrt(sum(((value - before[name]) ** 2).sum().item() for name, value in parameters.items()))
    weights = math.sqrt(sum((value**2).sum().item() for value in parameters.values()))
    assert optimizer.update_norms(slices, 0.02) == pytest.approx((change, weights), rel=1e-4)


def test_clipping_reports_the_norm_before_it():
    value = torch.nn.Parameter(torch.zeros(4))
    settings = OptimizerGroup(max_grad_norm=1.0)
    value.grad = torch.full((4,), 5.0)
    slices = _whole({"w": value}).slices(0, settings, [])
    assert gradient_norms([slices]) == [10.0]
    assert Optimizer(settings).clip(slices, 10.0)
    assert value.grad.norm().item() == pytest.approx(1.0, rel=1e-4)
