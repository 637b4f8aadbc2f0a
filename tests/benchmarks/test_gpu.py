"""The GPU benchmark where there is no GPU: what it counts, what it leaves out and why, and how it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks import gpu


@pytest.mark.parametrize(("size", "billions"), [("0.5B", 0.49), ("1B", 1.24), ("3B", 3.21)])
def test_the_shapes_have_the_size_of_their_names(size, billions):
    assert gpu.num_parameters(size) / 1e9 == pytest.approx(billions, abs=0.01)


def test_the_share_of_the_peak_is_that_of_published_arithmetic():
    """NeMo AutoModel, Llama-3-8B with LoRA at 4,096 tokens: 12,473 tokens a second are told as 402 TFLOP/s."""
    gpu.SIZES["8B"] = {
        **gpu.SIZES["3B"],
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
    }
    assert gpu.operations_a_token("8B", "lora", 4096) * 12_473 / 1e12 == pytest.approx(402, rel=0.05)
    assert gpu.peak_tflops("NVIDIA H200") == 989.0
    assert gpu.peak_tflops("a device of tomorrow") is None


def test_a_longer_row_costs_more_a_token_and_a_full_fine_tune_costs_more_than_an_adapter():
    costs = [gpu.operations_a_token("1B", method, length) for method in ("lora", "full") for length in (128, 4096)]
    assert costs == sorted(costs)


def test_what_is_left_out_is_told_with_its_reason():
    assert "cannot share" in gpu.why_not("ours packed", "full")
    assert gpu.why_not("ours", "full") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends():
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs a CUDA device" in done.stdout
    assert "left out: torchtune" in done.stdout
    assert not done.stderr
