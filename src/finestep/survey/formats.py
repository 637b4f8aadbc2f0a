"""What rows mean: conversations, plain text, or text with a label; detected from the columns, or as the user says.

It knows no tokenizer: turning examples into tokens is the trainer's work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finestep.errors import BadInput, did_you_mean
from finestep.study import DataFormat, DataSpec
from finestep.survey.rows import Row, read_rows

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
    "function": "tool",
    "function_response": "tool",
    "developer": "system",
}
PROMPT_NAMES = ("prompt", "question", "query", "instruction", "input")
COMPLETION_NAMES = ("completion", "answer", "response", "output", "target", "summary")
TEXT_NAMES = ("text", "sentence", "content", "utterance", "review", "document")
LABEL_NAMES = ("label", "labels", "category", "class", "intent", "target", "sentiment")
FIELDS: dict[DataFormat, tuple[str, ...]] = {
    "alpaca": ("instruction", "output"),
    "sharegpt": ("conversations",),
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
    "labels": ("text", "label"),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; `trained` turns carry loss."""

    role: str
    content: str
    trained: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One row in its normal form: `turns`, or `text`, or `text` with `label`."""

    row: int
    turns: tuple[Turn, ...] = ()
    text: str = ""
    label: str | None = None

    @property
    def key(self) -> str:
        """Hash of what is asked (the prompt, or the text): equal keys never stand on both sides of a split."""
        asked = [turn.content for turn in self.turns if not turn.trained] or [self.text]
        return _digest(asked)

    @property
    def whole(self) -> str:
        """Hash of the whole row, for counting duplicates."""
        return _digest([turn.content for turn in self.turns] + [self.text, self.label or ""])


@dataclass(frozen=True)
class Examples:
    """All examples of a data set and how they were read."""

    format: DataFormat
    examples: list[Example]
    notes: list[str] = field(default_factory=list)


def read_examples(spec: DataSpec, *, path: str | None = None) -> Examples:
    """Read and normalise all rows of `spec.path` (or of `path`).

    Raises:
        BadInput: the format cannot be told, or a row does not fit it.
    """
    place = path or spec.path
    rows = list(read_rows(place))
    if not rows:
        raise BadInput("the data holds no rows", value=place)
    renamed, chosen, notes = choose_format([row for _, row in rows[:200]], spec, place=place)
    convert = _CONVERTERS[chosen]
    examples = [
        convert(number, _rename(row, renamed, f"{place}, row {number}"), f"{place}, row {number}")
        for number, row in rows
    ]
    empty = [example.row for example in examples if not _has_content(example)]
    if empty:
        examples = [example for example in examples if _has_content(example)]
        notes.append(f"{len(empty)} rows without an answer or text were left out (first: row {empty[0]})")
    if not examples:
        raise BadInput("no row has an answer or text", value=place)
    return Examples(chosen, examples, notes)


def choose_format(sample: list[Row], spec: DataSpec, *, place: str) -> tuple[dict[str, str], DataFormat, list[str]]:
    """(our name -> column, format, notes) from the columns of the first rows and what the user said."""
    columns = list(dict.fromkeys(name for row in sample for name in row))
    if spec.columns:
        chosen = spec.format or _format_of(set(spec.columns))
        _check_columns(spec.columns, columns, place)
        return dict(spec.columns), chosen, []
    if spec.format:
        missing = [name for name in FIELDS[spec.format] if name not in columns]
        if not missing:
            return {}, spec.format, []
    found = _detect(columns, sample, place)
    if found is None or (spec.format and spec.format != found[1]):
        asked = f"format `{spec.format}`" if spec.format else "a known format"
        raise BadInput(
            f"the columns do not fit {asked}",
            value=columns,
            place=place,
            next_step="say which is which, e.g. --columns prompt=question,completion=answer or text=body,label=class",
        )
    renamed, chosen = found
    notes = [f"column `{column}` is read as {name}" for name, column in renamed.items() if name != column]
    return renamed, chosen, notes


def _detect(columns: list[str], sample: list[Row], place: str) -> tuple[dict[str, str], DataFormat] | None:
    names = set(columns)
    if {"chosen", "rejected"} <= names:
        raise BadInput(
            "this is preference data (chosen, rejected), which finestep does not train on",
            place=place,
            next_step="use a column of answers: --columns prompt=prompt,completion=chosen",
        )
    if "input_ids" in names:
        raise BadInput("this is tokenised data; finestep reads text", value=columns, place=place)
    for name, _chosen in (("messages", "messages"), ("conversations", "sharegpt"), ("conversation", "sharegpt")):
        turns = next((row[name] for row in sample if row.get(name)), None) if name in names else None
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            speaks = "messages" if "role" in turns[0] else "sharegpt"
            return {("messages" if speaks == "messages" else "conversations"): name}, speaks  # type: ignore[return-value]
    if {"instruction", "output"} <= names:
        return {}, "alpaca"
    text, label = _first(TEXT_NAMES, columns), _first(LABEL_NAMES, columns)
    if text and label:
        return {"text": text, "label": label}, "labels"
    prompt = _first(PROMPT_NAMES, columns)
    completion = _first(COMPLETION_NAMES, [name for name in columns if name != prompt])
    if prompt and completion:
        return {"prompt": prompt, "completion": completion}, "prompt_completion"
    return ({"text": text}, "text") if text else None


def _first(names: Iterable[str], columns: list[str]) -> str | None:
    lower = {column.lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def _format_of(names: set[str]) -> DataFormat:
    for chosen in ("labels", "prompt_completion", "alpaca", "messages", "sharegpt", "text"):
        if set(FIELDS[chosen]) <= names:  # type: ignore[index]
            return chosen  # type: ignore[return-value]
    raise BadInput(
        "`--columns` does not name the fields of a known format",
        value=sorted(names),
        next_step="e.g. prompt=...,completion=... or text=...,label=...",
    )


def _check_columns(mapping: Mapping[str, str], columns: list[str], place: str) -> None:
    for column in mapping.values():
        if column not in columns:
            raise BadInput(
                f"no column `{column}`{did_you_mean(column, columns)}",
                place=place,
                next_step="columns here: " + ", ".join(columns),
            )


def _rename(row: Row, renamed: Mapping[str, str], place: str) -> Row:
    if not renamed:
        return row
    out = dict(row)
    for name, column in renamed.items():
        if column not in row:
            raise BadInput(f"the row has no `{column}`", value=list(row), place=place)
        out[name] = row[column]
    return out


def _text_of(row: Row, name: str, place: str, *, required: bool = True) -> str:
    value = row.get(name)
    if value is None:
        if required and name not in row:
            raise BadInput(f"the row has no `{name}`", value=list(row), place=place)
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) and "text" in part for part in value):
        return "".join(str(part["text"]) for part in value)
    if isinstance(value, dict | list):
        raise BadInput(f"`{name}` must be text", value=type(value).__name__, place=place)
    return str(value)


def _alpaca(number: int, row: Row, place: str) -> Example:
    turns = []
    if row.get("system"):
        turns.append(Turn("system", _text_of(row, "system", place)))
    for pair in row.get("history") or []:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise BadInput("`history` must be a list of [question, answer]", value=pair, place=place)
        turns += [Turn("user", str(pair[0])), Turn("assistant", str(pair[1]), trained=True)]
    asked, extra = _text_of(row, "instruction", place), _text_of(row, "input", place, required=False)
    turns.append(Turn("user", f"{asked}\n\n{extra}" if extra else asked))
    turns.append(Turn("assistant", _text_of(row, "output", place), trained=True))
    return Example(number, turns=tuple(turns))


def _prompt_completion(number: int, row: Row, place: str) -> Example:
    if isinstance(row.get("prompt"), list):
        both = list(row["prompt"]) + list(row["completion"] if isinstance(row["completion"], list) else [])
        return _conversation(number, both, place, names=("role", "content"), system=None)
    prompt, completion = _text_of(row, "prompt", place), _text_of(row, "completion", place)
    return Example(number, turns=(Turn("user", prompt), Turn("assistant", completion, trained=True)))


def _messages(number: int, row: Row, place: str) -> Example:
    return _conversation(number, row.get("messages"), place, names=("role", "content"), system=row.get("system"))


def _sharegpt(number: int, row: Row, place: str) -> Example:
    return _conversation(number, row.get("conversations"), place, names=("from", "value"), system=row.get("system"))


def _conversation(number: int, turns: Any, place: str, *, names: tuple[str, str], system: Any) -> Example:
    if not isinstance(turns, list):
        raise BadInput("a conversation must be a list of messages", value=type(turns).__name__, place=place)
    out = [Turn("system", str(system))] if system else []
    for turn in turns:
        if not isinstance(turn, dict) or names[0] not in turn:
            raise BadInput(f"every message needs `{names[0]}` and `{names[1]}`", value=turn, place=place)
        role = ROLES.get(str(turn[names[0]]).lower())
        if role is None:
            raise BadInput(f"unknown role{did_you_mean(str(turn[names[0]]), ROLES)}", value=turn[names[0]], place=place)
        content = _text_of(turn, names[1], place, required=False) or _tool_calls(turn)
        out.append(Turn(role, content, trained=role == "assistant" and turn.get("weight", 1) != 0))
    return Example(number, turns=tuple(out))


def _tool_calls(turn: Mapping[str, Any]) -> str:
    calls = turn.get("tool_calls")
    return json.dumps(calls, ensure_ascii=False) if calls else ""


def _plain_text(number: int, row: Row, place: str) -> Example:
    return Example(number, text=_text_of(row, "text", place))


def _labelled(number: int, row: Row, place: str) -> Example:
    label = row.get("label")
    if label is None or label == "":
        raise BadInput("every row needs a label", place=place)
    return Example(number, text=_text_of(row, "text", place), label=str(label))


_CONVERTERS: dict[DataFormat, Callable[[int, Row, str], Example]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "prompt_completion": _prompt_completion,
    "text": _plain_text,
    "labels": _labelled,
}


def _has_content(example: Example) -> bool:
    if example.turns:
        return any(turn.trained and turn.content.strip() for turn in example.turns)
    return bool(example.text.strip())


def _digest(parts: Iterable[str]) -> str:
    joined = "\x1f".join(" ".join(part.split()) for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()
