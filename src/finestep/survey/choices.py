"""Multiple choice: the choices as lettered lines of the prompt, and the answer as the letter of the right one."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finestep.errors import BadInput
from finestep.survey.cells import answer_of, text_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_COLUMNS = (
    re.compile(r"^([a-e])$"),
    re.compile(r"^(?:choice|option|opt|answer)_?([a-e])$"),
    re.compile(r"^op([a-e])$"),
    re.compile(r"^(?:choice|option|opt|ending|sol|answer|alternative|candidate)_?([0-9])$"),
)
FEWEST_CHOICES = 2


def lettered(value: object, name: str, place: str) -> str:
    """A list of choices, also with labels of its own or as text, a line each."""
    pairs = _pairs(_unpacked(value), name, place)
    return value if isinstance(value, str) and not pairs else "\n".join(f"{mark}. {text}" for mark, text in pairs)


def letter_columns(names: Mapping[str, str]) -> list[str]:
    """Columns that hold a choice each (`A`, `B`, ...; `option1`, ...), in their order; empty when there are none."""
    for pattern in LETTER_COLUMNS:
        found = sorted((match[1], names[name]) for name in names if (match := pattern.match(name)))
        if len(found) >= FEWEST_CHOICES:
            return [column for _, column in found]
    return []


def marks_of(columns: Sequence[str]) -> list[str]:
    """What stands before each choice: the number in the names of its columns where they have one, else letters.

    >>> marks_of(["option1", "option2"]), marks_of(["opa", "opb"])
    (['1', '2'], ['A', 'B'])
    """
    numbers = [re.search(r"(\d+)$", name) for name in columns]
    if all(numbers):
        return [number[1] for number in numbers if number]
    return list(LETTERS[: len(columns)])


def first_number(sample: Sequence[Mapping[str, object]], answer: str, choices: Sequence[str]) -> int:
    """1 where the answers are numbers that count from one: the largest equals the number of choices, and none is zero."""
    numbers, most = [], len(choices)
    for row in sample:
        text = str(row.get(answer)).strip()
        if text.isdecimal():
            numbers.append(int(text))
        if len(choices) == 1:
            most = max(most, len(_pairs(_unpacked(row.get(choices[0])), choices[0], "")))
    return 1 if numbers and min(numbers) >= 1 and max(numbers) == most else 0


@dataclass(frozen=True)
class LetteredColumn:
    """The cell of one choice's column as its line."""

    letter: str

    def __call__(self, value: object, name: str, place: str) -> str:
        text = text_of(value, name, place)
        return f"{self.letter}. {text}" if text else ""


@dataclass(frozen=True)
class AnswerAmong:
    """Writes the answer of a row: a number becomes the letter of that choice."""

    column: str
    choices: tuple[str, ...]
    first: int = 0
    """The number that means the first choice."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def pattern(self) -> str:
        return f"{{{self.column}}}, as the letter of its choice where it is a number"

    def write(self, row: Mapping[str, object], place: str) -> str:
        if self.column not in row:
            raise BadInput(f"the row has no `{self.column}`", value=list(row), place=place)
        answer = answer_of(row[self.column], self.column, place).strip()
        marks = self._marks(row, place)
        counts_alike = len(self.choices) == 1 or not marks[0].isdecimal() or int(marks[0]) == self.first
        if (answer in marks and counts_alike) or not answer.isdecimal():
            return answer
        number = int(answer) - self.first
        return marks[number] if 0 <= number < len(marks) else answer

    def _marks(self, row: Mapping[str, object], place: str) -> list[str]:
        if len(self.choices) == 1:
            return [mark for mark, _ in _pairs(_unpacked(row.get(self.choices[0])), self.choices[0], place)]
        return marks_of(self.choices)


def _unpacked(value: object) -> object:
    """A list that a table holds as text, in the way of JSON or of Python."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _pairs(value: object, name: str, place: str) -> list[tuple[str, str]]:
    """(mark, text) of each choice."""
    if isinstance(value, Mapping):
        texts = value.get("text") or value.get("texts")
        if isinstance(texts, list):
            marks = value.get("label") or value.get("labels") or list(LETTERS)
            return [(str(mark), str(text)) for mark, text in zip(marks, texts, strict=False)]
        return [(str(mark), text_of(text, name, place)) for mark, text in value.items()]
    if isinstance(value, list):
        named = all(isinstance(one, Mapping) and "text" in one for one in value)
        if value and named:
            return [
                (str(one.get("label") or one.get("id") or LETTERS[at]), str(one["text"]))
                for at, one in enumerate(value)
            ]
        return [(LETTERS[at % 26], text_of(one, name, place)) for at, one in enumerate(value)]
    return []
