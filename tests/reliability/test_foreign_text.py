"""Markup, escape sequences and half surrogate pairs of others reach the terminal, the page and JSON as text, in every command."""

from __future__ import annotations

import json
import shutil

import pytest

from finestep.cli.main import main
from finestep.cli.terminal import open_console

ESCAPE = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e"
MARKUP = "[/b] [red]x[/red] [link=http://e]y[/link] [a-z]+ [/x]"
NASTY = f"{MARKUP}{ESCAPE}"
HIDDEN = ("\x1b", "\x07", "\x9b", "\u202e")


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["finestep", *map(str, arguments)])
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert not [char for char in HIDDEN if char in said.out + said.err]
    assert code in (0, 1, 2), said.err
    return code, said.out + said.err


def test_a_label_or_a_row_is_printed_as_it_stands(capsys):
    console = open_console()
    console.width = 200
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column(NASTY)
    table.add_row(NASTY, Text(NASTY))
    for shown in (NASTY, Text(NASTY), Panel(NASTY, title=Text(NASTY)), table):
        console.print(shown, soft_wrap=True)
        out = capsys.readouterr().out
        assert "[/b] [red]x[/red]" in out
        assert "[a-z]+ [/x]" in out
        assert not [char for char in HIDDEN if char in out]
    open_console(markup=True).print("an unbalanced [/b] tag")
    assert "[/b]" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["words", "json"])
def test_the_output_of_a_command(monkeypatch, capsys, tmp_path, as_json):
    failing = "printf '%s' '" + NASTY.replace("\x07", "") + "'; exit 3 # {learning_rate}"
    out = tmp_path / "o[/x]"
    options = ["--result", "eval_loss=[a-z]+ ([0-9]+)", "--rows", "64", "--budget", "1", "--strategy", "random"]
    code, said = run(monkeypatch, capsys, "tune", "--command", failing, *options, "--out", out, *as_json)
    assert code == 1
    assert "[red]x[/red]" in said
    run(monkeypatch, capsys, "report", out, *as_json)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "\x1b" not in page


def test_a_good_command_keeps_its_regular_expression(monkeypatch, capsys, tmp_path):
    out = tmp_path / "o[/x]"
    options = ["--result", "eval_loss=[a-z]+ ([0-9.]+)", "--rows", "64", "--budget", "1", "--strategy", "random"]
    code, said = run(monkeypatch, capsys, "tune", "--command", "echo loss 1.5 {learning_rate}", *options, "--out", out)
    assert code == 0
    assert "[a-z]+" in said.replace("\n", "").replace(" ", "")


def test_names_and_columns_of_logs(monkeypatch, capsys, tmp_path):
    log = tmp_path / f"a{ESCAPE}[b].jsonl"
    log.write_text("".join(json.dumps({"step": i, "loss": 2.0, NASTY: 1.0}) + "\n" for i in range(1, 30)))
    for more in ([], ["--json"]):
        run(monkeypatch, capsys, "diagnose", log, *more)


def test_models_and_their_configs(monkeypatch, capsys, tmp_path, shipped_model):
    model = tmp_path / f"mo{ESCAPE}[b]"
    shutil.copytree(shipped_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "llama" + NASTY}))
    for command in (["recommend", model], ["recommend", model, "--json"], ["probe", model, "--predict"]):
        run(monkeypatch, capsys, *command)


def test_options_and_configs_of_others(monkeypatch, capsys, tmp_path, shipped_model):
    config = tmp_path / "c.json"
    config.write_text(
        json.dumps({"per_device_train_batch_size": 8, "learning_rate": 5e-5, NASTY: NASTY, "run_name": "\ud800"})
    )
    run(monkeypatch, capsys, "recommend", "--from", config, shipped_model)
    run(monkeypatch, capsys, "recommend", "--from", config, shipped_model, "--json")
    assert run(monkeypatch, capsys, "tune", f"--{NASTY}", "--json")[0] == 2
