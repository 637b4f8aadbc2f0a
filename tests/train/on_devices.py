"""One process of a group that trains the cases of `test_devices.py`; the first one writes what came of them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.train.devices import ALONE
from finestep.train.model import Placement
from finestep.train.ranks import Ranks
from finestep.train.resident import Resident
from finestep.train.sharding import forget_gathered
from tests.train.runs import Recorded, run_pack

RATES = (1e-3, 4e-3, 2e-3, 5e-4)


def recipes(kind: str) -> dict[int, Recipe]:
    """The trials of a case: one or four of LoRA with other rates, batches and ranks, or all weights."""
    shared: dict[str, Any] = {"num_epochs": 12, "effective_batch_size": 12, "micro_batch_size": 3, "seed": 3}
    shared |= {"evaluation": {"num_evaluations": 3}}
    if kind == "full":
        return {0: Recipe(method="full", learning_rate=3e-4, **shared)}
    if kind == "lora":
        return {0: Recipe(learning_rate=2e-3, **shared)}
    pack = {number: Recipe(learning_rate=rate, **shared) for number, rate in enumerate(RATES)}
    pack[1] = pack[1].changed(lora={"rank": 4})
    pack[2] = pack[2].changed(effective_batch_size=6)
    return pack


def resident_of(job: dict[str, Any], kind: str, devices: Any) -> Resident:
    return Resident(
        ModelSpec(path=job["model"], device="cpu"),
        DataSpec(path=job["data"], max_length=48, max_rows=40),
        recipes(kind)[0],
        placement=Placement(torch.device("cpu"), torch.float32, False),
        devices=devices,
    )


def told(found: dict[int, Recorded]) -> dict[str, Any]:
    """Figures that can be compared."""
    return {
        str(number): {
            "losses": one.losses,
            "steps": [record.step for record in one.steps],
            "norms": [record.grad_norm for record in one.steps],
            "updates": [record.update_norm for record in one.steps],
            "evaluations": [record.eval_loss for record in one.evaluations],
            "outcome": one.outcome.state if one.outcome else None,
            "from_step": one.started.get("from_step"),
        }
        for number, one in found.items()
    }


def run(job: dict[str, Any], ranks: Ranks | None) -> dict[str, Any]:
    """All cases of a job: each is a kind, in parts or not, and perhaps where to stop or to go on from."""
    out: dict[str, Any] = {}
    for case in job["cases"]:
        if ranks is not None:
            ranks.is_sharded = case.get("sharded", False)
        resident = resident_of(job, case["kind"], ranks or ALONE)
        found = run_pack(
            resident, recipes(case["kind"]), Path(case["folder"]), stop_after=case.get("stop_after"), lanes=4
        )
        forget_gathered(resident.base)
        held = sum(
            value.to_local().numel() if hasattr(value, "to_local") else value.numel()
            for value in resident.base.parameters()
        )
        out[case["name"]] = {"trials": told(found), "held": held}
        if ranks is not None:
            ranks.meet()  # what the first has written is there when the next case begins
    return out


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    ranks = Ranks(torch.device("cpu"))
    found = run(job, ranks)
    if ranks.rank == 0:
        Path(job["out"]).write_text(json.dumps(found))
    ranks.close()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
