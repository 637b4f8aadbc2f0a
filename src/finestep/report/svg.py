"""Static drawings of plots 1 and 2 as SVG text, for readers without scripts; colours come from the page's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from finestep.report import axes, wording
from finestep.report.basin import Basin, BasinLine, FallenRun
from finestep.report.batch_map import BatchMap, Cell

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


def map_svg(measured: BatchMap) -> Markup:
    """Plot 2: measured cells only, coloured by rank, with their numbers."""
    x, y = _scale(measured.x_range, LEFT, WIDTH - RIGHT), _scale(measured.y_range, HEIGHT - BOTTOM, TOP)
    parts = [
        _x_axis(measured.columns, x, "learning rate"),
        _text(LEFT - 56, TOP - 14, "effective batch (rows)", "axis"),
    ]
    parts += [_text(LEFT - 10, y(row) + 4, label, "tick end") for row, label in measured.rows]
    parts += [_cell(cell, x, y) for cell in measured.cells]
    return _drawing("Validation loss by learning rate and batch size", parts)


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


def _cell(cell: Cell, x: Scale, y: Scale) -> str:
    left, right, top, bottom = x(cell.x0), x(cell.x1), y(cell.y1), y(cell.y0)
    kind = cell.kind if cell.quantile is None else f"q{round(9 * cell.quantile)}"
    box = f'x="{left + 1:.1f}" y="{top + 1:.1f}" width="{right - left - 2:.1f}" height="{bottom - top - 2:.1f}"'
    runs = ", ".join(str(number) for number in cell.trials)
    title = f"run {runs}: {wording.learning_rate(cell.learning_rate)}, batch {cell.batch}"
    label = _text((left + right) / 2, (top + bottom) / 2 + 4, cell.label, "value middle")
    return f'<g class="cell {kind}"><title>{escape(title)}</title><rect {box} rx="3"/>{label}</g>'


def _fallen_mark(fallen: FallenRun, x: Scale) -> str:
    left, top = x(fallen.x) - 5, TOP - 17
    drawn = "l10,10 m0,-10 l-10,10" if fallen.state == "diverged" else "h10 v10 h-10 z"
    return f'<path d="M{left:.1f},{top:.1f} {drawn}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def counts_svg(counts: Sequence[tuple[str, int]]) -> Markup:
    """A bar whose parts are the numbers of trials in each state."""
    total = sum(number for _, number in counts) or 1
    parts, start = [], 0.0
    for state, number in counts:
        width = 100 * number / total
        parts.append(
            f'<rect class="state-{escape(state)}" x="{start:.2f}" y="0" width="{width - 0.4:.2f}" height="4"/>'
        )
        start += width
    return Markup(
        f'<svg class="counts" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
    )
