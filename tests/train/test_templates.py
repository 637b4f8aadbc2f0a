"""Chat templates of other people: no role for a system text, earlier answers rewritten; and the raw kind."""

from __future__ import annotations

import json

import pytest

from finestep.study import DataSpec
from finestep.train.tokens import prepare_data

NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
SILENT_ABOUT_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
STRIPS_THOUGHTS = (
    "{% for m in messages %}{% set text = m['content'] %}"
    "{% if m['role'] == 'assistant' and not loop.last and '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}"
    "<{{ m['role'] }}>{{ text }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer(shipped_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shipped_model)


def prepared(tokenizer, chat_template, rows, tmp_path, **spec):
    tokenizer.chat_template = chat_template
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    return prepare_data(DataSpec(path=str(path), **spec), tokenizer, context_length=512)


def shown(data) -> str:
    return "".join(text for text, _ in data.card.sample)


def conversation(number, *, system=None, thoughts=False, turns=1):
    row = [] if system is None else [{"role": "system", "content": system}]
    for turn in range(turns):
        thought = f"<think>thought {number} {turn}</think>" if thoughts else ""
        row.append({"role": "user", "content": f"question {number} {turn}"})
        row.append({"role": "assistant", "content": f"{thought}answer {number} {turn}"})
    return row


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT_ABOUT_SYSTEM])
def test_a_system_text_goes_into_the_users_turn_and_this_is_said(tokenizer, template, tmp_path):
    data = prepared(tokenizer, template, [conversation(n, system="be brief") for n in range(20)], tmp_path)
    assert "<user>be brief" in shown(data).replace("<user> ", "<user>")
    assert any("no place for a system text" in note and "20 times" in note for note in data.card.notes)


def test_a_template_that_drops_earlier_thoughts_is_named(tokenizer, tmp_path):
    rows = [conversation(n, thoughts=True, turns=2) for n in range(20)]
    data = prepared(tokenizer, STRIPS_THOUGHTS, rows, tmp_path)
    assert any("only the last one carries loss" in note and "20 times" in note for note in data.card.notes)


def test_one_answer_is_not_worth_a_note(tokenizer, tmp_path):
    data = prepared(tokenizer, STRIPS_THOUGHTS, [conversation(n, thoughts=True) for n in range(20)], tmp_path)
    assert not any("earlier answers" in note for note in data.card.notes)


def test_the_raw_kind_joins_texts_without_a_template(tokenizer, tmp_path):
    """The advice of errors about templates; the option of the same name exists (tests/cli)."""
    data = prepared(tokenizer, NO_SYSTEM, [conversation(n) for n in range(20)], tmp_path, template="raw")
    assert "<user>" not in shown(data)
