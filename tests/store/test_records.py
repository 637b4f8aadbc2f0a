"""Small files of the store are whole or absent."""

from __future__ import annotations

import pytest

from finestep.errors import EnvironmentFault
from finestep.store.records import write_whole


def test_a_small_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "result.json"
    for text in ("old", "new é"):
        write_whole(path, text)
    assert path.read_text(encoding="utf-8") == "new é"
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_surrogate_pair_does_not_end_a_write(tmp_path):
    path = tmp_path / "result.json"
    write_whole(path, "half a pair \ud83d here")
    assert path.read_text(encoding="utf-8") == "half a pair \\ud83d here"


def test_a_write_that_fails_leaves_the_old_file_and_says_why(tmp_path):
    path = tmp_path / "result.json"
    path.mkdir()
    (path / "inside").write_text("old")
    with pytest.raises(EnvironmentFault, match="a folder is in its place"):
        write_whole(path, "new")
    assert [one.name for one in tmp_path.rglob("*")] == ["result.json", "inside"]
