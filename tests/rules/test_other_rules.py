"""Batch, length, memory, scaling and the small rules: a golden value, a monotonicity and a limit each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.knowledge.evidence import all_evidence
from finestep.knowledge.models import known_model
from finestep.rules import adapter, batch_size, duration, layers, momentum, regularisation
from finestep.rules.compose import Ask, compose
from finestep.rules.fit_in_memory import plan_memory
from finestep.rules.memory import GIB, Load, largest_micro_batch, memory_need, shape
from finestep.rules.neighbours import Target, nearest
from finestep.rules.scaling import capped_batch, measured_exponent, scale_betas, scale_by, scale_epsilon

LLAMA = known_model("Llama-3.1-8B")
ROWS = st.integers(1, 10_000_000)


def gpu(gib: float, count: int = 1) -> HardwareFacts:
    return HardwareFacts(device="cuda", name=f"{gib:g}GB", num_devices=count, memory_bytes=int(gib * GIB))


@given(rows=ROWS, epochs=st.floats(0.1, 20), group=st.sampled_from(["lora", "full", "qlora", "prompt"]))
def test_the_batch_keeps_enough_updates(rows, epochs, group):
    batch = batch_size.effective_batch_size(group, num_rows=rows, num_epochs=epochs)
    steps = duration.num_steps(rows, epochs=epochs, batch=int(batch.value))
    assert batch.value == 1 or steps >= batch_size.FEWEST_UPDATES
    assert 1 <= batch.low <= batch.value <= batch.high
    assert batch.value <= batch_size.CAPS[group]


@given(rows=ROWS)
def test_more_rows_never_lower_the_batch(rows):
    small = batch_size.effective_batch_size("lora", num_rows=rows, num_epochs=2.0)
    large = batch_size.effective_batch_size("lora", num_rows=2 * rows, num_epochs=2.0)
    assert large.value >= small.value


def test_measured_noise_caps_the_batch():
    free = batch_size.effective_batch_size("full", num_rows=1_000_000, num_epochs=1.0)
    capped = batch_size.effective_batch_size("full", num_rows=1_000_000, num_epochs=1.0, noise_scale=20)
    assert (free.value, capped.value) == (128, 16)


def test_epochs_by_size():
    assert [duration.num_epochs(n, is_encoder=False).value for n in (500, 3_000, 10_000, 100_000)] == [4, 3, 2, 1]
    assert duration.num_epochs(500, is_encoder=True).value == 20
    assert duration.num_epochs(100_000, is_encoder=True).value == 3


def test_beta2_follows_the_length():
    assert [momentum.beta2(n).value for n in (10, 500, 2_000, 1_000_000)] == [0.95, 0.98, 0.995, 0.999]


def test_weight_decay_is_only_for_encoders():
    assert regularisation.weight_decay(is_encoder=False, learning_rate=2e-4, num_steps=500).value == 0.0
    assert regularisation.weight_decay(is_encoder=True, learning_rate=2e-5, num_steps=500).value == 0.01


def test_layers_and_head():
    electra = layers.layerwise_decay(is_encoder=True, lineage="electra", num_layers=12, num_rows=10**6)
    assert electra.value == 0.8
    assert layers.layerwise_decay(is_encoder=False, lineage="llama", num_layers=32, num_rows=100).value == 1.0


@pytest.mark.parametrize(
    ("method", "encoder", "rate", "steps", "labels", "factor"),
    [
        ("lora", False, 2e-4, 500, 2, 5.0),
        ("lora", False, 2e-3, 500, 2, 1.0),
        ("full", False, 1e-5, 500, 2, 5.0),
        ("full", True, 1e-4, 337, 77, 6.0),
        ("full", True, 1e-4, 337, 2, 1.0),
        ("full", True, 2e-5, 100, 77, 10.0),
        ("full", True, 2e-5, 36_000, None, 1.0),
    ],
)
def test_a_new_head_gets_what_the_run_is_too_short_for(method, encoder, rate, steps, labels, factor):
    found = layers.head_multiplier(
        method=method, is_encoder=encoder, learning_rate=rate, num_steps=steps, num_labels=labels
    )
    assert found.value == factor
    assert found.source in all_evidence()


def test_rank_grows_with_what_there_is_to_learn():
    ranks = [adapter.lora_rank(LLAMA, num_trained_tokens=n).value for n in (None, 10**6, 6 * 10**7, 10**10)]
    assert ranks == [16, 16, 32, 128]
    assert adapter.adapter_parameters(LLAMA, 16) == pytest.approx(41.9e6, rel=0.01)


@pytest.mark.parametrize(
    ("method", "micro", "length", "checkpointing", "gib"),
    [("lora", 1, 2048, "off", 37.4), ("lora", 1, 2048, "on", 18.9), ("lora", 4, 2048, "on", 29.4)],
)
def test_memory_of_llama_8b(method, micro, length, checkpointing, gib):
    need = memory_need(LLAMA, Load(method, micro, length, 16, checkpointing)).total / GIB
    assert need == pytest.approx(gib, rel=0.06)


def test_full_fine_tuning_takes_sixteen_bytes_a_parameter():
    need = memory_need(LLAMA, Load("full", 1, 2048, 16, "on"))
    assert (need.weights + need.optimizer) / GIB == pytest.approx(119.7, rel=0.01)


@given(st.integers(1, 64), st.integers(16, 8192))
def test_memory_grows_with_rows_and_shrinks_with_checkpointing(micro, length):
    plain = memory_need(LLAMA, Load("lora", micro, length)).total
    assert memory_need(LLAMA, Load("lora", micro + 1, length)).total > plain
    assert memory_need(LLAMA, Load("lora", micro, length, 16, "on")).total < plain
    assert memory_need(LLAMA, Load("qlora", micro, length)).total < plain


def test_the_largest_micro_batch_fits_and_the_next_does_not():
    load = Load("lora", 1, 1024)
    budget = 60 * GIB
    size = largest_micro_batch(LLAMA, load, budget=budget, most=1024)
    assert memory_need(LLAMA, Load("lora", size, 1024)).total <= budget
    assert memory_need(LLAMA, Load("lora", 2 * size, 1024)).total > budget
    assert largest_micro_batch(LLAMA, load, budget=GIB, most=8) == 0


def test_an_unknown_shape_is_guessed_from_the_size():
    hidden, inner, layers_ = shape(ModelFacts(name="x", num_parameters=8_000_000_000))
    assert 3000 < hidden < 6000
    assert inner > hidden
    assert 20 < layers_ < 50


def test_what_does_not_fit_says_what_would():
    small = plan_memory(LLAMA, gpu(16), method="lora", length=1024, rank=16, most=8)
    assert small.micro_batch == 0
    assert "`--method qlora` fits" in small.notes[0]
    full = plan_memory(LLAMA, gpu(80), method="full", length=1024, rank=16, most=8)
    assert "needs 2 x 80 GB sharded" in full.notes[0]
    several = plan_memory(LLAMA, gpu(80, count=8), method="full", length=1024, rank=16, most=8)
    assert "shard it over the 8 devices" in several.notes[0]
    assert several.micro_batch == 8
    assert several.need.total < 80 * GIB < full.need.total, "a device's share of the states"
    huge = known_model("DeepSeek-V3.1")
    lora = plan_memory(huge, gpu(141, count=8), method="lora", length=512, rank=16, most=4)
    assert (lora.micro_batch, "`--method qlora` fits the 8 devices" in lora.notes[0]) == (0, True)
    unknown = plan_memory(LLAMA, HardwareFacts(), method="full", length=1024, rank=16, most=8)
    assert unknown.micro_batch is None
    assert "2 cards of 80 GB" in unknown.notes[0]


def test_long_rows_take_a_chunked_loss():
    plan = plan_memory(LLAMA, gpu(80), method="lora", length=40_960, rank=16, most=8)
    assert plan.micro_batch == 1
    assert plan.need.logits == 0
    assert "chunked loss" in plan.notes[0]


def test_measured_scaling_lies_below_the_square_root():
    exponent, sd = measured_exponent("lora")

    def scaled(to_batch):
        return scale_by(1e-4, from_batch=16, to_batch=to_batch, exponent=exponent, sd=sd, words="")

    moved = scaled(64)
    assert 1e-4 < moved.value < 2e-4
    assert moved.low < moved.value < moved.high
    same = scaled(16)
    assert same.low == same.value == same.high == 1e-4


def test_the_batch_to_scale_to_ends_at_the_noise_scale():
    assert capped_batch(512, noise_scale=64) == 64


def test_adam_moves_with_the_batch():
    assert scale_betas(0.9, 0.999, factor=4.0) == pytest.approx((0.9**4, 0.996), abs=1e-4)
    assert scale_betas(0.9, 0.999, factor=1000.0) == (0.5, 0.5), "never 0"
    assert scale_betas(0.0, 0.3, factor=8.0) == (0.0, 0.3), "what is lower already stays"
    assert scale_epsilon(1e-8, factor=4.0) == pytest.approx(5e-9)


def test_neighbours_are_of_the_same_kind_and_sorted():
    target = Target(
        group="lora",
        architecture="causal-lm",
        params=8e9,
        family="llama",
        task="instruction",
        batch=32,
        rank=16,
        alpha=32,
    )
    found = nearest(target)
    assert [n.similarity for n in found] == sorted((n.similarity for n in found), reverse=True)
    assert all(n.recipe.method in ("lora", "dora", "qlora") for n in found)
    assert not [n for n in nearest(target, exclude_families=["llama"]) if n.recipe.family == "llama"]


def test_composing_everything_is_consistent():
    data = DataFacts(
        name="d", task="causal", num_rows=10_000, num_trained_tokens=3_000_000, length_p95=900, length_max=1500
    )
    answer = compose(LLAMA, data, gpu(80), Ask())
    recipe = answer.recipe
    assert recipe.learning_rate == answer.estimates["learning_rate"].value
    assert recipe.max_length == 1536
    assert recipe.micro_batch_size <= recipe.effective_batch_size
    assert {e.source for e in answer.estimates.values()} <= set(all_evidence())
    assert len(answer.neighbours) == 3
    assert answer.what_ifs
    again = compose(LLAMA, data, gpu(80), Ask())
    assert again == answer


def test_several_devices_share_the_batch():
    answer = compose(LLAMA, DataFacts(name="d", num_rows=10_000, length_p95=512), gpu(80, count=4), Ask())
    assert answer.recipe.num_devices == 4
    assert answer.recipe.micro_batch_size * 4 <= answer.recipe.effective_batch_size


def test_what_is_fixed_stays_fixed():
    answer = compose(LLAMA, None, None, Ask(rank=64, alpha=16, batch=128, num_epochs=1.5))
    assert (answer.recipe.lora.rank, answer.recipe.lora.alpha) == (64, 16)
    assert (answer.recipe.effective_batch_size, answer.recipe.num_epochs) == (128, 1.5)
    assert answer.estimates["lora.rank"].source == "you"


def test_prompt_methods_have_no_recipe_of_ours():
    answer = compose(known_model("chatglm-6b"), None, None, Ask(method="p-tuning"))
    assert answer.recipe is None
    assert "lora.rank" not in answer.estimates


def test_retention_swaps_the_rate():
    plain, kept = compose(LLAMA, None, None, Ask()), compose(LLAMA, None, None, Ask(retention=True))
    assert kept.recipe.learning_rate < plain.recipe.learning_rate
