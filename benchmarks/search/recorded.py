"""Fine-tuning tasks whose surfaces were measured with several seeds, and what `recommend` is told of them; it plays nothing.

A folder holds `NAME.csv`, one row a whole run, and `NAME.json`, the card of the task (scripts/measure_surfaces). In place of what
`benchmarks.search.surfaces` reads, which is one loss a cell, a task here keeps its seeds apart: what a search saw with one
seed is judged by the others.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finestep.errors import BadInput
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.flows.recommend import recommend
from finestep.rules.compose import Ask
from finestep.rules.rate_evidence import vertex
from finestep.rules.recommendation import Recommendation

FOLDER = Path(__file__).parents[1] / "data" / "tasks"
SAME = 0.02
"""Octaves within which two rates are the same: the files round them to six digits."""


@dataclass(frozen=True, order=True)
class Place:
    """Learning rate and batch size of a measured cell, as log2."""

    log_rate: float
    log_batch: float

    @property
    def rate(self) -> float:
        return float(2**self.log_rate)

    @property
    def batch(self) -> int:
        return round(2**self.log_batch)


@dataclass(frozen=True)
class Run:
    """What one measured run gave; a loss of None says that it diverged."""

    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Recorded:
    """A task and its measured runs: length -> place -> seed -> run."""

    card: Mapping[str, Any]
    runs: Mapping[float, Mapping[Place, Mapping[int, Run]]]

    @property
    def name(self) -> str:
        return str(self.card["name"])

    @property
    def by_accuracy(self) -> bool:
        """True when the task is judged by accuracy, not by validation loss."""
        return bool(self.card["objective"] == "accuracy")

    @property
    def lengths(self) -> tuple[float, ...]:
        """Shares of a full run, rising."""
        return tuple(sorted(self.runs))

    @property
    def full(self) -> Mapping[Place, Mapping[int, Run]]:
        """The runs of full length."""
        return self.runs[1.0]

    def axis(self, name: str) -> list[float]:
        """The values of `log_rate` or `log_batch` at full length, rising."""
        return sorted({getattr(place, name) for place in self.full})

    def nearest(self, rate: float, batch: float, *, length: float = 1.0) -> Place:
        """The measured cell nearest to a wish, in octaves; between two batch sizes or rates that are equally near, the smaller."""
        wish = (math.log2(rate), math.log2(batch))
        return min(
            sorted(self.runs[length]), key=lambda one: math.hypot(one.log_rate - wish[0], one.log_batch - wish[1])
        )

    def nearest_length(self, wish: float) -> float:
        """The measured share of a full run nearest to a wish, by its ratio."""
        return min(self.lengths, key=lambda one: abs(math.log(one / wish)))

    def run(self, place: Place, *, length: float = 1.0, seed: int = 0) -> Run:
        """What a search with this seed sees: the run of its seed, or of the first where that was not measured."""
        by_seed = self.runs[length][place]
        return by_seed.get(seed, by_seed[min(by_seed)])

    def value(self, run: Run) -> float:
        """What is minimised: the loss, or the share of wrong labels; infinite for a run that diverged."""
        if run.loss is None:
            return math.inf
        return 1 - run.accuracy if self.by_accuracy and run.accuracy is not None else run.loss

    def fresh(self, place: Place, *, seen: int) -> float:
        """The value of a recipe in the mean of the seeds that a search has not seen; its own where there is no other."""
        by_seed = self.full[place]
        others = [run for seed, run in by_seed.items() if seed != seen] or list(by_seed.values())
        return statistics.fmean(self.value(run) for run in others)

    @cached_property
    def best_place(self) -> Place:
        """The recipe of full length with the best mean over all its seeds, of those that have at least two."""
        repeated = [place for place, by_seed in self.full.items() if len(by_seed) > 1]
        return min(sorted(repeated), key=self.mean)

    @property
    def best(self) -> float:
        """The mean value of the best recipe."""
        return self.mean(self.best_place)

    def regret(self, value: float) -> float:
        """Distance from the best: per cent of the loss, or points of accuracy."""
        return 100 * (value - self.best) if self.by_accuracy else 100 * (value / self.best - 1)

    def edges(self) -> list[str]:
        """The sides of the grid on which the best recipe lies; empty when it is inside. One row a step cannot be undercut."""
        best, out = self.best_place, []
        for name, word in (("log_rate", "rate"), ("log_batch", "batch")):
            values, here = self.axis(name), getattr(best, name)
            if here == values[0] and not (word == "batch" and best.batch == 1):
                out.append(f"lowest {word}")
            if here == values[-1]:
                out.append(f"highest {word}")
        return out

    def noise_percent(self) -> float | None:
        """Standard deviation between seeds about the best recipe: per cent of the loss, or points of accuracy.

        Pooled over the cells of full length within an octave of the best that have at least two seeds.
        """
        near = [
            [self.value(run) for run in by_seed.values()]
            for place, by_seed in self.full.items()
            if len(by_seed) > 1 and self._is_near(place)
        ]
        spreads = [self._variance(values) for values in near if all(map(math.isfinite, values))]
        return 100 * math.sqrt(statistics.fmean(spreads)) if spreads else None

    def _is_near(self, place: Place) -> bool:
        best = self.best_place
        apart = max(abs(place.log_rate - best.log_rate), abs(place.log_batch - best.log_batch))
        return apart <= 1 + SAME

    def _variance(self, values: Sequence[float]) -> float:
        return statistics.variance(values if self.by_accuracy else [math.log(value) for value in values])

    def mean(self, place: Place) -> float:
        """The value of a recipe in the mean of all its seeds."""
        return statistics.fmean(self.value(run) for run in self.full[place].values())

    def best_log_rate(self, log_batch: float) -> float:
        """log2 of the best rate at a batch size: the vertex of the parabola through the best one and its neighbours."""
        row = {place.log_rate: self.mean(place) for place in self.full if abs(place.log_batch - log_batch) < SAME}
        return best_of_row(row)

    def recommendation(self) -> Recommendation:
        """What `recommend` says today of the task's model and data, as `tune` asks it."""
        recipe = self.card["recipe"]
        is_full = recipe["method"] == "full"
        ask = Ask(
            method=recipe["method"],
            rank=None if is_full else 16,
            alpha=None if is_full else 32.0,
            num_epochs=recipe["num_epochs"],
            num_devices=1,
        )
        model, data = ModelFacts(**self.card["model_facts"]), DataFacts(**self.card["data_facts"])
        return recommend(model, data, hardware=HardwareFacts(), ask=ask)


def best_of_row(values: Mapping[float, float]) -> float:
    """log2 of the best rate of a batch size: the vertex of the parabola through the best value and its neighbours, as grids are coarse.

    Args:
        values: log2 of the rate -> what is minimised; what is not finite and positive diverged, or is perfect, and is left out.
    """
    points = sorted((rate, math.log(value)) for rate, value in values.items() if 0 < value < math.inf)
    lowest = min(range(len(points)), key=lambda index: points[index][1])
    return vertex(points[lowest - 1 : lowest + 2]) if 0 < lowest < len(points) - 1 else points[lowest][0]


def load_recorded(folder: Path = FOLDER, *, half: str | None = None) -> list[Recorded]:
    """The tasks of a folder that are measured, in the order of their names.

    Args:
        half: `design` or `untouched`; None = all.
    """
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    chosen = [card for card in cards if "name" in card and half in (None, card["half"])]
    if not chosen:
        raise BadInput("the folder must hold the card and the rows of a task", value=str(folder), place="--tasks")
    return [Recorded(card, _runs(folder / f"{card['name']}.csv")) for card in chosen]


def _runs(path: Path) -> dict[float, dict[Place, dict[int, Run]]]:
    out: dict[float, dict[Place, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            place = Place(_snap(math.log2(float(row["lr"]))), _snap(math.log2(float(row["bs"]))))
            run = Run(_number(row["loss"]), _number(row["accuracy"]))
            out[float(row["fidelity"])][place][int(row["seed"])] = run
    return {length: dict(places) for length, places in out.items()}


def _snap(octaves: float) -> float:
    return float(round(octaves)) if abs(octaves - round(octaves)) < SAME else octaves


def _number(text: str) -> float | None:
    return float(text) if text else None
