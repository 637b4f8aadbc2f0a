"""Folders by split, files that are no files, damaged ones; and a split that is fair to labels."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.study import DataSpec
from finestep.survey.rows import data_files, read_rows, sampled_rows
from finestep.survey.split import split_data


def lines(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(first: int, last: int, **more):
    return [{"prompt": f"ask {n}", "completion": f"say {n}", **more} for n in range(first, last)]


def labelled(counts: dict[str, int]):
    return [{"text": f"{label} text {n}", "label": label} for label, count in counts.items() for n in range(count)]


def test_validation_files_of_a_folder_are_the_validation_rows(tmp_path):
    lines(tmp_path / "data" / "train-00000.jsonl", pairs(0, 40))
    lines(tmp_path / "data" / "dev.jsonl", pairs(100, 120))
    lines(tmp_path / "data" / "test.jsonl", pairs(200, 230))
    split = split_data(DataSpec(path=str(tmp_path)))
    assert {row.turns[0].content for row in split.train} == {f"ask {n}" for n in range(40)}
    assert {row.turns[0].content for row in split.evaluation} == {f"ask {n}" for n in range(100, 120)}
    assert "test" not in " ".join(file.name for file in data_files(str(tmp_path)))


def test_a_split_in_the_middle_of_a_word_is_none(tmp_path):
    lines(tmp_path / "latest.jsonl", pairs(0, 20))
    lines(tmp_path / "contest.jsonl", pairs(20, 40))
    split = split_data(DataSpec(path=str(tmp_path)))
    assert len(split.train) + len(split.evaluation) == 40


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    both = {
        "train": datasets.Dataset.from_list(pairs(0, 30)),
        "test": datasets.Dataset.from_list(pairs(50, 60)),
    }
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "saved"))
    split = split_data(DataSpec(path=str(tmp_path / "saved")))
    assert len(split.train) + len(split.evaluation) == 30
    one = tmp_path / "one"
    datasets.Dataset.from_list(pairs(0, 30)).save_to_disk(str(one))
    assert len(list(read_rows(str(one)))) == 30


def test_a_parquet_file_with_a_damaged_page_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(pairs(0, 3000)), path, compression="gzip", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 4 + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    with pytest.raises(BadInput, match=r"damaged.*rows\.parquet"):
        list(read_rows(str(path)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(BadInput, match="ordinary file"):
        split_data(DataSpec(path=str(tmp_path / "pipe.jsonl")))


def test_labels_have_the_same_share_on_both_sides(tmp_path):
    path = lines(tmp_path / "rows.jsonl", labelled({"often": 1500, "seldom": 400, "rare": 100}))
    split = split_data(DataSpec(path=str(path)))
    assert Counter(row.label for row in split.evaluation) == {"often": 150, "seldom": 40, "rare": 10}


@pytest.mark.parametrize(
    ("num_rows", "share", "expected"),
    [(2000, None, 200), (1000, None, 200), (400, None, 100), (9000, None, 512), (1000, 0.3, 300)],
)
def test_how_many_rows_are_held_out(num_rows, share, expected, tmp_path):
    path = lines(tmp_path / "rows.jsonl", pairs(0, num_rows))
    split = split_data(DataSpec(path=str(path), eval_fraction=share))
    assert len(split.evaluation) == expected
    assert len(split.train) == num_rows - expected


def test_no_prompt_stands_on_both_sides(tmp_path):
    rows = [{"prompt": f"ask {n % 300}", "completion": f"say {n}"} for n in range(1200)]
    split = split_data(DataSpec(path=str(lines(tmp_path / "rows.jsonl", rows))))
    asked = [{row.turns[0].content for row in side} for side in (split.train, split.evaluation)]
    assert not asked[0] & asked[1]


def test_validation_labels_are_spelled_as_the_training_labels(tmp_path):
    path = lines(tmp_path / "rows.jsonl", labelled({"Good": 30, "Bad": 30}))
    other = lines(
        tmp_path / "eval.jsonl", [{"text": f"other {n}", "label": ("good ", "BAD")[n % 2]} for n in range(20)]
    )
    split = split_data(DataSpec(path=str(path), eval_path=str(other)))
    assert Counter(row.label for row in split.evaluation) == {"Good": 10, "Bad": 10}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_sample_is_spread_and_parses_no_more_than_it_needs(name, tmp_path):
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("prompt,completion\n" + "".join(f"ask {n},say {n}\n" for n in range(5000)))
    else:
        lines(path, pairs(0, 5000))
        text = path.read_text().splitlines(keepends=True)
        seen = {number for number, _ in sampled_rows(str(path), 50)[1]}
        broken = next(n for n in range(4000, 5000) if n + 1 not in seen and n not in seen)
        path.write_text("".join([*text[:broken], "{broken\n", *text[broken + 1 :]]))
    total, rows = sampled_rows(str(path), 50)
    numbers = [number for number, _ in rows]
    assert total == 5000
    assert len(rows) == 50
    assert numbers == sorted(numbers)
    assert numbers[0] < 1000
    assert numbers[-1] > 4000
    assert rows == sampled_rows(str(path), 50)[1]
