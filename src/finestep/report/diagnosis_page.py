"""The page of `finestep diagnose --html`: one self-contained file with drawings in SVG; no script, no network.

Everything that comes from a log is escaped by the template; a log's text can never become markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from finestep.diagnosis.catalogue import LABEL_WORDS, shown_evidence
from finestep.diagnosis.comparison import Comparison
from finestep.diagnosis.training_log import Column
from finestep.diagnosis.verdict import Diagnosis
from finestep.disk import write_whole
from finestep.language.catalogue import asked_language, translated
from finestep.plain_text import plain_on_a_page

_WIDTH, _HEIGHT, _MARGIN = 720, 200, 46
_MAX_POINTS = 1500
_STEP_NAMES = ("step", "best_step", "first_step")

_PAGE = """<!doctype html>
<html lang="{{ 'zh-CN' if language == 'zh' else 'en' }}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>finestep diagnose</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2430;background:#fff}
h2{margin:2.2rem 0 .2rem;overflow-wrap:anywhere}.label{font-weight:700;
padding:.1rem .5rem;border-radius:.3rem;color:#fff}
.info{background:#2f7d4f}.notice{background:#2b6c99}.warning{background:#9a6700}.error{background:#b3261e}
.verdict{padding:.6rem .9rem;border-left:4px solid;background:#f5f7fa;border-radius:.2rem}
.info-edge{border-color:#2f7d4f}.notice-edge{border-color:#2b6c99}.warning-edge{border-color:#9a6700}.error-edge{border-color:#b3261e}
.info-text{color:#2f7d4f}.notice-text{color:#2b6c99}.warning-text{color:#9a6700}.error-text{color:#b3261e}
.code{font-weight:600}.also{margin:.8rem 0 0;font-weight:600}ul{margin:.2rem 0;padding-left:1.2rem}
li{margin:.5rem 0}.evidence,.note{color:#596579;font-size:.9rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #d9dee6}
svg{width:100%;height:auto}
@media (prefers-color-scheme:dark){body{background:#12161c;color:#e3e8ef}.evidence,.note{color:#9aa7b8}
td,th{border-color:#333c48}.verdict{background:#1a212a}
.info-text{color:#6fc291}.notice-text{color:#7ab8e0}.warning-text{color:#e0b04d}.error-text{color:#f28b82}}
</style></head><body>
<h1>Diagnosis of {{ reports | length }} log{{ "" if reports | length == 1 else "s" }}</h1>
{% if comparison %}<h2>Runs compared</h2><p>{{ said(comparison.advice) }}</p><table>
<tr><th>run</th><th>verdict</th><th>peak rate</th>
<th>{{ "best validation loss" if comparison.rows and comparison.rows[0].is_validation else "last training loss" }}</th></tr>
{% for row in comparison.rows %}<tr><td>{{ row.name }}</td><td>{{ said(words[row.label]) }}</td>
<td>{{ "%.3g" | format(row.learning_rate) if row.learning_rate else "-" }}</td>
<td>{{ "%.4g" | format(row.score) if row.score is not none else "-" }}</td></tr>{% endfor %}</table>{% endif %}
{% macro details(finding) %}{% if finding.advice %}
<br><strong>{{ said('What to do: ') }}</strong> {{ said(finding.advice) }}{% endif %}{% set shown = evidence(finding) %}
<br><span class="evidence">{% if shown %}Evidence: {% for name, value in shown
%}{{ said(name) }} {{ value }}{{ ", " if not loop.last }}{% endfor %} {% endif
%}({{ "%.0f" | format(100 * finding.confidence) }} % sure)</span>{% endmacro %}
{% for report in reports %}<section><h2>{{ report.path }}</h2>
{% if report.runs | length > 1 %}<p class="verdict {{ report.verdict.severity }}-edge">
<span class="label {{ report.verdict.severity }}">{{ said(words[report.label]) }}</span> {{ said(report.verdict.meaning)
}}{{ details(report.verdict) }}</p>{% endif %}
{% for run in report.runs %}
{% if report.runs | length > 1 %}<h3>{{ run.log.name }}</h3>{% endif %}
<p class="verdict {{ run.verdict.severity }}-edge"><span class="label {{ run.verdict.severity }}">{{ said(words[run.label])
}}</span> {{ said(run.verdict.meaning) }}{{ details(run.verdict) }}</p>
{{ drawing(run) }}
<p class="note">{{ run.log.format }}{% for note in run.log.notes %}. Note: {{ note }}{% endfor %}</p>
{% if run.findings | length > 1 %}<p class="also">Also seen</p><ul>{% for finding in run.findings[1:] %}<li>
<span class="code {{ finding.severity }}-text">{{ finding.code }}</span> {{ said(finding.meaning) }}{{ details(finding) }}</li>
{% endfor %}</ul>{% endif %}
{% endfor %}</section>{% endfor %}
</body></html>
"""


def write_diagnosis_page(reports: Sequence[object], comparison: Comparison | None, path: Path) -> None:
    """Write the page for the reports of `flows.diagnose`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=plain_on_a_page)
    template = environment.from_string(_PAGE)
    language = asked_language()
    page = template.render(
        reports=reports,
        comparison=comparison,
        drawing=_drawing,
        words=LABEL_WORDS,
        evidence=shown_evidence,
        language=language,
        said=partial(translated, language=language),
    )
    write_whole(path, page)


class _Frame(NamedTuple):
    """What the drawing shows: steps from left to right, losses from low to high."""

    left: float
    right: float
    low: float
    high: float

    def x(self, step: Column) -> Column:
        return _MARGIN + (step - self.left) / max(self.right - self.left, 1e-12) * (_WIDTH - _MARGIN - 8)

    def y(self, loss: Column) -> Column:
        return 8 + (self.high - np.clip(loss, self.low, self.high)) / (self.high - self.low) * (_HEIGHT - 32)


def _drawing(run: Diagnosis) -> object:
    """Training loss as dots with its running median, validation loss as a line with dots, and a mark at the verdict's step."""
    train, evaluation = run.log.train, run.log.evaluation
    curves = [(series.step, series.loss) for series in (train, evaluation) if series is not None and len(series)]
    finite = [(step[np.isfinite(loss)], loss[np.isfinite(loss)]) for step, loss in curves]
    finite = [each for each in finite if len(each[0])]
    if not finite:
        return ""
    frame = _frame(*(np.concatenate(each) for each in zip(*finite, strict=True)))
    parts = [_axes(frame, cut=any(loss.max() > frame.high for _, loss in finite)), _mark(run, frame)]
    if len(train):
        dots = zip(*_points(train.step, train.loss, frame), strict=True)
        parts.append(
            "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="#4c7fb8" opacity=".55"/>' for x, y in dots)
        )
    if run.signals.loss is not None and run.signals.loss.num_rows >= 30:
        curve = run.signals.loss
        parts.append(_line(train.step[curve.rows], curve.smooth, frame, "#1f4e85"))
    if evaluation is not None and len(evaluation):
        parts.append(_line(evaluation.step, evaluation.loss, frame, "#d9822b"))
        dots = zip(*_points(evaluation.step, evaluation.loss, frame), strict=True)
        parts.append("".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="#d9822b"/>' for x, y in dots))
    return Markup(  # numbers only, made here
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="loss over steps">{"".join(parts)}</svg>'
    )


def _frame(steps: Column, losses: Column) -> _Frame:
    """Outliers above the 97th percentile are pressed to the top only when they would flatten the rest."""
    low, high, usual = float(losses.min()), float(losses.max()), float(np.percentile(losses, 97))
    top = low + 1.3 * (usual - low) if high - low > 3 * (usual - low) > 0 else high
    return _Frame(float(steps.min()), float(steps.max()), low, max(top, low + 1e-9))


def _points(step: Column, loss: Column, frame: _Frame) -> tuple[list[float], list[float]]:
    keep = np.isfinite(loss)
    stride = max(1, int(keep.sum()) // _MAX_POINTS)
    return frame.x(step[keep][::stride]).tolist(), frame.y(loss[keep][::stride]).tolist()


def _line(step: Column, loss: Column, frame: _Frame, colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(*_points(step, loss, frame), strict=True))
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def _mark(run: Diagnosis, frame: _Frame) -> str:
    """A dashed line at the step that the verdict names."""
    evidence = {} if run.verdict.severity == "info" else run.verdict.evidence
    step = next((evidence[name] for name in _STEP_NAMES if isinstance(evidence.get(name), int | float)), None)
    if not isinstance(step, int | float) or not frame.left < step < frame.right:
        return ""
    x = float(frame.x(np.array([float(step)]))[0])
    return f'<path d="M{x:.1f} 8V{_HEIGHT - 24}" stroke="#b3261e" stroke-dasharray="4 3" opacity=".7"/>'


def _axes(frame: _Frame, *, cut: bool) -> str:
    base = _HEIGHT - 24
    middle = 0.5 * (frame.low + frame.high)
    text = '<g font-size="11" fill="#7a8699" font-family="system-ui,sans-serif">'
    for value, y in ((frame.high, 12), (middle, base / 2 + 8), (frame.low, base)):
        text += f'<text x="{_MARGIN - 6}" y="{y:.0f}" text-anchor="end">{value:.3g}</text>'
    text += f'<text x="{_MARGIN}" y="{_HEIGHT - 6}">step {frame.left:.0f}</text>'
    text += f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">{frame.right:.0f}</text>'
    legend = "loss: blue training, orange validation" + ("; higher values are cut" if cut else "")
    text += f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{legend}</text></g>'
    grid = f'<path d="M{_MARGIN} {(base + 8) / 2:.0f}H{_WIDTH - 8}" stroke="#aab4c2" stroke-width=".5" opacity=".6"/>'
    return text + grid + f'<path d="M{_MARGIN} 8V{base}H{_WIDTH - 8}" fill="none" stroke="#aab4c2" stroke-width="1"/>'
