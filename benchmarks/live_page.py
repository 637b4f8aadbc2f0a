"""How soon the live page of a very large study is there: a study of synthetic trials, opened in Chromium.

    python -m benchmarks.live_page [--trials 10000] [--opened 5] [--json OUT]

It needs Playwright and a Chromium. The page is opened a few times; the server has read the study once before, as it has
when a study runs. First paint is what the browser itself reports, counted from the request.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from tests.watch.served import ask, chromium, make_large_study, served, study_id

from finestep.watch.serve import Address

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
PATIENCE_MS = 120_000


def measure(folder: Path, *, opened: int) -> dict[str, object]:
    """Bytes of the page, and milliseconds to its first paint and to its table."""
    with served(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        path = f"/study/{study_id(folder)}"
        wait_for_report(address, path)
        paints, tables = [], []
        for _ in range(opened):
            page = browser.new_page(viewport={"width": 1200, "height": 1000})
            page.goto(f"http://127.0.0.1:{address.port}{path}", wait_until="commit", timeout=PATIENCE_MS)
            page.wait_for_selector("#runs tr[data-run]", timeout=PATIENCE_MS)
            tables.append(page.evaluate("performance.now()"))
            page.wait_for_timeout(500)
            paints.append(page.evaluate(PAINT))
            page.close()
        size = len(ask(address, path)[2].encode())
        browser.close()
    return {"bytes": size, "first_paint_ms": sorted(paints), "table_ms": sorted(tables)}


def wait_for_report(address: Address, path: str) -> None:
    """The server has weighed the study when the data of its page name the best run."""
    until = time.monotonic() + 400
    print("the server reads the study", flush=True)
    while json.loads(ask(address, f"{path}/data")[2])["best"] is None:
        if time.monotonic() > until:
            sys.exit("the server has not weighed the study in time")
        ask(address, "/studies")
        time.sleep(5)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--opened", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = make_large_study(Path(place) / "study", num_trials=asked.trials)
        found = measure(folder, opened=asked.opened)
    paints, tables = found["first_paint_ms"], found["table_ms"]
    print(f"{asked.trials} trials: the page has {found['bytes']:,} bytes; load of the machine {os.getloadavg()[0]:.1f}")
    for name, times in (("first paint", paints), ("table of runs", tables)):
        print(f"  {name}: median {statistics.median(times):.0f} ms, {times[0]:.0f} to {times[-1]:.0f}")
    if asked.json:
        asked.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
