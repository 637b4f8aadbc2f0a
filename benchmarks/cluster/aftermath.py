"""What a study is like after a loss, beside the same study that nothing disturbed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cluster.node_watch import NodeWatch
from benchmarks.reliability.studies import trials_of

MOST_DIFFERENCE, MOST_REPEATED_S, MOST_SILENCE_S = 1e-6, 60.0, 60.0


@dataclass
class Aftermath:
    """What is wrong, and the figures behind it.

    Attributes:
        repeated_s: seconds of steps that were made twice, whether or not the study had heard of the first time.
        silence_s: longest time without any news while it should train.
        difference: largest relative difference of a trial's loss.
    """

    repeated_s: float = 0.0
    silence_s: float = 0.0
    difference: float = 0.0
    faults: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Rounded, by name."""
        named = {"repeated_s": round(self.repeated_s, 2), "silence_s": round(self.silence_s, 1)}
        return {**named, "difference": self.difference}


def aftermath(study: Path, watch: NodeWatch, *, alone: Path) -> Aftermath:
    """Compare a study with the undisturbed one."""
    after = Aftermath(silence_s=watch.silence_s)
    found, wanted = trials_of(study), trials_of(alone)
    if [_without_loss(one) for one in found] != [_without_loss(one) for one in wanted]:
        after.faults.append(f"other trials or states: {found}")
    else:
        pairs = [(a["loss"], b["loss"]) for a, b in zip(found, wanted, strict=True)]
        after.difference = max(abs(a - b) / abs(b) for a, b in pairs)
    if after.difference > MOST_DIFFERENCE:
        after.faults.append(f"losses differ by {after.difference:.1e}")
    for folder in sorted((study / "trials").iterdir()):
        _look_at(folder, watch, after)
    if after.repeated_s > MOST_REPEATED_S:
        after.faults.append(f"{after.repeated_s:.0f} s of steps repeated")
    if after.silence_s > MOST_SILENCE_S:
        after.faults.append(f"nothing happened for {after.silence_s:.0f} s")
    _look_at_output(study, after)
    return after


def _without_loss(trial: dict[str, Any]) -> dict[str, Any]:
    return {**trial, "loss": None}


def _look_at(folder: Path, watch: NodeWatch, after: Aftermath) -> None:
    """Steps without a gap; those made again since the last checkpoint, and none of a trial that had ended."""
    records = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records]
    if set(steps) != set(range(1, max(steps, default=0) + 1)):
        after.faults.append(f"steps are missing in {folder.name}")
    drops = [place for place in range(1, len(steps)) if steps[place] <= steps[place - 1]]
    known = watch.lost_steps.get(int(folder.name), [])
    for place in drops:
        # What the lost node had made beyond its last message counts too.
        before = records[:place] if not known or known[-1]["step"] < steps[place - 1] else known
        again = [record for record in before if record["step"] >= steps[place]]
        start = next((record["elapsed_s"] for record in reversed(before) if record["step"] < steps[place]), 0.0)
        if again:
            after.repeated_s = max(after.repeated_s, again[-1]["elapsed_s"] - start)
    if len(drops) > 1:
        after.faults.append(f"trial {folder.name} was begun {len(drops) + 1} times")


def _look_at_output(study: Path, after: Aftermath) -> None:
    said = study.with_suffix(".out").read_text()
    try:
        if not isinstance(json.loads(said), dict):
            after.faults.append("standard output is no JSON object")
    except ValueError:
        after.faults.append(f"standard output is no JSON: {said[:200]!r}")
