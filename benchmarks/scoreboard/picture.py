"""The picture of the scoreboard: mean regret over cost, a line a rival, as an SVG in the look of the other pictures of the docs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape

from benchmarks.scoreboard.rivals import OURS, RIVALS
from benchmarks.scoreboard.scores import Score, at, by_task

INK, MAIN = "#263238", "#00796b"
COLOURS = (
    "#90a4ae",
    "#c2410c",
    "#6d4c41",
    "#5e35b1",
    "#1565c0",
    "#ad1457",
    "#f9a825",
    "#558b2f",
    "#00acc1",
    "#3949ab",
    "#7b1fa2",
)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 440, 64, 320, 56, 76
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
LEAST = 0.05
"""A regret below this is drawn here: a logarithm has no zero."""
LABEL_STEP = 17
Points = list[tuple[float, float]]


def draw(scores: Sequence[Score], *, title: str) -> str:
    """The picture of tasks that are judged alike."""
    lines = lines_of(scores)
    values = [regret for points in lines.values() for _, regret in points]
    low, high = min(values) / 1.2, max(values) * 1.2
    names = sorted(lines, key=lambda name: -lines[name][-1][1])
    heights = _apart([_up(lines[name][-1][1], low, high) for name in names])
    out = [_text(20, 30, title, size=17, weight="bold"), *_axes(low, high)]
    for name, height in zip(names, heights, strict=True):
        out += _line(name, lines[name], (low, high), height)
    caption = (
        "Each point is one budget: the mean over tasks of the regret on fresh seeds, at the mean cost. Lower is better."
    )
    out.append(_text(20, HEIGHT - 12, caption, colour="#546e7a", size=11.5))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fbfaf7"/>', *out, "</svg>", ""])


def lines_of(scores: Sequence[Score]) -> dict[str, Points]:
    """Rival -> (mean cost, mean regret over tasks) at each of its budgets."""
    out: dict[str, Points] = {}
    for rival in RIVALS:
        found = [here for budget in rival.budgets if (here := at(scores, rival.name, budget))]
        if found:
            out[rival.name] = [_point(here) for here in found]
    return out


def _point(scores: Sequence[Score]) -> tuple[float, float]:
    cost = statistics.fmean(score.cost for score in scores)
    return cost, max(LEAST, statistics.fmean(by_task(scores).values()))


def _line(name: str, points: Points, bounds: tuple[float, float], label: float) -> list[str]:
    colour = MAIN if name == OURS.name else COLOURS[[rival.name for rival in RIVALS].index(name) % len(COLOURS)]
    thick = 4 if name == OURS.name else 1.8
    places = [(_right(cost), _up(regret, *bounds)) for cost, regret in sorted(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    edge = WIDTH - RIGHT + 16
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"/>',
        *(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{thick + 1}" fill="{colour}"/>' for a, b in places),
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{edge}" y2="{label:.1f}" stroke="{colour}" stroke-dasharray="2 3"/>',
        _text(edge + 4, label + 4, name, colour=colour, size=12, weight="bold" if name == OURS.name else "normal"),
    ]


def _axes(low: float, high: float) -> list[str]:
    out, end = [], WIDTH - RIGHT
    for value in TICKS:
        if low <= value <= high:
            y = _up(value, low, high)
            out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{end}" y2="{y:.1f}" stroke="#eceff1"/>')
            out.append(_text(LEFT - 8, y + 4, f"{value:g}", anchor="end", size=12))
    floor = HEIGHT - BOTTOM
    out.append(f'<line x1="{LEFT}" y1="{floor}" x2="{end}" y2="{floor}" stroke="{INK}"/>')
    out += [_text(_right(cost), floor + 19, str(cost), anchor="middle", size=12) for cost in range(1, 7)]
    out.append(_text((LEFT + end) / 2, floor + 38, "cost, full runs", anchor="middle"))
    middle = (TOP + floor) / 2
    look = f'text-anchor="middle" font-size="13" fill="{INK}"'
    out.append(
        f'<text x="18" y="{middle:.0f}" transform="rotate(-90 18 {middle:.0f})" {look}>mean regret, % of the loss</text>'
    )
    return out


def _right(cost: float) -> float:
    return LEFT + 14 + (WIDTH - RIGHT - LEFT - 28) * (cost - 1) / 5


def _up(regret: float, low: float, high: float) -> float:
    share = (math.log(regret) - math.log(low)) / (math.log(high) - math.log(low))
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights of labels, from the top down, moved so far that none covers another; the last ends above the axis.

    >>> _apart([100.0, 101.0, 300.0])
    [100.0, 117.0, 300.0]
    """
    out: list[float] = []
    for height in heights:
        out.append(max(height, out[-1] + LABEL_STEP) if out else height)
    floor = HEIGHT - BOTTOM
    for place in reversed(range(len(out))):
        out[place] = min(out[place], floor)
        floor = out[place] - LABEL_STEP
    return out


def _text(
    x: float, y: float, text: str, *, colour: str = INK, anchor: str = "start", size: float = 13, weight: str = "normal"
) -> str:
    look = f'fill="{colour}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
