"""Two small drawings for a notebook, as SVG text with its own colours: results over rates, and curves; numbers and own words only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from finestep.report import axes

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 220, 54, 34, 22
ACCENT, BASELINE, OTHER, SOFT = "#0b8a98", "#c77a1a", "#9aa4b1", "#7a8696"
"""Readable on light and on dark paper alike."""


class Dot(NamedTuple):
    """One run of the first drawing."""

    rate: float
    loss: float
    colour: str
    is_full: bool


class Line(NamedTuple):
    """One curve of the second drawing."""

    steps: Sequence[float]
    losses: Sequence[float]
    colour: str


def dots_svg(dots: Sequence[Dot], *, title: str) -> Markup:
    """Losses over learning rates on a logarithmic axis; fewer than two rates make no drawing."""
    places = [math.log10(dot.rate) for dot in dots]
    if len(set(places)) < 2:
        return Markup("")
    (left, right), (low, high) = axes.padded(places, share=0.06, least=0.05), _range([dot.loss for dot in dots])
    parts = _frame([(tick, f"{10**tick:.1e}") for tick in axes.log_ticks(left, right)], left, right, low, high)
    for dot, place in sorted(zip(dots, places, strict=True), key=lambda pair: pair[0].colour == ACCENT):
        x, y = _x(place, left, right), _y(min(dot.loss, high), low, high)
        look = f'fill="{dot.colour}"' if dot.is_full else f'fill="none" stroke="{dot.colour}" stroke-width="1.5"'
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if dot.colour == ACCENT else 4}" {look}/>')
    return _drawing(parts, title)


def lines_svg(lines: Sequence[Line], *, title: str) -> Markup:
    """Losses over steps; without two steps there is no drawing."""
    lines = [line for line in lines if len(line.steps) > 1]
    values = [loss for line in lines for loss in line.losses if math.isfinite(loss)]
    if not values:
        return Markup("")
    right = max(line.steps[-1] for line in lines)
    low, high = _range(values)
    parts = _frame([(tick, f"{tick:g}") for tick in axes.linear_ticks(0, right)], 0.0, right, low, high)
    for line in lines:
        path = " ".join(
            f"{_x(step, 0.0, right):.1f},{_y(min(loss, high), low, high):.1f}"
            for step, loss in zip(line.steps, line.losses, strict=True)
            if math.isfinite(loss)
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="1.8"/>')
    return _drawing(parts, title)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to what is not far above the usual; never below zero where no value is."""
    ordered = sorted(values)
    low, usual = ordered[0], ordered[int(0.97 * (len(ordered) - 1))]
    room = 0.08 * max(usual - low, 1e-9)
    return (max(0.0, low - room) if low >= 0 else low - room), max(usual + room, low + 1e-9)


def _x(value: float, left: float, right: float) -> float:
    return LEFT + (value - left) / max(right - left, 1e-12) * (WIDTH - LEFT - 12)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / max(high - low, 1e-12) * (HEIGHT - BOTTOM - TOP)


def _frame(ticks: Sequence[tuple[float, str]], left: float, right: float, low: float, high: float) -> list[str]:
    base = HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {TOP}V{base}H{WIDTH - 12}" fill="none" stroke="{SOFT}" stroke-opacity=".5"/>']
    parts += [_text(_x(tick, left, right), base + 16, label, "middle") for tick, label in ticks]
    heights = axes.linear_ticks(low, high)
    labels = zip(heights, axes.tick_labels(heights), strict=True)
    parts += [_text(LEFT - 6, _y(tick, low, high) + 4, label, "end") for tick, label in labels]
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" fill="{SOFT}">{escape(text)}</text>'


def _drawing(parts: Sequence[str], title: str) -> Markup:
    head = f'<text x="{LEFT}" y="13" font-size="12" fill="{SOFT}">{escape(title)}</text>'
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return Markup(f'<svg {size} role="img" aria-label="{escape(title)}">{head}{"".join(parts)}</svg>')
