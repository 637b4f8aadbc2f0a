"""The law of packing: the measured gains of its source, its limits, and when it must not pack."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.errors import BadInput
from finestep.rules.packing import (
    CPU_TOKENS_ALONE,
    CPU_TOKENS_TOGETHER,
    LEAST_GAIN,
    StepCost,
    choose_lanes,
    confirmed,
    fit_step_cost,
    packing_gain,
)

ONE_THREAD = [(64, 0.0504), (256, 0.1283)]
TWO_THREADS = [(64, 0.0544), (256, 0.0915)]
POSITIVE = st.floats(1e-6, 10)


@pytest.mark.parametrize(("tokens", "gain"), [(64, 1.74), (256, 1.20), (1024, 1.05), (4096, 1.01)])
def test_the_published_gains(tokens, gain):
    assert packing_gain(fit_step_cost(ONE_THREAD), tokens=tokens, lanes=8) == pytest.approx(gain, abs=0.015)


@given(fixed=POSITIVE, token=st.floats(1e-6, 0.1), a=st.integers(1, 500), b=st.integers(501, 5000))
def test_two_timings_give_the_cost_back(fixed, token, a, b):
    truth = StepCost(fixed, token)
    fitted = fit_step_cost([(a, truth.seconds(a)), (b, truth.seconds(b))])
    assert fitted.seconds(a) == pytest.approx(truth.seconds(a), rel=1e-6)
    assert fitted.seconds(b) == pytest.approx(truth.seconds(b), rel=1e-6)


@given(st.lists(st.tuples(st.integers(1, 5000), POSITIVE), min_size=2, max_size=6))
def test_no_cost_is_negative_however_noisy_the_clock(timings):
    if len({tokens for tokens, _ in timings}) < 2:
        return
    cost = fit_step_cost(timings)
    assert cost.fixed_s >= 0
    assert cost.per_token_s >= 0
    assert cost.seconds(100) > 0


@given(fixed=POSITIVE, token=POSITIVE, tokens=st.integers(1, 10_000), lanes=st.integers(1, 64))
def test_the_gain_lies_between_none_and_the_number_of_lanes(fixed, token, tokens, lanes):
    cost = StepCost(fixed, token)
    gain = packing_gain(cost, tokens=tokens, lanes=lanes)
    tau = token * tokens / fixed
    assert gain == pytest.approx((1 + tau) / (1 / lanes + tau))
    assert 1 - 1e-9 <= gain <= lanes + 1e-9
    assert packing_gain(cost, tokens=tokens, lanes=lanes + 1) >= gain


@given(
    timings=st.tuples(POSITIVE, POSITIVE),
    tokens=st.integers(1, 8192),
    wanted=st.integers(1, 40),
    limit=st.none() | st.integers(1, 40),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_a_choice_keeps_its_promises(timings, tokens, wanted, limit, device):
    choice = choose_lanes(
        [(64, timings[0]), (512, timings[1])], tokens=tokens, wanted=wanted, memory_limit=limit, device=device
    )
    assert 1 <= choice.lanes <= min(wanted, limit or wanted)
    assert choice.gain >= LEAST_GAIN or choice.lanes == 1
    if device == "cpu":
        assert choice.lanes == 1 or tokens < CPU_TOKENS_ALONE
        assert choice.lanes == 1 or choice.lanes * tokens <= CPU_TOKENS_TOGETHER


@pytest.mark.parametrize(("timings", "tokens"), [(ONE_THREAD, 1024), (ONE_THREAD, 4096), (TWO_THREADS, 1024)])
def test_a_busy_cpu_is_left_alone(timings, tokens):
    choice = choose_lanes(timings, tokens=tokens, wanted=8)
    assert (choice.lanes, choice.gain) == (1, 1.0)
    assert "one by one" in choice.why


def test_short_steps_are_packed_and_the_reason_says_why():
    choice = choose_lanes(ONE_THREAD, tokens=64, wanted=8)
    assert choice.lanes == 8
    assert choice.gain == pytest.approx(1.74, abs=0.02)
    assert "1.7" in choice.why
    assert "24" in choice.why


def test_the_smallest_good_pack_is_taken():
    choice = choose_lanes(ONE_THREAD, tokens=256, wanted=8)
    assert choice.lanes < 8, "4 lanes are within 5 % of 8"
    assert choice.gain > 1.12


def test_packs_are_even():
    assert choose_lanes(ONE_THREAD, tokens=32, wanted=9, memory_limit=8).lanes == 5, "5 + 4, not 8 + 1"


def test_memory_limits_the_pack_and_is_named():
    choice = choose_lanes(ONE_THREAD, tokens=64, wanted=8, memory_limit=2)
    assert choice.lanes == 2
    assert "memory allows no more than 2" in choice.why
    assert "no second" in choose_lanes(ONE_THREAD, tokens=64, wanted=8, memory_limit=1).why


def test_a_gpu_that_waits_for_launches_is_packed_at_512_tokens():
    launch_bound = [(128, 0.0248), (512, 0.0250)]
    assert choose_lanes(launch_bound, tokens=512, wanted=8, device="cuda").gain > 6


def test_the_clock_has_the_last_word():
    choice = choose_lanes(TWO_THREADS, tokens=256, wanted=8)
    assert choice.lanes > 1
    slower = confirmed(choice, one_lane_s=0.09, packed_s=0.1 * choice.lanes)
    assert (slower.lanes, slower.gain) == (1, 1.0)
    assert "0.90x" in slower.why
    faster = confirmed(choice, one_lane_s=0.09, packed_s=0.045 * choice.lanes)
    assert faster.lanes == choice.lanes
    assert faster.gain == pytest.approx(2.0)


def test_bad_timings_are_refused():
    with pytest.raises(BadInput, match="two different token counts"):
        fit_step_cost([(64, 0.1), (64, 0.2)])
    with pytest.raises(BadInput, match="seconds > 0"):
        fit_step_cost([(64, 0.1), (128, float("nan"))])
    with pytest.raises(BadInput, match="at least one trial"):
        choose_lanes(ONE_THREAD, tokens=64, wanted=0)
