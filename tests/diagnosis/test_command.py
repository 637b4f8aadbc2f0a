"""The command as a user meets it: the verdict in the terminal, one JSON object, a page that no log can inject into."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from finestep.cli.diagnose import diagnose

FIXTURES = Path(__file__).parents[1] / "readers" / "fixtures"


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(diagnose)
    return lambda *options: CliRunner().invoke(app, [str(option) for option in options], catch_exceptions=False)


def test_the_last_line_is_one_object(run) -> None:
    result = run(FIXTURES / "trainer_state.json", "--json")
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["verdict"] == "healthy"
    assert report["findings"][0]["code"] == "healthy"


def test_several_logs_are_compared(run) -> None:
    result = run(FIXTURES / "*.json*", "--json")
    report = json.loads(result.stdout.splitlines()[-1])
    assert len(report["logs"]) == 7
    assert report["comparison"]["advice"]


def test_logs_of_one_name_are_told_apart_by_their_folders(run, tmp_path: Path) -> None:
    for trial, slope in (("0000", 10), ("0001", 20)):
        (tmp_path / trial).mkdir()
        rows = "".join(f"{n},{3 - n / slope}\n" for n in range(1, 12))
        (tmp_path / trial / "log.csv").write_text("step,loss\n" + rows)
    report = json.loads(run(tmp_path / "*" / "log.csv", "--json").stdout.splitlines()[-1])
    assert {row["name"] for row in report["comparison"]["runs"]} == {"0000/log.csv", "0001/log.csv"}


def test_the_terminal_begins_with_the_verdict_and_a_plot(run) -> None:
    text = run(FIXTURES / "plain.csv").stdout
    assert text.index("healthy") < text.index("⠀")


def test_the_page_escapes_what_a_log_says(run, tmp_path: Path) -> None:
    log = tmp_path / "x.csv"
    log.write_text("step,<script>loss</script>\n" + "".join(f"{n},{3 - n / 10}\n" for n in range(1, 12)))
    page = tmp_path / "page.html"
    run(log, "--html", page)
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<svg" in text


def test_no_torch_is_loaded() -> None:
    code = "import sys, finestep.flows.diagnose as d; d.diagnose_paths([sys.argv[1]]); print('torch' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code, FIXTURES / "plain.csv"], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"
