"""A failure inside a trial, as a user meets it: its reason at once, no second try, and an end where nothing can help."""

from __future__ import annotations

import json
import os
import re

import pytest

from finestep.cli.main import main

METRICS = """
def broken(predictions, references):
    return 1 / 0

def words(predictions, references):
    return "good"
"""


@pytest.fixture
def tune(tmp_path, monkeypatch, capsys, shipped_model):
    """Runs `tune` on the shipped model with a metric: (exit code, what was said, folder of the study)."""
    (tmp_path / "my_metrics.py").write_text(METRICS)
    rows = [{"prompt": f"say {n}", "completion": f"{n}"} for n in range(40)]
    (tmp_path / "short.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.chdir(tmp_path)

    def run(metric: str, *more: str):
        study = ["--out", "s", "--threads", "1", "--pack", "off", "--no-check-saved", "--set", "lora.rank=2"]
        options = [*study, "--epochs", "1", "--metric", f"my_metrics:{metric}", "--device", "cpu"]
        monkeypatch.setattr("sys.argv", ["finestep", "tune", str(shipped_model), "short.jsonl", *options, *more])
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        streams = capsys.readouterr()
        return code, streams.out + streams.err, tmp_path / "s"

    return run


def test_a_metric_that_raises_says_so_and_ends_the_study(tune):
    code, said, folder = tune("broken", "--strategy", "random", "--budget", "6")
    assert code == 1
    assert "the metric `my_metrics:broken` raised ZeroDivisionError: division by zero" in said
    assert "worker died" not in said
    result = json.loads((folder / "result.json").read_text())
    states = [trial["state"] for trial in result["trials"] if trial["state"] != "diverged"]
    assert states == ["failed", "failed"], "two of six: a third would fail too, whatever broke at a high rate before"
    assert result["trials"][0]["log"].endswith("worker.log")
    assert re.search(r"log: \S*worker\.log", said)
    assert "in broken" in (folder / "worker.log").read_text(), "the log has the whole traceback"


def test_what_a_user_can_act_on_ends_with_exit_code_2_and_its_sentence(tune):
    code, said, folder = tune("words", "--strategy", "random", "--budget", "3")
    assert code == 2, said
    assert "finestep: a metric must return a number, or a mapping of numbers; got 'good' in my_metrics:words" in said
    assert "Traceback" not in said
    assert "worker died" not in said
    (folder.parent / "my_metrics.py").write_text("def words(predictions, references):\n    return 1.0\n")
    code, said, _ = tune("words", "--strategy", "random", "--budget", "3")
    assert code == 0, said
    assert "goes on from step" in said, "the trial was kept open"
