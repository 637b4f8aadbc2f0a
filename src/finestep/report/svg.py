"""Static drawings of plots 1 and 2 as SVG text, for readers without scripts; colours come from the page's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from finestep import wording
from finestep.report import axes
from finestep.report.basin import Basin, BasinLine, FallenRun

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 44, 48

Scale = Callable[[float], float]


def basin_svg(basin: Basin) -> Markup:
    """Plot 1: lines, points, and the fallen runs as crosses above them."""
    x, y = _scale(basin.x_range, LEFT, WIDTH - RIGHT), _scale(basin.y_range, HEIGHT - BOTTOM, TOP)
    parts = [_x_axis([(tick, f"{10**tick:.0e}") for tick in basin.x_ticks], x, "learning rate")]
    parts += [_y_tick(y(tick), f"{tick:.6g}") for tick in axes.linear_ticks(*basin.y_range) if basin.lines]
    parts += [_text(LEFT - 56, TOP - 14, "validation loss (nats)", "axis")]
    parts += [_line(line, basin, x, y) for line in basin.lines]
    for fallen in basin.fallen:
        title = f"run {fallen.trial}: {wording.STATE_WORDS[fallen.state]}"
        parts.append(f'<g class="fallen"><title>{escape(title)}</title>{_fallen_mark(fallen, x)}</g>')
    return _drawing("Final validation loss over learning rate", parts)


def _scale(domain: tuple[float, float], start: float, end: float) -> Scale:
    low, width = domain[0], (domain[1] - domain[0]) or 1.0
    return lambda value: start + (value - low) / width * (end - start)


def _drawing(title: str, parts: Sequence[str]) -> Markup:
    inside = "".join(parts)
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{inside}</svg>')


def _x_axis(ticks: Sequence[tuple[float, str]], x: Scale, name: str) -> str:
    bottom = HEIGHT - BOTTOM
    labels = "".join(_text(x(position), bottom + 18, label, "tick middle") for position, label in ticks)
    rule = f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    return rule + labels + _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, name, "axis middle")


def _y_tick(y: float, label: str) -> str:
    rule = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return rule + _text(LEFT - 8, y + 4, label, "tick end")


def _line(line: BasinLine, basin: Basin, x: Scale, y: Scale) -> str:
    kind = f"batch{line.batch_index % 6}"
    ceiling = basin.y_range[1]
    path = " ".join(f"{x(a):.1f},{y(min(b, ceiling)):.1f}" for a, b in line.path)
    thin = "" if line.fidelity == basin.fidelities[0] else ' stroke-dasharray="5 4"'
    dots = ""
    for point in line.points:
        marked = {basin.best: basin.best_name, basin.baseline: "baseline"}.get(point.trial, "")
        px, py = x(point.x), y(min(point.loss, ceiling))
        title = f"run {point.trial}, batch {line.batch}: {wording.loss(point.loss)}"
        dots += f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{7 if marked else 4}"><title>{escape(title)}</title></circle>'
        dots += _text(px, py + 22, marked, "tick middle") if marked else ""
    last = line.path[-1]
    name = _text(x(last[0]) - 8, y(min(last[1], ceiling)) - 9, f"batch {line.batch}", "tick end")
    return f'<g class="{kind}"><polyline fill="none" points="{path}"{thin}/>{dots}</g>{name}'


def _fallen_mark(fallen: FallenRun, x: Scale) -> str:
    left, top = x(fallen.x) - 5, TOP - 17
    drawn = "l10,10 m0,-10 l-10,10" if fallen.state == "diverged" else "h10 v10 h-10 z"
    return f'<path d="M{left:.1f},{top:.1f} {drawn}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
