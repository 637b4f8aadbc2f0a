"""Rebuild the derived tables from the packaged rows: lora_law.json and practice.json.

`python scripts/build_knowledge/derive.py` rewrites them; a test checks that they are up to date.
"""

from __future__ import annotations

import json
from pathlib import Path

from finestep.knowledge.sweep import sweep_cells
from finestep.rules.lora_fit import optimum
from finestep.rules.lora_law import law_to_table
from finestep.rules.practice_bias import fit_law_with_practice
from finestep.rules.practice_fit import practice_table

DATA = Path(__file__).parents[2] / "src/finestep/knowledge/data"


def main() -> None:
    """Write both tables."""
    for name, values in derived().items():
        (DATA / name).write_text(json.dumps(values, indent=1) + "\n")


def derived() -> dict[str, dict[str, object]]:
    """File name -> content."""
    optima = [found for cell in sweep_cells() if (found := optimum(cell))]
    return {"lora_law.json": law_to_table(fit_law_with_practice(optima)), "practice.json": practice_table()}


if __name__ == "__main__":
    main()
