"""The plan of how trials share the device, kept with the study: what was measured once is not measured again, and may not change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from pathlib import Path

import torch

from finestep.disk import make_folder, read_object, write_whole
from finestep.errors import EnvironmentFault
from finestep.protocol import SessionRequest
from finestep.ready import SharePlan
from finestep.store.probe_cache import cache_folder
from finestep.study_layout import PLAN, SPEC
from finestep.train.lane_plan import plan_lanes, thread_counts
from finestep.train.resident import Resident


def kept_plan(request: SessionRequest, resident: Resident) -> SharePlan:
    """How trials share the device: measured once, and kept, since a measurement that came out otherwise would make other trials.

    A study keeps its plan, whatever becomes of its budget or its machine; studies of the same model and data on the same machine
    share theirs.
    """
    place = Path(request.study_dir) / PLAN
    question = _question(request, torch.get_num_threads())
    shared = cache_folder() / "packing" / f"{_hash(question)}.json"
    known_places = [(place, ("asked", "method")), *([(shared, tuple(question))] if question["fingerprint"] else [])]
    for path, must_agree in known_places:
        known = read_object(path) or {}
        try:
            asked = known["question"]
            if isinstance(asked, dict) and all(asked[name] == question[name] for name in must_agree):
                plan = SharePlan.model_validate(known["plan"])
                threads = request.num_threads or plan.num_threads or torch.get_num_threads()
                torch.set_num_threads(min(threads, os.cpu_count() or 1))
                if path is shared:
                    write_whole(place, json.dumps(known))
                return plan
        except (ValueError, KeyError, TypeError):
            continue
    if resident.devices.is_sharded:  # passes are not timed: all devices would have to make them together
        why = (
            f"{request.pack} trials at a time, as asked"
            if request.pack
            else "one by one: over a base in parts nothing is timed; --pack N shares its passes"
        )
        return SharePlan(
            num_lanes=request.pack or 1, why="" if request.pack == 1 else why, num_threads=request.num_threads
        )
    plan = plan_lanes(
        resident,
        request.recipe,
        asked=request.pack,
        most_lanes=request.most_lanes,
        row_limit=request.micro_batch_limit,
        threads=thread_counts(resident, request.num_threads),
    )
    text = json.dumps({"question": question, "plan": plan.model_dump()})
    write_whole(place, text)
    with contextlib.suppress(EnvironmentFault):  # without a cache the next study measures again
        make_folder(shared.parent)
        write_whole(shared, text)
    return plan


def _question(request: SessionRequest, threads: int) -> dict[str, object]:
    """What the measured plan depends on."""
    prints = (read_object(Path(request.study_dir) / SPEC) or {}).get("fingerprint")
    return {
        "asked": request.pack,
        "most_lanes": request.most_lanes,
        "row_limit": request.micro_batch_limit,
        "method": request.recipe.method,
        "node": platform.node(),
        "threads": [request.num_threads, threads],
        "fingerprint": prints if isinstance(prints, dict) else {},
        "data": request.data.model_dump(mode="json", exclude={"path", "eval_path"}),
        "recipe": request.recipe.model_dump(mode="json", exclude={"learning_rate"}),
    }


def _hash(question: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]
