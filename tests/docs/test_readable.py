"""The documentation can be read aloud: few figures in a sentence, short paragraphs, short lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / f"{name}.md" for name in ("README", "README.zh-CN", "CONTRIBUTING", "CHANGELOG", "ARCHITECTURE")]
PAGES += sorted(page for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.parts)

MOST_FIGURES, MOST_WORDS, MOST_CHARACTERS = 3, 90, 110
FIGURE = re.compile(r"(?<![\w`])[-+]?\d[\d,.]*(?:e[-+]?\d+)?")
LIST_ITEM = re.compile(r"\s*([-*]|\d+\.) ")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def paragraphs(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, lines) of each paragraph and list item; tables, code and headings are left out."""
    kept: list[str] = []
    start, is_code = 0, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        is_fence = line.lstrip().startswith("```")
        is_item = LIST_ITEM.match(line) is not None
        if is_fence or is_code or is_item or not line.strip() or line.lstrip().startswith(("|", "#")):
            if kept:
                yield start, kept
            kept = [line] if is_item and not is_code else []
            start = number
            is_code ^= is_fence
        else:
            start = start if kept else number
            kept.append(line)


def complaints(text: str) -> list[str]:
    """What is hard to read, by line."""
    found = []
    for start, lines in paragraphs(text):
        words = re.sub(r"`[^`]*`", "x", " ".join(lines))
        length = len(words.split()) + len(CHINESE.findall(words)) // 2
        if length > MOST_WORDS:
            found.append(f"{start}: a paragraph of {length} words")
        for sentence in re.split(r"(?<=[.!?]) |(?<=[。！？])", words):
            if (count := len(FIGURE.findall(sentence))) > MOST_FIGURES:
                found.append(f"{start}: {count} figures in one sentence: {sentence.strip()[:70]}")
        found += [f"{start + n}: {len(line)} characters" for n, line in enumerate(lines) if len(line) > MOST_CHARACTERS]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_read_aloud(page):
    assert complaints(page.read_text(encoding="utf-8")) == []


def test_what_is_hard_to_read_is_found():
    assert complaints("It went from 1 to 2, then 3 and 4.") != []
    assert complaints("word " * 91) != []
    assert complaints("字" * 60 + "\n" + "字" * 60 + "\n" + "字" * 70) != []
    assert complaints("x" * 111) != []


def test_tables_and_code_may_be_dense():
    assert complaints("| 1 | 2 | 3 | 4 |" * 20 + "\n\n```\n" + "1 2 3 4 5 " * 30 + "\n```\n") == []


def test_an_entry_of_the_log_has_one_question_one_table_and_one_verdict():
    entries = re.split(r"^### ", (ROOT / "docs" / "log.md").read_text(encoding="utf-8"), flags=re.M)[1:]
    assert len(entries) > 50
    for entry in entries:
        title = entry.partition("\n")[0]
        assert entry.count("**Question.**") == entry.count("**Verdict.**") == 1, title
        assert len(re.findall(r"^\|[-|]+\|$", entry, flags=re.M)) == 1, title


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_list_or_table_behind_a_paragraph_begins_after_an_empty_line(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    glued = re.findall(r"^(?![#|<]|\s*[-*] |\s*\d+\. |\s).+\n(?:[-*] |\d+\. |\|).*", text, flags=re.M)
    assert glued == [], "the site would show it as one paragraph"
