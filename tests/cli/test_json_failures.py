"""Thirty commands that fail with --json: each answers with one object that says what, where, and what to do about it."""

from __future__ import annotations

import json

import pytest

from finestep.cli.main import main

ROWS = "".join(json.dumps({"prompt": f"say {n}", "completion": f"{n}"}) + "\n" for n in range(20))
FAILING = [
    "tune nowhere rows.jsonl",
    "tune shipped nothing.jsonl",
    "tune shipped",
    "tune shipped empty.jsonl",
    "tune shipped rows.jsonl --method loraa",
    "tune shipped rows.jsonl --strategy bayes",
    "tune shipped rows.jsonl --set lora.rnk=8",
    "tune shipped rows.jsonl --budget -1",
    "tune shipped rows.jsonl --time yesterday",
    "tune shipped rows.jsonl --pack many",
    "tune shipped rows.jsonl --objective accuracy",
    "tune shipped rows.jsonl --objective bleu",
    "tune shipped rows.jsonl --report-to wandbb",
    "tune shipped rows.jsonl --columns prompt=nothing",
    "tune shipped rows.jsonl --metric nowhere:f --recipe missing.yaml",
    "tune shipped rows.jsonl --out rows.jsonl/inside",
    "tune shipped rows.jsonl --no-such-option",
    "tune --command 'train {rate}' --result eval_loss=x",
    "train missing.yaml shipped rows.jsonl",
    "train bad.yaml shipped rows.jsonl",
    "train recipe.yaml",
    "recommend nowhere",
    "recommend shipped --gpu h9000",
    "probe nowhere --predict",
    "data nothing.jsonl",
    "report nowhere",
    "status nowhere",
    "stop nowhere",
    "add nowhere --lr 1e-4",
    "extend . --budget 3",
    "pause .",
    "resume nowhere",
    "diagnose nothing.csv",
    "rescale missing.yaml --batch 32",
    "export missing.yaml --to hf",
    "export recipe.yaml --to hugginface",
    "merge nowhere",
    "schema tunee",
    "watch nowhere",
    "watch . --host 0.0.0.0",
    "tunee",
]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINESTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.yaml").write_text("learning_rate: fast\n")
    (tmp_path / "recipe.yaml").write_text("learning_rate: 1.0e-04\n")


def test_there_are_thirty_and_more():
    assert len(set(FAILING)) >= 30


@pytest.mark.parametrize("line", FAILING)
def test_a_failure_is_one_object_with_a_next_step(line, monkeypatch, capsys):
    import shlex

    monkeypatch.setattr("sys.argv", ["finestep", *shlex.split(line), "--json"])
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    streams = capsys.readouterr()
    last = streams.out.strip().splitlines()[-1]
    told = json.loads(last)["error"]
    assert set(told) == {"kind", "message", "place", "next_step", "exit_code"}
    assert told["exit_code"] == code
    assert 0 < code < 64
    assert told["kind"].isidentifier()
    assert told["kind"] != "Unexpected"
    assert "Traceback" not in streams.err + streams.out
    assert len(told["message"]) > 10
    assert len(told["next_step"]) >= 8, told
    assert "see --help" not in told["next_step"]
