"""What a chat template has a place for: tools, tool calls, tool answers and reasoning; what it has none for is written as text.

It is asked once, with a marked conversation: what the template shows, it has a place for. Nothing is dropped either way.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TypedDict

from finestep.errors import BadInput
from finestep.survey.example import Example, Turn
from finestep.train.sandbox import in_child
from finestep.train.time_limit import TEMPLATE_TIME_LIMIT_S, time_limit
from finestep.train.tokenizer import Message, Tokenizer

MARK = "finestepmark"
PROBE_CPU_S = 20.0
"""Seconds of processor time for the conversations that a template is asked with."""
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names under which templates look for reasoning."""
A_TOOL = {
    "type": "function",
    "function": {"name": MARK, "description": MARK, "parameters": {"type": "object", "properties": {}}},
}


class _Places(TypedDict):
    """The answers of a template, in the fields of `TemplateFields`."""

    reasoning_key: str | None
    takes_tools: bool
    takes_calls: bool
    takes_tool_turns: bool
    takes_system: bool


@dataclass
class TemplateFields:
    """The fields of a tokenizer's chat template, and a count of what had to be written as text instead.

    Attributes:
        reasoning_key: name of the message field for reasoning; None: the template has none.
    """

    reasoning_key: str | None = None
    takes_tools: bool = False
    takes_calls: bool = False
    takes_tool_turns: bool = False
    takes_system: bool = True
    folded: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TemplateFields:
        """Ask the template of a tokenizer, in a process of its own.

        Raises:
            BadInput: the template takes too much time or memory.
        """
        if tokenizer.chat_template is None:
            return cls()
        try:
            return cls(**in_child(lambda: cls._asked(tokenizer), cpu_s=PROBE_CPU_S))
        except (TimeoutError, MemoryError, ChildProcessError) as error:
            raise template_refusal(error, "a short conversation") from None

    @classmethod
    def _asked(cls, tokenizer: Tokenizer) -> _Places:
        call = {"type": "function", "function": {"name": MARK, "arguments": {}}}
        called: list[Message] = [_user(), {"role": "assistant", "content": "b", "tool_calls": [call]}]
        answered: list[Message] = [
            _user(),
            {"role": "assistant", "content": "b", "tool_calls": [{**call, "function": {"name": "c", "arguments": {}}}]},
        ]
        answered.append({"role": "tool", "name": "c", "content": MARK})
        keys = (
            key
            for key in REASONING_KEYS
            if _shows(tokenizer, [_user(), {"role": "assistant", "content": "b", key: MARK}])
        )
        return {
            "reasoning_key": next(keys, None),
            "takes_tools": _shows(tokenizer, [_user()], tools=[A_TOOL]),
            "takes_calls": _shows(tokenizer, called),
            "takes_tool_turns": _shows(tokenizer, answered),
            "takes_system": _shows(tokenizer, [{"role": "system", "content": MARK}, _user()]),
        }

    def fold(self, example: Example) -> Example:
        """The example with everything that the template has no place for in its texts."""
        turns = [self._folded_turn(turn) for turn in example.turns]
        tools = example.tools
        if tools and not self.takes_tools:
            turns, tools = self._with_tools_as_text(turns, tools), ""
        if not self.takes_system and any(turn.role == "system" for turn in turns):
            turns = self._with_system_in_user_turns(turns)
        if tools == example.tools and tuple(turns) == example.turns:
            return example
        return replace(example, turns=tuple(turns), tools=tools)

    def _with_tools_as_text(self, turns: list[Turn], tools: str) -> list[Turn]:
        self.folded["tools"] += 1
        text = "Tools that may be called:\n" + "\n".join(
            json.dumps(tool, ensure_ascii=False) for tool in json.loads(tools)
        )
        if turns and turns[0].role == "system":
            return [replace(turns[0], content=f"{turns[0].content}\n\n{text}"), *turns[1:]]
        return [Turn("system", text), *turns]

    def _with_system_in_user_turns(self, turns: list[Turn]) -> list[Turn]:
        """System texts at the head of the user's turn that follows, as the authors of such templates advise."""
        self.folded["system"] += 1
        out: list[Turn] = []
        waiting: list[str] = []
        for turn in turns:
            if turn.role == "system":
                waiting.append(turn.content)
            elif turn.role == "user" and waiting:
                out.append(replace(turn, content="\n\n".join([*waiting, turn.content])))
                waiting = []
            else:
                out += [Turn("user", text) for text in waiting]
                waiting = []
                out.append(turn)
        return out

    def message(self, turn: Turn) -> Message:
        """A turn as the template takes it."""
        message: Message = {"role": turn.role, "content": turn.content}
        if turn.reasoning and self.reasoning_key:
            message[self.reasoning_key] = turn.reasoning
        if turn.calls:
            message["tool_calls"] = json.loads(turn.calls)
        if turn.name:
            message["name"] = turn.name
        return message

    def notes(self) -> list[str]:
        """What was written as text, and how."""
        how = {
            "system": "the chat template has no place for a system text: it stands at the head of the user's turn",
            "earlier answers": "the chat template rewrites earlier answers once another turn follows (it drops their "
            "reasoning): in rows with several answers only the last one carries loss",
            "tools": "the chat template has no place for `tools`: they stand in the system text",
            "calls": "the chat template has no place for tool calls: they stand in the answer as <tool_call>",
            "tool turns": "the chat template has no place for tool answers: they are the user's turns",
            "reasoning": "the chat template has no place for reasoning: it stands before the answer between <think> and </think>",
        }
        return [f"{text} ({self.folded[name]:,} times)" for name, text in how.items() if self.folded[name]]

    def _folded_turn(self, turn: Turn) -> Turn:
        if turn.role == "tool" and not self.takes_tool_turns:
            self.folded["tool turns"] += 1
            turn = replace(turn, role="user", content=f"<tool_response>\n{turn.content}\n</tool_response>", name="")
        if turn.calls and not self.takes_calls:
            self.folded["calls"] += 1
            calls = [json.dumps(call["function"], ensure_ascii=False) for call in json.loads(turn.calls)]
            written = "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)
            turn = replace(turn, content="\n".join(filter(None, (turn.content, written))), calls="")
        if turn.reasoning and self.reasoning_key is None:
            self.folded["reasoning"] += 1
            turn = replace(turn, content=f"<think>\n{turn.reasoning}\n</think>\n\n{turn.content}", reasoning="")
        return turn


def template_refusal(error: Exception, what: str) -> BadInput:
    """The error for a template that broke a limit of its process."""
    limit = {TimeoutError: "time", MemoryError: "memory"}.get(type(error))
    law = (
        f"the chat template takes more {limit} than it may"
        if limit
        else f"the chat template ended its process ({error})"
    )
    return BadInput(law, value=what, next_step="add --template raw, or use another model's template")


def _user() -> Message:
    return {"role": "user", "content": "a"}


def _shows(tokenizer: Tokenizer, messages: list[Message], **more: object) -> bool:
    """True when the template renders the mark; a template that raises has no place for it."""
    try:
        with time_limit(TEMPLATE_TIME_LIMIT_S):
            return MARK in tokenizer.apply_chat_template(messages, tokenize=False, **more)
    except (MemoryError, TimeoutError):
        raise  # it would be as slow or as large with every row
    except Exception:
        return False
