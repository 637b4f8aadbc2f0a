"""What each column of a data set is for: found from their names and first rows, or as the user says.

It decides once for a data set; `formats.py` then turns each row into an example. Recommending and training both ask here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finestep.errors import BadInput, did_you_mean
from finestep.study import DataFormat, DataSpec
from finestep.survey import column_words as w
from finestep.survey import refused
from finestep.survey.cells import answer_of, num_characters, passages_of, text_of
from finestep.survey.choices import AnswerAmong, LetteredColumn, first_number, letter_columns, lettered, marks_of
from finestep.survey.conversation import ROLES, has_images, looks_like_turns, parsed
from finestep.survey.writing import Cell, Joined, Template, Writer

Row = Mapping[str, Any]
ROLE_OF = {
    "messages": "turns", "conversations": "turns", "prompt": "prompt", "instruction": "prompt", "question": "prompt",
    "query": "prompt", "input": "input", "context": "context", "system": "system", "completion": "completion",
    "output": "completion", "answer": "completion", "response": "completion", "reasoning": "reasoning", "text": "text",
    "text_pair": "pair", "label": "label", "tools": "tools", "history": "history", "choices": "choices",
}  # fmt: skip
"""What `--columns` may name, and what it is for."""
WORDS_FOR_NAMES = "e.g. --columns prompt=question,completion=answer or text=body,label=class"
HEADER_WORDS = "; the first line must hold the names of the columns"
FREE_TEXT_SHARE, FREE_TEXT_CHARACTERS = 0.5, 15
COPY_SHARE, MUCH_TEXT = 0.8, 1 / 3


@dataclass(frozen=True)
class Layout:
    """How a row is read: columns that hold structures by what they are for, and writers of texts."""

    format: DataFormat
    columns: Mapping[str, str] = field(default_factory=dict)
    writers: Mapping[str, Writer] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> set[str]:
        """All columns that reach the model, or the labels."""
        return {*self.columns.values(), *(name for writer in self.writers.values() for name in writer.columns)}


def choose_layout(sample: Sequence[Row], spec: DataSpec, *, place: str) -> Layout:
    """The layout of a data set, from its first rows and what the user said.

    Raises:
        BadInput: it cannot be told, the user named what is not there, or finestep does not train on such data.
    """
    columns = list(dict.fromkeys(name for row in sample for name in row))
    table = _Table(columns, sample, place)
    if spec.columns:
        layout = _as_named(spec, table)
        for name, column in spec.columns.items():
            if column not in layout.used and not (spec.prompt or spec.completion):
                raise BadInput(
                    f"`--columns {name}={column}` would change nothing: rows are read as {layout.format}",
                    next_step="leave it out, or name what belongs together, " + WORDS_FOR_NAMES,
                )
    elif spec.prompt and spec.completion:
        layout = Layout("prompt_completion")
    else:
        layout = _detected(spec, table)
    return _with_templates(layout, spec, table)


class _Table:
    """Columns and first rows, and the questions that the detection asks of them."""

    def __init__(self, columns: list[str], sample: Sequence[Row], place: str) -> None:
        self.columns, self.sample, self.place = columns, sample, place
        self.names: dict[str, str] = {}
        for column in columns:
            self.names.setdefault(w.plain_name(column), column)

    def first(self, words: Iterable[str], *, without: Iterable[str | None] = ()) -> str | None:
        """The column with the most preferred name that holds something."""
        left = set(without)
        found = (self.names[word] for word in words if word in self.names)
        return next((column for column in found if column not in left and self.has_values(column)), None)

    def every(self, words: Iterable[str], *, without: Iterable[str | None] = ()) -> list[str]:
        left, wanted = set(without), set(words)
        return [
            column
            for name, column in self.names.items()
            if name in wanted and column not in left and self.is_text(column)
        ]

    def values(self, column: str) -> list[Any]:
        return [row[column] for row in self.sample if row.get(column) not in (None, "", [], {})]

    def has_values(self, column: str) -> bool:
        return bool(self.values(column)) or not self.sample

    def is_text(self, column: str) -> bool:
        return any(num_characters(value) for value in self.values(column))

    def is_turns(self, column: str) -> bool:
        values = self.values(column)
        return bool(values) and looks_like_turns(values[0])

    def is_spoken(self, column: str) -> bool:
        """A list of messages whose speakers are known, whatever the column is called."""
        first = parsed(next(iter(self.values(column)), None))
        message = first[0] if isinstance(first, list) and first else None
        speaker = (
            next((message[key] for key in ("role", "from") if key in message), None)
            if isinstance(message, dict)
            else None
        )
        return str(speaker).lower() in ROLES and self.is_turns(column)

    def is_alternating(self, column: str) -> bool:
        """Lists of texts, the asker's and the answerer's in turn."""
        values = [parsed(value) for value in self.values(column)]
        whole = [value for value in values if isinstance(value, list) and all(isinstance(one, str) for one in value)]
        return bool(values) and len(whole) == len(values) and max(map(len, whole)) >= 2

    def is_free_text(self, column: str) -> bool:
        """Texts of their own rather than a few classes."""
        values = [str(value) for value in self.values(column)]
        if len(values) < 2:
            return bool(values) and len(values[0]) > 2 * FREE_TEXT_CHARACTERS
        long = sum(map(len, values)) / len(values) >= FREE_TEXT_CHARACTERS
        return long and len(set(values)) > FREE_TEXT_SHARE * len(values)

    def repeats(self, column: str, parts: Sequence[str]) -> bool:
        """The column holds all of `parts` again, as a text that was put together from them."""
        rows = [row for row in self.sample if isinstance(row.get(column), str)]
        hits = sum(all(str(row.get(part) or "").strip() in row[column] for part in parts) for row in rows)
        return bool(rows) and hits >= COPY_SHARE * len(rows)


def _detected(spec: DataSpec, table: _Table) -> Layout:
    insists = spec.format is not None
    if not insists and not (spec.prompt or spec.completion):
        refused.refuse_preferences(table.names, table.place)
        refused.refuse_tokens(table.names, table.place)
        refused.refuse_token_labels(table.names, table.sample, table.place)
    if not insists:
        refused.refuse_images(table.names, table.sample, table.place)
    steps: list[Callable[[_Table, bool], Layout | None]] = [_conversation, _labelled, _answered, _classified, _plain]
    found = (step(table, insists) for step in steps)
    fitting = (layout for layout in found if layout is not None and _fits(layout.format, spec.format))
    layout = next(fitting, None)
    if layout is None and spec.prompt:
        return Layout("prompt_completion")
    if layout is None:
        asked = f"format `{spec.format}`" if spec.format else "a known format"
        raise BadInput(
            f"the columns do not fit {asked}",
            value=table.columns,
            place=table.place,
            next_step=f"say which is which, {WORDS_FOR_NAMES}{HEADER_WORDS if _is_table(table.place) else ''}",
        )
    return layout if spec.format is None else Layout(spec.format, layout.columns, layout.writers, layout.notes)


def _is_table(place: str) -> bool:
    return any(suffix in place.lower() for suffix in (".csv", ".tsv"))


def _fits(found: DataFormat, wanted: DataFormat | None) -> bool:
    alike = ({"alpaca", "prompt_completion"}, {"messages", "sharegpt"})
    return wanted is None or found == wanted or any({found, wanted} <= kinds for kinds in alike)


def _conversation(table: _Table, insists: bool) -> Layout | None:
    turns = next((column for column in _by_name(table, w.TURNS) if table.is_turns(column)), None)
    if turns is None:
        turns = next(
            (c for c in _by_name(table, w.TURNS) if table.is_alternating(c) and table.first(w.ANSWERS) is None), None
        )
    prompt = table.first(("prompt", "input", "question"))
    if turns is None and prompt is not None and table.is_turns(prompt):
        return _conversational_prompt(table, prompt, insists)
    others = [
        c for c in table.columns if table.is_spoken(c) and w.plain_name(c) not in (*w.HISTORIES, *w.TOOLS, *w.CHOICES)
    ]
    if turns is None and len(others) == 1 and table.first(w.ANSWERS, without=others) is None:
        turns = others[0]
    if turns is None:
        return None
    if not insists:
        refused.refuse_rewarded_turns(table.names, table.sample, table.place, turns=turns)
    if has_images(table.values(turns)[0]):
        refused.refuse_images({turns: turns}, table.sample, table.place)
    first = parsed(table.values(turns)[0])
    speaks = "messages" if isinstance(first, list) and isinstance(first[0], dict) and "role" in first[0] else "sharegpt"
    columns = {"turns": turns, **_structures(table, (turns,))}
    return Layout(speaks, columns, _system(table, (turns,)))  # type: ignore[arg-type]


def _conversational_prompt(table: _Table, prompt: str, insists: bool) -> Layout | None:
    answer = table.first(w.ANSWERS, without=(prompt,))
    if answer is None:
        return None
    if not insists:
        refused.refuse_wishes(table.names, table.sample, table.place, answer=answer)
    columns = {"turns": prompt, "answer_turns": answer, **_structures(table, (prompt, answer))}
    return Layout("prompt_completion", columns, _system(table, (prompt, answer)))


def _labelled(table: _Table, insists: bool) -> Layout | None:
    """Two texts and a label."""
    label = table.first(w.LABELS) or table.first(w.SCORES)
    pair = None if _has_choices(table) else _pair(table, label)
    if pair is None or label is None:
        return None
    if not insists and w.plain_name(pair[1]) in ("completion", "response", "output"):
        refused.refuse_wishes(table.names, table.sample, table.place, answer=pair[1])
    writers = {"text": _joined(pair[:1], text_of), "pair": _joined(pair[1:], text_of)}
    said = f"two texts, `{pair[0]}` and `{pair[1]}`, and their label `{label}`"
    return Layout("labels", {"label": label}, writers, (said,))


def _has_choices(table: _Table) -> bool:
    return bool(letter_columns(table.names)) or table.first(w.CHOICES) is not None


def _pair(table: _Table, label: str | None) -> tuple[str, str] | None:
    others = {name: column for name, column in table.names.items() if column != label and table.is_text(column)}
    for name in others:
        for first, second in (("1", "2"), ("a", "b"), ("0", "1"), ("left", "right")):
            if (match := re.fullmatch(rf"(.+?_?){first}", name)) and f"{match[1]}{second}" in others:
                return others[name], others[f"{match[1]}{second}"]
    answered = any(name in others for name in w.ANSWERS)
    judged = label is not None and w.plain_name(label) in w.JUDGEMENTS
    for one, two in w.PAIRS:
        fits = judged if two in w.ANSWERS else not answered
        if one in others and two in others and fits:
            return others[one], others[two]
    return None


def _answered(table: _Table, insists: bool) -> Layout | None:
    """A prompt and its answer, with everything that belongs to the prompt."""
    found = _prompt_and_answer(table)
    if found is None:
        return None
    prompt, answer = found
    if not insists:
        refused.refuse_wishes(table.names, table.sample, table.place, answer=answer)
    parts = _prompt_parts(table, prompt, answer)
    used = [prompt, answer, *parts.context, *parts.choices, parts.extra, parts.instruction]
    reasoning = table.first(w.REASONINGS, without=used)
    writers: dict[str, Writer] = {"prompt": parts.writer()}
    writers["completion"] = _answer_writer(table, answer, parts.choices)
    if reasoning is not None:
        writers["reasoning"] = _joined((reasoning,), passages_of)
    used.append(reasoning)
    writers |= _system(table, used)
    kind: DataFormat = "alpaca" if {"instruction", "output"} <= set(table.columns) else "prompt_completion"
    said = _how_written(kind, writers, table) + _several_answers(table, answer)
    return Layout(kind, _structures(table, used), writers, said)


def _answer_writer(table: _Table, answer: str, choices: Sequence[str]) -> Writer:
    if not choices:
        return _joined((answer,), answer_of, required=True)
    return AnswerAmong(answer, tuple(choices), first=first_number(table.sample, answer, choices))


def _several_answers(table: _Table, answer: str) -> tuple[str, ...]:
    """Of several answers in a row the first is trained; that must be said."""
    lists = [value.get("text") if isinstance(value, Mapping) else value for value in table.values(answer)]
    several = any(isinstance(one, list) and len({str(each) for each in one}) > 1 for one in lists)
    return (f"`{answer}` holds several answers a row: the first is trained",) if several else ()


def _prompt_and_answer(table: _Table) -> tuple[str, str] | None:
    label = table.first(w.LABELS) if _has_choices(table) else None
    prompt, instruction = table.first(w.QUESTIONS), table.first(("instruction",))
    if (
        prompt is not None
        and instruction is not None
        and prompt != instruction
        and table.repeats(prompt, (instruction,))
    ):
        prompt = instruction  # the other is the same, put into a frame
    answer = table.first((*w.ANSWERS, *w.SUMMARIES), without=(prompt,)) or label
    if prompt is not None and answer is not None:
        return prompt, answer
    answer = table.first((*w.SUMMARIES, *w.ANSWERS_TO_DOCUMENTS)) or label
    document = table.first(w.DOCUMENTS, without=(answer,))
    if answer is None or document is None or not table.is_text(document):
        return None
    if label is None and w.plain_name(answer) in w.LABELS and not table.is_free_text(answer):
        return None
    return document, answer


@dataclass(frozen=True)
class _PromptParts:
    """The columns of a prompt, by what they are."""

    prompt: str
    instruction: str | None
    context: list[str]
    extra: str | None
    choices: list[str]

    def writer(self) -> Joined:
        asks_first = w.plain_name(self.prompt) in w.INSTRUCTIONS
        about = [*self.context, *([self.extra] if self.extra else [])] if asks_first else self.context
        order = [self.prompt, *about] if asks_first else [*about, self.prompt, *([self.extra] if self.extra else [])]
        order = [*([self.instruction] if self.instruction else []), *order]
        cells: list[Cell] = [passages_of if name in self.context else text_of for name in order]
        if len(self.choices) == 1:
            order, cells = [*order, *self.choices], [*cells, lettered]
        elif self.choices:
            order = [*order, *self.choices]
            cells = [*cells, *(LetteredColumn(mark) for mark in marks_of(self.choices))]
        return Joined(tuple(order), tuple(cells), required=(self.prompt,))


def _prompt_parts(table: _Table, prompt: str, answer: str) -> _PromptParts:
    used: list[str | None] = [prompt, answer]
    letters = [column for column in letter_columns(table.names) if column not in used]
    choices = table.first(w.CHOICES, without=used)
    chosen = [choices] if choices else letters
    used += chosen
    instruction = table.first(("instruction", "instructions", "task_description", "task_prompt"), without=used)
    used.append(instruction)
    extra = table.first(w.INPUTS, without=used)
    used.append(extra)
    apart = [*_by_name(table, (*w.SUMMARIES, *w.SYSTEMS)), *_structures(table, used).values()]
    candidates = table.every((*w.CONTEXTS, *w.DOCUMENTS, *w.HISTORIES), without=[*used, *apart])
    context = [
        column for column in candidates if not table.repeats(column, (prompt, answer)) and not table.is_turns(column)
    ]
    return _PromptParts(prompt, instruction, context, extra, chosen)


def _how_written(kind: str, writers: Mapping[str, Writer], table: _Table) -> tuple[str, ...]:
    """What to say about how texts are put together; nothing where the names speak for themselves."""
    plain = {"prompt": ("prompt",), "completion": ("completion",)}
    alpaca = {"prompt": (("instruction",), ("instruction", "input")), "completion": (("output",),)}
    if (
        kind == "alpaca"
        and writers["prompt"].columns in alpaca["prompt"]
        and writers.keys() <= {"prompt", "completion", "system"}
    ):
        return ()
    if {name: writer.columns for name, writer in writers.items()} == plain:
        return ()
    said = {"system": "system text", "prompt": "prompt", "reasoning": "reasoning", "completion": "answer"}
    return ("; ".join(f"{word}: {writers[name].pattern()}" for name, word in said.items() if name in writers),)


def _classified(table: _Table, insists: bool) -> Layout | None:
    label = table.first(w.LABELS) or table.first(w.SCORES)
    text = table.first(w.TEXTS, without=(label,))
    if text is None or label is None or not table.is_text(text):
        return None
    said = tuple(f"column `{c}` is read as {n}" for n, c in (("text", text), ("label", label)) if n != c)
    return Layout("labels", {"label": label}, {"text": _joined((text,), text_of)}, said)


def _plain(table: _Table, insists: bool) -> Layout | None:
    """Plain text; a message of a thread is none."""
    if not insists:
        refused.refuse_threads(table.names, table.sample, table.place)
    with_text = [column for column in table.columns if table.is_text(column)]
    text = table.first(w.PLAIN_TEXTS) or (with_text[0] if len(with_text) == 1 else None)
    if text is None:
        return None
    if not insists and (other := _as_much_text(table, text)) is not None:
        raise BadInput(
            f"`{text}` and `{other}` both hold much text, and their names do not tell which is the prompt",
            place=table.place,
            next_step=f"say so: --prompt '{{{text}}}' --completion '{{{other}}}'; for plain text: --columns text={text}",
        )
    said = () if text == "text" else (f"column `{text}` is read as text",)
    return Layout("text", {}, {"text": _joined((text,), text_of)}, said)


def _as_much_text(table: _Table, text: str) -> str | None:
    """Another column with texts of its own and a third of all characters."""
    counts = {name: sum(num_characters(value) for value in table.values(name)) for name in table.columns}
    total = max(sum(counts.values()), 1)
    others = (
        name for name in counts if name != text and counts[name] >= MUCH_TEXT * total and table.is_free_text(name)
    )
    return next(others, None)


def _joined(columns: tuple[str, ...], cell: Cell, *, required: bool = False) -> Joined:
    return Joined(columns, (cell,) * len(columns), required=columns if required else ())


def _by_name(table: _Table, words: Iterable[str]) -> list[str]:
    return [table.names[word] for word in words if word in table.names]


def _system(table: _Table, used: Iterable[str | None]) -> dict[str, Writer]:
    column = table.first(w.SYSTEMS, without=used)
    return {"system": _joined((column,), text_of)} if column and table.is_text(column) else {}


def _structures(table: _Table, used: Iterable[str | None]) -> dict[str, str]:
    """Columns of earlier turns and of tools, where they hold such."""
    history = table.first(w.HISTORIES, without=used)
    tools = table.first(w.TOOLS, without=used)
    found = {}
    if history is not None and (table.is_turns(history) or table.is_alternating(history)):
        found["history"] = history
    if tools is not None and isinstance(parsed(next(iter(table.values(tools)), None)), list | dict):
        found["tools"] = tools
    return found


def _as_named(spec: DataSpec, table: _Table) -> Layout:
    """The layout that `--columns` says."""
    for name, column in spec.columns.items():
        if name not in ROLE_OF:
            raise BadInput(
                f"`--columns` does not know `{name}`{did_you_mean(name, ROLE_OF)}",
                value=f"{name}={column}",
                next_step="known: " + ", ".join(ROLE_OF),
            )
        if column not in table.columns:
            raise BadInput(
                f"no column `{column}`{did_you_mean(column, table.columns)}",
                place=table.place,
                next_step="columns here: " + ", ".join(table.columns),
            )
        if same := [other for other in spec.columns if other != name and ROLE_OF.get(other) == ROLE_OF[name]]:
            raise BadInput(
                f"`--columns` names `{name}` and `{same[0]}`, which are the same", next_step="name one of them"
            )
    roles = {ROLE_OF[name]: column for name, column in spec.columns.items()}
    used = list(roles.values())
    extras: dict[str, str] = _structures(table, used)
    extras |= {name: roles[name] for name in ("history", "tools") if name in roles}
    system: dict[str, Writer] = (
        {"system": _joined((roles["system"],), text_of)} if "system" in roles else _system(table, used)
    )
    if "turns" in roles:
        kind: DataFormat = "sharegpt" if "conversations" in spec.columns else "messages"
        return Layout(kind, {"turns": roles["turns"], **extras}, system)
    if "prompt" in roles and "completion" in roles:
        return _as_named_answer(spec, table, roles, extras, system)
    if "text" in roles:
        texts: dict[str, Writer] = {
            name: _joined((roles[name],), text_of) for name in ("text", "pair") if name in roles
        }
        return Layout("labels", {"label": roles["label"]}, texts) if "label" in roles else Layout("text", {}, texts)
    if spec.prompt or spec.completion:
        some: dict[str, Writer] = {
            name: _joined((roles[name],), text_of) for name in ("prompt", "completion", "reasoning") if name in roles
        }
        return Layout("prompt_completion", extras, {**some, **system})
    raise BadInput(
        "`--columns` does not name the fields of a known format",
        value=sorted(spec.columns),
        next_step=WORDS_FOR_NAMES,
    )


def _as_named_answer(
    spec: DataSpec, table: _Table, roles: Mapping[str, str], extras: Mapping[str, str], system: Mapping[str, Writer]
) -> Layout:
    prompt, answer = roles["prompt"], roles["completion"]
    if table.is_turns(prompt):
        return Layout("prompt_completion", {"turns": prompt, "answer_turns": answer, **extras}, system)
    choices = [roles["choices"]] if "choices" in roles else []
    extra = roles.get("input") or (
        table.first(w.INPUTS, without=roles.values()) if "instruction" in spec.columns else None
    )
    parts = _PromptParts(prompt, None, [roles["context"]] if "context" in roles else [], extra, choices)
    writers: dict[str, Writer] = {"prompt": parts.writer(), **system}
    writers["completion"] = _answer_writer(table, answer, choices)
    if "reasoning" in roles:
        writers["reasoning"] = _joined((roles["reasoning"],), passages_of)
    return Layout("alpaca" if "instruction" in spec.columns else "prompt_completion", extras, writers)


def _with_templates(layout: Layout, spec: DataSpec, table: _Table) -> Layout:
    """The layout with the user's format strings in place of what was found."""
    given = {"prompt": spec.prompt, "completion": spec.completion, "system": spec.system}
    templates = {name: Template(text, f"--{name}") for name, text in given.items() if text}
    if not templates:
        return layout
    for name, template in templates.items():
        if name != "system" or template.columns:
            template.check(table.columns)
    if "turns" in layout.columns and templates.keys() - {"system"}:
        raise BadInput(
            "conversations have prompts and answers of their own; `--prompt` and `--completion` write them from columns",
            value=layout.columns["turns"],
            place=table.place,
        )
    if layout.format in ("labels", "text") and "completion" not in templates:
        if layout.format == "text" or "system" in templates:
            raise BadInput(
                "`--prompt` and `--system` need an answer", place=table.place, next_step="add --completion '{column}'"
            )
        return Layout("labels", layout.columns, {"text": templates["prompt"]}, ())
    writers = {**layout.writers, **templates}
    writers = {name: writer for name, writer in writers.items() if name not in ("text", "pair")}
    if missing := [name for name in ("prompt", "completion") if name not in writers and "turns" not in layout.columns]:
        raise BadInput(f"a {missing[0]} is missing", place=table.place, next_step=f"add --{missing[0]} '{{column}}'")
    kind: DataFormat = layout.format if layout.format not in ("labels", "text") else "prompt_completion"
    columns = {name: column for name, column in layout.columns.items() if name != "label"}
    return Layout(kind, columns, writers, _how_written("", writers, table) if "turns" not in columns else ())
