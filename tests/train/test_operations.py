"""What a step launches and reads, counted on a CPU: the same operations that a GPU would have to launch. No times."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from benchmarks import step_operations
from finestep.train.adapters import AdapterRows
from finestep.train.batch import collate, collate_lanes
from finestep.train.loss import TokenLoss
from finestep.train.model import Placement
from finestep.train.token_rows import TokenRows
from finestep.train.whole_model import load_trained, trained
from tests.architectures.zoo import config_of

LAYERS, CPU = 4, torch.device("cpu")
MOST_CASTS_A_LAYER, MOST_LAUNCHES_A_LAYER, MOST_MORE_FOR_SEVEN_LANES = 10, 145, 12


@pytest.fixture(scope="module")
def steps():
    """One step of one trial and of eight, in the precision of CUDA, at two depths for the share of a layer."""
    return {
        lanes: step_operations.measure("bf16", torch.bfloat16, lanes=lanes, num_layers=LAYERS, length=24)
        for lanes in (1, 8)
    }


def test_a_pass_in_bfloat16_launches_little_and_reads_nothing(steps):
    for step in steps.values():
        assert step.reads_of_numbers == 0, "nonzero and item stop the host until the device has caught up"
        assert step.casts <= MOST_CASTS_A_LAYER * LAYERS
        assert step.launches_a_layer <= MOST_LAUNCHES_A_LAYER


def test_a_step_reads_from_the_device_once(steps):
    assert [step.host_reads for step in steps.values()] == [1, 1]


def test_more_trials_hardly_launch_more(steps):
    assert steps[8].update_launches - steps[1].update_launches <= MOST_MORE_FOR_SEVEN_LANES
    assert steps[8].launches_a_layer == steps[1].launches_a_layer


def _rows(seed: int) -> TokenRows:
    draw, lengths = np.random.default_rng(seed), [21, 17, 9]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenRows(draw.integers(5, 2000, sum(lengths)), np.ones(sum(lengths), dtype=bool), offsets)


def _gradients_of_rows(model, values, rows, placement):
    base = copy.deepcopy(model).to(placement.weights_dtype).eval()
    loss, packed = TokenLoss(base, placement), AdapterRows(base, CPU, dtype=placement.rows_dtype)
    loss.is_native = placement.native_rows
    packed.join(0, values, scale=2.0)
    batch, units = collate_lanes(rows, [np.arange(len(rows))], pad_id=0, device=CPU)
    loss.lane_sums(base, batch, units).sum().backward()
    return packed.gradients(0)


def _gradients_of_peft(model, values, rows):
    import peft

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(copy.deepcopy(model).to(torch.bfloat16), config).eval()
    load_trained(adapted, values)
    batch = collate(rows, range(len(rows)), pad_id=0, device=CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = adapted(input_ids=batch.ids_NS, use_cache=False).logits
    torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.labels_NS[:, 1:].flatten(), reduction="sum"
    ).backward()
    return {name: value.grad for name, value in trained(adapted).items()}


def _apart(found, expected):
    squares = [((found[name] - value) ** 2).sum() for name, value in expected.items()]
    return float(torch.stack(squares).sum().sqrt() / torch.stack([v.norm() for v in expected.values()]).norm())


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma2", "phi", "gpt_neox"])
def test_gradients_without_autocast_are_as_near_to_float32_as_with_it(model_type):
    """The mean of three batches, within a tenth: two roundings of the same size are never the same."""
    import peft
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of(model_type)).bfloat16().float()
    config = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    shapes = {name: value.shape for name, value in trained(peft.get_peft_model(copy.deepcopy(model), config)).items()}
    exact, native = Placement(CPU, torch.float32, False), Placement(CPU, torch.bfloat16, False, native_rows=True)
    ours, autocast = [], []
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        values = {name: 0.02 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
        expected = _gradients_of_rows(model, values, _rows(seed), exact)
        ours.append(_apart(_gradients_of_rows(model, values, _rows(seed), native), expected))
        autocast.append(_apart(_gradients_of_peft(model, values, _rows(seed)), expected))
    assert np.mean(ours) <= 1.1 * np.mean(autocast)
