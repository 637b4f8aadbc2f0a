"""A table of measured optima that the law has not seen, asked as a user would ask: model, rows, epochs, batch, rank and alpha."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

from benchmarks.recommend.judge import Judged, judge, published_request
from finestep.errors import BadInput
from finestep.knowledge.models import known_model
from finestep.knowledge.optima import MeasuredOptimum, MeasuredRun, Origin
from finestep.survey.model import facts_from_size

ENCODERS = ("bert", "electra", "minilm")
"""Parts of names of encoders that the table of known models does not hold."""


def judge_file(path: Path) -> list[tuple[str, Judged]]:
    """(grade, judgement) of each row whose model's size is known, by its name or a column `params`; the others are named."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"model", "method", "best"} <= set(rows[0]):
        raise BadInput("the file must have the columns model, method and best", place=str(path))
    known = [row for row in rows if known_model(row["model"]) or _size(row)]
    for row in rows:
        if row not in known:
            print(f"left out, as its size is unknown: {row.get('id')} ({row['model']}); add a column params, e.g. 7B")
    return [(row.get("grade") or "A", _judged(row)) for row in known]


def _judged(row: dict[str, str]) -> Judged:
    method = row["method"]
    facts = known_model(row["model"])
    is_encoder = facts.is_encoder if facts else any(part in row["model"].lower() for part in ENCODERS)
    batch = int(float(row.get("batch") or 32))
    num_rows, epochs = float(row.get("rows") or 10_000), float(row.get("epochs") or 1)
    asked = MeasuredOptimum(
        id=row.get("id") or row["model"],
        model=row["model"],
        architecture="encoder" if is_encoder else "causal",
        method="full" if method == "full" else "lora",
        learning_rate=float(row.get("vertex") or row["best"]),
        origin=Origin(grade=row.get("grade") or "A", metric="", source="", cluster=row.get("source") or ""),
        run=MeasuredRun(
            batch=batch,
            steps=round(float(row.get("steps") or 0)) or max(1, round(num_rows * epochs / batch)),
            num_labels=int(float(row["num_labels"])) if row.get("num_labels") else None,
            constant_rate=(row.get("schedule") or "").startswith("constant"),
        ),
        variant="lora" if method in ("full", "lora", "qlora") else method,
        rank=int(float(row["rank"])) if row.get("rank") else None,
        alpha=float(row["alpha"]) if row.get("alpha") else None,
        params=None if facts else facts_from_size(_size(row) or "").num_parameters,
    )
    return judge(asked.id, asked.origin.cluster, published_request(asked), math.log10(asked.learning_rate), None)


def _size(row: dict[str, str]) -> str | None:
    """The size of a model as its row or its name says it."""
    named = re.search(r"(?<![0-9.])([0-9.]+)b(?![a-z])", row["model"].lower())
    return row.get("params") or (f"{named[1]}B" if named else None)
