"""Is a made log called what it was made to be, and is a broken one never comforted?

    python -m benchmarks.made_logs [--seeds 5] [--all]

Each kind of run is made from several seeds, written as a trainer would write it, read back and judged.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import benchmarks.made_logs.preference_kinds  # noqa: F401  enters its kinds
from benchmarks.labelled_logs import BROKEN, COMFORT
from benchmarks.made_logs.kinds import KINDS, Made
from finestep.flows.diagnose import diagnose_file


class Outcome(NamedTuple):
    """What was made, and what was said of it."""

    kind: str
    seed: int
    labels: tuple[str, ...]
    verdict: str
    code: str

    @property
    def is_named(self) -> bool:
        """True when the verdict is one that an expert could give."""
        return self.verdict in self.labels

    @property
    def is_comforted(self) -> bool:
        """True for a broken run that is told something harmless."""
        return self.labels[0] in BROKEN and self.verdict in COMFORT and not self.is_named


def outcomes(seeds: range) -> Iterator[Outcome]:
    """Make, write, read and judge."""
    with tempfile.TemporaryDirectory() as place:
        for number, (name, build) in enumerate(KINDS.items()):
            for seed in seeds:
                made = build(np.random.default_rng([number, seed]))
                report = diagnose_file(written(made, Path(place)))
                yield Outcome(name, seed, made.labels, report.label, report.verdict.code)


def written(made: Made, folder: Path) -> Path:
    """The log as a file of its form."""
    rows = rows_of(made)
    if made.form == "csv":
        path = folder / "metrics.csv"
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        return path
    if made.form in ("printed", "lines"):
        path = folder / "out.log"
        show = str if made.form == "printed" else _as_line
        path.write_text("".join(f"{show(row)}\n" for row in rows))
        return path
    path = folder / "trainer_state.json"
    last = max(row["step"] for row in rows)
    around = {"global_step": last, "max_steps": made.planned_steps or last, "logging_steps": made.spacing}
    path.write_text(json.dumps({"log_history": rows, **around}))
    return path


def _as_line(row: dict[str, float]) -> str:
    return " | ".join(f"{name} {value:.6g}" for name, value in row.items())


def rows_of(made: Made) -> list[dict[str, float]]:
    """Training rows and evaluations in order of steps; NaN losses stay NaN, as JSON and Python print them."""
    count = max((len(values) for values in made.train.values()), default=0)
    span = count * made.spacing if count else len(made.evals.get("t", ())) * 100
    rows = [
        {**{name: float(values[row]) for name, values in made.train.items()}, "epoch": made.epochs * (row + 1) / count,
         "step": (row + 1) * made.spacing}
        for row in range(count)
    ]  # fmt: skip
    times = made.evals.get("t", np.empty(0))
    for row in range(len(times)):
        step = max(1, math.ceil((row + 1) / len(times) * span * min(1.0, float(times[-1]) + 0.5 / len(times))))
        values = {name: float(column[row]) for name, column in made.evals.items() if name != "t"}
        rows.append({**values, "epoch": made.epochs * step / span, "step": min(step, span)})
    return sorted(rows, key=lambda each: each["step"])


def report(seen: list[Outcome], *, show_all: bool) -> None:
    """How many are named and comforted, and each kind that is not always named."""
    named, first = sum(each.is_named for each in seen), sum(each.verdict == each.labels[0] for each in seen)
    broken = [each for each in seen if each.labels[0] in BROKEN]
    print(
        f"{len(seen)} made logs of {len(KINDS)} kinds: {first} have the built-in label, {named} one that an expert could give"
    )
    print(f"{sum(each.is_comforted for each in seen)} of {len(broken)} broken ones comforted")
    for name in KINDS:
        mine = [each for each in seen if each.kind == name]
        others = Counter(f"{each.verdict} ({each.code})" for each in mine if show_all or not each.is_named)
        if others:
            print(f"  {name}: {sum(each.is_named for each in mine)} of {len(mine)}; {dict(others)}")


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="show every kind's verdicts")
    options = parser.parse_args()
    report(list(outcomes(range(options.first, options.first + options.seeds))), show_all=options.all)


if __name__ == "__main__":
    main()
