"""What the model sees of a row: through the template's own arguments where it has them, two texts with their types, true lengths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.studies.data_words import result_notes
from finestep.study import DataSpec, ModelSpec
from finestep.survey.example import Example, Turn
from finestep.train.batch import collate
from finestep.train.model import load_tokenizer
from finestep.train.template import pieces_of
from finestep.train.template_fields import TemplateFields
from finestep.train.token_rows import TokenBuffer, TokenRows, cut_rows
from finestep.train.tokenising import check_length, default_length
from finestep.train.tokens import prepare_data
from tests.train.runs import make_resident

RICH_TEMPLATE = (
    "{% if tools %}[tools]{% for tool in tools %}{{ tool | tojson }}{% endfor %}[/tools]\n{% endif %}"
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}[why]{{ m.reasoning_content }}[/why]{% endif %}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}[call {{ call.function.name }} {{ call.function.arguments.place }}]{% endfor %}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALL = json.dumps([{"type": "function", "function": {"name": "find", "arguments": {"place": "Rome"}}}])
TOOLS = json.dumps([{"type": "function", "function": {"name": "find", "description": "finds", "parameters": {}}}])
EXAMPLE = Example(
    1,
    (
        Turn("user", "where?"),
        Turn("assistant", "", True, calls=CALL),
        Turn("tool", "found", name="find"),
        Turn("assistant", "There.", True, reasoning="it was found"),
    ),
    tools=TOOLS,
)


@pytest.fixture
def tokenizer(shipped_model):
    return load_tokenizer(ModelSpec(path=str(shipped_model)))


def test_a_template_gets_tools_calls_and_reasoning_by_its_own_arguments(tokenizer):
    tokenizer.chat_template = RICH_TEMPLATE
    fields = TemplateFields.of(tokenizer)
    pieces = pieces_of(EXAMPLE, tokenizer, train_on_prompt=False, raw=False, fields=fields)
    read, trained = ("".join(text for text, flag in pieces if flag is wanted) for wanted in (False, True))
    assert '[tools]{"type": "function"' in read
    assert "<tool>found" in read
    assert "[call find Rome]" in trained
    assert "[why]it was found[/why]There." in trained
    assert fields.notes() == []


def test_what_a_template_has_no_place_for_is_written_as_text(tokenizer):
    fields = TemplateFields.of(tokenizer)
    pieces = pieces_of(EXAMPLE, tokenizer, train_on_prompt=False, raw=False, fields=fields)
    read, trained = ("".join(text for text, flag in pieces if flag is wanted) for wanted in (False, True))
    assert '"description": "finds"' in read
    assert '{"name": "find", "arguments": {"place": "Rome"}}' in trained
    assert "<think>\nit was found\n</think>\n\nThere." in trained
    assert len(fields.notes()) == 3


def test_a_row_that_the_template_refuses_leaves_out_the_row(tokenizer, tmp_path):
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'odd' in m.content %}{{ raise_exception('no odd rows') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{'odd' if n == 7 else 'even'} {n}", "completion": f"say {n}"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = prepare_data(DataSpec(path=str(path)), tokenizer, context_length=512)
    assert len(data.train) + len(data.evaluation) == 39
    assert any("1 rows were left out" in note and "no odd rows" in note for note in data.card.notes)


def test_a_first_turn_of_the_assistant_is_trained_without_what_the_template_puts_before_it(tokenizer):
    example = Example(1, (Turn("assistant", "Hello.", True), Turn("user", "Hi"), Turn("assistant", "Yes?", True)))
    pieces = pieces_of(example, tokenizer, train_on_prompt=False, raw=False)
    trained = "".join(text for text, flag in pieces if flag)
    assert trained.startswith("Hello.")
    assert "assistant" not in trained


def test_two_texts_reach_an_encoder_as_its_own_tokenizer_gives_them(encoder_model, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"premise": f"it rains {n}", "hypothesis": f"the street is wet {n}", "label": n % 2} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe(method="full")
    resident = make_resident(encoder_model, path, recipe)
    model = resident.begin(recipe).eval()
    batch = collate(resident.data.evaluation, [0, 1, 2], pad_id=resident.data.pad_id, device=torch.device("cpu"))
    assert set(batch.types_NS.unique().tolist()) == {0, 1}
    with torch.no_grad():
        ours = resident.token_loss.class_logits(model, batch)
        for place in range(3):
            kept = batch.attention_NS[place].bool()
            text = resident.tokenizer.decode(batch.ids_NS[place][kept])
            first, second = text.replace("[CLS]", "").removesuffix("[SEP]").split("[SEP]")
            theirs = model(**resident.tokenizer(first.strip(), second.strip(), return_tensors="pt")).logits
            assert torch.allclose(ours[place], theirs[0], atol=1e-5)


def test_two_texts_for_a_tokenizer_without_pairs_are_joined_and_said(tokenizer, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"is it wet {n}", "passage": f"the street {n}", "label": n % 2} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = prepare_data(DataSpec(path=str(path)), tokenizer, context_length=512)
    start, end = data.train.offsets[:2]
    text = tokenizer.decode(data.train.ids[start:end])
    assert "is it wet" in text
    assert "\nthe street" in text
    assert any("line break" in note for note in data.card.notes)


@pytest.mark.parametrize(
    ("long_rows", "context", "longest", "expected"),
    [
        (0, 8192, 8192, 1024),
        (1, 8192, 8192, 1024),
        (5, 8192, 8192, 4096),
        (5, 2048, 8192, 2048),
        (5, 8192, 2048, 2048),
        (5, 8192, None, 1024),
    ],
)
def test_the_default_length_cuts_at_most_one_percent_within_context_and_memory(long_rows, context, longest, expected):
    lengths = np.array([100] * (100 - long_rows) + [3000] * long_rows)
    assert default_length(lengths, DataSpec(path="x"), context, longest, goes_on=False) == expected
    asked = DataSpec(path="x", max_length=64)
    assert default_length(lengths, asked, context, longest, goes_on=False) == 64


def _rows(*rows: list[tuple[int, bool]]) -> TokenRows:
    buffer = TokenBuffer()
    for row in rows:
        for token, trained in row:
            buffer.add([token], trained=trained)
        buffer.end_row()
    return buffer.rows()


def test_a_length_beyond_the_context_is_refused_with_its_place_and_what_to_give():
    with pytest.raises(BadInput) as refused:
        check_length(DataSpec(path="rows.jsonl", max_length=3000), 1024)
    assert "--max-length" in str(refused.value.place)
    assert "max_length to at most 1024" in str(refused.value.next_step)


def test_rows_are_cut_and_what_that_loses_is_counted():
    prompt, answer = [(n, False) for n in range(5)], [(n, True) for n in range(5, 9)]
    cut = cut_rows(_rows(prompt + answer, prompt[:2] + answer), 6, goes_on=False)
    assert (cut.num_cut, cut.num_tokens_cut, cut.num_left_out) == (1, 3, 0)
    assert cut.rows.lengths.tolist() == [6, 6]
    assert cut.true_lengths.tolist() == [9, 6]
    assert cut_rows(_rows(prompt + answer), 5, goes_on=False).num_left_out == 1
    text = cut_rows(_rows([(n, True) for n in range(10)]), 4, goes_on=True)
    assert (text.num_cut, text.num_continued) == (0, 1)
    assert text.rows.lengths.tolist() == [4, 4, 2]
    assert text.rows.ids.tolist() == list(range(10))


def test_a_validation_row_that_is_left_out_is_told(tokenizer, tmp_path):
    rows = [{"prompt": f"Say {n}.", "completion": f"{n}"} for n in range(60)]
    rows[3]["prompt"] = "word " * 700
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[10:]))
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:10]))
    spec = DataSpec(path=str(tmp_path / "train.jsonl"), eval_path=str(tmp_path / "held.jsonl"))
    card = prepare_data(spec, tokenizer, context_length=512).card
    assert card.facts.num_eval_rows == 9
    assert "1 validation rows are left out: nothing of their answer lies within 512 tokens" in result_notes(card)
