"""Small files of the store are whole or absent."""

from __future__ import annotations

import pytest

from finestep.store.records import write_whole


def test_a_small_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "result.json"
    for text in ("old", "new é"):
        write_whole(path, text)
    assert path.read_text(encoding="utf-8") == "new é"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half a pair \ud83d here")
    assert path.read_text(encoding="utf-8") == "old"
