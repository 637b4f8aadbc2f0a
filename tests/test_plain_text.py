"""Text of others is shown as text: no escape sequence, no control or reordering character, and no markup."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from finestep.cli.card import print_card
from finestep.plain_text import plain, plain_lines, shortened
from finestep.result import StudyResult

HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;title\x07 \u202egnp.exe \x9b31m <script>"


@given(st.text())
def test_no_control_character_is_left(text):
    for shown in (plain(text), plain_lines(text).replace("\n", "")):
        assert not any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in shown)
        assert "\u202e" not in shown
    assert "\n" not in plain(text)


@given(st.text(), st.integers(10, 60))
def test_what_is_shortened_fits(text, most):
    shown = shortened(text, most)
    assert len(shown) <= most
    assert shown == plain(text) or "…" in shown


def test_scripts_and_emoji_stay_whole():
    for text in ("நன்றி", "می\u200cخواهم", "👩\u200d🚀", "naïve 数据"):
        assert plain(text) == text


def _result(**changes):
    best = {
        "trial": 0, "stage": "training", "learning_rate": 1e-3, "effective_batch_size": 8, "micro_batch_size": 8,
        "accumulation_steps": 1, "num_devices": 1, "tuned": {}, "eval_loss": 1.0, "base_eval_loss": 2.0,
        "metrics": {HOSTILE: 1.0}, "reason": "", "state": "completed",
    }  # fmt: skip
    return {
        "best": best, "baseline": None, "leader": None, "answer": None, "trials": [best], "objective": {"name": "eval_loss"},
        "spent": {"full_runs": 1.0, "tokens": 10, "elapsed_s": 1.0}, "paths": {"model": "/s/model", "report": "/s/r.html"},
        "command": f"finestep tune {HOSTILE}",
        "saved": {"checked": True, "agrees": True, "sentence": "loaded again, as measured"},
        "answers": [{"prompt": HOSTILE, "answer": HOSTILE * 20, "expected": HOSTILE}],
        "use": {"folder": "/s/model", "load": ["model = X.from_pretrained('/s/model')"], "merge": "finestep merge /s/model"},
        **changes,
    }  # fmt: skip


def _shown(result) -> str:
    console = Console(width=100, force_terminal=False)
    with console.capture() as caught:
        print_card(console, StudyResult.model_validate(result))
    return caught.get()


def _failed(reason: str):
    asked = {
        "trial": 0,
        "learning_rate": 1e-3,
        "effective_batch_size": 8,
        "micro_batch_size": 8,
        "accumulation_steps": 1,
    }
    return {**asked, "reason": reason, "state": "failed", "log": f"/s/{HOSTILE}.log"}


@pytest.mark.parametrize(
    "result", [_result(), _result(best=None, trials=[_failed(HOSTILE)])], ids=["an answer", "no answer"]
)
def test_the_card_shows_hostile_text_as_text(result):
    shown = _shown(result)
    assert "[bold red]x[/]" in shown
    assert not any(char in shown for char in "\x1b\x07\x9b\u202e")


def test_the_card_says_how_to_use_the_model_and_what_it_answers():
    shown = " ".join(_shown(_result()).split())
    for words in ("loaded again, as measured", "X.from_pretrained('/s/model')", "finestep merge /s/model", "expected"):
        assert words in shown
    answers = [{"text": "stop shouting", "predicted": "sad", "true": "angry"}]
    shown = _shown(_result(answers=answers))
    for name, value in answers[0].items():
        assert any(name in line and value in line for line in shown.splitlines())
    differs = _shown(
        _result(saved={"checked": True, "agrees": False, "sentence": "WHAT IS SAVED IS NOT WHAT WAS MEASURED"})
    )
    assert "WHAT IS SAVED IS NOT WHAT WAS MEASURED" in differs
