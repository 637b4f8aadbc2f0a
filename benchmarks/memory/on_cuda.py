"""On a GPU: the product's own prediction against the allocator's peak in steps of the engine's loop, and the largest micro-batch of both.

A Llama of the shape of a 0.5B model with random weights, in the precision that the engine chooses. cuBLAS keeps workspaces in the same
allocator, which no shape tells: their size is told beside, and nothing is taken off for them.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.packing import filled_pack, resident_of, write_model
from finestep.facts import HardwareFacts
from finestep.probe import Lever, MemoryCurve
from finestep.probes.predict import Predictor
from finestep.recipe import Recipe
from finestep.rules.memory_case import chunk_tokens, memory_case
from finestep.rules.memory_lines import LOW_ADAPTER_BYTES, largest_rows, peak_bytes, peak_line
from finestep.train.checkpointing import checkpoint_layers, keep_activations
from finestep.train.loop import Pack
from finestep.train.token_rows import TokenRows
from finestep.train.tokens import TrainingData

GIB, MIB = 2**30, 2**20
ALLOWED_PERCENT, ALLOWED_ROWS = 5.0, 1
MOST_ROWS = 256
MOST_APART = 8
"""Rows from the prediction at which the search for the largest micro-batch gives up."""
HARDWARE = HardwareFacts(device="cuda", supports_bf16=True)


@dataclass(frozen=True)
class Setting:
    """A method and its levers, the length of rows, and how many of each trial are in a pass."""

    method: str
    length: int
    rows: int
    checkpointing: bool = False
    chunked: bool = False
    lanes: int = 1

    @property
    def name(self) -> str:
        levers = [word for word, on in (("checkpointing", self.checkpointing), ("chunked", self.chunked)) if on]
        trials = f"{self.lanes} trials of " if self.lanes > 1 else ""
        return " ".join([self.method, f"{trials}{self.rows} x {self.length}", *levers])


SETTINGS = (
    Setting("lora", 512, 8),
    Setting("lora", 512, 8, checkpointing=True),
    Setting("lora", 512, 2),
    Setting("lora", 512, 8, chunked=True),
    Setting("lora", 512, 16, checkpointing=True, chunked=True),
    Setting("lora", 512, 2, lanes=4),
    Setting("lora", 2048, 2),
    Setting("lora", 2048, 4, checkpointing=True),
    Setting("lora", 2048, 8, checkpointing=True, chunked=True),
    Setting("full", 512, 4),
    Setting("full", 512, 4, checkpointing=True),
    Setting("full", 2048, 2),
    Setting("full", 2048, 2, checkpointing=True, chunked=True),
)
LIMITS = (
    (10.0, Setting("lora", 512, 0)),
    (10.0, Setting("lora", 512, 0, chunked=True)),
    (4.0, Setting("lora", 2048, 0, checkpointing=True, chunked=True)),
    (16.0, Setting("full", 512, 0)),
)
"""GiB that the process may take, and what is to fit into them."""


class Engine:
    """A resident base of one method, and steps of the loop on it."""

    def __init__(self, folder: Path, method: str, device: str):
        self.recipe = Recipe.model_validate({"method": method, "lora": {"rank": 8, "alpha": 16}})
        self.resident = resident_of(folder, self.recipe, device)
        self._predictor = Predictor(self.resident.base.config, memory_case(self.recipe, HARDWARE))
        self._curves: dict[tuple[int, Lever], MemoryCurve] = {}

    def lever(self, setting: Setting) -> Lever:
        """The setting's levers as the product would pull them."""
        chunk = chunk_tokens(self.resident.base.config.vocab_size) if setting.chunked else None
        return Lever(checkpointing=setting.checkpointing, chunk_tokens=chunk)

    def predicted(self, setting: Setting) -> MemoryCurve:
        """The curve of a setting."""
        question = (setting.length, self.lever(setting))
        if question not in self._curves:
            self._curves[question] = self._predictor.curve(setting.length, lever=self.lever(setting))
        return self._curves[question]

    def predicted_bytes(self, setting: Setting) -> float:
        """The peak; every further trial of a pack keeps its adapter, gradients and moments."""
        more = (setting.lanes - 1) * LOW_ADAPTER_BYTES * self._predictor.num_parameters()[1]
        return peak_bytes(self.predicted(setting), setting.lanes * setting.rows) + more

    @contextmanager
    def pack(self, setting: Setting) -> Iterator[tuple[Pack, list[str]]]:
        """(trials in training with the levers pulled, what the loop says of memory)."""
        self.resident.data = _rows(setting.length)
        recipe = self.recipe.changed(effective_batch_size=setting.rows, micro_batch_size=setting.rows)
        said: list[str] = []

        def hear(kind: str, data: Any, *, trial: int) -> None:
            if kind == "note":
                said.append(data["text"])

        pack = filled_pack(self.resident, [recipe] * setting.lanes, emit=hear)
        if setting.chunked:
            self.resident.token_loss.cut_into_chunks(self.resident.base, self.lever(setting).chunk_tokens or 0)
        if setting.checkpointing:
            checkpoint_layers(self.resident.base)
        try:
            yield pack, said
        finally:
            for lane in pack.lanes:
                lane.leave()
            keep_activations(self.resident.base)
            self.resident.token_loss.chunk_tokens = None


def _rows(length: int) -> TrainingData:
    """Rows of one length whose every token carries loss."""
    ids = np.random.default_rng(0).integers(0, 2500, MOST_ROWS * length)
    rows = TokenRows(ids, np.ones(len(ids), dtype=bool), np.arange(MOST_ROWS + 1) * length)
    return TrainingData(rows, rows, (), length, 0)


def peak(engine: Engine, setting: Setting) -> dict[str, int]:
    """Bytes of the second step: the largest that were allocated, asked for and reserved, and those of cuBLAS's workspaces."""
    _clear()
    with engine.pack(setting) as (pack, said):
        pack._micro_step()
        torch.cuda.reset_peak_memory_stats()
        pack._micro_step()
        torch.cuda.synchronize()
        if any("out of memory" in text for text in said):
            raise torch.OutOfMemoryError(said[-1])
        stats = torch.cuda.memory_stats()
        found = {
            "allocated": torch.cuda.max_memory_allocated(),
            "asked_for": stats.get("requested_bytes.all.peak", 0),
            "reserved": torch.cuda.max_memory_reserved(),
        }
        before = torch.cuda.memory_allocated()
        torch._C._cuda_clearCublasWorkspaces()
        return {**found, "workspaces": before - torch.cuda.memory_allocated()}


def fits(engine: Engine, setting: Setting, limit_bytes: float) -> bool:
    """Do two steps of the loop pass without a word about memory?"""
    _clear()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(limit_bytes / total)
    try:
        with engine.pack(setting) as (pack, said):
            for _ in range(2):
                pack._micro_step()
            torch.cuda.synchronize()
            return not any("out of memory" in text for text in said)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _clear() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def run(*, model: str, out: Path | None, few: bool, device: str = "cuda") -> int:
    """Print both tables; 1 when a prediction is off by more than 5 %, or a largest micro-batch by more than one row."""
    settings, limits = (SETTINGS[:2], LIMITS[:1]) if few else (SETTINGS, LIMITS)
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__, "model": model}
    results |= {"cases": [], "limits": [], "failed": []}
    print(f"{'case (' + model + ' Llama)':42}{'predicted':>10}{'allocated':>10}{'asked for':>10}{'cuBLAS':>8}  off by")
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), model)
        for method in dict.fromkeys(setting.method for setting in settings):
            engine = Engine(Path(folder), method, device)
            for setting in (one for one in settings if one.method == method):
                _note(results, "cases", setting, lambda one=setting, engine=engine: _case(engine, one), out)
            for gib, setting in (pair for pair in limits if pair[1].method == method):
                _note(results, "limits", setting, lambda g=gib, one=setting, e=engine: _limit(e, one, g), out)
            del engine
            _clear()
    worst = max((abs(row["off_percent"]) for row in results["cases"]), default=0.0)
    apart = max((abs(row["off_rows"]) for row in results["limits"]), default=0)
    print(f"largest error {worst:.2f} % of the allocator's peak; largest micro-batch off by at most {apart} rows")
    return int(worst > ALLOWED_PERCENT or apart > ALLOWED_ROWS or bool(results["failed"]))


def _note(results: dict[str, Any], kind: str, setting: Setting, measure: Any, out: Path | None) -> None:
    """Keep a measurement, or that it failed, at once, so that a run that is cut off keeps what it has."""
    try:
        results[kind].append(measure())
    except (RuntimeError, ValueError) as error:
        results["failed"].append({"case": setting.name, "error": str(error)[:300]})
        print(f"{setting.name:42} failed: {str(error).splitlines()[0][:90]}", flush=True)
    if out:
        out.write_text(json.dumps(results, indent=1))


def _case(engine: Engine, setting: Setting) -> dict[str, Any]:
    began = time.monotonic()
    predicted = engine.predicted_bytes(setting)
    seconds = time.monotonic() - began
    found = peak(engine, setting)
    row = {
        "case": setting.name,
        "predicted_mib": round(predicted / MIB, 1),
        "phase": peak_line(engine.predicted(setting), setting.lanes * setting.rows).phase,
        **{f"{name}_mib": round(value / MIB, 1) for name, value in found.items()},
        "off_percent": round(100 * (predicted / found["allocated"] - 1), 2),
        "off_percent_without_workspaces": round(100 * (predicted / (found["allocated"] - found["workspaces"]) - 1), 2),
        "prediction_s": round(seconds, 1),
    }
    print(
        f"{row['case']:42}{row['predicted_mib']:10.0f}{row['allocated_mib']:10.0f}{row['asked_for_mib']:10.0f}"
        f"{row['workspaces_mib']:8.0f}  {row['off_percent']:+.2f} % ({row['off_percent_without_workspaces']:+.2f} without cuBLAS)",
        flush=True,
    )
    return row


def _limit(engine: Engine, setting: Setting, gib: float) -> dict[str, Any]:
    """From the prediction up or down, row by row: the loop itself says when it is too much."""
    predicted = largest_rows(engine.predicted(setting), gib * GIB)

    def fit(rows: int) -> bool:
        return rows < 1 or fits(engine, replace(setting, rows=rows), gib * GIB)

    real = predicted
    if fit(real):
        while real - predicted < MOST_APART and fit(real + 1):
            real += 1
    else:
        while predicted - real < MOST_APART and not fit(real - 1):
            real -= 1
        real -= 1
    row = {"case": setting.name, "limit_gib": gib, "predicted_rows": predicted, "real_rows": real}
    row["off_rows"] = predicted - real
    print(
        f"{replace(setting, rows=predicted).name:42} largest of {gib:g} GiB: predicted {predicted}, real {real}",
        flush=True,
    )
    return row
