"""Texts laid end to end give the losses and gradients of padded rows, or are refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finestep.recipe import Recipe
from finestep.train import lane_plan
from finestep.train.adapters import AdapterRows
from finestep.train.batch import collate_end_to_end, collate_lanes
from finestep.train.end_to_end import why_padded
from finestep.train.loop import Pack
from finestep.train.loss import TokenLoss
from finestep.train.model import Placement
from finestep.train.token_rows import TokenRows
from finestep.train.tokens import TrainingData
from finestep.train.whole_model import trained
from tests.architectures.zoo import config_of
from tests.train.runs import make_resident, run_pack

CPU = torch.device("cpu")
LENGTHS = (31, 9, 22, 14)


def _model(model_type: str, **more):
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of(model_type, **more)).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.mul_(3.0)  # so that answers depend on what was read
    return model


def _data() -> TrainingData:
    """Rows of several lengths; the first third of each carries no loss, as a prompt."""
    draw = np.random.default_rng(1)
    flags = np.concatenate([np.arange(length) >= length // 3 for length in LENGTHS])
    rows = TokenRows(draw.integers(5, 2000, sum(LENGTHS)), flags, np.concatenate([[0], np.cumsum(LENGTHS)]))
    return TrainingData(rows, rows, (), 64, 0)


def _losses_and_gradients(model, collated, lanes):
    import peft

    data, loss = _data(), TokenLoss(model, Placement(CPU, torch.float32, False))
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    names = {name: value.shape for name, value in trained(adapted).items()}
    base = adapted.unload()
    rows = AdapterRows(base, CPU)
    for lane in range(len(lanes)):
        draw = torch.Generator().manual_seed(lane)
        rows.join(lane, {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in names.items()}, scale=1.0)
    batch, units = collated(data.train, lanes, pad_id=0, device=CPU)
    sums = loss.lane_sums(base, batch, units) / torch.tensor(units)
    sums.sum().backward()
    found = [rows.gradients(lane) for lane in range(len(lanes))]
    rows.uninstall()
    return sums.detach(), found


@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("llama", {}),
        ("qwen3", {}),
        ("gemma2", {}),
        ("phi", {}),
        ("gpt_neox", {}),
        ("olmo2", {}),
        ("gpt2", {}),
        ("mistral", {"sliding_window": 6}),
    ],
)
def test_two_trials_end_to_end_are_those_of_padded_rows(model_type, more):
    """Rotary, learned and no positions; full and sliding attention; trials with other rows and other lengths."""
    lanes = [np.array([0, 1, 3]), np.array([2, 0])]
    padded, expected = _losses_and_gradients(_model(model_type, **more), collate_lanes, lanes)
    laid, found = _losses_and_gradients(_model(model_type, **more), collate_end_to_end, lanes)
    assert laid.tolist() == pytest.approx(padded.tolist(), rel=1e-5)
    for mine, theirs in zip(found, expected, strict=True):
        size = torch.stack([value.norm() for value in theirs.values()]).norm()
        for name, value in theirs.items():
            assert (mine[name] - value).norm() <= 1e-5 * size, name


def test_no_token_is_padding_and_every_text_begins_at_position_nought():
    data = _data()
    batch, units = collate_end_to_end(data.train, [np.array([0, 1, 3])], pad_id=0, device=CPU)
    assert batch.ids_NS.shape == (1, 31 + 9 + 14)
    assert batch.attention_NS.all()
    assert (batch.positions_NS == 0).sum() == 3
    assert batch.texts_NS[0].unique(return_counts=True)[1].tolist() == [31, 9, 14]
    assert units == [data.train.num_loss_units([0, 1, 3])] == [len(batch.kept_K)]


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("bloom", "takes no positions"),
        ("mamba", "takes no positions"),
        ("qwen3_next", "changes its loss"),
        ("opt", "changes its loss"),
    ],
)
def test_what_cannot_be_exact_is_refused_with_its_reason(model_type, words):
    loss_of = _model(model_type)
    why = why_padded(loss_of, TokenLoss(loss_of, Placement(CPU, torch.float32, False)), _data())
    assert why is not None
    assert words in why


def test_rows_of_labels_are_padded(encoder_model, label_file):
    resident = make_resident(encoder_model, label_file, Recipe(learning_rate=1e-4))
    assert "label" in resident.why_padded()


@pytest.mark.slow
def test_a_whole_run_is_the_same(shipped_model, instruct_file, tmp_path):
    recipes = {
        number: Recipe(learning_rate=rate, effective_batch_size=batch, num_epochs=0.4, optimizer={"epsilon": 1e-6})
        for number, (rate, batch) in enumerate(((5e-4, 8), (1e-3, 4)))
    }
    resident = make_resident(shipped_model, instruct_file, recipes[0])
    padded = run_pack(resident, recipes, tmp_path / "padded")
    laid = run_pack(resident, recipes, tmp_path / "laid", end_to_end=True)
    for number in recipes:
        assert laid[number].losses == pytest.approx(padded[number].losses, rel=1e-5)
        assert laid[number].outcome.eval_loss == pytest.approx(padded[number].outcome.eval_loss, rel=1e-5)


@pytest.mark.parametrize(("seconds", "chosen"), [({False: 0.3, True: 0.2}, True), ({False: 0.2, True: 0.3}, False)])
def test_texts_lie_end_to_end_where_that_was_measured_to_be_faster(
    shipped_model, instruct_file, monkeypatch, seconds, chosen
):
    recipe = Recipe(learning_rate=1e-3, effective_batch_size=16)
    resident = make_resident(shipped_model, instruct_file, recipe)
    monkeypatch.setattr(lane_plan.PassClock, "step_seconds", lambda *_, end_to_end=False: seconds[end_to_end])
    plan = lane_plan.plan_lanes(resident, recipe, asked=1, most_lanes=1, row_limit=None)
    assert plan.end_to_end is chosen
    assert ("padding" in plan.end_to_end_why) is chosen
    pack = Pack(resident, emit=print, should_stop=bool, take=lambda: None, end_to_end=plan.end_to_end)
    assert pack._pass._end_to_end is chosen
