"""What each column is for, by the names of the columns and the first rows; what finestep does not train on is refused.

The steps are tried in their order: conversations, two texts with a label, prompts with answers, a text with a label, plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from finestep.errors import BadInput
from finestep.study import DataFormat, DataSpec
from finestep.survey import column_words as w
from finestep.survey import refused
from finestep.survey.cells import answer_of, passages_of, text_of
from finestep.survey.choices import AnswerAmong, LetteredColumn, first_number, letter_columns, lettered, marks_of
from finestep.survey.conversation import has_images, parsed
from finestep.survey.table import Table
from finestep.survey.writing import Cell, Joined, Layout, Writer

WORDS_FOR_NAMES = "e.g. --columns prompt=question,completion=answer or text=body,label=class"
HEADER_WORDS = "; the first line must hold the names of the columns"
MUCH_TEXT, SOME_TEXT = 1 / 3, 0.1
NEARLY_ALL_TEXT = 0.8


def detected(spec: DataSpec, table: Table) -> Layout:
    insists = spec.format is not None
    if not insists and not (spec.prompt or spec.completion):
        refused.refuse_preferences(table.names, table.place)
        refused.refuse_tokens(table.names, table.place)
        refused.refuse_token_labels(table.names, table.sample, table.place)
    if not insists:
        refused.refuse_images(table.names, table.sample, table.place)
    steps: list[Callable[[Table, bool], Layout | None]] = [_conversation, _labelled, _answered, _classified, _plain]
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
            next_step=f"say which is which, {_names_for(table)}{HEADER_WORDS if _is_table(table.place) else ''}",
        )
    return layout if spec.format is None else Layout(spec.format, layout.columns, layout.writers, layout.notes)


def _names_for(table: Table) -> str:
    """An example of `--columns` with the names of this table: its two columns with the most text, in their order."""
    most = sorted(filter(table.is_text, table.columns), key=table.num_characters, reverse=True)[:2]
    if len(most) < 2:
        return WORDS_FOR_NAMES
    first, second = sorted(most, key=table.columns.index)
    classes = [column for column in (first, second) if table.repeats_values(column)]
    if len(classes) == 1:
        text = second if classes[0] == first else first
        return f"e.g. --columns text={text},label={classes[0]}"
    return f"e.g. --columns prompt={first},completion={second}"


def _is_table(place: str) -> bool:
    return any(suffix in place.lower() for suffix in (".csv", ".tsv"))


def _fits(found: DataFormat, wanted: DataFormat | None) -> bool:
    alike = ({"alpaca", "prompt_completion"}, {"messages", "sharegpt"})
    return wanted is None or found == wanted or any({found, wanted} <= kinds for kinds in alike)


def _conversation(table: Table, insists: bool) -> Layout | None:
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
    columns = {"turns": turns, **structures(table, (turns,))}
    return Layout(speaks, columns, system_writer(table, (turns,)))  # type: ignore[arg-type]


def _conversational_prompt(table: Table, prompt: str, insists: bool) -> Layout | None:
    answer = table.first(w.ANSWERS, without=(prompt,))
    if answer is None:
        return None
    if not insists:
        refused.refuse_wishes(table.names, table.sample, table.place, answer=answer)
    columns = {"turns": prompt, "answer_turns": answer, **structures(table, (prompt, answer))}
    return Layout("prompt_completion", columns, system_writer(table, (prompt, answer)))


def _labelled(table: Table, insists: bool) -> Layout | None:
    """Two texts and a label."""
    label = table.first(w.LABELS) or table.first(w.SCORES)
    pair = None if _has_choices(table) else _pair(table, label)
    if pair is None or label is None:
        return None
    if not insists and w.plain_name(pair[1]) in ("completion", "response", "output"):
        refused.refuse_wishes(table.names, table.sample, table.place, answer=pair[1])
    writers = {"text": joined(pair[:1], text_of), "pair": joined(pair[1:], text_of)}
    said = f"two texts, `{pair[0]}` and `{pair[1]}`, and their label `{label}`"
    return Layout("labels", {"label": label}, writers, (said,))


def _has_choices(table: Table) -> bool:
    return bool(letter_columns(table.names)) or table.first(w.CHOICES) is not None


def _pair(table: Table, label: str | None) -> tuple[str, str] | None:
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


def _answered(table: Table, insists: bool) -> Layout | None:
    """A prompt and its answer, with everything that belongs to the prompt."""
    found = _prompt_and_answer(table)
    if found is None:
        return None
    prompt, answer = found
    if table.is_constant(answer) and table.first(w.LABELS, without=(answer,)) is not None:
        return None  # e.g. `answer: accept` of an annotation tool, beside the label
    if not insists:
        refused.refuse_wishes(table.names, table.sample, table.place, answer=answer)
    parts = _prompt_parts(table, prompt, answer)
    used = [prompt, answer, *parts.context, *parts.choices, parts.extra, parts.instruction]
    reasoning = table.first(w.REASONINGS, without=used)
    writers: dict[str, Writer] = {"prompt": parts.writer()}
    writers["completion"] = answer_writer(table, answer, parts.choices)
    if reasoning is not None:
        writers["reasoning"] = joined((reasoning,), passages_of)
    used.append(reasoning)
    writers |= system_writer(table, used)
    kind: DataFormat = "alpaca" if {"instruction", "output"} <= set(table.columns) else "prompt_completion"
    said = how_written(kind, writers, table) + _several_answers(table, answer)
    if table.is_constant(answer):
        said += (
            f"`{answer}` is the same in all of the first {len(table.values(answer))} rows: nothing else is learned",
        )
    return Layout(kind, structures(table, used), writers, said)


def answer_writer(table: Table, answer: str, choices: Sequence[str]) -> Writer:
    if not choices:
        return joined((answer,), answer_of, required=True)
    return AnswerAmong(answer, tuple(choices), first=first_number(table.sample, answer, choices))


def _several_answers(table: Table, answer: str) -> tuple[str, ...]:
    """Of several answers in a row the first is trained; that must be said."""
    lists = [value.get("text") if isinstance(value, Mapping) else value for value in table.values(answer)]
    several = any(isinstance(one, list) and len({str(each) for each in one}) > 1 for one in lists)
    return (f"`{answer}` holds several answers a row: the first is trained",) if several else ()


def _prompt_and_answer(table: Table) -> tuple[str, str] | None:
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
class PromptParts:
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


def _prompt_parts(table: Table, prompt: str, answer: str) -> PromptParts:
    used: list[str | None] = [prompt, answer]
    letters = [column for column in letter_columns(table.names) if column not in used]
    choices = table.first(w.CHOICES, without=used)
    chosen = [choices] if choices else letters
    used += chosen
    instruction = table.first(("instruction", "instructions", "task_description", "task_prompt"), without=used)
    used.append(instruction)
    extra = table.first(w.INPUTS, without=used)
    used.append(extra)
    apart = [*_by_name(table, (*w.SUMMARIES, *w.SYSTEMS)), *structures(table, used).values()]
    candidates = table.every((*w.CONTEXTS, *w.DOCUMENTS, *w.HISTORIES), without=[*used, *apart])
    context = [
        column
        for column in candidates
        if not table.repeats(column, (prompt, answer))
        and not table.is_turns(column)
        and (w.plain_name(column) not in w.SOURCES or table.is_free_text(column))
    ]
    return PromptParts(prompt, instruction, context, extra, chosen)


def how_written(kind: str, writers: Mapping[str, Writer], table: Table) -> tuple[str, ...]:
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


def _classified(table: Table, insists: bool) -> Layout | None:
    label = table.first(w.LABELS) or table.first(w.SCORES)
    text = table.first(w.TEXTS, without=(label,)) or _only_text(table)
    if text is None or label is None or not table.is_text(text):
        return None
    if not insists:
        refused.refuse_labels_by_columns(table.names, table.sample, table.place, label=label)
    said = tuple(f"column `{c}` is read as {n}" for n, c in (("text", text), ("label", label)) if n != c)
    return Layout("labels", {"label": label}, {"text": joined((text,), text_of)}, said)


def _only_text(table: Table) -> str | None:
    """The one column with nearly all text, whatever it is called."""
    counts = {column: table.num_characters(column) for column in table.columns if table.is_free_text(column)}
    most = max(counts, key=lambda column: counts[column], default=None)
    total = sum(map(table.num_characters, table.columns))
    return most if most is not None and counts[most] >= NEARLY_ALL_TEXT * total else None


def _plain(table: Table, insists: bool) -> Layout | None:
    """Plain text; a message of a thread is none."""
    if not insists:
        refused.refuse_threads(table.names, table.sample, table.place)
    with_text = [column for column in table.columns if table.is_text(column)]
    text = table.first(w.PLAIN_TEXTS) or (with_text[0] if len(with_text) == 1 else None)
    if text is None:
        return None
    if not insists:
        _refuse_prompts_alone(table, text)
    if not insists and (other := _as_much_text(table, text)) is not None:
        raise BadInput(
            f"`{text}` and `{other}` both hold much text, and their names do not tell which is the prompt",
            place=table.place,
            next_step=f"say so: --prompt '{{{text}}}' --completion '{{{other}}}'; for plain text: --columns text={text}",
        )
    said = () if text == "text" else (f"column `{text}` is read as text",)
    return Layout("text", {}, {"text": joined((text,), text_of)}, said)


def _as_much_text(table: Table, text: str) -> str | None:
    """Another column with texts of its own and much of all characters: a third, or a tenth beside a name that tells less."""
    counts = {name: table.num_characters(name) for name in table.columns}
    most = (MUCH_TEXT if w.plain_name(text) == "text" else SOME_TEXT) * max(sum(counts.values()), 1)
    others = (
        name
        for name in counts
        if name != text
        and counts[name] >= most
        and table.is_free_text(name)
        and w.plain_name(name) not in w.ABOUT_A_TEXT
    )
    return next(others, None)


def _refuse_prompts_alone(table: Table, text: str) -> None:
    """Rows that ask but hold no answer must not be learned as if the questions were texts to write."""
    asked = next((column for column in _by_name(table, w.ASKING) if table.is_text(column)), None)
    if asked is None:
        return
    other = "" if asked == text else f", or --prompt '{{{asked}}}' --completion '{{{text}}}'"
    raise BadInput(
        f"the rows ask (`{asked}`), and no column has the name of an answer",
        value=table.columns,
        place=table.place,
        next_step=f"name it: --columns prompt={asked},completion=...{other}; for plain text: --columns text={text}",
    )


def joined(columns: tuple[str, ...], cell: Cell, *, required: bool = False) -> Joined:
    return Joined(columns, (cell,) * len(columns), required=columns if required else ())


def _by_name(table: Table, words: Iterable[str]) -> list[str]:
    return [table.names[word] for word in words if word in table.names]


def system_writer(table: Table, used: Iterable[str | None]) -> dict[str, Writer]:
    column = table.first(w.SYSTEMS, without=used)
    return {"system": joined((column,), text_of)} if column and table.is_text(column) else {}


def structures(table: Table, used: Iterable[str | None]) -> dict[str, str]:
    """Columns of earlier turns and of tools, where they hold such."""
    history = table.first(w.HISTORIES, without=used)
    tools = table.first(w.TOOLS, without=used)
    found = {}
    if history is not None and (table.is_turns(history) or table.is_alternating(history)):
        found["history"] = history
    if tools is not None and isinstance(parsed(next(iter(table.values(tools)), None)), list | dict):
        found["tools"] = tools
    return found
