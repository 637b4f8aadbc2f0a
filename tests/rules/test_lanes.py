"""The law of packing: the measured gains of its source, its limits, and when it must not pack."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.errors import BadInput
from finestep.rules.lanes import (
    CPU_TOKENS_ALONE,
    CPU_TOKENS_TOGETHER,
    LEAST_GAIN,
    LEAST_GAIN_OF_PROCESSES,
    NEAR_BEST,
    StepCost,
    choose_processes,
    choose_shape,
    fit_step_cost,
)

ONE_THREAD = [(64, 0.0504), (256, 0.1283)]
TWO_THREADS = [(64, 0.0544), (256, 0.0915)]
POSITIVE = st.floats(1e-6, 10)


def packing_gain(cost, *, tokens, lanes):
    """How many times faster `lanes` trials are together than one after the other."""
    return lanes * cost.seconds(tokens) / cost.seconds(tokens, lanes=lanes)


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


def shape(timings, tokens, *, wanted=8, batch=1, **more):
    """The choice for micro-batches of one size, or of several: tokens of each number of rows."""
    table = tokens if isinstance(tokens, dict) else {batch: tokens}
    return choose_shape(fit_step_cost(timings), tokens_of_rows=table, batch=batch, wanted=wanted, **more)


@given(
    timings=st.tuples(POSITIVE, POSITIVE),
    row_tokens=st.integers(1, 2048),
    batch=st.sampled_from([1, 4, 16]),
    wanted=st.integers(1, 12),
    limit=st.none() | st.integers(1, 40),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_a_choice_keeps_its_promises(timings, row_tokens, batch, wanted, limit, device):
    table = {rows: rows * row_tokens for rows in (1, 4, 16) if rows <= batch}
    choice = shape(
        [(64, timings[0]), (512, timings[1])], table, batch=batch, wanted=wanted, row_limit=limit, device=device
    )
    assert 1 <= choice.lanes <= wanted
    assert choice.rows in table
    assert choice.why
    assert choice.gain >= LEAST_GAIN or choice.lanes == 1
    assert choice.lanes == 1 or limit is None or choice.lanes * choice.rows <= limit
    if device == "cpu" and choice.lanes > 1:
        assert batch * row_tokens < CPU_TOKENS_ALONE
        assert choice.lanes * table[choice.rows] <= CPU_TOKENS_TOGETHER


@pytest.mark.parametrize(("timings", "tokens"), [(ONE_THREAD, 1024), (ONE_THREAD, 4096), (TWO_THREADS, 1024)])
def test_a_busy_cpu_is_left_alone(timings, tokens):
    choice = shape(timings, tokens)
    assert (choice.lanes, choice.gain) == (1, 1.0)
    assert "one by one" in choice.why
    assert "keeps a core busy" in choice.why


def test_short_steps_are_packed_and_the_reason_says_why():
    choice = shape(ONE_THREAD, 64)
    assert choice.lanes >= 6
    assert choice.gain == pytest.approx(1.7, abs=0.06)
    assert f"{choice.lanes} trials a pass, 1 rows each: a pass costs 24.4 ms once" in choice.why


def test_the_smallest_good_pack_is_taken():
    choice = shape(ONE_THREAD, 256)
    assert choice.lanes < 8, "4 lanes are within 5 % of 8"
    assert choice.gain > 1.12


def test_a_pack_can_afford_small_micro_batches_with_little_padding():
    padded = {4: 4 * 40, 16: 16 * 58}
    alone, together = (shape(ONE_THREAD, padded, batch=16, wanted=wanted) for wanted in (1, 8))
    assert (alone.lanes, together.rows) == (1, 4)
    assert together.lanes > 1


@given(
    seconds=st.dictionaries(st.sampled_from([1, 2, 4, 8]), POSITIVE, min_size=1),
    wanted=st.integers(1, 9),
    cores=st.integers(8, 16),
)
def test_processes_fit_the_machine_and_pay(seconds, wanted, cores):
    crew = choose_processes(seconds, cores=cores, wanted=wanted)
    assert crew.threads in seconds
    assert crew.processes * crew.threads <= cores
    assert crew.processes <= wanted
    assert crew.gain == 1.0 or crew.gain >= LEAST_GAIN_OF_PROCESSES
    work = crew.processes / seconds[crew.threads]
    assert work >= NEAR_BEST / min(seconds.values()), "never less than one process with the best number of threads"


def test_memory_limits_the_pack():
    assert shape(ONE_THREAD, 64, row_limit=2).lanes == 2
    assert "no second" in shape(ONE_THREAD, 64, row_limit=1).why
    assert "one trial" in shape(ONE_THREAD, 64, wanted=1).why


def test_a_gpu_that_waits_for_launches_is_packed_at_512_tokens():
    launch_bound = [(128, 0.0248), (512, 0.0250)]
    assert shape(launch_bound, 512, device="cuda").gain > 6


def test_bad_timings_are_refused():
    with pytest.raises(BadInput, match="two different token counts"):
        fit_step_cost([(64, 0.1), (64, 0.2)])
    with pytest.raises(BadInput, match="seconds > 0"):
        fit_step_cost([(64, 0.1), (128, float("nan"))])
    with pytest.raises(BadInput, match="at least one trial"):
        shape(ONE_THREAD, 64, wanted=0)
