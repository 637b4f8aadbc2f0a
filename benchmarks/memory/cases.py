"""The twelve cases, and two ways to measure one: the allocator's own events, and the resident size of a child process."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finestep.probe import Lever, MemoryCase

CHUNK = 256
SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
SHAPE_70B = {
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Case:
    """A method, a precision, a setting of the levers, and the shape of a micro-batch."""

    method: str
    precision: str
    checkpointing: bool
    chunked: bool
    rows: int
    length: int

    @property
    def memory_case(self) -> MemoryCase:
        return MemoryCase(
            method=self.method,
            weights_dtype="bfloat16" if self.precision.startswith("bf16") else "float32",
            autocast=self.precision.endswith("autocast"),
        )

    @property
    def lever(self) -> Lever:
        return Lever(checkpointing=self.checkpointing, chunk_tokens=CHUNK if self.chunked else None)

    @property
    def name(self) -> str:
        levers = ("checkpointing " if self.checkpointing else "") + ("chunked" if self.chunked else "")
        return f"{self.method} {self.precision} {self.rows} x {self.length} {levers}".strip()


CASES = tuple(
    Case(*values)
    for values in (
        ("lora", "fp32", False, False, 2, 256),
        ("lora", "fp32", False, False, 8, 256),
        ("lora", "fp32", True, False, 8, 256),
        ("lora", "fp32", True, True, 8, 256),
        ("lora", "bf16 autocast", False, False, 8, 256),
        ("lora", "autocast", False, False, 8, 256),
        ("full", "fp32", False, False, 2, 256),
        ("full", "fp32", False, False, 8, 256),
        ("full", "fp32", True, True, 8, 256),
        ("full", "bf16", False, False, 8, 256),
        ("full", "autocast", False, False, 8, 256),
        ("full", "autocast", True, False, 4, 512),
    )
)


def config(shape: dict[str, int] = SHAPE) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**shape)


def allocator_peak(case: Case) -> int:
    """What is there between steps, plus the peak of the CPU allocator's events in a real step."""
    import torch

    from finestep.probes.shadow import Shadow

    model = Shadow(config(), case.memory_case, num_layers=SHAPE["num_hidden_layers"], weightless=False)
    model.plain_step(case.rows, case.length, lever=case.lever)
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        model.plain_step(case.rows, case.length, lever=case.lever)
    events = [(e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        live += size
        peak = max(peak, live)
    return model.static_bytes() + peak


def resident_peak(number: int) -> int:
    """The same from outside: the growth of a child's largest resident size."""
    package = Path(__file__).parent.parent.parent
    env = {**os.environ, **RETURN_MEMORY, "PYTHONPATH": os.pathsep.join([str(package / "src"), str(package)])}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--child", str(number)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(json.loads(done.stdout.strip().splitlines()[-1])["bytes"])


def child(number: int) -> int:
    """In the child: the peak of the second step, less what the process held before there was a model."""
    from finestep.probes.shadow import Shadow

    case = CASES[number]
    Shadow(
        config({**SHAPE, "hidden_size": 64, "intermediate_size": 64}), case.memory_case, num_layers=1, weightless=False
    ).plain_step(1, 16, lever=case.lever)
    gc.collect()
    before = _status("VmRSS")
    model = Shadow(config(), case.memory_case, num_layers=SHAPE["num_hidden_layers"], weightless=False)
    model.plain_step(case.rows, case.length, lever=case.lever)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    model.plain_step(case.rows, case.length, lever=case.lever)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
