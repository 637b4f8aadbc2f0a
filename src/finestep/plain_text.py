"""Text of others, made safe to show: no escape sequences, no characters that reorder or hide what stands beside them."""

from __future__ import annotations

import re
import unicodedata

JOINERS = frozenset("\u200c\u200d")
"""Format characters that scripts and emoji need."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: str) -> str:
    """The text in one line: white space collapsed, control and format characters left out.

    >>> plain("a\\x1b[31m b\\n c")
    'a[31m b c'
    """
    spaced = "".join(" " if char.isspace() else char for char in text)
    kept = (char for char in spaced if char in JOINERS or unicodedata.category(char) not in HIDDEN)
    return " ".join("".join(kept).split())


def plain_lines(text: str) -> str:
    """The text with its lines and spaces, without control and format characters; a tab is a space.

    >>> plain_lines("a\\x1b]0;title\\x07\\n  b")
    'a]0;title\\n  b'
    """
    spaced = text.replace("\t", " ")
    return "".join(
        char for char in spaced if char in JOINERS or char == "\n" or unicodedata.category(char) not in HIDDEN
    )


def plain_on_a_page(value: object) -> object:
    """What a page shows: text of others as `plain_lines`; what is markup of our own stays."""
    return plain_lines(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def without_passwords(text: str) -> str:
    """The text without the passwords of the addresses in it.

    >>> without_passwords("--storage postgresql://me:s3cret@host/db?password=x")
    '--storage postgresql://me@host/db?'
    """
    return re.sub(
        r"([?&])(?:ssl)?passw(?:or)?d=[^&\s'\"]*", r"\1", re.sub(r"(://[^:/@\s'\"]*):[^@\s'\"]*(@)", r"\1\2", text)
    )


def shortened(text: str, most: int) -> str:
    """The plain text in at most so many characters; what is left out is left out of the middle.

    >>> shortened("how many people live in the largest city of all", 24)
    'how many peopl … of all'
    """
    whole = plain(text)
    if len(whole) <= most:
        return whole
    end = (most - 3) // 3
    return f"{whole[: most - 3 - end].rstrip()} … {whole[-end:].lstrip()}"
