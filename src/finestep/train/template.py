"""From an example to pieces of text, each with or without loss; chat templates run under a time and size limit.

It knows no token ids: `tokens.py` turns the pieces into them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from finestep.errors import BadInput
from finestep.survey.formats import Example, Turn

TEMPLATE_TIME_LIMIT_S = 5.0
MAX_GROWTH, SPARE_CHARACTERS = 10, 20_000

PLAIN_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }}\n\n"
    "{% elif m['role'] == 'assistant' %}### Response:\n{{ m['content'] }}{{ eos_token }}\n\n"
    "{% else %}### Instruction:\n{{ m['content'] }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""For base models whose tokenizer has no chat template; it is saved with the tuned model."""

Piece = tuple[str, bool]
"""Text, and whether it carries loss."""


def pieces_of(example: Example, tokenizer: Any, *, train_on_prompt: bool, raw: bool) -> list[Piece]:
    """Cut an example into pieces that alternate between context and trained text.

    Args:
        raw: join prompt and answer as they are, without a chat template.
    """
    if not example.turns:
        return [(example.text + (tokenizer.eos_token or ""), True)]
    if raw:
        pieces = [(turn.content, turn.trained) for turn in example.turns]
        pieces[-1] = (pieces[-1][0] + (tokenizer.eos_token or ""), pieces[-1][1])
    else:
        pieces = _render_turns(example, tokenizer)
    return [(text, trained or train_on_prompt) for text, trained in pieces if text]


def _render_turns(example: Example, tokenizer: Any) -> list[Piece]:
    """Render ever longer prefixes: what an assistant turn adds to the prompt before it is the trained text."""
    turns = list(example.turns)
    while turns and not turns[-1].trained:
        turns.pop()
    pieces: list[Piece] = []
    done = ""
    for end, turn in enumerate(turns, start=1):
        if turn.role != "assistant":
            continue
        before = _render(turns[: end - 1], tokenizer, example.row, prompt=True)
        after = _render(turns[:end], tokenizer, example.row, prompt=False)
        if not (before.startswith(done) and after.startswith(before)):
            return _last_turn_only(turns, tokenizer, example.row)
        pieces += [(before[len(done) :], False), (_until_end(after[len(before) :], turn, tokenizer), turn.trained)]
        done = before + pieces[-1][0]
    return pieces


def _last_turn_only(turns: list[Turn], tokenizer: Any, row: int) -> list[Piece]:
    """Some templates rewrite earlier turns (they drop old reasoning): then only the last answer carries loss."""
    before = _render(turns[:-1], tokenizer, row, prompt=True)
    after = _render(turns, tokenizer, row, prompt=False)
    if not after.startswith(before):
        before = _render(turns[:-1], tokenizer, row, prompt=False)
    if not after.startswith(before):
        raise BadInput(
            "the chat template must render a conversation as a continuation of its beginning",
            value=f"row {row}",
            next_step="use --template raw, or another template",
        )
    return [(before, False), (_until_end(after[len(before) :], turns[-1], tokenizer), True)]


def _until_end(text: str, turn: Turn, tokenizer: Any) -> str:
    """Train up to the end-of-turn mark, not on the white space that some templates put behind it."""
    if text.rstrip() == turn.content.rstrip() and tokenizer.eos_token:
        return text.rstrip() + tokenizer.eos_token
    return text.rstrip("\n") if text.rstrip("\n") != turn.content else text


def _render(turns: list[Turn], tokenizer: Any, row: int, *, prompt: bool) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    size = sum(len(turn.content) for turn in turns)
    try:
        with time_limit(TEMPLATE_TIME_LIMIT_S):
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except TimeoutError:
        raise BadInput(
            f"the chat template must render a row within {TEMPLATE_TIME_LIMIT_S:.0f} s",
            value=f"row {row}",
            next_step="use --template raw",
        ) from None
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            "the chat template cannot render the row",
            value=f"row {row}: {str(error)[:120]}",
            next_step="use --template raw",
        ) from None
    if len(text) > MAX_GROWTH * size + SPARE_CHARACTERS:
        raise BadInput("the chat template must not blow up a row tenfold", value=f"row {row}: {len(text)} characters")
    return text


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this block after `seconds`; without effect outside the main thread or on Windows."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def expire(signum: int, frame: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
