"""What the live scoreboard prints: regret of every answer over the best answer of its task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from benchmarks.live.rivals import Answer
from benchmarks.pages import table


def lines(found: Sequence[Answer]) -> Iterator[str]:
    """The table of regrets, and what every rival chose."""
    tasks = list(dict.fromkeys(answer.task for answer in found))
    best = {task: min(answer.loss for answer in found if answer.task == task) for task in tasks}
    kinds = list(dict.fromkeys((answer.rival, answer.budget) for answer in found))
    rows = []
    for rival, budget in kinds:
        mine = [answer for answer in found if (answer.rival, answer.budget) == (rival, budget)]
        of_tasks = [[regret(answer, best[answer.task]) for answer in mine if answer.task == task] for task in tasks]
        means = [statistics.fmean(of) if of else math.nan for of in of_tasks]
        mean = statistics.fmean(means) if all(of_tasks) else math.nan
        cost = statistics.fmean(answer.cost for answer in mine)
        rows.append((rival, str(budget), f"{cost:.1f}", *map(_shown, means), _shown(mean)))
    yield "Regret in % of the loss of the best answer of each task, on fresh rows and fresh seeds."
    yield ""
    yield table(("rival", "runs allowed", "runs spent", *tasks, "mean"), rows)
    yield ""
    yield "What was chosen, as learning rate x effective batch size; two seeds of a search are two answers."
    yield ""
    told = {kind: {task: [] for task in tasks} for kind in kinds}  # type: ignore[var-annotated]
    for answer in found:
        told[answer.rival, answer.budget][answer.task].append(answer.told)
    yield table(
        ("rival", "runs allowed", *tasks),
        [
            (rival, str(budget), *(" / ".join(dict.fromkeys(of[task])) for task in tasks))
            for (rival, budget), of in told.items()
        ],
    )


def regret(answer: Answer, best: float) -> float:
    """Per cent above the best; a diverged run counts as twice the best.

    >>> regret(Answer("tune", 2, "chinese", 11, 2.0, 1.5, ""), 1.0)
    50.0
    """
    return 100.0 if not math.isfinite(answer.loss) else 100 * (answer.loss / best - 1)


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
