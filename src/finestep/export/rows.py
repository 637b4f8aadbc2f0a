"""Training rows as plain values, and as the JSON lines that each framework reads; it opens no file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

INSTRUCTION, RESPONSE = "### Instruction:\n{}\n\n", "### Response:\n"
"""How finestep writes a chat for a model whose tokenizer has no template (`train/template`)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: messages of (role, content), or a text, or a text with a label."""

    messages: tuple[tuple[str, str], ...] = ()
    text: str = ""
    label: str | None = None

    @property
    def is_one_answer(self) -> bool:
        """One answer at the end, with whatever is asked before it."""
        return bool(self.messages) and [role for role, _ in self.messages].count("assistant") == 1


@dataclass(frozen=True, slots=True)
class ExportData:
    """Rows of a local data set, split as finestep splits them, and whether the model's tokenizer has a chat template."""

    train: tuple[Row, ...]
    evaluation: tuple[Row, ...] = ()
    has_template: bool = True
    notes: tuple[str, ...] = ()

    @property
    def is_labelled(self) -> bool:
        """Rows carry labels."""
        return any(row.label is not None for row in self.train[:1])

    @property
    def is_text(self) -> bool:
        """Rows are running text."""
        return not self.is_labelled and any(not row.messages for row in self.train[:1])


def chat_rows(rows: Iterable[Row]) -> list[dict[str, object]]:
    """`messages` rows: LLaMA-Factory, ms-swift, Axolotl, Unsloth. A text is one answer to nothing."""
    return [{"messages": _messages(row) or [{"role": "assistant", "content": row.text}]} for row in rows]


def _messages(row: Row) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in row.messages]


def trl_rows(rows: Iterable[Row], *, has_template: bool) -> list[dict[str, object]]:
    """Prompt and completion, so that the answer alone carries loss; several answers as `messages`, a text as `text`."""
    rows = list(rows)
    if any(row.messages and not row.is_one_answer for row in rows):
        return chat_rows(rows)
    return [_trl_row(row, has_template=has_template) for row in rows]


def _trl_row(row: Row, *, has_template: bool) -> dict[str, object]:
    if not row.messages:
        return {"text": row.text}
    if not has_template:
        prompt, completion = plain_prompt(row)
        return {"prompt": prompt, "completion": completion}
    messages = _messages(row)
    at = next(index for index, one in enumerate(messages) if one["role"] == "assistant")
    return {"prompt": messages[:at], "completion": messages[at : at + 1]}


def litgpt_rows(rows: Iterable[Row], *, by_style: bool) -> list[dict[str, object]]:
    """Instruction and output; only the first answer of a conversation. `by_style`: litgpt's own prompt style wraps what is asked."""
    out: list[dict[str, object]] = []
    for row in rows:
        prompt, completion = plain_prompt(row) if row.messages else ("", row.text)
        asked = "\n\n".join(content for role, content in row.messages if role != "assistant")
        out.append({"instruction": asked if by_style else prompt, "input": "", "output": completion})
    return out


def plain_prompt(row: Row) -> tuple[str, str]:
    """(what is asked, the first answer) as finestep writes them without a chat template.

    >>> plain_prompt(Row((("user", "Hi"), ("assistant", "Hello"))))
    ('### Instruction:\\nHi\\n\\n### Response:\\n', 'Hello')
    """
    text = ""
    for role, content in row.messages:
        if role == "assistant":
            return text + RESPONSE, content
        text += f"{content}\n\n" if role == "system" else INSTRUCTION.format(content)
    return text, ""


def text_rows(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Running text."""
    return [{"text": row.text} for row in rows]


def labelled_rows(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Text and label."""
    return [{"text": row.text, "label": row.label} for row in rows]


def json_lines(rows: Iterable[Mapping[str, object]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
