"""`python -m benchmarks.recommend [--json OUT] [--write PAGE] [--file OPTIMA.csv]`: how good recommended rates are.

Coverage and error on sources that were left out, beside constants; regret on the LoRA sweep; and, with `--file`, a table of optima that
nobody has seen (columns: id, grade, model, method, rank, alpha, rows, epochs, batch, steps, schedule, best, vertex).
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pages import table, write_into
from benchmarks.recommend.baselines import CONSTANTS, baselines
from benchmarks.recommend.file import judge_file
from benchmarks.recommend.judge import (
    Judged,
    baseline_regrets,
    judge_sources,
    judge_sweep,
    judge_weak,
    mean,
)

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3)


def main() -> None:
    """Print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page, between its marks")
    parser.add_argument("--file", type=Path, help="score these optima by the packaged law instead")
    args = parser.parse_args()
    if args.file:
        report_file(judge_file(args.file))
        return
    figures = measure()
    report(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if args.write:
        write_into(args.write, as_markdown(figures), name="recommend")


def measure() -> dict[str, Any]:
    """All figures."""
    sweep = judge_sweep()
    return {
        "sources": {name: family_figures(cases) for name, cases in by_family(judge_sources()).items()},
        "weak": [vars_of(case) for case in judge_weak()],
        "sweep": {
            "mean_regret_percent": mean([c.recommended for c in sweep]),
            "max_regret_percent": max(c.recommended for c in sweep),
            "mean_regret_to_floor_percent": mean([c.to_floor for c in sweep]),
            "known_data_mean_regret_percent": mean([c.known_data for c in sweep]),
            "num_cells": len(sweep),
        },
        "baselines": {name: baseline_figures(baseline) for name, baseline in baselines().items()},
    }


def by_family(cases: list[Judged]) -> dict[str, list[Judged]]:
    """Cases by what coverage is counted by."""
    out: dict[str, list[Judged]] = defaultdict(list)
    for case in cases:
        out[case.family].append(case)
    return dict(sorted(out.items()))


def family_figures(cases: list[Judged]) -> dict[str, Any]:
    """Coverage and error, every cluster of sources counted once; and the constant that is best in hindsight."""
    clusters: dict[str, list[Judged]] = defaultdict(list)
    for case in cases:
        clusters[case.cluster].append(case)

    def over(value: Callable[[Judged], float]) -> float:
        return mean([mean([value(case) for case in group]) for group in clusters.values()])

    constants = {f"{rate:g}": over(lambda c, rate=rate: abs(c.best - math.log10(rate))) for rate in RATES}
    return {
        "num_sources": len(clusters),
        "num_cases": len(cases),
        "coverage": over(lambda c: float(c.covered)),
        "mean_abs_error_dex": over(lambda c: abs(c.aim - c.best)),
        "mean_abs_error_of_the_center_dex": over(lambda c: abs(c.center - c.best)),
        "half_width_dex": over(lambda c: (c.high - c.low) / 2),
        "constants": constants,
        "best_constant": min(constants, key=lambda name: constants[name]),
        "by_source": {
            name: {"bias_dex": mean([c.best - c.center for c in g]), "inside": mean([float(c.covered) for c in g])}
            for name, g in sorted(clusters.items())
        },
    }


def baseline_figures(baseline: Any) -> dict[str, float]:
    """Regret of one baseline on the sweep."""
    regrets = baseline_regrets(baseline)
    return {"mean_regret_percent": mean(regrets), "max_regret_percent": max(regrets), "num_cells": len(regrets)}


def vars_of(case: Judged) -> dict[str, Any]:
    """A weak case as plain values."""
    return {"id": case.name, "off_dex": round(case.best - case.center, 2), "inside": case.covered}


def report(figures: dict[str, Any]) -> None:
    """The same as text."""
    print("whole sources left out; every cluster of sources counted once; errors in dex (0.3 = a factor of 2)")
    print(
        f"{'family':18s}{'sources':>8s}{'cases':>7s}{'in 80 %':>9s}{'error':>7s}{'centre':>8s}{'half-width':>12s}  constants"
    )
    for name, row in figures["sources"].items():
        best = row["best_constant"]
        shown = list(dict.fromkeys((best, "2e-05", "5e-05", "0.0002", "0.0003")))
        constants = ", ".join(f"{float(k):.0e} {row['constants'][k]:.2f}" for k in shown)
        print(
            f"{name:18s}{row['num_sources']:8d}{row['num_cases']:7d}{row['coverage']:9.0%}"
            f"{row['mean_abs_error_dex']:7.2f}{row['mean_abs_error_of_the_center_dex']:8.2f}"
            f"{row['half_width_dex']:12.2f}  {constants}"
        )
    print("\nby source (best minus centre, share inside)")
    for name, row in figures["sources"].items():
        parts = [f"{s} {v['bias_dex']:+.2f} {v['inside']:.0%}" for s, v in row["by_source"].items()]
        print(f"  {name}: " + "; ".join(parts))
    _report_weak(figures["weak"])
    _report_sweep(figures)


FAMILIES = {
    "lora-causal": "LoRA and QLoRA, decoders",
    "full-causal": "full, decoders",
    "full-encoder": "full, encoders",
    "lora-encoder": "LoRA, encoders",
    "variant-causal": "LoRA variants, decoders",
}
"""Families in the words of the documentation."""


def as_markdown(figures: dict[str, Any]) -> str:
    """The tables of the documentation: sources left out, and the sweep."""
    head = ("family", "sources", "bests", "inside 80 %", "error, dex", "best constant in hindsight, dex")
    rows = []
    for name, row in figures["sources"].items():
        constant = row["best_constant"]
        by_constant = f"{row['constants'][constant]:.2f} ({float(constant):.0e})"
        counts = (FAMILIES.get(name, name), str(row["num_sources"]), str(row["num_cases"]))
        rows.append((*counts, f"{row['coverage']:.0%}", f"{row['mean_abs_error_dex']:.2f}", by_constant))
    sweep = figures["sweep"]
    regrets = [
        ("finestep, as recommended", f"{sweep['mean_regret_percent']:.3f}", f"{sweep['max_regret_percent']:.2f}")
    ]
    for name, row in figures["baselines"].items():
        if name in CONSTANTS or "formula" in name:
            regrets.append((name, f"{row['mean_regret_percent']:.3f}", f"{row['max_regret_percent']:.2f}"))
    title = f"On the sweep ({sweep['num_cells']} cells of model x rank), with the model's family left out:"
    return "\n\n".join([table(head, rows), title, table(("rule", "loss above the best, %", "largest"), regrets)])


def _report_weak(weak: list[dict[str, Any]]) -> None:
    inside = sum(row["inside"] for row in weak)
    print(f"\nnot fitted (at the edge of their grid, or weak): {inside} of {len(weak)} inside")
    print("  " + "; ".join(f"{row['id']} {row['off_dex']:+.2f}" for row in weak))


def _report_sweep(figures: dict[str, Any]) -> None:
    sweep = figures["sweep"]
    print(f"\nLoRA sweep, {sweep['num_cells']} cells, the model's family left out: loss above the best measured, %")
    print(f"{'finestep, as recommended':48s}{sweep['mean_regret_percent']:8.3f}  max {sweep['max_regret_percent']:.2f}")
    print(f"{'finestep, where the data set is known':48s}{sweep['known_data_mean_regret_percent']:8.3f}")
    for name, row in figures["baselines"].items():
        if name in CONSTANTS or "formula" in name:
            print(f"{name:48s}{row['mean_regret_percent']:8.3f}  max {row['max_regret_percent']:.2f}")


def report_file(cases: list[tuple[str, Judged]]) -> None:
    """Coverage and error on a file of optima, by family and grade."""
    for grades in ("AB", "ABC"):
        chosen = [case for grade, case in cases if grade in grades]
        print(f"grades {', '.join(grades)}")
        for name, group in [*by_family(chosen).items(), ("all", chosen)]:
            inside = sum(case.covered for case in group)
            error = mean([abs(case.aim - case.best) for case in group])
            print(f"  {name:18s}{inside:3d} of {len(group):3d} inside, mean error of the aim {error:.2f} dex")


if __name__ == "__main__":
    main()
