"""Rebuild the derived tables from the packaged rows: rate_law.json and practice.json.

`python scripts/build_knowledge/derive.py` rewrites them; a test checks that they are up to date.
"""

from __future__ import annotations

import json
from pathlib import Path

from finestep.rules.practice_fit import practice_table
from finestep.rules.rate_evidence import evidence_cases
from finestep.rules.rate_fit import fit_rate_law
from finestep.rules.rate_law import law_to_table

DATA = Path(__file__).parents[2] / "src/finestep/knowledge/data"


def main() -> None:
    """Write both tables."""
    for name, values in derived().items():
        (DATA / name).write_text(json.dumps(values, indent=1) + "\n")


def derived() -> dict[str, dict[str, object]]:
    """File name -> content."""
    return {"rate_law.json": law_to_table(fit_rate_law(evidence_cases())), "practice.json": practice_table()}


if __name__ == "__main__":
    main()
