"""The scores as Markdown: how many tasks there are, regrets, differences, what was stated, and the cost to within the noise."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence

from benchmarks.pages import table
from benchmarks.scoreboard.rivals import BOUNDS, BUDGETS, OURS, RIVALS
from benchmarks.scoreboard.scores import Reach, Score, at, by_task, difference, intervals, median_cost, stated_over_true

FEW = 20
"""With fewer tasks than this an interval of a mean is itself uncertain."""
ENOUGH = 5
"""With fewer tasks than this no interval is given."""


def lines(
    scores: Sequence[Score], reaches: Sequence[Reach], *, half: str, num_listed: int, left_out: Sequence[str]
) -> list[str]:
    """All of it; tasks judged by loss and by accuracy apart."""
    out = [*how_many(scores, half=half, num_listed=num_listed), *left_out]
    for by_accuracy, unit in ((False, "% of the loss"), (True, "points of accuracy")):
        here = [score for score in scores if score.by_accuracy == by_accuracy]
        if here:
            num_tasks = len({score.task for score in here})
            out += [
                "",
                f"### {task_words(num_tasks)} judged by {'accuracy' if by_accuracy else 'loss'}",
                "",
                f"Regret in {unit}.",
            ]
            out += ["", regrets(here), "", *([] if by_accuracy else [*geometric(here), ""]), *differences(here)]
            out += [] if by_accuracy else ["", *stated(here)]
    return [_wrapped(line) for line in [*out, "", *held(scores), "", *costs(reaches)]]


def _wrapped(text: str) -> str:
    """A paragraph in short lines; tables and headings as they are."""
    return text if text.startswith(("|", "#")) else textwrap.fill(text, 100, break_on_hyphens=False)


def how_many(scores: Iterable[Score], *, half: str, num_listed: int) -> list[str]:
    """What these figures stand on, before anything else."""
    found = {(score.task, score.by_accuracy) for score in scores}
    by_accuracy = sum(flag for _, flag in found)
    out = [
        f"These figures stand on {task_words(len(found))} of the `{half}` half; {num_listed} tasks are listed in all. "
        f"By accuracy: {by_accuracy}. Two seeds of the search each."
    ]
    if half == "design":
        out += [
            "",
            "The search was built while looking at this half. So it says where the search loses, not how good it is.",
        ]
    if len(found) < FEW:
        out += [
            "",
            f"So few tasks leave the intervals themselves uncertain; with fewer than {FEW} they are mostly too narrow.",
        ]
    return out


def regrets(scores: Sequence[Score]) -> str:
    """A row a rival: mean regret at each budget, what it cost, and its worst task at the largest budget."""
    rows = []
    for rival in (*RIVALS, *BOUNDS):
        means = {budget: by_task(here) for budget in rival.budgets if (here := at(scores, rival.name, budget))}
        if not means:
            continue
        cells = [f"{statistics.fmean(means[one].values()):.1f}" if one in means else "" for one in BUDGETS]
        if len(rival.budgets) == 1:
            cells = ["", "", "", "", cells[0]]
        last = max(means)
        worst = max(means[last], key=lambda task: means[last][task])
        cost = "-" if rival.is_bound else _costs(scores, rival.name, list(means))
        rows.append((rival.name, *cells, cost, f"{means[last][worst]:.1f} ({worst})"))
    head = (
        "mean regret",
        *(f"{budget} run{'s' if budget > 1 else ''}" for budget in BUDGETS),
        "costs, full runs",
        "worst task",
    )
    return table(head, rows)


def geometric(scores: Sequence[Score]) -> list[str]:
    """The same as geometric means of the loss over the best one, so that a task with a loss of three times the best counts less."""
    rows = []
    for rival in RIVALS:
        means = (by_task(at(scores, rival.name, budget)) for budget in BUDGETS)
        cells = [f"{geometric_mean(mean.values()):.1f}" if mean else "" for mean in means]
        rows += [(rival.name, *cells)] if any(cells) else []
    words = "The same as a geometric mean of the loss over the best one, less 1, in %: one task with a large loss decides less."
    return [words, "", table(("geometric mean", *(str(budget) for budget in BUDGETS)), rows)]


def geometric_mean(regrets: Iterable[float]) -> float:
    """Of regrets in per cent.

    >>> round(geometric_mean([0.0, 300.0]), 6)
    100.0
    """
    return 100 * math.expm1(statistics.fmean(math.log1p(regret / 100) for regret in regrets))


def _costs(scores: Sequence[Score], rival: str, budgets: Sequence[int]) -> str:
    means = (statistics.fmean(score.cost for score in at(scores, rival, budget)) for budget in budgets)
    return ", ".join(f"{mean:.1f}".removesuffix(".0") for mean in means)


def differences(scores: Sequence[Score]) -> list[str]:
    """`tune` less each rival, with its interval over tasks; none for a handful of tasks."""
    if len({score.task for score in scores}) < ENOUGH:
        return [f"Fewer than {ENOUGH} tasks: no interval is given."]
    rows = []
    for rival in RIVALS:
        if rival is OURS or not any(at(scores, rival.name, budget) for budget in rival.budgets):
            continue
        rows.append((rival.name, *(interval_words(difference(scores, rival, budget)) for budget in BUDGETS)))
    return [
        "Mean regret of `tune` less that of the rival at the same or a lower cost, with a 90 % interval (paired bootstrap over tasks). "
        "Below zero `tune` is better; bold where the interval excludes zero.",
        "",
        table(("`tune` less", *(str(budget) for budget in BUDGETS)), rows),
    ]


def interval_words(found: tuple[float, float, float] | None) -> str:
    """A difference with its interval, bold where that excludes zero.

    >>> interval_words((-1.0, -2.0, -0.5)), interval_words((0.25, -1.0, 1.0)), interval_words(None)
    ('**-1.0 (-2.0 to -0.5)**', '+0.2 (-1.0 to +1.0)', '')
    """
    if found is None:
        return ""
    mean, low, high = found
    text = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def stated(scores: Sequence[Score]) -> list[str]:
    """What `tune` says of its own answer, over what is true."""
    rows = []
    for budget in BUDGETS:
        ours = at(scores, OURS.name, budget)
        found = stated_over_true(ours)
        if found is None:
            rows.append((str(budget), "-", "-", "-", f"0 of {len(ours)}"))
        else:
            said, true, count = found
            ratio = f"{said / true:.2f}" if true > 0 else "-"
            rows.append((str(budget), f"{said:.2f}", f"{true:.2f}", ratio, f"{count} of {len(ours)}"))
    return [
        "What `tune` states of the regret of its own answer. One run states none, and so may a few.",
        "",
        table(("runs", "mean stated", "mean true", "stated / true", "answers that state it"), rows),
    ]


def held(scores: Sequence[Score]) -> list[str]:
    """How often the stated interval of the rate holds, over all tasks."""
    rows = []
    for budget in BUDGETS:
        found = intervals(at(scores, OURS.name, budget))
        if found is not None:
            inside, count, width = found
            rows.append((str(budget), f"{inside} of {count} ({inside / count:.0%})", f"{width:.1f}"))
    return [
        "### The interval of the rate",
        "",
        "`tune` states an interval that is to hold the best rate of the chosen batch size in 80 % of studies.",
        "",
        table(("runs", "holds the best measured rate", "mean width, octaves"), rows),
    ]


def costs(reaches: Sequence[Reach]) -> list[str]:
    """Full runs to within one noise width of the best."""
    rows = []
    for name, found in (
        ("with `recommend`", [one.with_prior for one in reaches]),
        ("without", [one.without for one in reaches]),
    ):
        median, reached, count = median_cost(found)
        rows.append((name, "not reached" if math.isinf(median) else f"{median:.1f}", f"{reached} of {count}"))
    return [
        "### Cost to within the noise",
        "",
        "Full runs until the best recipe so far lies within one standard deviation between seeds of the best recipe. "
        "All tasks, two seeds each. A study has 12 full runs, none of them of the usual default, and does not end by itself.",
        "",
        table(("prior", "median, full runs", "studies that reached it"), rows),
    ]


def task_words(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"
