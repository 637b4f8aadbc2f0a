"""The highest of some lines: its corners, its parts, the largest batch, and the words for levers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.probe import Lever, MemoryCurve, MemoryLine
from finestep.rules.memory_lines import (
    largest_rows,
    lever_words,
    line_bytes,
    peak_bytes,
    peak_parts,
    upper_lines,
)

PARTS = st.floats(0, 1e12)
LINES = st.lists(
    st.builds(
        lambda fixed, per_row: MemoryLine(phase="x", fixed={"weights": fixed}, per_row={"activations": per_row}),
        PARTS,
        PARTS,
    ),
    min_size=1,
    max_size=12,
)


def curve(*lines: tuple[float, float], checkpointing: bool = False, chunk: int | None = None) -> MemoryCurve:
    made = [MemoryLine(phase="p", fixed={"weights": a}, per_row={"activations": b}) for a, b in lines]
    return MemoryCurve(lever=Lever(checkpointing=checkpointing, chunk_tokens=chunk), length=8, lines=tuple(made))


@given(LINES, st.integers(1, 10**6))
def test_lines_that_are_never_highest_are_not_missed(lines, rows):
    kept = upper_lines(lines)
    highest = max(line_bytes(line, rows) for line in lines)
    assert max(line_bytes(line, rows) for line in kept) == pytest.approx(highest, rel=1e-6)


@given(LINES, st.floats(0, 1e13))
def test_the_largest_batch_fits_and_one_more_does_not(lines, budget):
    made = MemoryCurve(lever=Lever(), length=8, lines=tuple(lines))
    rows = largest_rows(made, budget)
    if rows:
        assert peak_bytes(made, rows) <= budget * (1 + 1e-6) + 1
    if any(line.per_row["activations"] > 1 for line in lines):
        assert peak_bytes(made, rows + 1) > budget * (1 - 1e-6) - 1


def test_parts_are_those_of_the_worst_moment():
    made = curve((100, 1), (10, 10))
    assert peak_parts(made, 1)["weights"] == 100
    assert peak_parts(made, 20) == pytest.approx(
        {"weights": 10, "activations": 200, "gradients": 0, "optimizer": 0, "logits": 0, "temporaries": 0}
    )


def test_what_levers_buy_is_said_in_sequences():
    curves = (
        curve((10, 10)),
        curve((10, 9), chunk=64),
        curve((10, 1.5), checkpointing=True),
        curve((10, 1), checkpointing=True, chunk=64),
    )
    text = lever_words(curves, 110, now=Lever())
    assert text == (
        "checkpointing: 10 -> 66 rows; chunked loss: 10 -> 11 rows; checkpointing and chunked loss: 10 -> 100 rows"
    )
    assert lever_words(curves[:1], 110, now=Lever()) is None
