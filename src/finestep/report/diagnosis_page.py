"""The page of `finestep diagnose --html`: one self-contained file with drawings in SVG; no script, no network.

Everything that comes from a log is escaped by the template; a log's text can never become markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from finestep.diagnosis.comparison import Comparison
from finestep.diagnosis.training_log import Column
from finestep.diagnosis.verdict import Diagnosis

_WIDTH, _HEIGHT, _MARGIN = 720, 200, 46
_MAX_POINTS = 1500

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>finestep diagnose</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2430;background:#fff}
h2{margin:2.2rem 0 .2rem;overflow-wrap:anywhere}.label{font-weight:700;
padding:.1rem .5rem;border-radius:.3rem;color:#fff}
.info{background:#2f7d4f}.notice{background:#2b6c99}.warning{background:#9a6700}.error{background:#b3261e}
li{margin:.5rem 0}.evidence,.note{color:#596579;font-size:.9rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #d9dee6}
svg{width:100%;height:auto}
@media (prefers-color-scheme:dark){body{background:#12161c;color:#e3e8ef}.evidence,.note{color:#9aa7b8}
td,th{border-color:#333c48}}
</style></head><body>
<h1>Diagnosis of {{ reports | length }} log{{ "" if reports | length == 1 else "s" }}</h1>
{% if comparison %}<h2>Runs compared</h2><p>{{ comparison.advice }}</p><table>
<tr><th>run</th><th>verdict</th><th>peak rate</th><th>loss</th></tr>
{% for row in comparison.rows %}<tr><td>{{ row.name }}</td><td>{{ row.label }}</td>
<td>{{ "%.3g" | format(row.learning_rate) if row.learning_rate else "-" }}</td>
<td>{{ "%.4g" | format(row.score) if row.score is not none else "-" }}</td></tr>{% endfor %}</table>{% endif %}
{% for report in reports %}<h2>{{ report.path }}</h2>
<p><span class="label {{ report.verdict.severity }}">{{ report.label }}</span> {{ report.verdict.meaning }}</p>
{% for run in report.runs %}
{% if report.runs | length > 1 %}<h3>{{ run.log.name }}: {{ run.label }}</h3>{% endif %}
{{ drawing(run) }}
{% for note in run.log.notes %}<p class="note">Note: {{ note }}</p>{% endfor %}
<ul>{% for finding in run.findings %}<li>
<span class="label {{ finding.severity }}">{{ finding.code }}</span> {{ finding.meaning }}
{% if finding.advice %}<br><strong>What to do:</strong> {{ finding.advice }}{% endif %}
{% if finding.evidence %}<br>
<span class="evidence">Evidence: {% for key, value in finding.evidence.items() if value is not none
%}{{ key }} {{ "%.4g" | format(value) if value is number else value }}{{ ", " if not loop.last }}{% endfor %}
({{ "%.0f" | format(100 * finding.confidence) }} % sure)</span>{% endif %}</li>{% endfor %}</ul>
{% endfor %}{% endfor %}
</body></html>
"""


def write_diagnosis_page(reports: Sequence[object], comparison: Comparison | None, path: Path) -> None:
    """Write the page for the reports of `flows.diagnose`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_PAGE)
    path.write_text(template.render(reports=reports, comparison=comparison, drawing=_drawing), encoding="utf-8")


def _drawing(run: Diagnosis) -> object:
    """Training loss as dots, validation loss as a line, over steps."""
    train, evaluation = run.log.train, run.log.evaluation
    curves = [(series.step, series.loss) for series in (train, evaluation) if series is not None and len(series)]
    finite = [(step[np.isfinite(loss)], loss[np.isfinite(loss)]) for step, loss in curves]
    finite = [each for each in finite if len(each[0])]
    if not finite:
        return ""
    steps, losses = np.concatenate([each[0] for each in finite]), np.concatenate([each[1] for each in finite])
    low, high = float(losses.min()), float(np.percentile(losses, 99.5))
    frame = (float(steps.min()), float(steps.max()), low, max(high, low + 1e-9))
    parts = [_axes(frame)]
    if len(train):
        points = _points(train.step, train.loss, frame)
        parts.append("".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="#4c7fb8"/>' for x, y in points))
    if evaluation is not None and len(evaluation):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _points(evaluation.step, evaluation.loss, frame))
        parts.append(f'<polyline points="{path}" fill="none" stroke="#d9822b" stroke-width="2"/>')
    return Markup(  # numbers only, made here
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="loss over steps">{"".join(parts)}</svg>'
    )


def _points(step: Column, loss: Column, frame: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    keep = np.isfinite(loss)
    step, loss = step[keep], loss[keep]
    stride = max(1, len(step) // _MAX_POINTS)
    left, right, low, high = frame
    x = _MARGIN + (step[::stride] - left) / max(right - left, 1e-12) * (_WIDTH - _MARGIN - 8)
    y = 8 + (high - np.clip(loss[::stride], low, high)) / (high - low) * (_HEIGHT - 32)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _axes(frame: tuple[float, float, float, float]) -> str:
    left, right, low, high = frame
    text = '<g font-size="11" fill="#7a8699" font-family="system-ui,sans-serif">'
    text += f'<text x="{_MARGIN - 6}" y="16" text-anchor="end">{high:.3g}</text>'
    text += f'<text x="{_MARGIN - 6}" y="{_HEIGHT - 24}" text-anchor="end">{low:.3g}</text>'
    text += f'<text x="{_MARGIN}" y="{_HEIGHT - 6}">step {left:.0f}</text>'
    text += f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">{right:.0f}</text>'
    text += (
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">loss: dots training, line validation</text></g>'
    )
    base = _HEIGHT - 24
    return text + f'<path d="M{_MARGIN} 8V{base}H{_WIDTH - 8}" fill="none" stroke="#aab4c2" stroke-width="1"/>'
