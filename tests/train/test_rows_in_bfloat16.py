"""Rows of adapters whose pass computes in bfloat16: values stay float32, and a pack that is empty for a while stays whole."""

from __future__ import annotations

import pytest
import torch

from finestep.recipe import OptimizerGroup
from finestep.train.adapters import AdapterRows
from finestep.train.update import UpdatePlan

NAME = "base_model.model.q"
A, B = f"{NAME}.lora_A.default.weight", f"{NAME}.lora_B.default.weight"
CPU = torch.device("cpu")


def _base(dtype):
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.q = torch.nn.Linear(6, 5, bias=False, dtype=dtype)
    return model


def _values(seed, rank=4):
    draw = torch.Generator().manual_seed(seed)
    return {A: torch.randn(rank, 6, generator=draw), B: torch.randn(5, rank, generator=draw)}


def _pass(model, rows, dtype):
    draw = torch.Generator().manual_seed(9)
    x = torch.randn(2 * len(rows.keys), 3, 6, generator=draw).to(dtype)
    model.q(x).float().square().sum().backward()
    rows.after_pass()


def test_a_pack_may_be_set_aside_before_its_first_trial():
    rows = AdapterRows(_base(torch.bfloat16), CPU, dtype=torch.bfloat16)
    rows.uninstall()
    rows.install()
    rows.join(0, _values(0), scale=2.0)
    assert rows.values(0)[A].dtype == torch.float32


@pytest.mark.parametrize("scale", [2.0, 0.3])
def test_gradients_are_those_of_float32_up_to_rounding(scale):
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = _base(dtype)
        rows = AdapterRows(model, CPU, dtype=dtype)
        for number in (0, 1):
            rows.join(number, _values(number), scale=scale)
        _pass(model, rows, dtype)
        _pass(model, rows, dtype)
        found[dtype] = [rows.gradients(number) for number in (0, 1)]
    for low, exact in zip(found[torch.bfloat16], found[torch.float32], strict=True):
        for name in (A, B):
            assert (low[name] - exact[name]).norm() < 0.02 * exact[name].norm()


def test_small_updates_are_not_lost_to_bfloat16():
    """A hundred steps that bfloat16 could not even represent add up, and the pass sees their sum."""
    model = _base(torch.bfloat16)
    rows = AdapterRows(model, CPU, dtype=torch.bfloat16)
    rows.join(0, _values(0), scale=1.0)
    before, low = rows.values(0)[A], rows.buffers.low()[0].clone()
    for step in range(1, 101):
        _pass(model, rows, torch.bfloat16)
        rows.add_losses(torch.ones(1))
        rows.update({0: UpdatePlan(OptimizerGroup(), (), num_steps=step, learning_rate=1e-4)})
    moved = (rows.values(0)[A] - before).abs()
    assert moved.max() > 5e-3
    assert not torch.equal(rows.buffers.low()[0], low)


def test_trials_of_other_ranks_come_and_go_without_touching_the_others():
    rows = AdapterRows(_base(torch.bfloat16), CPU, dtype=torch.bfloat16, room=3)
    for number, rank in enumerate((2, 4, 3)):
        rows.join(number, _values(number, rank), scale=1.0)
    rows.leave(1)
    rows.join(7, _values(7, 2), scale=2.0)
    for number, seed, rank in ((0, 0, 2), (2, 2, 3), (7, 7, 2)):
        assert all(torch.equal(rows.values(number)[name], value) for name, value in _values(seed, rank).items())
    generation = rows.buffers.generation
    rows.leave(0)
    rows.join(8, _values(8, 4), scale=1.0)
    assert rows.buffers.generation == generation, "addresses stay while there is room"
