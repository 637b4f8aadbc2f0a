"""A row in its normal form, and a compact store of many: the text of a million rows in about the size of their file."""

from __future__ import annotations

import hashlib
import marshal
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; `trained` turns carry loss."""

    role: str
    content: str
    trained: bool = False
    reasoning: str = ""
    calls: str = ""
    """Tool calls as a JSON list, as the row has them."""
    name: str = ""
    """Of a tool message: the tool that answers."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row: `turns`, or `text`, or `text` (with `pair`, a second text) and `label`."""

    row: int
    turns: tuple[Turn, ...] = ()
    text: str = ""
    label: str | None = None
    pair: str | None = None
    tools: str = ""
    """Tools that the model may call, as a JSON list."""

    @property
    def key(self) -> str:
        """Hash of what is asked (the prompt, or the text): equal keys never stand on both sides of a split."""
        asked = [turn.content for turn in self.turns if not turn.trained] or [self.text]
        return _digest([*asked, *([self.pair] if self.pair else [])])

    @property
    def whole(self) -> str:
        """Hash of the whole row, for counting duplicates."""
        said = [part for turn in self.turns for part in (turn.content, turn.reasoning, turn.calls) if part]
        return _digest([*said, self.text, self.label or "", *([self.pair] if self.pair else [])])

    @property
    def has_content(self) -> bool:
        """There is something to learn: a text, or an answer."""
        if self.turns:
            return any(
                turn.trained and (turn.content.strip() or turn.reasoning.strip() or turn.calls) for turn in self.turns
            )
        return bool(self.text.strip() or (self.pair or "").strip())


Kept = int | str | bool | None | tuple["Kept", ...]
"""What is kept of an example: plain values, which `marshal` writes in little room."""
NOTHING: tuple[Kept, ...] = (0, (), "", None, None, "")
"""The fields of an example that holds nothing."""


class ExampleStore(Sequence[Example]):
    """Examples packed into one buffer; each is unpacked when it is asked for.

    A list of objects would take ten times the space of its text.
    """

    def __init__(self) -> None:
        self._packed, self._ends = bytearray(), array("q", [0])
        self.classes: Mapping[str, str] = {}
        """What a written label stands for, where it is not itself."""

    def append(self, example: Example) -> None:
        """Add one."""
        turns = tuple(
            _short((turn.role, turn.content, turn.trained, turn.reasoning, turn.calls, turn.name))
            for turn in example.turns
        )
        fields = (example.row, turns, example.text, example.label, example.pair, example.tools)
        self._packed += marshal.dumps(_short(fields))
        self._ends.append(len(self._packed))

    def extend(self, examples: Iterable[Example]) -> None:
        """Add several."""
        for example in examples:
            self.append(example)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        view = memoryview(self._packed)[self._ends[place] : self._ends[place + 1]]
        fields = marshal.loads(view)
        row, turns, text, label, pair, tools = fields + NOTHING[len(fields) :]
        named = self.classes.get(label, label) if label is not None else None
        return Example(row, tuple(Turn(*turn) for turn in turns), text, named, pair, tools)


class Chosen(Sequence[Example]):
    """Some of the examples of a store, in a given order; it holds their places only."""

    def __init__(self, store: Sequence[Example], places: Sequence[int]) -> None:
        self._store, self._places = store, places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Example]:
        return (self._store[place] for place in self._places)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self._store[one] for one in self._places[place]]
        return self._store[self._places[place]]


def _short(fields: tuple[Kept, ...]) -> tuple[Kept, ...]:
    """The fields without the empty ones at their end, which have a default."""
    end = len(fields)
    while end > 2 and not fields[end - 1]:
        end -= 1
    return fields[:end]


def _digest(parts: Iterable[str]) -> str:
    joined = "\x1f".join(" ".join(part.split()) for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()
