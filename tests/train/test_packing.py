"""Trials that share a forward pass train as they would alone: against plain PEFT loops, and against themselves."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from finestep.recipe import Recipe
from finestep.rules.schedule import learning_rate_at
from finestep.rules.warmup import warmup_steps
from finestep.train import lane_plan
from finestep.train.batch import collate
from finestep.train.model import Placement
from finestep.train.order import Order
from finestep.train.whole_model import trained
from tests.train.runs import DEVICES, largest_difference, make_resident, run_pack, run_trial

RATES = (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
STABLE = 4e-3
NUM_STEPS = 30


def _recipe(rate=1e-3, batch=4, **changes):
    return Recipe.model_validate(
        {
            "learning_rate": rate,
            "effective_batch_size": batch,
            "micro_batch_size": min(batch, 4),
            "num_epochs": 1.32,
            "evaluation": {"num_evaluations": 1},
            "lora": {"rank": 4, "alpha": 8},
            "optimizer": {"epsilon": 1e-6},
            **changes,
        }
    )


@pytest.fixture(scope="module", params=DEVICES)
def resident(request, shipped_model, instruct_file):
    return make_resident(shipped_model, instruct_file, _recipe(), device=request.param)


def peft_loop(resident, recipe, num_steps, *, noise=0.0):
    """What a careful person writes with PEFT and PyTorch alone; `noise` is added to the initial adapter."""
    model, data = resident.begin(recipe), resident.data
    model.train()
    parameters = list(trained(model).values())
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for value in parameters:
            value += noise * torch.randn(value.shape, generator=draw).to(value.device)
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0, eps=recipe.optimizer.epsilon, fused=True)
    order, losses, gradients = Order(data.train.lengths, recipe), [], []
    device = resident.placement.device
    warmup = warmup_steps(recipe.schedule, order.num_steps)
    for step in range(1, num_steps + 1):
        batch = collate(data.train, order.rows_of_step(step), pad_id=data.pad_id, device=device)
        logits = model(input_ids=batch.ids_NS, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch.labels_NS[:, 1:].flatten(), ignore_index=-100
        )
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: value.grad.clone() for name, value in trained(model).items()})
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(
                step, peak=recipe.learning_rate, num_steps=order.num_steps, warmup=warmup, schedule=recipe.schedule
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses, gradients[0]


def _relative(left, right):
    return max(abs(a - b) / abs(b) for a, b in zip(left, right, strict=True))


def test_eight_rates_against_eight_peft_loops(resident, tmp_path):
    recipes = {number: _recipe(rate) for number, rate in enumerate(RATES)}
    packed = run_pack(resident, recipes, tmp_path)
    assert all(len(one.steps) >= NUM_STEPS for one in packed.values())
    for number, recipe in recipes.items():
        alone, _ = peft_loop(resident, recipe, NUM_STEPS)
        apart = _relative(packed[number].losses[:NUM_STEPS], alone)
        if recipe.learning_rate <= STABLE:
            assert apart < 1e-5, recipe.learning_rate
        else:
            control, _ = peft_loop(resident, recipe, NUM_STEPS, noise=1e-7)
            assert apart <= max(10 * _relative(control, alone), 1e-5), recipe.learning_rate


def test_the_gradients_of_the_first_step_are_pefts(resident):
    recipe = _recipe()
    _, expected = peft_loop(resident, recipe, 1)
    rows = resident.open_rows(recipe)
    for number in range(3):
        rows.join(number, resident.initial_values(recipe), scale=2.0)
    data = resident.data
    chosen = Order(data.train.lengths, recipe).rows_of_step(1)
    from finestep.train.batch import collate_lanes

    device = resident.placement.device
    batch, units = collate_lanes(data.train, [chosen] * 3, pad_id=data.pad_id, device=device)
    (resident.token_loss.lane_sums(resident.base, batch, units) / units[0]).sum().backward()
    norm = torch.stack([value.norm() for value in expected.values()]).norm()
    for place in range(3):
        found = rows.gradients(place)
        assert largest_difference(found, expected) < 1e-5 * norm
    for number in range(3):
        rows.leave(number)


def test_each_trial_has_its_own_clock(resident, tmp_path):
    recipes = {number: _recipe(1e-3, batch, num_epochs=0.7) for number, batch in enumerate((4, 8, 16, 32))}
    packed = run_pack(resident, recipes, tmp_path / "packed")
    for number, recipe in recipes.items():
        alone = run_trial(resident, recipe, tmp_path / str(number))
        assert packed[number].losses == pytest.approx(alone.losses, rel=1e-5)
        assert packed[number].outcome.eval_loss == pytest.approx(alone.outcome.eval_loss, rel=1e-5)
        assert packed[number].outcome.cost.num_train_tokens == alone.outcome.cost.num_train_tokens


def test_mixed_ranks_and_the_padding_stays_zero(resident, tmp_path):
    recipes = {
        number: _recipe(2e-3, lora={"rank": rank, "alpha": 2 * rank}, num_epochs=0.6)
        for number, rank in enumerate((4, 8, 16))
    }
    seen = []

    def look(pack):
        def check(*_):
            buffers = pack._trial_rows.buffers
            for piece in buffers.layout:
                for place, rank in enumerate(buffers.ranks):
                    seen.append(piece.view(buffers.rows("value")[place])[rank:].abs().sum().item())

        pack.hook = pack.resident.base.register_forward_pre_hook(check)

    packed = run_pack(resident, recipes, tmp_path / "packed", prepare=look)
    assert len(seen) > 100
    assert set(seen) == {0.0}
    for number, recipe in recipes.items():
        alone = run_trial(resident, recipe, tmp_path / str(number))
        assert packed[number].losses == pytest.approx(alone.losses, rel=1e-5)
        assert packed[number].weights.keys() == alone.weights.keys()
        assert all(packed[number].weights[name].shape == value.shape for name, value in alone.weights.items())


def test_what_happens_to_one_trial_never_reaches_another(resident, tmp_path):
    """One row is made NaN and one huge on the way; the others are those of a pack without them, to the last bit.

    A GPU rounds products of another shape in another way: there the quiet pack has neighbours that leave at the same steps.
    """

    def poison(pack):
        def plant(*_):
            if pack.lanes[0].progress.step == 5 and len(pack.lanes) == 4:
                values = pack._trial_rows.buffers.rows("value")
                values[2, :10] = float("nan")
                values[3] *= 1e6

        pack.hook = pack.resident.base.register_forward_pre_hook(plant)

    recipes = {number: _recipe(1e-3 * (number + 1), num_epochs=0.6) for number in range(4)}
    shared = run_pack(resident, recipes, tmp_path / "shared", prepare=poison)
    assert [shared[number].outcome.state for number in range(4)] == ["completed", "completed", "diverged", "diverged"]
    assert shared[2].outcome.cost.num_steps == 6, "within one step"
    shares = {number: shared[number].outcome.cost.num_steps / len(shared[0].losses) for number in (2, 3)}
    quiet = [run_pack(resident, recipes, tmp_path / "neighbours", fidelities=shares)]
    assert [len(quiet[0][number].losses) for number in (2, 3)] == [
        shared[number].outcome.cost.num_steps for number in (2, 3)
    ]
    if resident.placement.device.type == "cpu":
        quiet.append(run_pack(resident, {number: recipes[number] for number in (0, 1)}, tmp_path / "quiet"))
    for number, pack in itertools.product((0, 1), quiet):
        assert shared[number].losses == pack[number].losses
        assert largest_difference(shared[number].weights, pack[number].weights) == 0.0


def test_random_joins_and_leaves(resident, tmp_path):
    chance = random.Random(4)
    recipes = {
        number: _recipe(chance.choice((5e-4, 1e-3, 2e-3)), chance.choice((4, 8, 12)), num_epochs=0.8)
        for number in range(6)
    }
    shares = {number: chance.choice((0.25, 0.5, 1.0)) for number in recipes}
    packed = run_pack(
        resident,
        recipes,
        tmp_path / "packed",
        lanes=3,
        fidelities=shares,
        join_after={number: 5 * number for number in recipes},
    )
    for number, recipe in recipes.items():
        alone = run_pack(resident, {number: recipe}, tmp_path / "alone", fidelities=shares)[number]
        assert packed[number].outcome.state == "completed"
        assert packed[number].losses == pytest.approx(alone.losses, rel=2e-5)
        assert [step.learning_rate for step in packed[number].steps] == [step.learning_rate for step in alone.steps]


def test_a_pack_of_classifiers_has_a_head_each(encoder_model, label_file, tmp_path):
    recipes = {number: Recipe(learning_rate=rate, num_epochs=0.5) for number, rate in enumerate((5e-4, 2e-3))}
    resident = make_resident(encoder_model, label_file, recipes[0])
    resident._known.has_dropout = False
    packed = run_pack(resident, recipes, tmp_path / "packed")
    for number, recipe in recipes.items():
        alone = run_trial(resident, recipe, tmp_path / str(number))
        assert packed[number].losses == pytest.approx(alone.losses, rel=1e-5)
        assert packed[number].outcome.metrics == pytest.approx(alone.outcome.metrics)


def test_an_interrupted_pack_goes_on_where_it_was(resident, tmp_path):
    recipes = {number: _recipe(1e-3, batch, num_epochs=0.8) for number, batch in enumerate((4, 8))}
    whole = run_pack(resident, recipes, tmp_path / "whole")
    first = run_pack(resident, recipes, tmp_path / "cut", stop_after=15)
    assert all(one.outcome is None for one in first.values())
    second = run_pack(resident, recipes, tmp_path / "cut")
    for number in recipes:
        losses = first[number].losses + second[number].losses
        assert losses == pytest.approx(whole[number].losses, rel=1e-6)


def test_when_memory_is_short_the_pack_shrinks_first(shipped_model, instruct_file, tmp_path):
    """Four trials of four rows do not fit, two do; then two rows of one trial; no step is lost, no loss changes."""
    recipes = {number: _recipe(1e-3 * (number + 1), num_epochs=0.5) for number in range(4)}
    resident = make_resident(shipped_model, instruct_file, recipes[0])
    plain = run_pack(resident, recipes, tmp_path / "plain")

    def short(pack):
        def check(module, args, kwargs):
            if torch.is_grad_enabled() and kwargs["input_ids"].shape[0] > 2:
                raise torch.OutOfMemoryError("planted")

        pack.resident.base.register_forward_pre_hook(check, with_kwargs=True)

    found = run_pack(resident, recipes, tmp_path / "short", prepare=short)
    for number in recipes:
        assert found[number].outcome.state == "completed"
        assert found[number].losses == pytest.approx(plain[number].losses, rel=1e-5)
    texts = [note["text"] for one in found.values() for note in one.notes]
    assert "2 trials share a pass" in texts[0]
    assert any("micro-batch 2" in text for text in texts)


def test_trials_that_wait_for_memory_are_told_interrupted_too(shipped_model, instruct_file, tmp_path):
    """Two of four trials are parked; on a stop each has a checkpoint and is told, and all go on later."""
    recipes = {number: _recipe(1e-3 * (number + 1), num_epochs=0.5) for number in range(4)}
    resident, told = make_resident(shipped_model, instruct_file, recipes[0]), []
    plain = run_pack(resident, recipes, tmp_path / "plain")

    def short(pack):
        def check(module, args, kwargs):
            if torch.is_grad_enabled() and kwargs["input_ids"].shape[0] > 8:
                raise torch.OutOfMemoryError("planted")

        pack.hook = pack.resident.base.register_forward_pre_hook(check, with_kwargs=True)
        emit, ended = pack.emit, pack._ended

        def listening(kind, data, *, trial):
            told.append((kind, trial, data)) if kind == "interrupted" else emit(kind, data, trial=trial)

        def ending():
            for lane in ended():
                told.append(("ended", lane.number, {"step": lane.progress.step}))
                yield lane

        pack.emit, pack._ended = listening, ending

    first = run_pack(resident, recipes, tmp_path / "cut", stop_after=6, prepare=short)
    assert sorted(number for _, number, _ in told) == [0, 1, 2, 3]
    assert {number for kind, number, _ in told if kind == "interrupted"} == {2, 3}
    second = run_pack(resident, recipes, tmp_path / "cut")
    for number in recipes:
        losses = first[number].losses + second[number].losses
        assert losses == pytest.approx(plain[number].losses, rel=1e-5)


def test_a_trial_of_a_pack_is_saved_in_pefts_format_while_the_others_go_on(resident, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    recipes = {
        0: _recipe(4e-3, lora={"rank": 8, "alpha": 8}, num_epochs=0.4),
        1: _recipe(2e-3, num_epochs=0.8),
    }
    saved = {}

    def save(pack):
        end = pack._ended

        def ended():
            for lane in end():
                lane.resident.save_tuned(lane.recipe, lane.values(), str(tmp_path / str(lane.number)))
                saved[lane.number] = len(pack.lanes)
                yield lane

        pack._ended = ended

    packed = run_pack(resident, recipes, tmp_path / "run", prepare=save)
    assert saved[0] == 2, "the other one was still training"
    alone = run_trial(resident, recipes[1], tmp_path / "alone")
    assert packed[1].losses == pytest.approx(alone.losses, rel=1e-5)
    device = resident.placement.device
    ids = torch.arange(5, 25, device=device)[None]
    for number, recipe in recipes.items():
        base = AutoModelForCausalLM.from_pretrained(resident.base.config.name_or_path, dtype=torch.float32)
        loaded = PeftModel.from_pretrained(base, tmp_path / str(number)).to(device).eval()
        assert loaded.peft_config["default"].r == recipe.lora.rank
        with torch.no_grad():
            expected = resident.tuned(recipe, packed[number].weights).eval()(input_ids=ids).logits
            assert torch.allclose(loaded(input_ids=ids).logits, expected, atol=1e-5)


def test_who_may_share_a_pass(resident):
    assert resident.why_alone(_recipe()) is None
    assert "dropout" in resident.why_alone(_recipe(lora={"dropout": 0.1}))
    assert "base" in resident.why_alone(_recipe(method="full"))


@pytest.mark.parametrize("resident", ["cpu"], indirect=True)
@pytest.mark.parametrize(
    ("seconds", "chosen"), [({4: 0.05, 2: 0.03, 1: 0.04}, 2), ({4: 0.031, 2: 0.0305, 1: 0.03}, 1), ({4: 2.0}, 4)]
)
def test_the_number_of_threads_is_the_fastest_for_a_trial_alone(resident, monkeypatch, seconds, chosen):
    """A step that takes long keeps all threads busy: fewer are not tried."""
    before, tried = torch.get_num_threads(), []

    def timed(clock, num_lanes, num_rows, **_):
        tried.append(torch.get_num_threads())
        return seconds[tried[-1]]

    monkeypatch.setattr(lane_plan.PassClock, "step_seconds", timed)
    try:
        plan = lane_plan.plan_lanes(resident, _recipe(1e-3), asked=1, most_lanes=8, row_limit=None, threads=(1, 2, 4))
        assert tried[: len(seconds)] == list(seconds), "then the layout of rows is timed, with the chosen number"
        assert torch.get_num_threads() == chosen
        assert (plan.num_lanes, plan.num_threads or chosen) == (1, chosen)
        assert plan.threads_why.startswith(f"{chosen}; ") or len(seconds) == 1
        assert (plan.num_workers, plan.at_once) == (1, 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("resident", ["cpu"], indirect=True)
@pytest.mark.parametrize(
    ("most", "asked", "fits", "expected"),
    [
        (3, None, 9, (3, 1, 3)),
        (2, None, 9, (2, 2, 2)),
        (3, None, 1, (1, 2, 1)),
        (8, 1, 9, (1, 2, 1)),
        (8, 5, 9, (1, 2, 5)),
    ],
)
def test_cores_that_would_idle_get_processes_of_their_own(resident, monkeypatch, most, asked, fits, expected):
    """(workers, threads of each, trials at once): not when the user wants one by one or one pass, nor beyond memory."""
    seconds = {4: 0.05, 2: 0.03, 1: 0.034}
    before = torch.get_num_threads()
    monkeypatch.setattr(
        lane_plan.PassClock, "step_seconds", lambda clock, lanes, rows, **_: seconds[torch.get_num_threads()]
    )
    monkeypatch.setattr(lane_plan, "_workers_that_fit", lambda resident: fits)
    try:
        plan = lane_plan.plan_lanes(
            resident, _recipe(1e-3), asked=asked, most_lanes=most, row_limit=None, threads=(1, 2, 4)
        )
        assert (plan.num_workers, torch.get_num_threads(), plan.at_once) == expected
        assert bool(plan.workers_why) == (plan.num_workers > 1)
    finally:
        torch.set_num_threads(before)


def _leaks(module, args, out):
    """Rows see the mean of the whole batch."""
    out.logits = out.logits + 0.1 * out.logits.mean(0, keepdim=True)
    return out


def _rounds_by_shape(module, args, kwargs, out):
    """The rounding of a GPU's products in bfloat16, which depends on how many rows there are."""
    out.logits = out.logits * (1 + 2e-3 * kwargs["input_ids"].shape[0])
    return out


def test_a_model_whose_rows_see_each_other_is_not_packed(resident):
    hook = resident.base.register_forward_hook(_leaks)
    try:
        plan = lane_plan.plan_lanes(resident, _recipe(), asked=4, most_lanes=8, row_limit=None)
    finally:
        hook.remove()
    assert plan.num_lanes == 1
    assert "not independent" in plan.why


def test_rounding_in_bfloat16_does_not_pass_for_dependence(shipped_model, instruct_file):
    resident = make_resident(shipped_model, instruct_file, _recipe())
    resident.base.register_forward_hook(_rounds_by_shape, with_kwargs=True)
    assert lane_plan.PassClock(resident, _recipe()).fault() is not None
    resident.placement = Placement(torch.device("cpu"), torch.float32, autocast=True)
    assert lane_plan.PassClock(resident, _recipe()).fault() is None
    resident.base.register_forward_hook(_leaks)
    assert lane_plan.PassClock(resident, _recipe()).fault() is not None, "but dependence is still seen"
