"""The whole walk in a browser: a study begins, its curve comes, a trial ends, another is stopped by hand, and the search goes on.

It needs Playwright and a Chromium; set FINESTEP_SCREENSHOTS to a folder to keep what was seen.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
from finestep.store.study_files import StudyFiles, read_spec
from finestep.store.tail import Tail

from .served import chromium

PATIENCE_MS = 240_000


def playwright():
    """Playwright, or the test is skipped."""
    return pytest.importorskip("playwright.sync_api")


def step_seen_at(folder: Path) -> float:
    """When the first step of the study was written."""
    while not (files := list((folder / "trials").glob("*/steps.jsonl"))):
        time.sleep(0.02)
    while not any(list(Tail(file).read()) for file in files):
        time.sleep(0.02)
    return time.monotonic()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_a_study_is_watched_and_steered_in_the_browser(tmp_path):
    playwright()
    folder, log = tmp_path / "study", tmp_path / "log.txt"
    words = [
        "tune",
        "--out",
        str(folder),
        "--budget",
        "3",
        "--epochs",
        "2",
        "--no-check-saved",
        "--threads",
        "1",
        "--watch",
    ]
    place = {**os.environ, "FINESTEP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        study = subprocess.Popen([sys.executable, "-m", "finestep", *words], stdout=out, stderr=out, env=place)
    try:
        while not (found := re.search(r"watch: (http\S+)", log.read_text())):
            assert study.poll() is None, log.read_text()
            time.sleep(0.05)
        with playwright().sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            walk(browser, found[1], folder)
            browser.close()
    finally:
        study.terminate()
        study.wait(120)


def walk(browser, url: str, folder: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme="light")
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url, timeout=PATIENCE_MS)
    assert "token" not in page.url
    began = step_seen_at(folder)
    page.wait_for_selector("#live-curves[data-points]", timeout=PATIENCE_MS)
    print(f"first curve {time.monotonic() - began:.1f} s after the first step was on disk")
    page.wait_for_selector(".live-run", timeout=PATIENCE_MS)
    wait_for(lambda: any(trial.state == "completed" for trial in trials(folder)))
    page.wait_for_selector("#runs tr[data-run]", timeout=PATIENCE_MS)
    page.wait_for_function("document.querySelector('#live-belief').textContent.length > 20", timeout=PATIENCE_MS)
    keep(page, "live-desktop-light")
    stop = page.locator(".live-stop").first
    number = int(stop.get_attribute("data-trial"))
    stop.click(timeout=PATIENCE_MS)
    wait_for(lambda: trials(folder)[number].state == "stopped")
    assert trials(folder)[number].outcome.by_hand
    before = len(trials(folder))
    page.fill("#live-steer input[name=rate]", "2e-3")
    page.fill("#live-steer input[name=length]", "0.1")
    page.click("#live-steer form:first-of-type button")
    wait_for(lambda: any(trial.asked_by == "user" for trial in trials(folder)))
    wait_for(lambda: len(trials(folder)) > before + 1 or sum(trial.state == "running" for trial in trials(folder)))
    page.wait_for_selector(".live-run mark", timeout=PATIENCE_MS)
    for name, width, scheme in (
        ("live-phone-dark", 390, "dark"),
        ("live-phone-light", 390, "light"),
        ("live-desktop-dark", 1200, "dark"),
    ):
        page.set_viewport_size({"width": width, "height": 1000 if width > 500 else 844})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(600)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        keep(page, name)
    assert complaints == []


def trials(folder: Path):
    return StudyFiles(folder, read_spec(folder)).trials()


def wait_for(condition) -> None:
    until = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def keep(page, name: str) -> None:
    place = os.environ.get("FINESTEP_SCREENSHOTS")
    if place:
        page.screenshot(path=str(Path(place) / f"{name}.png"))
