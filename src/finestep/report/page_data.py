"""What the page's script draws: the view as compact JSON with stable keys, in English, with the Chinese of its sentences beside.

A running study sends the same keys again, and `finestep.update` draws them. Columns, not objects, hold the trials: ten
thousand of them fit into a page. Text of others is made safe here, and is only ever a text node in the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from finestep.language.catalogue import sections, translations
from finestep.plain_text import plain_lines
from finestep.report.batch_map import BatchMap
from finestep.report.view import ReportView
from finestep.search.belief import BelievedCurve
from finestep.trial import Outcome, Trial

MOST_NUMBERS_OF_A_CELL = 6
NOT_SAID = frozenset({"title", "load", "merge", "recipe", "export", "next", "again", "answers", "zh"})
"""Keys whose text is somebody's own, or a command: it is the same in every language."""


def page_json(view: ReportView) -> str:
    """The page's data as JSON without NaN, in the same bytes each time."""
    return json.dumps(page_data(view), allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def page_data(view: ReportView) -> dict[str, object]:
    """The page's data as plain values; what `finestep.update(data)` of the page takes."""
    data = {
        "format": 2,
        "title": view.header.title,
        "language": view.header.language,
        "live": view.header.live,
        "is_search": view.header.is_search,
        "objective": {"name": view.told.objective, "goal": view.told.goal},
        "best": view.charts.basin.best,
        "best_name": view.charts.basin.best_name,
        "baseline": view.charts.basin.baseline,
        "settled": view.told.settled,
        "verdict": view.verdict.model_dump(mode="json"),
        "tiles": [tile.model_dump(mode="json") for tile in view.tiles],
        "counts": [{"state": one.state, "number": one.number} for one in view.counts],
        "spent": [{"name": one.name, "value": one.value} for one in view.spent],
        "titles": view.titles.model_dump(mode="json"),
        "trials": trial_columns(view.table.trials, kept=view.table.kept_reasons),
        "shares": sorted(view.told.metric_errors),
        "basin": _basin(view),
        "belief": [_curve(curve) for curve in view.told.belief],
        "intervals": [one.model_dump(mode="json") for one in view.told.intervals],
        "maps": [_map(item) for item in view.charts.maps],
        "curves": [curve.model_dump(mode="json") for curve in view.charts.curves],
        "curves_about": list(view.charts.curves_about),
        "diagnosis": [one.model_dump(mode="json") for one in view.told.findings],
        "data_notes": list(view.told.data_notes),
        "answers": [one.model_dump(mode="json") for one in view.answers],
        "use": view.told.use.model_dump(mode="json"),
        "facts": [list(pair) for pair in view.facts],
        "notes": list(view.notes),
        "lost": list(view.table.lost),
    }
    safe = {name: _safe(value) for name, value in data.items()}
    return {**safe, "zh": {**sections()["page"], **translations(_said(safe, ""))}}


def trial_columns(trials: Sequence[Trial], *, kept: frozenset[int]) -> dict[str, object]:
    """The trials as columns; words stand once in `words`, and -1 is none. `kept` are those whose reasons are told.

    `number` is None where the trials are numbered from 0 in their order.
    """
    words: dict[str, int] = {}

    def place(text: str, number: int) -> int:
        return words.setdefault(text, len(words)) if text and number in kept else -1

    states = sorted({trial.state for trial in trials})
    numbers = [trial.number for trial in trials]
    lengths = sorted({_rounded(trial.fidelity, 4) for trial in trials}, reverse=True)
    outcomes = [trial.outcome for trial in trials]
    names = sorted({name for outcome in outcomes if outcome for name in outcome.metrics})
    return {
        "number": None if numbers == list(range(len(trials))) else numbers,
        "rate": [_rounded(trial.recipe.learning_rate, 4) for trial in trials],
        "batch": [trial.recipe.effective_batch_size for trial in trials],
        "fidelities": lengths,
        "fidelity": [lengths.index(_rounded(trial.fidelity, 4)) for trial in trials],
        "loss": [_number(outcome.eval_loss if outcome else None, 5) for outcome in outcomes],
        "state": [states.index(trial.state) for trial in trials],
        "stage": [place(trial.stage, trial.number) for trial in trials],
        "why": [place(trial.why, trial.number) for trial in trials],
        "reason": [place(outcome.reason if outcome else "", trial.number) for trial, outcome in _with(trials)],
        "seconds": [_rounded(_seconds(outcome), 3) for outcome in outcomes],
        "metric_names": names,
        "metrics": [
            [_number(outcome.metrics.get(name) if outcome else None, 4) for outcome in outcomes] for name in names
        ],
        "states": states,
        "by_hand": [trial.number for trial in trials if trial.is_stopped_by_hand],
        "words": list(words),
    }


def _with(trials: Sequence[Trial]) -> Iterable[tuple[Trial, Outcome | None]]:
    return ((trial, trial.outcome) for trial in trials)


def _seconds(outcome: Outcome | None) -> float:
    return outcome.cost.elapsed_s if outcome and math.isfinite(outcome.cost.elapsed_s) else 0.0


def _number(value: float | None, digits: int) -> float | str | None:
    """A number of so many digits; what is not finite as a word, so that it is shown as what it is."""
    if value is None:
        return None
    if math.isnan(value):
        return "NaN"
    return _rounded(value, digits) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _basin(view: ReportView) -> dict[str, object]:
    basin = view.charts.basin
    return {
        "batches": list(basin.batches),
        "x_range": list(basin.x_range),
        "y_range": list(basin.y_range),
        "x_ticks": list(basin.x_ticks),
        "warning": basin.warning if view.header.is_search else "",
        "about": list(view.charts.basin_about),
    }


def _curve(curve: BelievedCurve) -> dict[str, object]:
    rows = [[_rounded(getattr(p, name), 5) for name in ("learning_rate", "value", "low", "high")] for p in curve.points]
    return {"batch": curve.effective_batch_size, "points": rows}


def _map(item: BatchMap) -> dict[str, object]:
    dumped = item.model_dump(mode="json")
    for cell in dumped["cells"]:
        cell["num_trials"] = len(cell["trials"])
        cell["trials"] = cell["trials"][:MOST_NUMBERS_OF_A_CELL]
        cell |= {name: _number(cell[name], 5) for name in ("x0", "x1", "y0", "y1", "loss", "spread", "learning_rate")}
    return dumped


def _safe(value: object) -> object:
    """The same values with every text made safe to show."""
    if isinstance(value, str):
        return plain_lines(value).encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {str(key): _safe(one) for key, one in value.items()}
    return [_safe(one) for one in value] if isinstance(value, list | tuple) else value


def _said(value: object, key: str) -> Iterable[str]:
    """Every text that the page may show in another language."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if name not in NOT_SAID or key == "titles":
                yield from _said(one, name)
            if key == "evidence":
                yield name.replace("_", " ")
    elif isinstance(value, list):
        for one in value:
            yield from _said(one, key)
            if key == "metric_names":
                yield str(one).replace("_", " ")
