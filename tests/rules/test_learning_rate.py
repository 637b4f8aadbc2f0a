"""The learning rate: golden values from the sources, monotonicity, limits, and how intervals widen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.knowledge.evidence import all_evidence
from finestep.rules.basin import aim_shift, divergence_probability, excess_nats
from finestep.rules.full_rate import pretraining_view
from finestep.rules.learning_rate import RateRequest, learning_rate, rate_estimate, retention_estimate
from finestep.rules.lora_fit import Optimum, dense_equivalent, fit_size_law, vertex
from finestep.rules.terms import LogNormal, pooled
from finestep.rules.variants import VARIANTS, effective_alpha

LORA = RateRequest(
    method="lora",
    params=8.03e9,
    active_params=None,
    batch=32,
    steps=600,
    rank=16,
    alpha=32.0,
    model="meta-llama/Llama-3.1-8B",
    lineage="llama",
    recipe_family="llama",
    task="instruction",
)
UNKNOWN = replace(LORA, model="somebody/new-8B", lineage=None, recipe_family=None)
SIZES = st.floats(1e8, 1e12)
RANKS = st.sampled_from([1, 4, 8, 16, 32, 64, 128, 256])


def center(request: RateRequest) -> float:
    return learning_rate(request).center.mean


def test_the_sweeps_own_recipe_gives_the_measured_rate():
    own = replace(LORA, batch=128, steps=780, rank=64)
    assert 10 ** center(own) == pytest.approx(5.5e-4, rel=0.35)


def test_rates_that_an_expert_expects():
    full = learning_rate(replace(LORA, method="full", pretraining_rate=3e-4))
    assert 1e-5 < full.aim < 3e-5
    encoder = replace(
        UNKNOWN, method="full", params=1.25e8, is_encoder=True, classification=True, recipe_family="roberta"
    )
    assert 1.5e-5 < learning_rate(encoder).aim < 4e-5
    chatglm = replace(UNKNOWN, method="p-tuning", params=6.2e9, recipe_family="chatglm")
    assert 8e-3 < learning_rate(chatglm).aim < 2.5e-2


@given(params=SIZES, rank=RANKS, alpha=st.floats(1, 512), steps=st.floats(50, 1e5))
def test_doubling_alpha_lowers_the_rate(params, rank, alpha, steps):
    request = replace(UNKNOWN, params=params, rank=rank, alpha=alpha, steps=steps)
    assert center(replace(request, alpha=2 * alpha)) < center(request)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("steps", [100, 1_000, 10_000])
@pytest.mark.parametrize("encoder", [False, True])
def test_more_steps_lower_the_rate(method, steps, encoder):
    request = replace(LORA, method=method, steps=steps, is_encoder=encoder)
    assert center(replace(request, steps=2 * steps)) < center(request)


@pytest.mark.parametrize("method", ["lora", "qlora", "full", "p-tuning"])
@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("batch", [1, 8, 64, 512])
def test_a_larger_batch_never_lowers_the_rate_at_fixed_steps(method, encoder, batch):
    request = replace(UNKNOWN, method=method, batch=batch, is_encoder=encoder)
    assert center(replace(request, batch=2 * batch)) >= center(request) - 1e-12


def test_qlora_is_lora_with_a_wider_interval():
    lora, qlora = learning_rate(LORA), learning_rate(replace(LORA, method="qlora"))
    assert qlora.center.mean == pytest.approx(lora.center.mean, abs=0.02)
    assert qlora.center.sd > lora.center.sd


def test_intervals_widen_as_less_is_known():
    model, family = learning_rate(LORA), learning_rate(replace(LORA, model="meta-llama/other-8B"))
    unknown = learning_rate(UNKNOWN)
    assert model.center.sd < family.center.sd < unknown.center.sd
    assert learning_rate(replace(UNKNOWN, steps=None)).center.sd > unknown.center.sd


def test_a_tiny_model_agrees_with_its_measured_basin():
    tiny = replace(UNKNOWN, params=1.1e6, batch=16, steps=112, lineage="llama", model="shipped")
    answer = learning_rate(tiny)
    low, high = answer.interval
    assert low < 6e-3 < high
    assert answer.aim < 9e-3, "the measured loss rises from there"
    assert answer.center.sd > learning_rate(replace(tiny, params=1e9)).center.sd + 0.05


def test_a_small_encoder_may_take_a_high_rate():
    mini = replace(UNKNOWN, method="full", params=2.27e7, batch=16, steps=337, is_encoder=True, classification=True)
    answer = learning_rate(replace(mini, lineage="bert", recipe_family="bert"))
    low, high = answer.interval
    assert low < 3e-4 < high
    assert abs(math.log10(7e-4) - answer.center.mean) < 2 * answer.center.sd, "the measured best is no surprise"
    assert center(mini) > center(replace(mini, params=1.1e8))


def test_full_fine_tuning_is_known_less_well_than_lora():
    full = learning_rate(replace(LORA, method="full", pretraining_rate=3e-4))
    assert full.center.sd >= 0.3 > learning_rate(LORA).center.sd


def test_small_models_take_higher_rates_and_large_ones_level_off():
    at = {size: center(replace(UNKNOWN, params=size * 1e9)) for size in (1, 8, 100, 400)}
    assert at[1] > at[8] > at[100]
    assert at[100] - at[400] < 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_differs_by_its_measured_ratio(variant):
    ratio, _, source = VARIANTS[variant]
    assert source in all_evidence()
    if variant in ("lora", "rslora", "dora"):
        return
    plain = learning_rate(replace(UNKNOWN, variant="lora"))
    law_only = sum(term.dex for term in plain.terms if term.name != "public recipes")
    assert learning_rate(replace(UNKNOWN, variant=variant)).center.mean == pytest.approx(law_only + math.log10(ratio))


def test_rslora_is_a_larger_alpha():
    assert effective_alpha(16, 64, rslora=True) == 128
    assert center(replace(UNKNOWN, variant="rslora", rank=64)) < center(replace(UNKNOWN, rank=64))


def test_the_aim_is_inside_the_interval_and_never_right_of_the_centre():
    for request in (LORA, UNKNOWN, replace(UNKNOWN, method="full"), replace(UNKNOWN, method="prefix")):
        answer = learning_rate(request)
        estimate = rate_estimate(answer)
        assert estimate.low <= estimate.value <= estimate.high
        assert answer.aim <= 10**answer.center.mean * (1 + 1e-9)
        assert retention_estimate(answer, request.method).value < estimate.value
        assert estimate.source in all_evidence()


@pytest.mark.parametrize(("sd", "shift"), [(0.2, 0.0), (0.25, -0.09), (0.3, -0.17), (0.4, -0.36), (0.5, -0.55)])
def test_the_aim_moves_left_as_the_basin_says(sd, shift):
    assert aim_shift(sd, divergence_nats=0.65) == pytest.approx(shift, abs=0.03)


def test_more_doubt_moves_the_aim_further_left():
    shifts = [aim_shift(sd) for sd in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[0] == 0.0
    assert -0.4 < shifts[-1] < -0.2


def test_a_watched_run_may_aim_higher():
    assert aim_shift(0.3) > aim_shift(0.3, divergence_nats=0.3) > aim_shift(0.3, divergence_nats=0.65)


def test_the_basin_is_mild_on_the_left_and_a_cliff_on_the_right():
    assert excess_nats(-0.6) == pytest.approx(0.015 * 0.6**1.4)
    assert excess_nats(0.6) > excess_nats(-0.6)
    assert divergence_probability(0.84) == pytest.approx(0.5)
    assert divergence_probability(-50) == 0.0


def test_pretraining_gives_a_fifteenth():
    assert pretraining_view(3e-4).value == pytest.approx(2e-5)
    assert pretraining_view(None) is None


@given(st.floats(-5, 5), st.floats(0.01, 1), st.floats(-5, 5), st.floats(0.01, 1))
def test_pooling_lies_between_and_narrows(a, sd_a, b, sd_b):
    both = pooled([LogNormal(a, sd_a), LogNormal(b, sd_b)])
    assert min(a, b) - 1e-9 <= both.mean <= max(a, b) + 1e-9
    assert both.sd <= min(sd_a, sd_b) + 1e-12


def test_the_vertex_of_a_parabola():
    assert vertex([(0.0, 1.0), (1.0, 0.0), (3.0, 4.0)]) == pytest.approx(1.0)


@given(st.floats(-4, -3), st.floats(0, 0.4), st.floats(-0.8, 0))
def test_the_fit_finds_a_law_that_holds(level, rank_slope, size_slope):
    optima = [
        Optimum(
            f"m{size}",
            f"f{size % 3}",
            size * 1e9,
            size,
            rank,
            level + rank_slope * math.log10(rank / 32) + size_slope * min(math.log10(size / 20), 0),
        )
        for size in (1, 2, 4, 7, 9)
        for rank in (4, 16, 64)
    ]
    law = fit_size_law(optima)
    for o in optima:
        assert law.log_rate(size=o.size, rank=o.rank) == pytest.approx(o.log_rate, abs=0.03)


def test_a_mixture_counts_as_the_mean_of_its_sizes():
    assert dense_equivalent(32e9, 2e9) == pytest.approx(8.0)
