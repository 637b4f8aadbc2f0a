"""The default search against the classic sweep on the shipped example, several seeds.

    python -m benchmarks.demo_search --out FOLDER [--seeds 5] [--pack auto|off|N] [--engines auto,sweep] [--json OUT]

Each line is a whole `finestep tune` with its default budget, and its cost is all tokens that were trained, baseline and short runs
included. A seed decides the split, the order of the rows and the initial adapters; both engines get the same one. A study that
is in FOLDER already is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def study(folder: Path, engine: str, seed: int, pack: str) -> dict[str, Any]:
    """One whole study: its best validation loss, its tokens and its trials."""
    if not (folder / "result.json").exists():
        arguments = ["tune", "--out", str(folder), "--strategy", engine, "--set", f"seed={seed}", "--pack", pack]
        subprocess.run([sys.executable, "-m", "finestep", *arguments], check=True, stdout=subprocess.DEVNULL)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    best, trials, baseline = result["best"], result["trials"], result["baseline"]
    return {
        "engine": engine,
        "seed": seed,
        "pack": pack,
        "eval_loss": best["eval_loss"],
        "learning_rate": best["learning_rate"],
        "effective_batch_size": best["effective_batch_size"],
        "tokens": sum(trial["num_train_tokens"] or 0 for trial in trials),
        "baseline": baseline and baseline["eval_loss"],
        "full_runs": sum(trial["fidelity"] for trial in trials),
        "trials": [
            {key: trial[key] for key in ("stage", "fidelity", "learning_rate", "effective_batch_size", "eval_loss", "num_train_tokens")}
            for trial in trials
        ],
    }  # fmt: skip


def _beside(baseline: float | None) -> str:
    """The baseline in words; a study of fewer than four runs makes none."""
    return "" if baseline is None else f" (baseline {baseline:.3f})"


def main() -> int:
    """Print a line a study, then the medians; the exit code is 1 when the search does not win at half of the tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pack", default="auto")
    parser.add_argument("--engines", default="auto,sweep")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        for engine in options.engines.split(","):
            row = study(options.out / f"{engine}-{options.pack}-{seed}", engine, seed, options.pack)
            rows.append(row)
            print(
                f"seed {seed} {engine:6} loss {row['eval_loss']:.3f}{_beside(row['baseline'])} at "
                f"{row['learning_rate']:.2g} x {row['effective_batch_size']}, {row['full_runs']:.1f} full runs, "
                f"{row['tokens']:,} tokens",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    by_seed = {
        engine: {row["seed"]: row for row in rows if row["engine"] == engine} for engine in options.engines.split(",")
    }
    for engine, found in by_seed.items():
        losses, runs = ([row[key] for row in found.values()] for key in ("eval_loss", "full_runs"))
        print(f"{engine}: mean loss {statistics.fmean(losses):.3f}, median of {statistics.median(runs):.1f} full runs")
    if not {"auto", "sweep"} <= by_seed.keys():
        return 0
    pairs = [(by_seed["auto"][seed], by_seed["sweep"][seed]) for seed in range(options.seeds)]
    loss = statistics.median(auto["eval_loss"] / sweep["eval_loss"] for auto, sweep in pairs)
    tokens = statistics.median(auto["tokens"] / sweep["tokens"] for auto, sweep in pairs)
    wins = sum(auto["eval_loss"] <= sweep["eval_loss"] for auto, sweep in pairs)
    print(
        f"auto / sweep, medians: loss {loss:.2f}, tokens {tokens:.2f}; at least as good on {wins} of {len(pairs)} seeds"
    )
    return int(loss > 1 or tokens > 0.5)


if __name__ == "__main__":
    sys.exit(main())
