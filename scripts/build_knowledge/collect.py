"""Turn the collected raw files into the packaged knowledge: recipes.jsonl and lora_sweep.jsonl.

Run once when the collection changes: `python scripts/build_knowledge/collect.py FOLDER`, where FOLDER holds
`recipes/recipes.jsonl` and `surfaces/tinker_sft_lora_sweep.csv`. Only figures and their sources are kept.
Measured optima (optima.jsonl) are kept by hand, a row each: the vertex of a published table, its setting and its source.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "src/finestep/knowledge/data"
KEPT = (
    "id",
    "model",
    "family",
    "params",
    "architecture",
    "method",
    "task",
    "dataset",
    "train_examples",
    "epochs",
    "max_steps",
    "learning_rate",
    "lr_schedule",
    "warmup_ratio",
    "warmup_steps",
    "effective_batch_size",
    "max_seq_len",
    "optimizer",
    "weight_decay",
    "grad_clip",
    "lora_rank",
    "lora_alpha",
    "llrd",
    "source_url",
    "source_kind",
    "note",
)
NOTE_LENGTH = 140


def main() -> None:
    """Write both files."""
    folder = Path(sys.argv[1])
    rows = [json.loads(line) for line in (folder / "recipes/recipes.jsonl").read_text().splitlines()]
    write_jsonl(DATA / "recipes.jsonl", [trimmed(row) for row in rows])
    write_jsonl(DATA / "lora_sweep.jsonl", sweep_cells(folder / "surfaces/tinker_sft_lora_sweep.csv"))


def trimmed(row: dict[str, Any]) -> dict[str, Any]:
    """One recipe without empty fields and with a short note."""
    kept = {name: row[name] for name in KEPT if row.get(name) is not None}
    if "note" in kept:
        kept["measured"] = "MEASURED" in kept["note"]
        kept["note"] = kept["note"][:NOTE_LENGTH]
    if not kept.get("measured"):
        kept.pop("measured", None)
    return kept


def sweep_cells(path: Path) -> list[dict[str, Any]]:
    """One row a model and rank: learning rate -> mean test loss in nats over repeats, null where a run diverged."""
    runs: dict[tuple[str, int], dict[float, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as handle:
        for row in csv.DictReader(handle):
            loss = float(row["test_nll"]) if row["test_nll"] not in ("", "nan") else None
            runs[row["model"], int(row["lora_rank"])][float(row["lr"])].append(loss)
    return [
        {"model": model, "rank": rank, "test_nll": {f"{rate:g}": mean(losses) for rate, losses in sorted(cell.items())}}
        for (model, rank), cell in sorted(runs.items())
    ]


def mean(losses: list[float | None]) -> float | None:
    """Mean of repeats; a point that diverged in any repeat counts as diverged."""
    known = [loss for loss in losses if loss is not None]
    return round(sum(known) / len(known), 6) if len(known) == len(losses) else None


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
