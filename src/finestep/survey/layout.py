"""The layout of a data set: as detected from its columns, or as the user says; decided once, for recommending and training alike.

`formats.py` then turns each row into an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finestep.errors import BadInput, did_you_mean
from finestep.study import DataFormat, DataSpec
from finestep.survey import column_words as w
from finestep.survey.cells import passages_of, text_of
from finestep.survey.detection import (
    WORDS_FOR_NAMES,
    PromptParts,
    answer_writer,
    detected,
    how_written,
    joined,
    structures,
    system_writer,
)
from finestep.survey.table import Table
from finestep.survey.writing import Layout, Template, Writer

Row = Mapping[str, object]
ROLE_OF = {
    "messages": "turns", "conversations": "turns", "prompt": "prompt", "instruction": "prompt", "question": "prompt",
    "query": "prompt", "input": "input", "context": "context", "system": "system", "completion": "completion",
    "output": "completion", "answer": "completion", "response": "completion", "reasoning": "reasoning", "text": "text",
    "text_pair": "pair", "label": "label", "tools": "tools", "history": "history", "choices": "choices",
}  # fmt: skip
"""What `--columns` may name, and what it is for."""


def choose_layout(sample: Sequence[Row], spec: DataSpec, *, place: str) -> Layout:
    """The layout of a data set, from its first rows and what the user said.

    Raises:
        BadInput: it cannot be told, the user named what is not there, or finestep does not train on such data.
    """
    columns = list(dict.fromkeys(name for row in sample for name in row))
    table = Table(columns, sample, place)
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
        layout = detected(spec, table)
    return _with_templates(layout, spec, table)


def _as_named(spec: DataSpec, table: Table) -> Layout:
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
    extras: dict[str, str] = structures(table, used)
    extras |= {name: roles[name] for name in ("history", "tools") if name in roles}
    system: dict[str, Writer] = (
        {"system": joined((roles["system"],), text_of)} if "system" in roles else system_writer(table, used)
    )
    if "turns" in roles:
        kind: DataFormat = "sharegpt" if "conversations" in spec.columns else "messages"
        return Layout(kind, {"turns": roles["turns"], **extras}, system)
    if "prompt" in roles and "completion" in roles:
        return _as_named_answer(spec, table, roles, extras, system)
    if "text" in roles:
        texts: dict[str, Writer] = {name: joined((roles[name],), text_of) for name in ("text", "pair") if name in roles}
        return Layout("labels", {"label": roles["label"]}, texts) if "label" in roles else Layout("text", {}, texts)
    if spec.prompt or spec.completion:
        some: dict[str, Writer] = {
            name: joined((roles[name],), text_of) for name in ("prompt", "completion", "reasoning") if name in roles
        }
        return Layout("prompt_completion", extras, {**some, **system})
    raise BadInput(
        "`--columns` does not name the fields of a known format",
        value=sorted(spec.columns),
        next_step=WORDS_FOR_NAMES,
    )


def _as_named_answer(
    spec: DataSpec, table: Table, roles: Mapping[str, str], extras: Mapping[str, str], system: Mapping[str, Writer]
) -> Layout:
    prompt, answer = roles["prompt"], roles["completion"]
    if table.is_turns(prompt):
        return Layout("prompt_completion", {"turns": prompt, "answer_turns": answer, **extras}, system)
    choices = [roles["choices"]] if "choices" in roles else []
    extra = roles.get("input") or (
        table.first(w.INPUTS, without=roles.values()) if "instruction" in spec.columns else None
    )
    parts = PromptParts(prompt, None, [roles["context"]] if "context" in roles else [], extra, choices)
    writers: dict[str, Writer] = {"prompt": parts.writer(), **system}
    writers["completion"] = answer_writer(table, answer, choices)
    if "reasoning" in roles:
        writers["reasoning"] = joined((roles["reasoning"],), passages_of)
    return Layout("alpaca" if "instruction" in spec.columns else "prompt_completion", extras, writers)


def _with_templates(layout: Layout, spec: DataSpec, table: Table) -> Layout:
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
    return Layout(kind, columns, writers, how_written("", writers, table) if "turns" not in columns else ())
