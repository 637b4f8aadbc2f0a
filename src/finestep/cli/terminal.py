"""The one gate to the terminal: whatever is printed, text of others arrives as text.

Labels, rows, names, outputs of commands and columns of logs may hold markup, escape sequences, half surrogate pairs and
characters that reorder their neighbours. Nothing of it is obeyed here, and nothing of it can end a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict, Unpack

from rich.console import Console, ConsoleOptions, HighlighterType, JustifyMethod, OverflowMethod, RenderableType
from rich.errors import MarkupError
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from finestep.plain_text import plain_lines


class TextOptions(TypedDict, total=False):
    """How rich writes a text."""

    style: str | Style
    justify: JustifyMethod | None
    overflow: OverflowMethod | None
    emoji: bool | None
    markup: bool | None
    highlight: bool | None
    highlighter: HighlighterType | None


class PlainConsole(Console):
    """A console that lets through no control character but its own colours and cursor."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that can be printed, with the text of each made safe."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(plain_lines(segment.text), segment.style)

    def render_str(self, text: str, **options: Unpack[TextOptions]) -> Text:
        """A text with its markup; as it stands when it holds what only looks like markup."""
        try:
            return super().render_str(text, **options)
        except MarkupError:
            options["markup"] = False
            return super().render_str(text, **options)


def open_console(*, stderr: bool = False, markup: bool = False, quiet: bool = False) -> PlainConsole:
    """The terminal.

    Args:
        markup: the caller writes its own colours as markup, and escapes all text of others.
        quiet: print nothing.
    """
    return PlainConsole(stderr=stderr, markup=markup, quiet=quiet, highlight=False)
