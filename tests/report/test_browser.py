"""The page in a real browser, when there is one: scripts run under the policy, and nothing of the study does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from finestep.report.page import render_page
from finestep.report.view import ReportView

from .synthetic_study import HOSTILE, make_trials, make_view

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
    "--enable-logging=stderr",
    "--dump-dom",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def opened(view: ReportView, folder: Path) -> tuple[str, str]:
    """The page after its scripts ran, and what the console said."""
    path = folder / "report.html"
    path.write_text(render_page(view), encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def test_charts_are_drawn_without_a_complaint(tmp_path: Path) -> None:
    page, console = opened(make_view(), tmp_path)
    assert console == ""
    assert page.count("<canvas") == 4
    assert 'aria-pressed="true"' in page


def test_hostile_text_does_not_run(tmp_path: Path) -> None:
    page, console = opened(make_view(HOSTILE), tmp_path)
    assert console == ""
    assert page.count("<canvas") == 4
    assert "data-pwn" not in page[: page.index("<head")]
    assert "<img" not in page.split('<script type="application/json"')[0]


def test_an_empty_study_is_drawn_without_a_complaint(tmp_path: Path) -> None:
    begun = make_trials()[0].model_copy(update={"state": "running", "outcome": None})
    page, console = opened(make_view(trials=[begun], best=None, baseline=None), tmp_path)
    assert console == ""
    assert "<canvas" in page


def test_the_page_of_one_training_run_is_drawn_without_a_complaint(tmp_path: Path) -> None:
    trained = make_trials()[6].model_copy(update={"number": 0, "stage": "training"})
    page, console = opened(make_view(trials=[trained], best=0, baseline=None), tmp_path)
    assert console == ""
    assert page.count("<canvas") == 2
