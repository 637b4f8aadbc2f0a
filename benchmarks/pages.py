"""Figures that a benchmark writes into a page of the documentation, between two marks that name the benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from finestep.errors import BadInput

END = "<!-- end -->"


def begin(name: str) -> str:
    """The mark above the figures of a benchmark."""
    return f"<!-- written by benchmarks.{name} -->"


def write_into(page: Path, text: str, *, name: str) -> None:
    """Put the text between the marks of this benchmark."""
    page.write_text(with_text(page.read_text(encoding="utf-8"), text, name=name, place=str(page)), encoding="utf-8")


def with_text(page: str, text: str, *, name: str, place: str) -> str:
    """The page with this text between the marks.

    >>> with_text("a\\n<!-- written by benchmarks.x -->\\nold\\n<!-- end -->\\nb", "new", name="x", place="page")
    'a\\n<!-- written by benchmarks.x -->\\nnew\\n<!-- end -->\\nb'
    """
    before, mark, rest = page.partition(begin(name))
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise BadInput(f"the page must hold the lines `{begin(name)}` and `{END}`", place=place)
    return f"{before}{mark}\n{text}\n{end}{after}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> table(("a", "b"), [("1", "2")])
    '| a | b |\\n|---|---|\\n| 1 | 2 |'
    """
    lines = [head, *rows]
    shown = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([shown[0], "|---" * len(head) + "|", *shown[1:]])
