"""The learning rate: what experts expect, monotonicity, limits, how intervals widen, and a fit that finds a law that holds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.facts import ModelFacts, ModelShape
from finestep.knowledge.evidence import all_evidence
from finestep.knowledge.optima import measured_optima
from finestep.rules.basin import FULL, LORA, aim_shift, divergence_probability
from finestep.rules.effective_size import effective_parameters
from finestep.rules.learning_rate import (
    AskedAdapter,
    AskedModel,
    AskedTask,
    RateRequest,
    learning_rate,
    rate_estimate,
    rate_setting,
    retention_estimate,
)
from finestep.rules.rate_evidence import evidence_cases, published_setting, vertex
from finestep.rules.rate_fit import SPREADS, Measurement, fit_rate_law
from finestep.rules.rate_law import packaged_law
from finestep.rules.rate_setting import RateSetting, dense_equivalent
from finestep.rules.variants import VARIANTS, effective_alpha

ADAPTER = RateRequest(
    method="lora",
    model=AskedModel(
        params=8.03e9, active_params=None, name="meta-llama/Llama-3.1-8B", lineage="llama", recipe_family="llama"
    ),
    batch=32,
    steps=600,
    adapter=AskedAdapter(rank=16, alpha=32.0),
    task=AskedTask(name="instruction"),
)
UNKNOWN = replace(ADAPTER, model=replace(ADAPTER.model, name="somebody/new-8B", lineage=None, recipe_family=None))
ENCODER = replace(
    UNKNOWN,
    method="full",
    model=replace(UNKNOWN.model, params=1.25e8, is_encoder=True, recipe_family="roberta"),
    task=replace(UNKNOWN.task, is_classification=True),
)
SIZES = st.floats(1e8, 1e12)
RANKS = st.sampled_from([1, 4, 8, 16, 32, 64, 128, 256])


def center(request: RateRequest) -> float:
    return learning_rate(request).center.mean


def test_rates_that_an_expert_expects():
    assert 1e-4 < learning_rate(ADAPTER).aim < 4e-4
    assert 8e-6 < learning_rate(replace(ADAPTER, method="full")).aim < 4e-5
    assert 1.2e-5 < learning_rate(ENCODER).aim < 5e-5
    chatglm = replace(UNKNOWN, method="p-tuning", model=replace(UNKNOWN.model, params=6.2e9, recipe_family="chatglm"))
    assert 8e-3 < learning_rate(chatglm).aim < 2.5e-2


def test_a_small_model_is_no_outlier():
    """Measured for Qwen3-0.6B and named by other tools: 1e-4 to 1e-3."""
    answer = learning_rate(
        replace(
            ADAPTER, model=replace(ADAPTER.model, params=5.96e8, lineage="qwen3", name="Qwen/Qwen3-0.6B"), steps=625
        )
    )
    low, high = answer.interval
    assert 1e-4 < answer.aim < 1e-3
    assert low < 2e-4 < high
    smaller = replace(UNKNOWN, model=replace(UNKNOWN.model, params=2e8))
    assert center(smaller) < center(replace(smaller, model=replace(smaller.model, params=1e9))) + 0.1, (
        "flat or falling below 1B"
    )


@given(params=SIZES, rank=RANKS, alpha=st.floats(1, 512), steps=st.floats(50, 1e5))
def test_doubling_alpha_lowers_the_rate(params, rank, alpha, steps):
    request = replace(
        UNKNOWN,
        model=replace(UNKNOWN.model, params=params),
        adapter=replace(UNKNOWN.adapter, rank=rank, alpha=alpha),
        steps=steps,
    )
    assert center(replace(request, adapter=replace(request.adapter, alpha=2 * alpha))) < center(request)


def test_steps_hardly_matter_to_decoders_and_lower_the_rate_of_encoders():
    for method in ("lora", "full"):
        request = replace(UNKNOWN, method=method)
        assert abs(center(replace(request, steps=6000)) - center(request)) < 0.15
    assert center(replace(ENCODER, steps=6000)) < center(ENCODER) - 0.1


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("encoder", [False, True])
def test_a_larger_batch_wants_a_higher_rate_at_fixed_steps(method, encoder):
    request = replace(UNKNOWN, method=method, model=replace(UNKNOWN.model, is_encoder=encoder))
    for batch in (1, 8, 64, 512):
        assert center(replace(request, batch=2 * batch)) > center(replace(request, batch=batch)) + 0.03


def test_more_labels_want_a_higher_rate():
    assert (
        center(replace(ENCODER, task=replace(ENCODER.task, num_labels=134)))
        > center(replace(ENCODER, task=replace(ENCODER.task, num_labels=2))) + 0.4
    )


def test_shared_layers_count_once_a_layer():
    albert = ModelFacts(
        name="x",
        num_parameters=11_700_000,
        shape=ModelShape(num_layers=12, hidden_size=768, intermediate_size=3072),
        is_encoder=True,
    )
    bert = albert.model_copy(update={"num_parameters": 109_500_000})
    assert effective_parameters(bert) == 109_500_000
    rates = [
        center(replace(ENCODER, model=replace(ENCODER.model, params=effective_parameters(facts))))
        for facts in (albert, bert)
    ]
    assert abs(rates[0] - rates[1]) < 0.2
    assert effective_parameters(ModelFacts(name="x")) is None


def test_qlora_is_lora_with_a_wider_interval():
    lora, qlora = learning_rate(ADAPTER), learning_rate(replace(ADAPTER, method="qlora"))
    assert qlora.center.mean == pytest.approx(lora.center.mean, abs=0.02)
    assert qlora.center.sd > lora.center.sd


def test_intervals_widen_as_less_is_known():
    known, unknown = learning_rate(ADAPTER), learning_rate(UNKNOWN)
    assert known.center.sd < unknown.center.sd
    assert learning_rate(replace(UNKNOWN, steps=None)).center.sd > unknown.center.sd
    assert (
        learning_rate(replace(UNKNOWN, model=replace(UNKNOWN.model, is_encoder_decoder=True))).center.sd
        > unknown.center.sd + 0.08
    )
    assert (
        learning_rate(replace(UNKNOWN, model=replace(UNKNOWN.model, params=1e6))).center.sd > unknown.center.sd + 0.02
    )


def test_no_interval_is_narrower_than_the_spread_between_data_sets():
    for request in (ADAPTER, replace(ADAPTER, method="full"), ENCODER):
        assert learning_rate(request).center.sd > 0.2, "one more data set: at least x1.6"


def test_a_tiny_model_agrees_with_its_measured_basin():
    tiny = replace(
        UNKNOWN, model=replace(UNKNOWN.model, params=1.1e6, lineage="llama", name="shipped"), batch=16, steps=112
    )
    low, high = learning_rate(tiny).interval
    assert low < 6e-3 < high


def test_a_small_encoder_with_many_labels_may_take_a_high_rate():
    mini = replace(
        ENCODER,
        model=replace(ENCODER.model, params=2.27e7),
        batch=16,
        steps=375,
        task=replace(ENCODER.task, num_labels=77),
    )
    low, high = learning_rate(mini).interval
    assert low < 5.7e-4 < high, "measured (own-banking77-full-b16), near the upper end"


def test_large_models_level_off():
    at = {size: center(replace(UNKNOWN, model=replace(UNKNOWN.model, params=size * 1e9))) for size in (1, 8, 100, 400)}
    assert at[1] > at[8] > at[100]
    assert at[100] == pytest.approx(at[400])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_a_source_and_more_doubt_than_plain_lora(variant):
    answer = learning_rate(replace(UNKNOWN, adapter=replace(UNKNOWN.adapter, variant=variant)))
    assert {term.source for term in answer.terms} <= set(all_evidence())
    if variant != "lora":
        assert answer.center.sd > learning_rate(UNKNOWN).center.sd


def test_variants_are_ordered_as_measured():
    rates = {
        v: center(replace(UNKNOWN, adapter=replace(UNKNOWN.adapter, variant=v)))
        for v in ("lora", "dora", "milora", "pissa", "olora")
    }
    assert rates["lora"] == pytest.approx(rates["dora"], abs=0.1)
    assert rates["dora"] > rates["milora"] > rates["pissa"] > rates["olora"]


def test_bold_variants_share_a_lower_rate_and_show_it_as_one_term():
    law = packaged_law()
    shared = law.mean[law.names.index("bold variant")]
    assert shared < -0.3
    for variant in ("pissa", "olora", "lora-ga", "lora+"):
        own = law.mean[law.names.index(f"variant {variant}")]
        term = next(
            t
            for t in learning_rate(replace(UNKNOWN, adapter=replace(UNKNOWN.adapter, variant=variant))).terms
            if t.name == f"variant {variant}"
        )
        assert term.dex == pytest.approx(shared + own)
    for variant in ("dora", "milora", "init-ab"):
        assert abs(law.mean[law.names.index(f"variant {variant}")]) < 0.15


def test_a_bold_variant_that_was_never_measured_keeps_the_shared_rate():
    law = packaged_law()
    kept = [k for k, name in enumerate(law.names) if name != "variant pissa"]
    without = replace(
        law,
        names=tuple(law.names[k] for k in kept),
        mean=tuple(law.mean[k] for k in kept),
        covariance=tuple(tuple(law.covariance[max(i, j)][min(i, j)] for j in kept) for i in kept),
    )
    pissa = rate_setting(replace(UNKNOWN, adapter=replace(UNKNOWN.adapter, variant="pissa")))
    shared = law.mean[law.names.index("bold variant")]
    assert without.predict(pissa).mean - without.predict(replace(pissa, variant="lora")).mean == pytest.approx(shared)
    assert without.predict(pissa).sd > law.predict(pissa).sd


def test_a_rate_that_never_decays_is_lower_than_a_peak():
    decayed, constant = (center(replace(ADAPTER, constant_rate=flag)) for flag in (False, True))
    assert decayed - constant == pytest.approx(0.3, abs=0.1)


def test_published_rslora_counts_as_lora_of_a_larger_alpha():
    row = next(row for row in measured_optima() if row.variant == "rslora" and row.rank == 8)
    setting = published_setting(row)
    assert setting.variant == "lora"
    assert setting.alpha == pytest.approx(row.alpha * math.sqrt(8))


def test_rslora_is_a_larger_alpha():
    assert effective_alpha(16, 64, rslora=True) == 128
    assert center(replace(UNKNOWN, adapter=replace(UNKNOWN.adapter, variant="rslora", rank=64))) < center(
        replace(UNKNOWN, adapter=replace(UNKNOWN.adapter, rank=64))
    )


def test_the_aim_is_inside_the_interval_and_never_right_of_the_centre():
    for request in (ADAPTER, UNKNOWN, replace(UNKNOWN, method="full"), replace(UNKNOWN, method="prefix")):
        answer = learning_rate(request)
        estimate = rate_estimate(answer)
        assert estimate.low <= estimate.value <= estimate.high
        assert answer.aim <= 10**answer.center.mean * (1 + 1e-9)
        assert retention_estimate(answer, request.method).value < estimate.value
        assert estimate.source in all_evidence()


def test_only_what_was_calibrated_is_called_an_interval():
    assert rate_estimate(learning_rate(ADAPTER)).kind == "interval"
    assert rate_estimate(learning_rate(replace(UNKNOWN, method="prefix"))).kind == "usual range"
    assert retention_estimate(learning_rate(ADAPTER), "lora").coverage is None


def test_encoders_aim_at_the_centre():
    answer = learning_rate(ENCODER)
    assert answer.aim == pytest.approx(10**answer.center.mean)


def test_full_fine_tuning_is_steeper_on_the_right_and_aims_further_left():
    assert FULL.excess_nats(0.3) > 2 * LORA.excess_nats(0.3)
    assert aim_shift(0.35, basin=FULL) < -0.1 < aim_shift(0.35) == 0.0
    shifts = [aim_shift(sd, basin=FULL) for sd in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert shifts == sorted(shifts, reverse=True)


def test_the_basin_of_lora_is_mild_on_the_left_and_a_cliff_on_the_right():
    assert LORA.excess_nats(-0.6) == pytest.approx(0.015 * 0.6**1.4)
    assert LORA.excess_nats(0.6) > LORA.excess_nats(-0.6)
    assert LORA.excess_nats(1.2, divergence_nats=0.65) > 0.6
    assert divergence_probability(0.84) == pytest.approx(0.5)
    assert divergence_probability(-50) == 0.0


def test_who_would_keep_a_diverged_model_should_aim_lower():
    assert aim_shift(0.3, divergence_nats=0.65) < -0.1


def test_the_vertex_of_a_parabola():
    assert vertex([(0.0, 1.0), (1.0, 0.0), (3.0, 4.0)]) == pytest.approx(1.0)


def made_up(seed: int, *, num_sources: int = 12, spread: float = 0.3) -> list[Measurement]:
    """Sources that differ by a normal offset from a law that holds."""
    chance = np.random.default_rng(seed)
    cases = []
    for source in range(num_sources):
        offset = chance.normal(0, spread)
        for size in (1.0, 4.0, 16.0):
            setting = RateSetting("lora", size, batch=32, steps=500, rank=32)
            rate = -3.5 + offset - 0.3 * math.log10(size / 20) + chance.normal(0, 0.03)
            cases.append(Measurement(f"{source} {size}", setting, rate, 0.05, f"s{source}", f"m{source} {size}"))
    return cases


def test_the_fit_finds_a_law_that_holds():
    law = fit_rate_law(made_up(0))
    assert law.mean[law.names.index("lora size above 1B")] == pytest.approx(-0.3, abs=0.1)
    assert law.predict(RateSetting("lora", 4.0, 32, 500, 32)).mean == pytest.approx(-3.29, abs=0.25)


def test_the_spread_between_sources_is_estimated_and_wide_sources_widen_the_interval():
    setting = RateSetting("lora", 4.0, 32, 500, 32)
    narrow, wide = (fit_rate_law(made_up(1, spread=s)).predict(setting).sd for s in (0.1, 0.6))
    assert wide > 1.5 * narrow


def test_many_cells_of_one_source_do_not_make_the_law_sure():
    few, many = made_up(2, num_sources=2), made_up(2, num_sources=2)
    many += [replace(case, name=f"{case.name} again {k}") for case in many for k in range(20)]
    setting = RateSetting("lora", 4.0, 32, 500, 32)
    sds = [fit_rate_law(cases, spreads=SPREADS).predict(setting).sd for cases in (few, many)]
    assert sds[1] > 0.9 * sds[0]


def test_the_packaged_law_predicts_what_the_fit_predicts():
    law = fit_rate_law(evidence_cases())
    for case in evidence_cases()[::20]:
        packaged = packaged_law().predict(case.setting)
        assert packaged.mean == pytest.approx(law.predict(case.setting).mean, abs=2e-3)
        assert packaged.sd == pytest.approx(law.predict(case.setting).sd, abs=2e-3)


def test_a_mixture_counts_as_the_mean_of_its_sizes():
    assert dense_equivalent(32e9, 2e9) == pytest.approx(8.0)
