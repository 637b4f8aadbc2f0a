"""One writer of YAML for recipes and exports: what PyYAML (YAML 1.1) and ruamel (1.2) read back is what was meant."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from finestep.yaml_text import Noted, float_text, yaml_text

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
NAMES = st.from_regex(r"[a-z_]{3,12}", fullmatch=True).filter(lambda name: name not in ("yes", "true", "null"))


def readers(text: str) -> list[object]:
    return [yaml.safe_load(text), YAML(typ="safe", pure=True).load(text)]


def test_rates_are_written_with_a_point():
    assert [float_text(x) for x in (1e-5, 2.8e-4, 5.5e-6, 0.05, 1.0, 1e-8)] == [
        "1.0e-05",
        "2.8e-04",
        "5.5e-06",
        "0.05",
        "1.0",
        "1.0e-08",
    ]


@given(st.floats(allow_nan=False))
def test_a_float_stays_the_same_float(value):
    for read in readers(yaml_text({"x": value})):
        assert isinstance(read["x"], float)
        assert read["x"] == value


def test_what_is_not_a_number_stays_that():
    assert all(math.isnan(read["x"]) for read in readers(yaml_text({"x": math.nan})))


@given(
    st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES, max_size=3), st.dictionaries(NAMES, VALUES, min_size=1)))
)
def test_every_reader_sees_what_was_meant(tree):
    for read in readers(yaml_text(tree, header=["a: b", "# c"])):
        assert (read or {}) == tree


ODD = ["yes", "no", "On", "null", "~", "a: b", "#x", "a #b", "1e5", "1_000", "0x1f", "010", "12:30", "2001-01-01", "- x",
       "", " padded", "=", "<<", "引号", 'quo"te', "tab\t", "two\nlines", ".inf", "\u2028", "\x7f", "C:\\x", "*a", "&a", "!t"]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_survive(text):
    for read in readers(yaml_text({"x": text, "y": [text]})):
        assert read == {"x": text, "y": [text]}


def test_comments_stand_behind_their_value():
    text = yaml_text({"a": Noted(1, "why"), "b": Noted({"c": Noted([1.0, 2], "both")}, "group")}, header=["top", ""])
    assert text == "# top\n#\na: 1 # why\nb: # group\n  c: [1.0, 2] # both\n"
