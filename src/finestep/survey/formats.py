"""From rows to examples: every row is read by the layout of its data set, and what no example holds is counted and named.

It knows no tokenizer: turning examples into tokens is the trainer's work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from finestep.errors import BadInput
from finestep.study import DataFormat, DataSpec
from finestep.survey import column_words as w
from finestep.survey.cells import num_characters, text_of
from finestep.survey.conversation import RowLeftOut, Tally, looks_like_turns, parsed, tools_of, turns_of
from finestep.survey.example import Example, ExampleStore, Turn
from finestep.survey.labels import written_label
from finestep.survey.layout import choose_layout
from finestep.survey.rows import Row, read_rows, sampled_rows, source_notes
from finestep.survey.writing import Layout

SAMPLE_ROWS = 200
MUCH_UNUSED = 0.1
"""From this share of the characters on, a column that is not used deserves advice."""
NAMED_COLUMNS = 12


@dataclass(frozen=True)
class Examples:
    """All examples of a data set, how they were read, and the characters of text in columns that are not used."""

    format: DataFormat
    examples: Sequence[Example]
    layout: Layout
    notes: list[str] = field(default_factory=list)
    unused: dict[str, float] = field(default_factory=dict)
    """Share of all characters, by column."""
    num_rows: int = 0
    """Rows of the files, also those that were not taken."""


def read_examples(spec: DataSpec, *, path: str | None = None, validation: bool = False) -> Examples:
    """Read and normalise the rows of `spec.path` (or of `path`), or at most `spec.max_rows` of them by chance.

    Args:
        validation: the validation files of a folder instead.

    Raises:
        BadInput: the layout cannot be told, a row does not fit it, or no row can be used.
    """
    place = path or spec.path
    if spec.max_rows is not None and not validation and path is None:
        total, rows = sampled_rows(place, spec.max_rows, seed=spec.split_seed)
        return examples_of(rows, spec, place=place, num_rows=total, notes=source_notes(place))
    rows_of_place = read_rows(place, validation=validation)
    return examples_of(rows_of_place, spec, place=place, notes=() if validation else source_notes(place))


def examples_of(
    rows: Iterable[tuple[int, Row]],
    spec: DataSpec,
    *,
    place: str,
    num_rows: int | None = None,
    notes: Sequence[str] = (),
) -> Examples:
    """The examples of rows that are at hand; the first of them say what the layout is.

    Args:
        num_rows: rows of the files, where not all are at hand.
        notes: what is to be said of the files.
    """
    rows = iter(rows)
    first = list(islice(rows, SAMPLE_ROWS))
    if not first:
        raise BadInput("the data holds no rows", value=place)
    layout = choose_layout([row for _, row in first], spec, place=place)
    reader = _Reader(layout, place)
    store = ExampleStore()
    store.extend(reader.examples(chain(first, rows)))
    said = [*notes, *layout.notes, *reader.notes()]
    if not len(store):
        raise reader.first_refusal or BadInput("no row has an answer or text", value=place)
    unused = reader.unused_shares()
    said += unused_notes(unused, layout)
    return Examples(layout.format, store, layout, said, unused, num_rows or reader.num_rows)


def unused_notes(unused: Mapping[str, float], layout: Layout) -> list[str]:
    """What to say about text that the model never sees; with advice where it is much."""
    if not unused:
        return []
    named = list(unused.items())[:NAMED_COLUMNS]
    shown = ", ".join(f"`{name}` {_percent(share)}" for name, share in named)
    more = f" and {len(unused) - NAMED_COLUMNS} more" if len(unused) > NAMED_COLUMNS else ""
    note = f"not used: {shown}{more} of the characters"
    much = next((name for name, share in unused.items() if share >= MUCH_UNUSED and "." not in name), None)
    if much is not None and w.names_what_is_wrong(much):
        return [note]
    if much is not None and "completion" in layout.writers and w.names_an_answer(much):
        note += f"; if `{much}` is the answer to train: --completion '{{{much}}}'"
    elif much is not None and "prompt" in layout.writers:
        note += f"; if `{much}` belongs to the prompt: --prompt '{{{much}}}\\n\\n{layout.writers['prompt'].pattern()}'"
    elif much is not None and layout.format == "text":
        note += f"; if it belongs to a prompt or answer: --prompt '{{...}}' --completion '{{{much}}}'"
    elif much is not None and layout.format == "labels":
        texts = "\\n".join(f"{{{name}}}" for name in (*layout.writers["text"].columns, much))
        note += f"; if it belongs to the text: --prompt '{texts}'"
    return [note]


class _Reader:
    """Turns rows into examples one by one, and keeps count of what it leaves out."""

    def __init__(self, layout: Layout, place: str) -> None:
        self.layout, self.place = layout, place
        self.num_rows = 0
        self.first_refusal: BadInput | None = None
        self._used = layout.used
        self._tally = Tally()
        self._characters = 0
        self._left_out: Counter[str] = Counter()
        self._first_left_out: dict[str, int] = {}
        self._repaired = 0

    def examples(self, rows: Iterable[tuple[int, Row]]) -> Iterator[Example]:
        """The examples of all rows that hold something."""
        for number, row in rows:
            self.num_rows += 1
            self._count(row)
            place = f"{self.place}, row {number}"
            try:
                example = example_of(number, row, self.layout, place, tally=self._tally)
            except RowLeftOut as error:
                self._leave_out(error.why, number)
                self.first_refusal = self.first_refusal or error
                continue
            if not example.has_content:
                self._leave_out("no answer or text", number)
            else:
                yield example

    def notes(self) -> list[str]:
        """What was left out, and why."""
        notes = []
        for why, count in self._left_out.items():
            rows = "row was" if count == 1 else "rows were"
            notes.append(f"{count:,} {rows} left out: {why} (first: row {self._first_left_out[why]})")
        for said, count in self._tally.odd_roles.most_common():
            notes.append(f"{count:,} messages from {said}")
        if self._repaired:
            notes.append(f"{self._repaired:,} rows hold half of a UTF-16 pair, read as \ufffd")
        return notes

    def unused_shares(self) -> dict[str, float]:
        """Share of all characters in each column that no example holds, largest first."""
        total = max(self._characters, 1)
        return {name: count / total for name, count in self._tally.unused.most_common() if count}

    def _leave_out(self, why: str, number: int) -> None:
        self._left_out[why] += 1
        self._first_left_out.setdefault(why, number)

    def _count(self, row: Row) -> None:
        for name, value in row.items():
            count = len(value) if isinstance(value, str) else num_characters(value)
            self._characters += count
            if name not in self._used:
                self._tally.unused[name] += count
            if count and isinstance(value, str) and not value.isascii() and _has_lone_surrogate(value):
                self._repaired += 1


def example_of(
    number: int, row: Mapping[str, object], layout: Layout, place: str, *, tally: Tally | None = None
) -> Example:
    """One row as an example.

    Args:
        tally: gets what is not taken as it stands.

    Raises:
        RowLeftOut: the row lacks a label, or somebody unknown speaks in it.
        BadInput: the row does not fit the layout.
    """
    tally = tally or Tally()
    if layout.format == "text":
        return Example(number, text=layout.writers["text"].write(row, place))
    if layout.format == "labels":
        return _labelled(number, row, layout, place)
    system = layout.writers["system"].write(row, place) if "system" in layout.writers else ""
    turns = [Turn("system", system)] if system else []
    if "turns" in layout.columns:
        turns += _conversation(row, layout, place, tally, has_system=bool(turns))
    else:
        turns += _answered(row, layout, place, tally)
    tools = tools_of(row.get(layout.columns["tools"]), place) if "tools" in layout.columns else ""
    return Example(number, turns=tuple(turns), tools=tools)


def _conversation(
    row: Mapping[str, object], layout: Layout, place: str, tally: Tally, *, has_system: bool
) -> list[Turn]:
    column = layout.columns["turns"]
    if column not in row:
        raise BadInput(f"the row has no `{column}`", value=list(row), place=place)
    turns = [*_history(row, layout, place, tally), *turns_of(row[column], place, tally=tally, column=column)]
    if has_system and turns and turns[0].role == "system" and "system" in layout.writers:
        first, turns = turns[0], turns[1:]
        if (
            first.content.strip()
            != str(row.get(layout.writers["system"].columns[0] if layout.writers["system"].columns else "")).strip()
        ):
            tally.unused[f"{column}.system message beside the system text"] += len(first.content)
    answer = layout.columns.get("answer_turns")
    if answer is None:
        _count_what_follows(turns, tally, column)
        return turns
    value = parsed(row.get(answer))
    if looks_like_turns(value):
        return turns + turns_of(value, place, tally=tally, column=answer)
    return [*turns, Turn("assistant", text_of(value, answer, place), trained=True)]


def _count_what_follows(turns: Sequence[Turn], tally: Tally, column: str) -> None:
    """Turns after the last trained answer teach nothing, and no row holds them."""
    last = max((place for place, turn in enumerate(turns) if turn.trained), default=None)
    if last is not None:
        tally.unused[f"{column}.turns after the last answer"] += sum(len(turn.content) for turn in turns[last + 1 :])


def _answered(row: Mapping[str, object], layout: Layout, place: str, tally: Tally) -> list[Turn]:
    turns = _history(row, layout, place, tally)
    writers = layout.writers
    reasoning = writers["reasoning"].write(row, place) if "reasoning" in writers else ""
    turns.append(Turn("user", writers["prompt"].write(row, place)))
    turns.append(Turn("assistant", writers["completion"].write(row, place), trained=True, reasoning=reasoning))
    return turns


def _history(row: Mapping[str, object], layout: Layout, place: str, tally: Tally) -> list[Turn]:
    """Earlier turns from a column of their own."""
    column = layout.columns.get("history")
    history = parsed(row.get(column)) if column else None
    if not history:
        return []
    if not isinstance(history, list):
        raise BadInput("`history` must be a list of [question, answer], or of messages", value=history, place=place)
    return turns_of(history, place, tally=tally, column=str(column))


def _labelled(number: int, row: Mapping[str, object], layout: Layout, place: str) -> Example:
    label = written_label(row.get(layout.columns["label"]), place)
    if label is None:
        raise RowLeftOut("no label", "every row needs a label", place=place)
    text = layout.writers["text"].write(row, place)
    pair = layout.writers["pair"].write(row, place) if "pair" in layout.writers else None
    return Example(number, text=text, label=label, pair=pair)


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _percent(share: float) -> str:
    return "under 1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")
