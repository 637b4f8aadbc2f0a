"""A study in a notebook: its card with two small drawings, and one output that follows a study as it runs.

It writes no file. Every text of others is escaped; where there is no notebook nothing of this is used.
"""

from __future__ import annotations

import html
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from finestep.cli.screen import Screen
from finestep.cli.terminal import PlainConsole
from finestep.language.catalogue import asked_language, translated
from finestep.plain_text import plain_lines
from finestep.report.curves import EMA_SHARE
from finestep.report.series import debiased_ema
from finestep.report.small_drawings import ACCENT, BASELINE, OTHER, Dot, Line, dots_svg, lines_svg
from finestep.result import StudyResult
from finestep.store.study_files import read_records
from finestep.studies.event import TuneEvent
from finestep.study import Budget, StudySpec
from finestep.study_layout import STEPS, trial_folder
from finestep.trial import StepRecord

MOST_POINTS = 200
KEPT_LINES = 14
REFRESH_S = 0.5
COLUMNS = 100


def in_notebook() -> bool:
    """True where outputs can be shown and replaced: a kernel runs this."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None and hasattr(shell, "get_ipython") else None
    return running is not None and hasattr(running, "kernel")


def card_html(rows: Sequence[tuple[str, str]], result: StudyResult, folder: Path) -> str:
    """The card of a study as HTML, with what its runs reached and how the chosen one came there."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{_said(name)}</th><td style='text-align:left'>{_said(text)}</td></tr>"
        for name, text in rows
    )
    return f"<table>{cells}</table><div>{_dots(result)} {_lines(result, folder)}</div>"


def _said(text: str) -> str:
    return html.escape(plain_lines(translated(text, asked_language())))


def _colour(result: StudyResult, trial: int) -> str:
    if result.best is not None and trial == result.best.trial:
        return ACCENT
    return BASELINE if result.baseline is not None and trial == result.baseline.trial else OTHER


def _dots(result: StudyResult) -> Markup:
    dots = [
        Dot(row.learning_rate, row.eval_loss, _colour(result, row.trial), row.fidelity == 1.0)
        for row in result.trials
        if row.eval_loss is not None and row.state in ("completed", "stopped")
    ]
    return dots_svg(dots, title=translated("validation loss over learning rate", asked_language()))


def _lines(result: StudyResult, folder: Path) -> Markup:
    lines = []
    for row in (result.baseline, result.best):
        records = read_records(trial_folder(folder, row.trial) / STEPS, StepRecord) if row is not None else []
        if row is not None and records:
            smooth = debiased_ema([record.loss for record in records], span=EMA_SHARE * len(records))
            kept = range(0, len(records), max(1, len(records) // MOST_POINTS))
            lines.append(Line([records[i].step for i in kept], [smooth[i] for i in kept], _colour(result, row.trial)))
    both = len(lines) > 1
    title = f"training loss of the chosen run{' and the usual default' if both else ''}, over optimizer steps"
    return lines_svg(lines, title=translated(title, asked_language()))


class NotebookScreen:
    """Shows the events of a study in one output of the cell, which is replaced as they come."""

    def __init__(self, spec: StudySpec, budget: Budget, show: Callable[[str], None] | None = None):
        self._text = io.StringIO()
        self._screen = Screen(
            PlainConsole(file=self._text, width=COLUMNS, force_jupyter=False, force_terminal=False, color_system=None),
            spec,
            budget,
        )
        self._show = show or _shower()
        self._shown_at = 0.0

    def __enter__(self) -> NotebookScreen:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._screen.say(text)
        self._draw()

    def show(self, event: TuneEvent) -> None:
        """Show one event, and the progress at most a few times a second."""
        self._screen.show(event)
        if event.kind != "step" or time.monotonic() - self._shown_at > REFRESH_S:
            self._draw()

    def _draw(self) -> None:
        self._shown_at = time.monotonic()
        lines = self._text.getvalue().splitlines()
        left_out = ["…"] if len(lines) > KEPT_LINES else []
        text = "\n".join([*left_out, *lines[-KEPT_LINES:], self._screen.standing()])
        self._show(f"<pre style='white-space:pre-wrap'>{html.escape(plain_lines(text))}</pre>")


def _shower() -> Callable[[str], None]:
    """What replaces one output of the running cell."""
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)
    return lambda text: handle.update(HTML(text))
