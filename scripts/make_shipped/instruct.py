"""Generate the shipped instruction data in Alpaca form: a training file and a held-out test file without overlap.

python instruct.py --out DIR    (writes instruct.jsonl and instruct_test.jsonl)
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from skills import SKILLS, Sample

Row = dict[str, str]

WORDINGS: dict[str, list[tuple[str, str]]] = {
    "opposite": [("Give an antonym of the word.", "{x}"), ("Which word means the contrary of this one?", "{x}")],
    "plural": [("Write the plural form of the noun.", "{x}"), ("What do you call several of these?", "{x}")],
    "past": [("Put the verb into the past tense.", "{x}"), ("Conjugate the verb as for last week.", "{x}")],
    "kind": [("Classify the item with one word.", "{x}"), ("Which category does this belong to?", "{x}")],
    "colour": [
        ("Name the usual colour of the thing.", "{x}"),
        ("Which colour does this have?", "{x}"),
        ("What colour is {ax}?", ""),
    ],
    "capital": [
        ("Name the capital of the country.", "{x}"),
        ("Which city governs this country?", "{x}"),
        ("What is the capital of {x}?", ""),
    ],
    "country": [
        ("Name the country of this capital.", "{x}"),
        ("Which nation is governed from here?", "{x}"),
        ("Tell me the nation that is ruled from {x}.", ""),
    ],
    "spell": [("Spell the word with hyphens.", "{x}"), ('Please spell out the word "{x}".', "")],
    "first": [("Copy the first item of the list.", "{x}"), ("Return the opening element.", "{x}")],
    "last": [("Copy the last item of the list.", "{x}"), ("Return the closing element.", "{x}")],
    "reverse": [("Reverse the order of the list.", "{x}"), ("Rewrite this list from right to left.", "{x}")],
    "count": [("How many items does the list have?", "{x}"), ("Count the elements of the list.", "{x}")],
    "sort": [
        ("Sort the numbers from smallest to largest.", "{x}"),
        ("Arrange these values in ascending order.", "{x}"),
    ],
    "largest": [("Which number is the largest?", "{x}"), ("Return the maximum of these values.", "{x}")],
}
"""Instruction and input templates of each skill."""

FROM_MEMORY = ("opposite", "plural", "past", "kind", "colour", "capital", "country", "spell")
"""Skills with so few questions that the two files get separate questions by a split of their list."""

TEST_SHARE = 0.15


def row_of(skill: str, sample: Sample, rng: random.Random) -> Row:
    """One Alpaca row with a wording drawn at random."""
    instruction, given = rng.choice(WORDINGS[skill])
    return {"instruction": instruction.format(**sample), "input": given.format(**sample), "output": sample["a"]}


def test_keys(skill: str, rng: random.Random) -> set[str]:
    """The questions of a memory skill that only the test file may ask."""
    keys = sorted({SKILLS[skill](rng)["key"] for _ in range(5000)})
    rng.shuffle(keys)
    return set(keys[: max(5, int(TEST_SHARE * len(keys)))])


def rows_of_skill(skill: str, train: int, test: int, rng: random.Random) -> tuple[list[Row], list[Row]]:
    """Rows of one skill for the two files; no question is in both, and no row is repeated."""
    split = test_keys(skill, rng) if skill in FROM_MEMORY else None
    parts: dict[bool, dict[str, Row]] = {False: {}, True: {}}
    owner: dict[str, bool] = {}
    for _ in range(20_000):
        sample = SKILLS[skill](rng)
        default = len(parts[True]) < test if split is None else sample["key"] in split
        to_test = owner.setdefault(sample["key"], default)
        row = row_of(skill, sample, rng)
        if len(parts[to_test]) < (test if to_test else train):
            parts[to_test].setdefault(json.dumps(row), row)
    return list(parts[False].values()), list(parts[True].values())


def make_rows(train: int, test: int, seed: int) -> tuple[list[Row], list[Row]]:
    """About that many rows for the two files, the skills in equal shares as far as their lists reach."""
    rng = random.Random(seed)
    train_rows: list[Row] = []
    test_rows: list[Row] = []
    left = sorted(WORDINGS, key=lambda name: name not in ("colour", "capital", "country"))
    for i, skill in enumerate(left):
        share = round((train - len(train_rows)) / (len(left) - i))
        share_test = round((test - len(test_rows)) / (len(left) - i))
        new_train, new_test = rows_of_skill(skill, share, share_test, rng)
        train_rows += new_train
        test_rows += new_test
    rng.shuffle(train_rows)
    rng.shuffle(test_rows)
    return train_rows, test_rows


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Make both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    train_rows, test_rows = make_rows(args.train, args.test, args.seed)
    write_rows(args.out / "instruct.jsonl", train_rows)
    write_rows(args.out / "instruct_test.jsonl", test_rows)
    print(f"{len(train_rows)} rows and {len(test_rows)} test rows")


if __name__ == "__main__":
    main()
