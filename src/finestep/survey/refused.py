"""Data that finestep does not train on, told from their columns: preferences, rewards, threads, pictures, tokens; each with its remedy.

Only the detection asks here. Who names columns or a format has said what the rows are for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from finestep.errors import BadInput
from finestep.survey import column_words as w
from finestep.survey.cells import is_missing
from finestep.survey.conversation import ROLE_KEYS, ROLES, has_images

Row = Mapping[str, object]
Names = Mapping[str, str]
"""Plain name -> column."""
ANSWER_COPIES = re.compile(
    r"^(response|answer|completion|output|reply|model|assistant)_?(a|b|0|1|2|j|k)$|^(human_ref|ref|summary)_?(a|b|0|1)$"
)
WANTED_NAMES = (
    "label",
    "labels",
    "desired",
    "desirable",
    "kto_tag",
    "thumbs_up",
    "is_good",
    "good",
    "accepted",
    "upvoted",
)
IMAGE_MARKS = ("<image>", "<|image|>", "<video>", "<audio>", "<|image_pad|>", "<image_1>")
MOST_SPEAKERS = 12
MOST_MARKS = 2
"""More columns of nothing but 0 and 1 than this are labels of their own."""


def refuse_preferences(names: Names, place: str) -> None:
    """Rows that hold a better and a worse answer."""
    found = [names[one] for one in names if ANSWER_COPIES.match(one)]
    if any(re.match(r"^answer_?(c|2)$", one) for one in names):
        found = []  # choices of a question, not two answers to compare
    pair = next((pair for pair in w.PREFERENCES if set(pair) <= names.keys()), None)
    asks = any(name in names for name in (*w.QUESTIONS, "context", "conversations", "messages", "history", "post"))
    if pair is None and (len(found) < 2 or not asks):
        return
    if pair is not None and pair not in (("chosen", "rejected"), ("accepted", "rejected")) and not asks:
        return
    better = names[pair[0]] if pair else found[0]
    asked = next((names[name] for name in w.QUESTIONS if name in names), None)
    columns = f"prompt={asked},completion={better}" if asked else f"text={better}"
    what = ", ".join(names[one] for one in pair) if pair else ", ".join(found)
    raise BadInput(
        f"this is preference data ({what}), which finestep does not train on",
        place=place,
        next_step=f"use a column of answers: --columns {columns} (or messages={better})",
    )


def refuse_tokens(names: Names, place: str) -> None:
    """Rows of token ids."""
    if "input_ids" in names:
        raise BadInput(
            "this is tokenised data; finestep reads text",
            value=list(names.values()),
            place=place,
            next_step="name the file that it was made from",
        )


def refuse_token_labels(names: Names, sample: Sequence[Row], place: str) -> None:
    """Rows with a label for each token."""
    column = next((names[name] for name in names if name.endswith("_tags") and _holds(sample, names[name])), None)
    if column is not None and any(isinstance(row.get(column), list) for row in sample) and "tokens" in names:
        raise BadInput(
            f"labels of single tokens (`{column}`) cannot be trained here; a row has one label",
            place=place,
            next_step="write them as an answer: --prompt '{tokens}' --completion '{" + column + "}'",
        )


def refuse_images(names: Names, sample: Sequence[Row], place: str) -> None:
    """Rows with pictures or sound beside their text, or with marks where they stood."""
    marked = sum(any(mark in json.dumps(row, default=str) for mark in IMAGE_MARKS) for row in sample)
    if sample and marked > len(sample) / 2:
        raise BadInput(
            "finestep trains on text; the rows have marks for pictures or sound (`<image>` or the like)",
            place=place,
            next_step="take the marks out to train on the text alone",
        )
    column = next((names[name] for name in w.IMAGES if name in names and _holds(sample, names[name])), None)
    if column is None:
        column = next((name for name in names.values() if any(has_images(row.get(name)) for row in sample[:50])), None)
    if column is not None:
        raise BadInput(
            f"finestep trains on text; these rows hold pictures or sound (`{column}`)",
            place=place,
            next_step="to train on the text alone, name its columns: --columns prompt=...,completion=...",
        )


def refuse_labels_by_columns(names: Names, sample: Sequence[Row], place: str, *, label: str) -> None:
    """Rows with a mark in each of several columns, e.g. `toxic`, `insult` and `threat`: more than one may be true."""
    marks = [column for column in names.values() if _all(sample, column, _is_mark)]
    if label in marks and len(marks) > MOST_MARKS:
        raise BadInput(
            "a row must have one label; columns of 0 and 1 give several labels a row (multi-label), which cannot be trained here",
            value=marks,
            place=place,
            next_step=f"to learn one of them: --columns text=...,label={label}",
        )


def refuse_threads(names: Names, sample: Sequence[Row], place: str) -> None:
    """Rows that are one message each of a longer conversation."""
    speaker = next((names[key] for key in ROLE_KEYS if key in names), None)
    if speaker is None:
        return
    said = {str(row[speaker]).strip().lower() for row in sample if isinstance(row.get(speaker), str)}
    tied = [names[name] for name in (*w.THREAD_PARENTS, *w.THREAD_IDS) if name in names]
    if not said or len(said) > MOST_SPEAKERS or not (tied or said <= ROLES.keys()):
        return
    by = f"by `{tied[0]}`" if tied else "in their order"
    raise BadInput(
        f"every row is one message of a conversation (`{speaker}` says whose)",
        place=place,
        next_step=f"put the messages of each conversation together {by}: one row with a list `messages` of role and content",
    )


def refuse_wishes(names: Names, sample: Sequence[Row], place: str, *, answer: str) -> None:
    """Answers marked as wanted or not (KTO), or with a reward: training on all of them would teach the bad ones."""
    marked = next((names[name] for name in WANTED_NAMES if name in names and _all(sample, names[name], _is_bool)), None)
    if marked is not None:
        raise BadInput(
            f"rows are marked as wanted or not (`{marked}`, as for KTO); all would be trained, the unwanted too",
            place=place,
            next_step=f"keep the rows where `{marked}` is true, without that column",
        )
    scored = next((names[name] for name in w.REWARDS if name in names and _all(sample, names[name], _is_number)), None)
    if scored is not None and scored != answer:
        raise BadInput(
            f"rows carry a score of their answer (`{scored}`); all would be trained alike, the bad ones too",
            place=place,
            next_step=f"keep the rows with a good `{scored}`, then say so: --columns prompt=...,completion={answer}; "
            f"to learn the score itself: --columns text=...,label={scored}",
        )


def refuse_rewarded_turns(names: Names, sample: Sequence[Row], place: str, *, turns: str) -> None:
    """Conversations with a reward."""
    for name in ("reward", "rewards", "advantage"):
        if name in names and _holds(sample, names[name]):
            raise BadInput(
                f"conversations carry a reward (`{names[name]}`); all would be trained alike, the bad ones too",
                place=place,
                next_step=f"keep the good rows, then say so: --columns messages={turns}",
            )


def _holds(sample: Sequence[Row], column: str) -> bool:
    return any(row.get(column) not in (None, "", [], {}) for row in sample)


def _all(sample: Sequence[Row], column: str, law: Callable[[object], bool]) -> bool:
    values = [row[column] for row in sample if not is_missing(row.get(column)) and row[column] != ""]
    return bool(values) and all(law(value) for value in values)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_mark(value: object) -> bool:
    return str(value).strip().lower() in ("0", "1", "0.0", "1.0", "true", "false")


def _is_number(value: object) -> bool:
    if isinstance(value, list) and value:
        return all(_is_number(one) for one in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True
