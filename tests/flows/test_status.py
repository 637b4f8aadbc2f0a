"""`finestep status`: what a study's files say while it runs, after it was stopped, and at its end."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import finestep
from finestep.cli.main import app
from finestep.errors import BadInput
from finestep.studies.status import studies_in, study_status

ROWS = [{"prompt": f"Say {n} again.", "completion": f"{n}"} for n in range(40)]
QUICK = {
    "budget": 1,
    "baseline": False,
    "pack": 1,
    "threads": 1,
    "progress": False,
    "check_saved": False,
    "max_length": 48,
}


def status(*words: str) -> str:
    done = CliRunner().invoke(app, ["status", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_study_is_seen_while_it_runs_when_it_is_stopped_and_at_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("FINESTEP_CACHE", str(tmp_path / "cache"))
    folder, seen = tmp_path / "runs" / "mine", []
    slow = {**QUICK, "epochs": 30}
    running = finestep.tune("shipped", ROWS, out=folder, background=True, on_event=seen.append, **slow)
    while running.running and not any(event.kind == "step" for event in seen):
        pass
    now = study_status(folder)
    running.stop()
    running.wait(timeout_s=120)
    stopped = study_status(folder)
    assert (now.working, stopped.working) == (True, False)
    assert now.under_way[0].trial == stopped.under_way[0].trial == 0
    assert stopped.under_way[0].step >= 1
    assert "stopped" in status(str(folder))
    assert "go on with: finestep tune" in status(str(folder))
    done = finestep.tune("shipped", ROWS, out=folder, **slow)
    ended = study_status(folder)
    assert not ended.under_way
    assert ended.best.eval_loss == done.best.eval_loss
    assert ended.best.trial == done.best.trial
    shown = json.loads(status(str(tmp_path / "runs"), "--json"))["studies"]
    assert [one["folder"] for one in shown] == [str(folder)]
    assert shown[0]["spent"] == pytest.approx(1.0, abs=0.01)
    assert "ended" in status(str(folder))


def test_a_damaged_study_does_not_hide_the_others(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text("{}" if name == "a" else "no json")
    lines = status(str(tmp_path)).splitlines()
    assert lines[0].startswith(str(tmp_path / "a"))
    assert lines[-1].startswith(str(tmp_path / "b"))


def test_no_study_is_said(tmp_path):
    with pytest.raises(BadInput, match="no study is here"):
        list(studies_in(tmp_path))
