"""`python -m benchmarks.recommend [--json OUT]`: regret, error and coverage of the recommended LoRA rates, beside the
baselines."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.recommend.baselines import CONSTANTS, baselines
from benchmarks.recommend.judge import Judged, baseline_regrets, judge_outside, judge_sweep


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    target = parser.parse_args().json
    figures = measure()
    report(figures)
    if target:
        target.write_text(json.dumps(figures, indent=1) + "\n")


def measure() -> dict[str, Any]:
    """All figures."""
    sweep, outside = judge_sweep(), judge_outside()
    known = [case for case in [*sweep, *outside] if case.covered is not None]
    return {
        "mean_regret_percent": mean([c.regret for c in sweep if c.regret is not None]),
        "max_regret_percent": max(c.regret for c in sweep if c.regret is not None),
        "mean_regret_to_floor_percent": mean([c.floor_regret for c in sweep if c.floor_regret is not None]),
        "mean_abs_error_dex": mean([abs(c.aim - c.best) for c in outside if c.best is not None]),
        "mean_abs_error_of_the_center_dex": mean([abs(c.center - c.best) for c in outside if c.best is not None]),
        "interval_coverage": mean([float(bool(c.covered)) for c in known]),
        "interval_coverage_sweep": coverage(sweep),
        "interval_coverage_outside": coverage(outside),
        "interval_half_width_dex": mean([(c.high - c.low) / 2 for c in known]),
        "num_cells": len(sweep),
        "num_cells_bracketed": sum(c.covered is not None for c in sweep),
        "num_outside": len(outside),
        "whole_vendor_left_out": vendor_figures(),
        "worst_cells": [{"cell": c.name, "regret_percent": c.regret} for c in worst(sweep)],
        "baselines": {name: baseline_figures(name, baseline, outside) for name, baseline in baselines().items()},
        "best_constant_mean_abs_error_dex": best_constant_error(outside),
    }


def vendor_figures() -> dict[str, float]:
    """The stricter split: all models of a vendor left out at once."""
    cases = judge_sweep("vendor")
    regrets = [c.regret for c in cases if c.regret is not None]
    return {
        "mean_regret_percent": mean(regrets),
        "max_regret_percent": max(regrets),
        "interval_coverage": coverage(cases),
    }


def baseline_figures(name: str, baseline: Any, outside: list[Judged]) -> dict[str, float]:
    """Regret of one baseline, and its error on the outside settings where it is a constant."""
    regrets = baseline_regrets(baseline)
    out = {
        "mean_regret_percent": mean(regrets),
        "max_regret_percent": max(regrets),
        "num_cells": len(regrets),
        "mean_regret_to_floor_percent": mean(baseline_regrets(baseline, floor=True)),
    }
    if name in CONSTANTS:
        out["mean_abs_error_dex"] = mean([abs((c.best or 0.0) - math.log10(CONSTANTS[name])) for c in outside])
    return out


def best_constant_error(outside: list[Judged]) -> float:
    """The error of the one constant that fits the outside settings best, chosen after the fact."""
    rates = [c.best for c in outside if c.best is not None]
    return min(mean([abs(rate - constant) for rate in rates]) for constant in rates)


def worst(cases: list[Judged]) -> list[Judged]:
    """The five cells with the largest regret."""
    return sorted(cases, key=lambda c: -(c.regret or 0.0))[:5]


def coverage(cases: list[Judged]) -> float:
    """Share of the cases with a known best rate whose interval holds it."""
    return mean([float(c.covered) for c in cases if c.covered is not None])


def mean(values: list[float]) -> float:
    """The mean."""
    return statistics.fmean(values)


def report(figures: dict[str, Any]) -> None:
    """The same as text."""
    print(f"{'rule':44s} {'mean %':>8s} {'max %':>8s} {'to floor %':>11s} {'MAE dex':>8s}")
    ours = {**figures, "name": "finestep, family left out"}
    for name, row in [(ours["name"], ours), *figures["baselines"].items()]:
        error = f"{row['mean_abs_error_dex']:8.3f}" if "mean_abs_error_dex" in row else f"{'-':>8s}"
        print(
            f"{name:44s} {row['mean_regret_percent']:8.3f} {row['max_regret_percent']:8.2f} "
            f"{row['mean_regret_to_floor_percent']:11.3f} {error}"
        )
    strict = figures["whole_vendor_left_out"]
    name = "finestep, all models of the vendor left out"
    print(f"{name:44s} {strict['mean_regret_percent']:8.3f} {strict['max_regret_percent']:8.2f}")
    print(
        f"\n80 % intervals hold the best measured rate in {figures['interval_coverage']:.1%} of the cases "
        f"(sweep {figures['interval_coverage_sweep']:.1%} of {figures['num_cells_bracketed']}, "
        f"outside {figures['interval_coverage_outside']:.1%} of {figures['num_outside']}); "
        f"mean half-width {figures['interval_half_width_dex']:.2f} dex"
    )
    center, constant = figures["mean_abs_error_of_the_center_dex"], figures["best_constant_mean_abs_error_dex"]
    print(
        f"outside settings: the recommended rate is off by {figures['mean_abs_error_dex']:.3f} dex, the centre of its "
        f"interval by {center:.3f}, the best constant in hindsight by {constant:.3f}"
    )
    for row in figures["worst_cells"]:
        print(f"  worst: {row['cell']:60s} {row['regret_percent']:.2f} %")


if __name__ == "__main__":
    main()
