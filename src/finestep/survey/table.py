"""Columns and first rows of a data set, and the questions that the detection of its layout asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from finestep.survey import column_words as w
from finestep.survey.cells import num_characters
from finestep.survey.conversation import ROLES, looks_like_turns, parsed

Row = Mapping[str, object]
FREE_TEXT_SHARE, FREE_TEXT_CHARACTERS = 0.5, 15
COPY_SHARE = 0.8
ENOUGH_TO_TELL = 12


class Table:
    """Columns and first rows, and the questions that the detection asks of them."""

    def __init__(self, columns: list[str], sample: Sequence[Row], place: str) -> None:
        self.columns, self.sample, self.place = columns, sample, place
        self.names: dict[str, str] = {}
        for column in columns:
            self.names.setdefault(w.plain_name(column), column)

    def first(self, words: Iterable[str], *, without: Iterable[str | None] = ()) -> str | None:
        """The column with the most preferred name that holds something."""
        left = set(without)
        found = (self.names[word] for word in words if word in self.names)
        return next((column for column in found if column not in left and self.has_values(column)), None)

    def every(self, words: Iterable[str], *, without: Iterable[str | None] = ()) -> list[str]:
        left, wanted = set(without), set(words)
        return [
            column
            for name, column in self.names.items()
            if name in wanted and column not in left and self.is_text(column)
        ]

    def values(self, column: str) -> list[object]:
        return [row[column] for row in self.sample if row.get(column) not in (None, "", [], {})]

    def has_values(self, column: str) -> bool:
        return bool(self.values(column)) or not self.sample

    def is_text(self, column: str) -> bool:
        return any(num_characters(value) for value in self.values(column))

    def is_turns(self, column: str) -> bool:
        values = self.values(column)
        return bool(values) and looks_like_turns(values[0])

    def is_spoken(self, column: str) -> bool:
        """A list of messages whose speakers are known, whatever the column is called."""
        first = parsed(next(iter(self.values(column)), None))
        message = first[0] if isinstance(first, list) and first else None
        speaker = (
            next((message[key] for key in ("role", "from") if key in message), None)
            if isinstance(message, dict)
            else None
        )
        return str(speaker).lower() in ROLES and self.is_turns(column)

    def is_alternating(self, column: str) -> bool:
        """Lists of texts, the asker's and the answerer's in turn."""
        values = [parsed(value) for value in self.values(column)]
        whole = [value for value in values if isinstance(value, list) and all(isinstance(one, str) for one in value)]
        return bool(values) and len(whole) == len(values) and max(map(len, whole)) >= 2

    def is_free_text(self, column: str) -> bool:
        """Texts of their own rather than a few classes."""
        values = [str(value) for value in self.values(column)]
        if len(values) < 2:
            return bool(values) and len(values[0]) > 2 * FREE_TEXT_CHARACTERS
        long = sum(map(len, values)) / len(values) >= FREE_TEXT_CHARACTERS
        return long and len(set(values)) > FREE_TEXT_SHARE * len(values)

    def is_constant(self, column: str) -> bool:
        """The same in all rows at hand, of which there are enough to tell."""
        values = self.values(column)
        return len(values) >= ENOUGH_TO_TELL and all(value == values[0] for value in values)

    def repeats_values(self, column: str) -> bool:
        """A few classes rather than texts of their own."""
        values = [str(value) for value in self.values(column)]
        return len(set(values)) <= FREE_TEXT_SHARE * len(values)

    def num_characters(self, column: str) -> int:
        """Characters of text in the rows at hand."""
        return sum(num_characters(value) for value in self.values(column))

    def repeats(self, column: str, parts: Sequence[str]) -> bool:
        """The column holds all of `parts` again, as a text that was put together from them."""
        rows = [(row, text) for row in self.sample if isinstance(text := row.get(column), str)]
        hits = sum(all(str(row.get(part) or "").strip() in text for part in parts) for row, text in rows)
        return bool(rows) and hits >= COPY_SHARE * len(rows)
