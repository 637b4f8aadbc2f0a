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
from finestep.errors import FinestepError
from finestep.store.study_files import StudyFiles, read_spec
from finestep.store.tail import Tail

from .served import chromium

PATIENCE_MS = 240_000
WORDS = ["--budget", "3", "--epochs", "2", "--no-check-saved", "--threads", "1", "--watch", "--lang", "en"]


def playwright():
    """Playwright, or the test is skipped."""
    return pytest.importorskip("playwright.sync_api")


@pytest.fixture
def study(tmp_path):
    """(folder, address of its page) of a study of the shipped example that runs."""
    folder, log = tmp_path / "study", tmp_path / "log.txt"
    place = {**os.environ, "FINESTEP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "finestep", "tune", "--out", str(folder), *WORDS]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=place)
    while not (found := re.search(r"watch: (http\S+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    yield folder, found[1]
    process.terminate()
    process.wait(120)
    print(log.read_text()[-3000:])


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_a_study_is_watched_and_steered_in_the_browser(study):
    driver = playwright()
    folder, url = study
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme="light", locale="en-US")
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url, timeout=PATIENCE_MS)
        assert "token" not in page.url
        see_the_first_curve(page, folder)
        see_a_trial_end(page, folder)
        number = add_a_run(page, folder)
        stop_it(page, folder, number)
        see_the_search_go_on(page, folder)
        look_at_every_size(page)
        browser.close()
    assert complaints == []


def see_the_first_curve(page, folder: Path) -> None:
    began = step_seen_at(folder)
    page.wait_for_selector("#live-curves[data-points]", timeout=PATIENCE_MS)
    print(f"first curve {time.monotonic() - began:.1f} s after the first step was on disk")
    page.wait_for_selector(".live-run", timeout=PATIENCE_MS)


def see_a_trial_end(page, folder: Path) -> None:
    wait_for(page, lambda: any(trial.state == "completed" for trial in trials(folder)))
    page.wait_for_selector("#runs tr[data-run]", timeout=PATIENCE_MS)
    wait_for(page, lambda: len(page.locator("#live-belief").text_content()) > 20)
    keep(page, "live-desktop-light")


def add_a_run(page, folder: Path) -> int:
    """A run of full length, so that it does not end before it is stopped; its number."""
    page.fill("#live-steer input[name=rate]", "2e-3")
    page.fill("#live-steer input[name=length]", "1")
    page.click("#live-steer form:first-of-type button")
    wait_for(page, lambda: any(trial.asked_by == "user" for trial in trials(folder)))
    page.wait_for_selector(".live-run mark", timeout=PATIENCE_MS)
    (mine,) = [trial for trial in trials(folder) if trial.asked_by == "user"]
    wait_for(page, lambda: any(re.search(r"step \d", text) for text in shown(page, mine.number)))
    return mine.number


def stop_it(page, folder: Path, number: int) -> None:
    """The button is pressed as a hand does it: down, and up after the news has come twice."""
    stop = page.locator(f".live-stop[data-trial='{number}']")
    stop.hover(timeout=PATIENCE_MS)
    page.mouse.down()
    page.wait_for_timeout(1000)
    page.mouse.up()
    wait_for(page, lambda: trials(folder)[number].state == "stopped")
    assert trials(folder)[number].outcome.by_hand
    wait_for(page, lambda: not shown(page, number))
    assert "stopped by hand" in page.locator("#live-said").text_content()


def shown(page, number: int) -> list[str]:
    """The words of a trial among those that run."""
    return page.locator(f".live-run[data-trial='{number}']").all_text_contents()


def see_the_search_go_on(page, folder: Path) -> None:
    """Another trial, which the search wants, makes steps."""
    before = {number for number, trial in enumerate(trials(folder)) if trial.state != "running"}
    wait_for(page, lambda: {n for n, t in enumerate(trials(folder)) if t.state == "completed"} - before)
    page.wait_for_selector(".live-run progress", timeout=PATIENCE_MS)


def look_at_every_size(page) -> None:
    for language in ("en", "zh"):
        for name, width, height, scheme in (
            ("phone-dark", 390, 844, "dark"),
            ("phone-light", 390, 844, "light"),
            ("desktop-dark", 1200, 1000, "dark"),
            ("desktop-light", 1200, 1000, "light"),
        ):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(600)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            keep(page, f"live-{name}" + ("-zh" if language == "zh" else ""))
        page.click("#hero button.plain")


def step_seen_at(folder: Path) -> float:
    """When the first step of the study was written."""
    while not (files := list((folder / "trials").glob("*/steps.jsonl"))):
        time.sleep(0.02)
    while not any(list(Tail(file).read()) for file in files):
        time.sleep(0.02)
    return time.monotonic()


def trials(folder: Path):
    """The trials as the files say; none while the study makes them."""
    try:
        return StudyFiles(folder, read_spec(folder)).trials()
    except FinestepError:
        return []


def wait_for(page, condition) -> None:
    """The page goes on living meanwhile. Playwright's own waiting evaluates text in the page, which its policy forbids."""
    until = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < until, page.locator("#s-live").text_content()
        page.wait_for_timeout(100)


def keep(page, name: str) -> None:
    place = os.environ.get("FINESTEP_SCREENSHOTS")
    if place:
        page.screenshot(path=str(Path(place) / f"{name}.png"))
        page.screenshot(path=str(Path(place) / f"{name}-whole.png"), full_page=True)
