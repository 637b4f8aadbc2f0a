"""Memory predicted from shapes against real steps, and what must hold of it whatever the model."""

from __future__ import annotations

import gc

import pytest
import torch
from transformers import AutoConfig, LlamaConfig

from finestep.probe import Lever, MemoryCase
from finestep.probes.live_storages import CATEGORIES
from finestep.probes.predict import Predictor, predict
from finestep.probes.shadow import Shadow, with_depth
from finestep.rules.memory_lines import ADAPTER_BYTES, largest_lanes, largest_rows, peak_bytes

pytestmark = pytest.mark.filterwarnings("ignore:grad and param do not obey")
torch.set_num_threads(1)
SHAPE = {
    "vocab_size": 3000,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LAYERS, ROWS, LENGTH = 5, 5, 64
FEW = ("q_proj", "down_proj")
"""Adapted layers in most tests: an operation of a fake tensor costs a fifth of a millisecond."""
PLAIN, BOTH = Lever(), Lever(checkpointing=True, chunk_tokens=64)


def config(num_layers: int = LAYERS) -> LlamaConfig:
    return LlamaConfig(**SHAPE, num_hidden_layers=num_layers)


def real_peak(case: MemoryCase, lever: Lever) -> int:
    """What is there between steps, plus what the CPU allocator reports in a real one."""
    model = Shadow(config(), case, num_layers=LAYERS, weightless=False)
    model.plain_step(ROWS, LENGTH, lever=lever)
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        model.plain_step(ROWS, LENGTH, lever=lever)
    events = [(e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        live += size
        peak = max(peak, live)
    return model.static_bytes() + peak


@pytest.mark.parametrize(
    ("method", "autocast", "lever"),
    [("lora", False, PLAIN), ("lora", True, BOTH), ("full", False, BOTH), ("full", True, PLAIN)],
)
def test_the_prediction_is_what_a_real_step_takes(method, autocast, lever):
    case = MemoryCase(method=method, autocast=autocast, target_modules=FEW)
    curve = Predictor(config(), case).curve(LENGTH, lever=lever)
    assert peak_bytes(curve, ROWS) == pytest.approx(real_peak(case, lever), rel=0.01)


@pytest.mark.parametrize(("method", "checkpointing"), [("full", True), ("qlora", False)])
def test_two_depths_and_two_sizes_tell_all_others(method, checkpointing):
    case = MemoryCase(method=method, weights_dtype="bfloat16", autocast=True, target_modules=FEW)
    predictor, whole = Predictor(config(), case), Shadow(config(), case, num_layers=LAYERS)
    lever = Lever(checkpointing=checkpointing)
    exact = whole.step(40, LENGTH, lever=lever).peak_bytes
    assert peak_bytes(predictor.curve(LENGTH, lever=lever), 40) == pytest.approx(exact, rel=1e-3)
    assert predictor.num_parameters() == whole.num_parameters()


def parts_of(case: MemoryCase, *, rows: int = 1, loss_tokens: int | None = None) -> tuple[int, dict[str, float]]:
    """(parameters, bytes at the peak by category) of one step of a shadow."""
    shadow = Shadow(config(), case, num_layers=LAYERS)
    bytes_EC = shadow.step(rows, LENGTH, lever=PLAIN, loss_tokens=loss_tokens).bytes_EC
    peak_C = bytes_EC[bytes_EC.sum(axis=1).argmax()]
    return shadow.num_parameters()[0], dict(zip(CATEGORIES, peak_C.tolist(), strict=True))


def test_weights_and_moments_cost_what_they_should():
    count, full = parts_of(MemoryCase(method="full"))
    assert full["weights"] == pytest.approx(4 * count, rel=0.01)
    assert full["optimizer"] == pytest.approx(8 * count, rel=0.01)
    _, eight_bit = parts_of(MemoryCase(method="full", optimizer="adamw_8bit"))
    assert eight_bit["optimizer"] == pytest.approx(2 * count * (1 + 4 / 256), rel=0.01)


def test_four_bits_and_their_scales_take_the_place_of_sixteen():
    half = MemoryCase(method="lora", weights_dtype="bfloat16", autocast=True, target_modules=FEW)
    (_, lora), (_, qlora) = parts_of(half), parts_of(half.model_copy(update={"method": "qlora"}))
    linear = LAYERS * (2 * 96 * 96 + 2 * 96 * 48 + 3 * 96 * 256)
    others = 2 * 3000 * 96 + (2 * LAYERS + 1) * 96
    tables = LAYERS * 7 * 4 * (16 + 256)
    packed = linear * (1 / 2 + 1 / 64 + 4 / 64 / 256) + tables
    assert qlora["weights"] - lora["weights"] == pytest.approx(packed - 2 * linear + 2 * others, rel=0.02), (
        "embeddings and norms go from 16 bits to 32"
    )


def test_levers_save_memory_and_the_largest_batch_says_so():
    plain, both = predict(config(), MemoryCase(target_modules=FEW), length=LENGTH, levers=[PLAIN, BOTH]).curves
    assert peak_bytes(both, 32) < 0.5 * peak_bytes(plain, 32)
    budget = peak_bytes(plain, 20) + 1
    assert largest_rows(plain, budget) == 20
    assert largest_rows(both, budget) > 40


def test_only_trained_tokens_need_logits():
    case = MemoryCase(target_modules=FEW)
    (_, every), (_, few) = parts_of(case, rows=8), parts_of(case, rows=8, loss_tokens=8)
    assert few["logits"] < 0.2 * every["logits"]


def test_an_encoder_is_predicted_as_a_classifier():
    bert = AutoConfig.for_model(
        "bert", vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=5, num_attention_heads=4
    )
    shadow = Shadow(bert, MemoryCase(method="full", num_labels=3), num_layers=5)
    plain, saved = (shadow.step(64, LENGTH, lever=Lever(checkpointing=on)).peak_bytes for on in (False, True))
    assert saved < 0.5 * plain


def test_lists_that_describe_layers_are_cut_with_the_depth():
    gemma = AutoConfig.for_model("gemma3_text", num_hidden_layers=12)
    assert len(with_depth(gemma, 6).layer_types) == 6
    assert gemma.num_hidden_layers == 12, "the original is untouched"


def test_a_model_larger_than_the_machine_is_no_trouble():
    huge = LlamaConfig(
        vocab_size=128256, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64
    )
    curve = Predictor(huge, MemoryCase(weights_dtype="bfloat16", autocast=True, target_modules=FEW)).curve(
        4096, lever=Lever(checkpointing=True)
    )
    assert peak_bytes(curve, 1) > 120e9, "far more than this machine has"


def test_a_pack_needs_what_its_rows_and_its_adapters_need():
    case = MemoryCase(target_modules=FEW)
    predictor, pack = Predictor(config(), case), Shadow(config(), case, num_layers=LAYERS, lanes=3)
    curve = predictor.curve(LENGTH, lever=PLAIN)
    more = 2 * ADAPTER_BYTES * predictor.num_parameters()[1]
    exact = pack.step(4, LENGTH, lever=PLAIN).peak_bytes
    assert peak_bytes(curve, 3 * 4) + more == pytest.approx(exact, rel=2e-3)
    assert largest_lanes(curve, exact * 1.005, rows=4, num_trained=predictor.num_parameters()[1]) == 3
