"""The rows of a surface's file: one whole run each, appended at once or not at all; nothing here trains."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from grid import Cell

import finestep
from finestep.ready import Machine, Ready
from finestep.recipe import Recipe
from finestep.trial import Outcome

COLUMNS = (
    "surface", "N", "D", "bs", "lr", "loss", "accuracy", "state", "seed", "fidelity", "rows", "steps", "tokens",
    "trained_tokens_share", "base_loss", "method", "rank", "alpha", "seconds", "date", "versions",
)  # fmt: skip


def row_of(name: str, cell: Cell, recipe: Recipe, outcome: Outcome, ready: Ready) -> dict[str, object]:
    """One row; a run that diverged has a state and no loss."""
    facts, machine = ready.card.facts, ready.machine
    full_tokens = facts.num_tokens * recipe.num_epochs
    return {
        "surface": name,
        "N": machine.num_parameters,
        "D": round(full_tokens * cell.fidelity),
        "bs": cell.batch,
        "lr": f"{cell.learning_rate:.6g}",
        "loss": _decimals(outcome.eval_loss if outcome.state == "completed" else None),
        "accuracy": _decimals(outcome.metrics.get("accuracy")),
        "state": outcome.state,
        "seed": cell.seed,
        "fidelity": f"{cell.fidelity:.6g}",
        "rows": round(facts.num_rows * recipe.num_epochs * cell.fidelity),
        "steps": outcome.cost.num_steps,
        "tokens": outcome.cost.num_train_tokens,
        "trained_tokens_share": f"{facts.num_trained_tokens / facts.num_tokens:.4f}",
        "base_loss": _decimals(outcome.base_eval_loss),
        "method": recipe.method,
        "rank": recipe.lora.rank if recipe.method != "full" else "",
        "alpha": recipe.lora.alpha if recipe.method != "full" else "",
        "seconds": f"{outcome.cost.elapsed_s:.2f}",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": _versions(machine),
    }


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _versions(machine: Machine) -> str:
    """What computed a row: versions, and the GPU and the precision of the base's weights where it was not the CPU."""
    parts = [f"finestep {finestep.__version__}", *(f"{name} {_version(name)}" for name in ("torch", "transformers"))]
    if machine.device != "cpu":
        parts += [machine.device_name or machine.device, f"{machine.dtype} weights"]
    return "; ".join(parts)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of an unknown version"


def read(file: Path) -> list[dict[str, str]]:
    """The rows that were measured; no file, no rows. A last line that was cut off is no row."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def append(file: Path, row: Mapping[str, object]) -> None:
    """Add one row with a single write, after taking away what a killed process left of a last line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        text = os.pread(handle, os.fstat(handle).st_size, 0)
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.ftruncate(handle, whole)
        # A file keeps the columns that it began with.
        columns = text[: text.find(b"\n")].decode().split(",") if whole else list(COLUMNS)
        line = io.StringIO()
        writer = csv.DictWriter(line, columns, lineterminator="\n", extrasaction="ignore")
        if not whole:
            writer.writeheader()
        writer.writerow(row)
        os.write(handle, line.getvalue().encode())
        os.fsync(handle)
    finally:
        os.close(handle)
