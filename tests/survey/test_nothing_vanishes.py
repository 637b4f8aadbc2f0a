"""Whatever the columns are called and whatever they hold: text reaches the model or the labels, or its column is named."""

from __future__ import annotations

import json

from hypothesis import event, given, settings
from hypothesis import strategies as st

from finestep.errors import BadInput
from finestep.study import DataSpec
from finestep.survey import column_words as w
from finestep.survey.example import Example
from finestep.survey.formats import NAMED_COLUMNS, examples_of

KNOWN = sorted(
    {
        *w.QUESTIONS, *w.CONTEXTS, *w.ANSWERS, *w.SUMMARIES, *w.REASONINGS, *w.SYSTEMS, *w.TURNS, *w.HISTORIES, *w.TOOLS, *w.TEXTS,
        *w.LABELS, *w.CHOICES, *w.SCORES, *w.THREAD_IDS, *(name for pair in w.PAIRS for name in pair),
    }
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(KNOWN), st.sampled_from(KNOWN).map(str.title), st.from_regex(r"[a-z]{3,8}", fullmatch=True)
)
KINDS = st.sampled_from(
    ["text", "text", "text", "class", "number", "texts", "nested", "messages", "pairs", "empty", "json"]
)
BASES = st.sampled_from(
    [
        {},
        {"question": "text", "answer": "text"},
        {"instruction": "text", "output": "text"},
        {"document": "text", "summary": "text"},
        {"text": "text", "label": "class"},
        {"premise": "text", "hypothesis": "text", "label": "class"},
        {"messages": "messages"},
        {"prompt": "messages", "completion": "text"},
    ]
)
"""Most random names together are no known layout, so that layouts are given, with more columns beside them."""
NUM_ROWS = 12


def cell(kind: str, column: int, row: int) -> object:
    """A value of this kind; its text can be told from that of every other column and row."""
    mark = f"mark{column}x{row}y"
    shapes = {
        "text": f"{mark} some words",
        "class": f"mark{column}x{row % 2}y",
        "number": row,
        "texts": [f"{mark} one", f"{mark} two"],
        "nested": {"inner": f"{mark} deep"},
        "messages": [
            {"role": "user", "content": f"{mark} asks"},
            {"role": "assistant", "content": f"{mark} says", "aside": f"{mark} aside"},
        ],
        "pairs": [[f"{mark} asks", f"{mark} says"]],
        "empty": None,
        "json": json.dumps(
            [{"role": "user", "content": f"{mark} asks"}, {"role": "assistant", "content": f"{mark} says"}]
        ),
    }
    return shapes[kind]


def everything_in(example: Example) -> str:
    turns = [part for turn in example.turns for part in (turn.content, turn.reasoning, turn.calls, turn.name)]
    return "\n".join([*turns, example.text, example.pair or "", example.label or "", example.tools])


@settings(max_examples=300, deadline=None)
@given(BASES, st.dictionaries(NAMES, KINDS, min_size=1, max_size=6))
def test_any_text_column_is_used_or_named(base, more):
    columns = {**more, **base}
    rows = [
        (row + 1, {name: cell(kind, place, row) for place, (name, kind) in enumerate(columns.items())})
        for row in range(NUM_ROWS)
    ]
    try:
        read = examples_of(rows, DataSpec(path="rows.jsonl"), place="rows.jsonl")
    except BadInput:
        event("refused")
        return
    event(f"read as {read.format}")
    said = "\n".join(read.notes)
    for example in read.examples:
        held = everything_in(example)
        for place, (name, kind) in enumerate(columns.items()):
            if kind in ("empty", "number"):
                continue
            named = any(path == name or path.startswith(f"{name}.") for path in read.unused)
            assert f"mark{place}x" in held or named, f"column `{name}` vanished: {said}"
            assert not named or len(read.unused) > NAMED_COLUMNS or f"`{name}" in said


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.just("text"), min_size=2, max_size=6))
def test_the_shares_of_used_and_unused_text_are_those_of_the_characters(columns):
    rows = [
        (row + 1, {name: cell("text", place, row) for place, name in enumerate(columns)}) for row in range(NUM_ROWS)
    ]
    try:
        read = examples_of(rows, DataSpec(path="rows.jsonl"), place="rows.jsonl")
    except BadInput:
        return
    total = sum(len(value) for _, row in rows for value in row.values())
    for name, share in read.unused.items():
        assert share == sum(len(row[name]) for _, row in rows) / total
