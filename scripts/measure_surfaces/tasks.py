"""The tasks whose surfaces are measured: which model, data and method, and which half of the list each belongs to.

`benchmarks/data/tasks/tasks.json` is the list; it was written down, with the halves, before anything was measured. A task is what a plan of
`plans.json` is, said in fewer words. Half of the tasks are for design; the others are touched once, when a search is judged. Three `longer`
ones were added on 30 November 2026, with more steps than any before, and belong to no half.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

TASKS = Path(__file__).parents[2] / "benchmarks" / "data" / "tasks" / "tasks.json"
DESIGN, UNTOUCHED, LONGER = "design", "untouched", "longer"
LENGTHS = (1.0, 1 / 3, 0.125)
SEEDS = (0, 1, 2)
NUM_EVALUATION_ROWS = 64
"""Of decoders, split off the same file; the intents have a file of their own."""
LANES = 4
"""LoRA runs of a decoder that share a forward pass (docs/packing.md)."""
EXPONENTS = {
    ("decoder", "lora"): (-12, -10, -9, -8, -7, -6, -5),
    ("decoder", "full"): (-15, -13, -12, -11, -10, -9, -8),
    ("encoder", "lora"): (-12, -11, -10, -9, -8, -7),
    ("encoder", "full"): (-16, -14, -13, -12, -11, -10),
}
"""log2 of the learning rates to begin with; a grid whose best cell is at its edge is made larger (`grid.py`)."""
BATCHES = (2, 4, 8, 16, 32)
COST = {
    "small": (2e-5, 0.008),
    "shipped": (8e-5, 0.015),
    "large": (2.2e-4, 0.025),
    "minilm3": (3e-4, 0.05),
    "minilm": (6e-4, 0.06),
}
"""Seconds a token and seconds a step, to put the tasks in an order and no more."""
TOKENS_A_ROW = {"skills": 31, "gsm8k": 115, "alpaca_en": 75, "alpaca_zh": 125, "toolcall": 190, "banking": 14}
FILES = {
    "skills": None,
    "gsm8k": "gsm8k/train.jsonl",
    "alpaca_en": "instruct/alpaca_en_demo.json",
    "alpaca_zh": "instruct/alpaca_zh_demo.json",
    "toolcall": "instruct/glaive_toolcall_en_demo.json",
}
"""Data of decoders below the folder of data; None: the shipped instructions."""


def halves(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Task name -> half: decoders, encoders and what is judged by accuracy are each put in the order of the SHA-256 of
    their names, and every second one is untouched. Longer ones belong to no half and are left out."""
    strata: dict[object, list[str]] = {}
    for name, task in tasks.items():
        if task["half"] != LONGER:
            strata.setdefault((family_of(task), task["objective"]), []).append(name)
    ordered = [sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()) for names in strata.values()]
    return {name: (DESIGN, UNTOUCHED)[place % 2] for names in ordered for place, name in enumerate(names)}


def family_of(task: Mapping[str, Any]) -> str:
    """Whether the model of a task writes text or gives labels."""
    return "encoder" if task["model"].startswith("minilm") else "decoder"


def read_tasks() -> dict[str, dict[str, Any]]:
    """Task name -> what it is, in the order of the list."""
    return json.loads(TASKS.read_text(encoding="utf-8"))


def by_cost(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names in the order in which they are measured: the cheapest of each half in turn. An encoder counts for a third of its
    cost, so that a measurement that is cut off holds both families."""
    share = {"encoder": 1 / 3, "decoder": 1.0}
    ranked = sorted(tasks, key=lambda name: share[family_of(tasks[name])] * expected_seconds(tasks[name]))
    parts = [[name for name in ranked if tasks[name]["half"] == half] for half in (DESIGN, UNTOUCHED, LONGER)]
    return [name for pair in zip_longest(*parts) for name in pair if name]


def expected_seconds(task: Mapping[str, Any]) -> float:
    """About what one full run takes on one core that is free: tokens (rows are rarely as long as allowed) and steps of batch 8."""
    token_s, step_s = COST[task["model"]]
    num_tokens = task["rows"] * task["epochs"] * TOKENS_A_ROW[task["data"].rstrip("0123456789")]
    num_steps = task["rows"] * task["epochs"] / 8
    return num_tokens * token_s + num_steps * step_s


def plan_of(task: Mapping[str, Any], *, data: Path, made: Path, shipped: Path) -> dict[str, Any]:
    """The plan of a task. Where a new head learns faster than the rest, that is what `recommend` said when the list was made.

    Args:
        data: the folder that holds `gsm8k/` and `instruct/`.
        made: the folder of `prepare.py`, which holds the further models too.
        shipped: the folder of the shipped model and data.
    """
    family = family_of(task)
    spec, length = _data_spec(task, data=data, made=made, shipped=shipped), task["max_length"]
    recipe = {
        "method": task["method"],
        "num_epochs": task["epochs"],
        "max_length": length,
        "evaluation": {"num_evaluations": 1},
        "optimizer": {"head_lr_multiplier": task.get("head_lr_multiplier", 1.0)},
    }
    return {
        "model_path": str(shipped / "base" if task["model"] == "shipped" else made / task["model"]),
        "data_spec": {"max_length": length, **spec},
        "recipe": recipe,
        "micro_batch": 32,
        "learning_rates": [2.0**exponent for exponent in EXPONENTS[family, task["method"]]],
        "batches": list(task.get("batches", BATCHES)),
        "fidelities": list(LENGTHS),
        "seeds": list(SEEDS),
        "objective": task["objective"],
        "grows": True,
        "lanes": LANES if (family, task["method"]) == ("decoder", "lora") else 1,
    }


def _data_spec(task: Mapping[str, Any], *, data: Path, made: Path, shipped: Path) -> dict[str, Any]:
    if family_of(task) == "encoder":
        own = made / f"{task['data']}-{task['rows']}.csv"
        return {"path": str(own), "format": "labels", "eval_path": str(made / f"{task['data']}-test.csv")}
    file = FILES[task["data"]]
    num_rows = task["rows"] + NUM_EVALUATION_ROWS
    spec = {
        "path": str(data / file if file else shipped / "instruct.jsonl"),
        "max_rows": num_rows,
        "eval_fraction": NUM_EVALUATION_ROWS / num_rows,
    }
    return spec | ({"columns": {"prompt": "question", "completion": "answer"}} if task["data"] == "gsm8k" else {})
