"""`python -m benchmarks.surface_table [--write docs/surfaces.md]`: what the recorded fine-tuning tasks are and what was measured of each.

Where the optimum of an untouched task lies is not printed: those tasks are looked at once, when a search is judged on them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages import write_into
from benchmarks.search.recorded import FOLDER, Recorded, load_recorded

HEAD = "| task | half | judged by | runs | rates x batches | best rate, batch | edge | seeds differ by |"


def main() -> None:
    """Print the table, or put it into a page between its two marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, default=FOLDER, help="folder of recorded tasks")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    text = "\n".join(lines(options.tasks))
    if options.write is None:
        print(text)
        return
    write_into(options.write, text, name="surface_table")


def lines(folder: Path = FOLDER) -> list[str]:
    """The table as Markdown, and which tasks of the list are not measured yet."""
    tasks = load_recorded(folder)
    listed = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    missing = sorted(set(listed) - {task.name for task in tasks})
    out = [f"{len(tasks)} of {len(listed)} tasks are measured.", "", HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    out += [row(task) for task in tasks]
    return out + (["", "Not measured yet:", "", "```text", *missing, "```"] if missing else [])


def row(task: Recorded) -> str:
    """One task."""
    card: Mapping[str, Any] = task.card
    num_runs = sum(len(by_seed) for places in task.runs.values() for by_seed in places.values())
    is_shown = card["half"] != "untouched"
    best = f"{task.best_place.rate:.1e}, {task.best_place.batch}" if is_shown else "not shown"
    noise = task.noise_percent()
    unit = "points" if task.by_accuracy else "%"
    grid = f"{len(task.axis('log_rate'))} x {len(task.axis('log_batch'))}"
    spread = "-" if noise is None else f"{noise:.1f} {unit}"
    judged = "accuracy" if task.by_accuracy else "loss"
    edges = ", ".join(task.edges()) or "inside"
    return f"| {task.name} | {card['half']} | {judged} | {num_runs} | {grid} | {best} | {edges} | {spread} |"


if __name__ == "__main__":
    main()
