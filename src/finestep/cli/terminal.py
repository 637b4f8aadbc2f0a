"""The one gate to the terminal: whatever is printed, text of others arrives as text.

Labels, rows, names, outputs of commands and columns of logs may hold markup, escape sequences, half surrogate pairs and
characters that reorder their neighbours. Nothing of it is obeyed here, and nothing of it can end a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.segment import Segment
from rich.text import Text

from finestep.plain_text import plain_lines


class PlainConsole(Console):
    """A console that lets through no control character but its own colours and cursor."""

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        """The segments of anything that can be printed, with the text of each made safe."""
        for segment in super().render(*arguments, **options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(plain_lines(segment.text), segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text with its markup; as it stands when it holds what only looks like markup."""
        try:
            return super().render_str(text, **options)
        except MarkupError:
            return super().render_str(text, **{**options, "markup": False})


def open_console(*, stderr: bool = False, markup: bool = False, quiet: bool = False) -> PlainConsole:
    """The terminal.

    Args:
        markup: the caller writes its own colours as markup, and escapes all text of others.
        quiet: print nothing.
    """
    return PlainConsole(stderr=stderr, markup=markup, quiet=quiet, highlight=False)
