"""`--help`: grouped, complete, narrow, and quick because it loads nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from finestep.cli.main import app
from finestep.cli.usual_options import USUAL

COMMANDS = typer.main.get_command(app).commands
MOST_OPTIONS_TOGETHER = 8


def _help(*arguments: str, columns: int = 80, everything: bool = True) -> str:
    word = "--help-all" if everything and arguments and arguments[0] in USUAL else "--help"
    done = CliRunner().invoke(app, [*arguments, word], terminal_width=columns)
    assert done.exit_code == 0
    return done.output


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^(\S[^\n]*):\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_its_line_and_its_words(name):
    text = _help(name)
    assert max(map(len, text.splitlines())) <= 80
    for parameter in COMMANDS[name].params:
        assert len(re.findall(rf"^  {re.escape(parameter.opts[0])}(?![\w-])", text, flags=re.M)) == 1
        assert parameter.help[-1] in ".]", parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_many_options_are_in_groups(name):
    sections = _sections(_help(name))
    for title, lines in sections.items():
        assert len(re.findall(r"^  --", lines, flags=re.M)) <= MOST_OPTIONS_TOGETHER, title


@pytest.mark.parametrize("name", USUAL)
def test_help_shows_about_a_dozen_options_in_two_groups(name):
    text = _help(name, everything=False)
    sections = _sections(text)
    assert list(sections) == ["Arguments", *USUAL[name], "Other"]
    shown = re.findall(r"^  (--[a-z-]+)", text, flags=re.M)
    assert shown == [*(option for options in USUAL[name].values() for option in options), "--help", "--help-all"]
    assert 10 <= len(shown) - 2 <= 14
    number = int(re.search(r"Show (\d+) more options", text)[1])
    assert number + len(shown) == len(re.findall(r"^  --", _help(name), flags=re.M))


def test_related_options_stand_together():
    sections = _sections(_help("tune"))
    assert list(sections)[-2:] == ["Output", "Other"]
    assert all(option in sections["Search"] for option in ("--budget", "--time", "--strategy", "--tune"))
    assert all(option in sections["Data"] for option in ("--columns", "--format", "--max-length"))
    assert all(option in sections["Another trainer"] for option in ("--command", "--result", "--rows"))


def test_a_wide_terminal_is_used():
    assert 80 < max(map(len, _help("tune", columns=120).splitlines())) <= 120


def test_the_list_of_commands_cuts_no_sentence():
    assert "..." not in _help().split("Commands:")[1]


@pytest.mark.parametrize("name", ["tune", "recommend", "probe"])
def test_help_of_a_command_loads_nothing_heavy(name):
    code = (
        f"import sys\nfrom finestep.cli import main\nsys.argv = ['finestep', {name!r}, '--help']\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'optuna', 'transformers', 'sqlalchemy', 'rich', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
