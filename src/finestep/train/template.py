"""From an example to pieces of text, each with or without loss; chat templates run under a time and size limit.

It knows no token ids: `tokens.py` turns the pieces into them.
"""

from __future__ import annotations

import json

from finestep.errors import BadInput
from finestep.survey.example import Example, Turn
from finestep.train.template_fields import TemplateFields
from finestep.train.time_limit import TEMPLATE_TIME_LIMIT_S, time_limit
from finestep.train.tokenizer import Tokenizer

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


def pieces_of(
    example: Example, tokenizer: Tokenizer, *, train_on_prompt: bool, raw: bool, fields: TemplateFields | None = None
) -> list[Piece]:
    """Cut an example into pieces that alternate between context and trained text.

    Args:
        raw: join prompt and answer as they are, without a chat template.
        fields: what the chat template has a place for; None: it is asked.
    """
    fields = fields or (TemplateFields() if raw else TemplateFields.of(tokenizer))
    example = fields.fold(example)
    if not example.turns:
        return [(example.text + (tokenizer.eos_token or ""), True)]
    if raw:
        pieces = [(turn.content, turn.trained) for turn in example.turns]
        pieces[-1] = (pieces[-1][0] + (tokenizer.eos_token or ""), pieces[-1][1])
    else:
        pieces = _render_turns(example, _Renderer(tokenizer, fields, example))
    return [(text, trained or train_on_prompt) for text, trained in pieces if text]


def _render_turns(example: Example, render: _Renderer) -> list[Piece]:
    """Render ever longer prefixes: what an assistant turn adds to the prompt before it is the trained text."""
    turns = list(example.turns)
    while turns and not turns[-1].trained:
        turns.pop()
    pieces: list[Piece] = []
    done = ""
    for end, turn in enumerate(turns, start=1):
        if turn.role != "assistant":
            continue
        after = render(turns[:end], prompt=False)
        before = render(turns[: end - 1], prompt=True) if end > 1 else _until_content(after, turn)
        if not (before.startswith(done) and after.startswith(before)):
            return _last_turn_only(turns, render)
        pieces += [
            (before[len(done) :], False),
            (_until_end(after[len(before) :], turn, render.tokenizer), turn.trained),
        ]
        done = before + pieces[-1][0]
    return pieces


def _until_content(text: str, turn: Turn) -> str:
    """What stands before the content of a first turn: no conversation can be rendered that has no turn yet."""
    first = (turn.reasoning or turn.content).strip()
    return text[: max(text.find(first), 0)] if first else ""


def _last_turn_only(turns: list[Turn], render: _Renderer) -> list[Piece]:
    """Some templates rewrite earlier turns (they drop old reasoning): then only the last answer carries loss."""
    if sum(turn.trained for turn in turns) > 1:
        render.fields.folded["earlier answers"] += 1
    before = render(turns[:-1], prompt=True)
    after = render(turns, prompt=False)
    if not after.startswith(before):
        before = render(turns[:-1], prompt=False)
    if not after.startswith(before):
        raise BadInput(
            "the chat template must render a conversation as a continuation of its beginning",
            value=f"row {render.row}",
            next_step="add --template raw, or use another template",
        )
    return [(before, False), (_until_end(after[len(before) :], turns[-1], render.tokenizer), True)]


def _until_end(text: str, turn: Turn, tokenizer: Tokenizer) -> str:
    """Train up to the end-of-turn mark, not on the white space that some templates put behind it."""
    if text.rstrip() == turn.content.rstrip() and tokenizer.eos_token:
        return text.rstrip() + tokenizer.eos_token
    return text.rstrip("\n") if text.rstrip("\n") != turn.content else text


class _Renderer:
    """Renders turns of one example by the tokenizer's chat template, with the tools that belong to it."""

    def __init__(self, tokenizer: Tokenizer, fields: TemplateFields, example: Example) -> None:
        self.tokenizer, self.row, self.fields = tokenizer, example.row, fields
        self._more = {"tools": json.loads(example.tools)} if example.tools else {}
        self._spare = SPARE_CHARACTERS + MAX_GROWTH * len(example.tools)

    def __call__(self, turns: list[Turn], *, prompt: bool) -> str:
        messages = [self.fields.message(turn) for turn in turns]
        size = sum(len(turn.content) + len(turn.reasoning) + len(turn.calls) for turn in turns)
        try:
            with time_limit(TEMPLATE_TIME_LIMIT_S):
                text = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=prompt, **self._more
                )
        except TimeoutError:
            raise BadInput(
                f"the chat template must render a row within {TEMPLATE_TIME_LIMIT_S:.0f} s",
                value=f"row {self.row}",
                next_step="add --template raw",
            ) from None
        except (BadInput, MemoryError):
            raise
        except Exception as error:
            raise BadInput(
                "the chat template cannot render the row",
                value=f"row {self.row}: {str(error)[:120]}",
                next_step="add --template raw",
            ) from None
        if len(text) > MAX_GROWTH * size + self._spare:
            raise BadInput(
                "the chat template must not blow up a row tenfold", value=f"row {self.row}: {len(text)} characters"
            )
        return text
