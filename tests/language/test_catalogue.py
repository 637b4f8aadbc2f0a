"""The catalogue holds every sentence that finestep shows in the page and in findings, and takes nobody else's words for its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from finestep.cli.plots import scatter_lines
from finestep.diagnosis.catalogue import LABEL_WORDS
from finestep.language.catalogue import FIELD, asked_language, sections, translated
from finestep.report.page import SCRIPTS, asset

SOURCE = Path(__file__).parents[2] / "src" / "finestep"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
NO_SENTENCE = {
    "finestep records",  # the name of a format
    "Are the numbers sound?", "Does anything train?", "Is there enough to judge?", "Is the run lost?",
    "Is it too good to be true?", "What does its objective say?", "Does it generalise?",
    "Were rate, warmup and length enough?", "Is the rate a usual one?", "Is the evaluation sound?",  # names of the detectors
}  # fmt: skip


def bare(template: str) -> str:
    """A template without the names of its fields, and without what joins it to others."""
    return re.sub(r"\{[^{}]*\}", "{}", template).strip(" .;,:")


def as_pattern(template: str) -> str:
    """What the template is in the catalogue, where one of its fields may be a part of the sentence there."""
    return ".*".join(re.escape(part) for part in re.sub(r"(\{\})+", "{}", bare(template)).split("{}"))


def every_entry() -> dict[str, str]:
    return {english: said for part in sections().values() for english, said in part.items()}


def test_both_sides_have_the_same_fields() -> None:
    entries = every_entry()
    assert len(entries) > 500
    other = {english: said for english, said in entries.items() if fields(english) != fields(said)}
    assert not other, "other fields in Chinese"
    same = {"nats", "lora", "epoch", "token", "tokens", "qlora", "{number} tokens", "{number}: {counts}"}
    untold = {english: said for english, said in entries.items() if not CHINESE.search(said)}
    assert untold.keys() <= same, "not in Chinese"


def fields(sentence: str) -> list[str]:
    return sorted(FIELD.findall(sentence))


def test_every_sentence_of_the_page_is_in_the_catalogue() -> None:
    script = "".join(asset(f"assets/page/{name}.js") for name in SCRIPTS)
    said = set(re.findall(r"say\('((?:[^'\\]|\\.)*)'", script))
    said |= set(re.findall(r'data-say="([^"]*)"', asset("assets/page/page.html")))
    assert len(said) > 80
    assert not said - set(sections()["page"])


def test_every_sentence_of_the_live_page_is_in_the_catalogue() -> None:
    watch = SOURCE / "watch" / "assets"
    script = (watch / "live.js").read_text() + (watch / "list.js").read_text()
    said = set(re.findall(r"say\('((?:[^'\\]|\\.)*)'", script)) | set(re.findall(r"dataset\.say = '([^']*)'", script))
    assert len(said) > 40
    assert not said - set(sections()["page"]) - set(sections()["live"])


def test_every_answer_to_a_command_is_in_the_catalogue() -> None:
    known = "\n".join(bare(english) for english in sections()["live"])
    texts = {text for text in strings_of(SOURCE / "studies" / "steering.py") if len(text.split()) > 2}
    missing = {text for text in texts if not re.search(as_pattern(text), known, flags=re.MULTILINE)}
    assert len(texts) > 10
    assert not {text for text in missing if not re.fullmatch(r"[{} ,x]*|trial {}, {} at {}", text)}


def test_no_sentence_of_the_page_is_left_over() -> None:
    script = "".join(asset(f"assets/page/{name}.js") for name in SCRIPTS) + asset("assets/page/page.html")
    assert not [english for english in sections()["page"] if english not in script]


def strings_of(path: Path) -> list[str]:
    """The texts of a module with their fields as `{}`, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    passed |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = []
    for node in ast.walk(tree):
        if id(node) in passed:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            texts.append("".join(parts))
    return texts


def test_every_sentence_of_the_findings_is_in_the_catalogue() -> None:
    known = {bare(english) for english in every_entry()}
    whole = "\n".join(sorted(known))
    missing = set()
    for path in sorted((SOURCE / "diagnosis").glob("*.py")):
        for text in strings_of(path):
            words = re.findall(r"[a-zA-Z]{2,}", text.replace("{}", " "))
            is_sentence = len(words) >= 3 and " " in text.strip() and text not in NO_SENTENCE
            if is_sentence and not re.search(as_pattern(text), whole, flags=re.MULTILINE):
                missing.add(f"{path.name}: {text}")
    assert not missing


@pytest.mark.parametrize("label", LABEL_WORDS.values())
def test_every_label_is_said(label: str) -> None:
    assert CHINESE.search(translated(label))


@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("Best: 2.4e-03 at batch 4; 3 of 13 runs diverged", "最优：2.4e-03，批大小 4；13 个运行中有 3 个发散"),
        ("all 450 steps", "走完全部 450 步"),
        ("All 450 steps.", "走完全部 450 步。"),
        (
            "At step 40 the loss exploded to 9.1 (start 2.1, chance 6.2): the learning rate is too high.",
            "第 40 步：损失爆炸到 9.1（起始 2.1，瞎猜 6.2）：学习率过高。",
        ),
        ("Run 6: 98 % of the steps were clipped to norm 1", "运行 6：98 % 的步被裁剪到范数 1"),
    ],
)
def test_sentences_with_fields_are_found(english: str, said: str) -> None:
    assert translated(english) == said


@pytest.mark.parametrize(
    "text",
    [
        "everything failed",
        "cats and dogs",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x8 and 16x2)",
        "Qwen/Qwen3-0.6B",
        "my runs",
        "",
        "2.4e-03",
        "</script><script>alert(1)</script>",
        "{number} of {all}",
    ],
)
def test_words_of_others_stay_as_they_are(text: str) -> None:
    assert translated(text) == text


def test_english_stays_english() -> None:
    assert translated("all 450 steps", "en") == "all 450 steps"
    assert translated("all 450 steps", None) == "all 450 steps"


@pytest.mark.parametrize(
    ("value", "language"), [("zh_CN.UTF-8", "zh"), ("zh", "zh"), ("en", "en"), ("de_DE", None), ("", None)]
)
def test_the_language_is_that_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, value: str, language: str | None
) -> None:
    monkeypatch.setenv("FINESTEP_LANG", value)
    assert asked_language() == language


def test_a_field_that_looks_like_one_is_not_filled_again() -> None:
    assert translated("not taken: {rate} of {loss}") == "没有选用：{rate} of {loss}"


def test_the_plot_of_a_terminal_shows_the_best_and_what_fell() -> None:
    lines = scatter_lines([(1e-4, 2.0, False), (1e-3, 1.0, True), (1e-2, None, False), (2e-3, 90.0, False)], width=40)
    assert all(len(line) <= 40 + 11 for line in lines)
    assert sum(line.count("#") for line in lines) == 1
    assert "x" in lines[0]
    assert sum(line.count("^") for line in lines) == 1
    assert "1.0e-04" in lines[-1]
    assert scatter_lines([(1e-4, 2.0, True)], width=40) == []
