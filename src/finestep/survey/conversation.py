"""Turns of a conversation in every layout that people use: messages, ShareGPT, pairs, alternating texts; tools and reasoning too.

It knows no chat template: what a model makes of the turns is the trainer's work.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from finestep.errors import BadInput, did_you_mean
from finestep.survey.cells import IMAGE_WORDS, num_characters, text_of
from finestep.survey.example import Turn

ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "client", "student", "patient", "question", "instruction"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "model", "bot", "chatbot", "ai", "agent", "chatgpt", "gpt4", "gpt-4", "bing", "bard", "claude",
         "gemini", "llm", "answer", "response", "doctor", "tutor", "function_call", "tool_call"),
        "assistant",
    ),
    **dict.fromkeys(("system", "developer", "context"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "tool_result", "ipython"), "tool"),
}  # fmt: skip
"""Names of who speaks; some old collections name the assistant after its product."""
USUAL_ROLES = {
    "user",
    "human",
    "assistant",
    "gpt",
    "model",
    "system",
    "tool",
    "function_call",
    "observation",
    "function",
    "developer",
}
REASONING_ROLES = ("reasoning", "thinking", "thought", "think", "analysis")
ROLE_KEYS = ("role", "from", "speaker", "author", "sender", "user_role")
TEXT_KEYS = ("content", "parts", "value", "text", "message", "utterance", "body", "msg")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "think")
LOSS_KEYS = ("weight", "train", "loss", "trainable")
QUIET_KEYS = frozenset(
    {"tool_calls", "function_call", "tool_call_id", "type", "id", "index", *LOSS_KEYS, *REASONING_KEYS}
)
"""Keys of a message that are read, or that only tie a tool's answer to its call."""
PAIR_KEYS = (
    ("user", "assistant"), ("human", "assistant"), ("human", "gpt"), ("human", "bot"), ("user", "bot"), ("question", "answer"),
    ("prompt", "response"), ("prompt", "completion"), ("instruction", "output"), ("input", "output"), ("query", "response"),
    ("q", "a"),
)  # fmt: skip


@dataclass
class Tally:
    """What reading turns has to tell: text in messages that no turn holds, by its path, and speakers with unusual names."""

    unused: Counter[str] = field(default_factory=Counter)
    odd_roles: Counter[str] = field(default_factory=Counter)


class RowLeftOut(BadInput):
    """A row that cannot be used while others can: it is counted, and refused only when no row is left.

    Args:
        why: what the rows have in common, for the count.
    """

    def __init__(self, why: str, law: str, *, value: object = None, place: str | None = None):
        self.why = why
        super().__init__(law, value=value, place=place)


def turns_of(conversation: object, place: str, *, tally: Tally, column: str) -> list[Turn]:
    """The turns of one conversation.

    Args:
        tally: gets what is not taken as it stands.
        column: what paths in it begin with.

    Raises:
        BadInput: it is not a conversation; RowLeftOut where only the one who speaks is unknown.
    """
    conversation = parsed(conversation)
    if isinstance(conversation, dict) and len(conversation) == 1:
        conversation = next(iter(conversation.values()))
    if not isinstance(conversation, list):
        raise BadInput("a conversation must be a list of messages", value=type(conversation).__name__, place=place)
    turns: list[Turn] = []
    thought = ""
    for number, message in enumerate(conversation):
        for turn in _turns_of_message(message, number, place, tally, column):
            if turn.role == "reasoning":
                thought = "\n\n".join(filter(None, (thought, turn.content)))
                continue
            if thought and turn.role == "assistant":
                turn = Turn(
                    "assistant",
                    turn.content,
                    turn.trained,
                    "\n\n".join(filter(None, (thought, turn.reasoning))),
                    turn.calls,
                )
                thought = ""
            turns.append(turn)
    return turns


def parsed(value: object) -> object:
    """A cell that holds JSON as text, as tables do, as what it stands for."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def looks_like_turns(value: object) -> bool:
    """True for a list of messages, of pairs, or of alternating texts."""
    value = parsed(value)
    if not isinstance(value, list) or not value:
        return False
    first = value[0]
    if isinstance(first, dict):
        return _role_key(first) is not None or _pair_keys(first) is not None
    return isinstance(first, list) and len(first) == 2 and all(isinstance(one, str) for one in first)


def tools_of(value: object, place: str) -> str:
    """The `tools` of a row as a JSON list; empty when there are none."""
    tools = parsed(value)
    if not tools:
        return ""
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list):
        raise BadInput("`tools` must be a list of functions, or one as JSON", value=str(tools)[:60], place=place)
    return json.dumps([parsed(tool) for tool in tools], ensure_ascii=False)


def _turns_of_message(message: object, number: int, place: str, tally: Tally, column: str) -> Iterator[Turn]:
    if isinstance(message, str):
        yield Turn(("user", "assistant")[number % 2], text_of(message, column, place), trained=number % 2 == 1)
        return
    if isinstance(message, list) and len(message) == 2:
        yield from _pair(message[0], message[1], column, place)
        return
    if not isinstance(message, dict):
        raise _no_message(message, place)
    role_key = _role_key(message)
    if role_key is None:
        pair = _pair_keys(message)
        if pair is None:
            raise _no_message(message, place)
        _count_rest(message, pair, tally, column)
        yield from _pair(message[pair[0]], message[pair[1]], column, place)
        return
    text_key = next((key for key in TEXT_KEYS if key in message and key != role_key), "content")
    _count_rest(message, (role_key, text_key, "name"), tally, column)
    yield from _spoken(message, role_key, text_key, place, tally)


def _no_message(message: object, place: str) -> BadInput:
    return BadInput("every message needs `role` and `content`, or `from` and `value`", value=message, place=place)


def _pair(asked: object, answered: object, column: str, place: str) -> Iterator[Turn]:
    yield Turn("user", text_of(asked, column, place))
    yield Turn("assistant", text_of(answered, column, place), trained=True)


def _spoken(message: Mapping[str, object], role_key: str, text_key: str, place: str, tally: Tally) -> Iterator[Turn]:
    """One message; parts that are tool results become turns of their own."""
    role = _role(message[role_key], place)
    if str(message[role_key]).strip().lower() not in USUAL_ROLES and role != "reasoning":
        tally.odd_roles[f"`{message[role_key]}` are read as the {role}'s"] += 1
    content, reasoning, calls, results = _parts(message.get(text_key))
    yield from (Turn("tool", text_of(result, text_key, place)) for result in results)
    own = [text_of(message.get(key), key, place) for key in REASONING_KEYS if isinstance(message.get(key), str | list)]
    calls += _calls(message)
    text = text_of(content, text_key, place)
    if results and not text:
        return
    trained = role == "assistant" and not any(message.get(key) in (0, False) for key in LOSS_KEYS if key in message)
    name = str(message.get("name") or "") if role == "tool" else ""
    yield Turn(
        role,
        text,
        trained,
        "\n\n".join(filter(None, [*reasoning, *own])),
        json.dumps(calls, ensure_ascii=False) if calls else "",
        name,
    )


def _parts(content: object) -> tuple[object, list[str], list[object], list[object]]:
    """(what is text, reasoning, tool calls, tool results) of a message's content."""
    if not isinstance(content, list):
        return content, [], [], []
    reasoning: list[str] = []
    rest: list[object] = []
    calls: list[object] = []
    results: list[object] = []
    for part in content:
        if not isinstance(part, dict):
            rest.append(part)
            continue
        kind = part.get("type")
        if kind in ("thinking", "reasoning"):
            reasoning.append(str(part.get("thinking") or part.get("text") or part.get("reasoning") or ""))
        elif kind == "tool_use":
            calls.append({"type": "function", "function": {"name": part.get("name"), "arguments": part.get("input")}})
        elif kind == "tool_result":
            results.append(part.get("content"))
        else:
            rest.append(part)
    return rest, reasoning, calls, results


def _calls(message: Mapping[str, object]) -> list[object]:
    """The tool calls of a message in the way of chat templates: arguments as a mapping, not as text."""
    found = parsed(message.get("tool_calls")) or ([message["function_call"]] if message.get("function_call") else [])
    calls: list[object] = []
    for call in found if isinstance(found, list) else [found]:
        call = parsed(call)
        function = dict(call.get("function") or call) if isinstance(call, dict) else {"name": str(call)}
        function["arguments"] = parsed(function.get("arguments")) or {}
        calls.append(
            {"type": "function", "function": {key: function[key] for key in ("name", "arguments") if key in function}}
        )
    return calls


def _role(name: object, place: str) -> str:
    role = str(name).strip().lower()
    if role in REASONING_ROLES:
        return "reasoning"
    if role not in ROLES:
        known = ("user", "assistant", "system", "tool", "human", "gpt")
        raise RowLeftOut(
            f"a message from `{name}`, who is neither user, assistant, system nor tool",
            f"unknown role{did_you_mean(role, known)}",
            value=name,
            place=place,
        )
    return ROLES[role]


def _role_key(message: Mapping[str, object]) -> str | None:
    has_text = any(key in message for key in (*TEXT_KEYS, "tool_calls", "function_call", *REASONING_KEYS))
    return next((key for key in ROLE_KEYS if isinstance(message.get(key), str)), None) if has_text else None


def _pair_keys(message: Mapping[str, object]) -> tuple[str, str] | None:
    return next((pair for pair in PAIR_KEYS if pair[0] in message and pair[1] in message), None)


def _count_rest(message: Mapping[str, object], read: tuple[str, ...], tally: Tally, column: str) -> None:
    for key, value in message.items():
        if key not in read and key not in QUIET_KEYS:
            tally.unused[f"{column}.{key}"] += num_characters(value)


def has_images(value: object) -> bool:
    """True when a conversation has parts that are pictures or sound."""
    value = parsed(value)
    messages = value if isinstance(value, list) else []
    parts = [
        part
        for one in messages
        if isinstance(one, dict) and isinstance(one.get("content"), list)
        for part in one["content"]
        if isinstance(part, dict)
    ]
    return any(part.get("type") in IMAGE_WORDS for part in parts)
