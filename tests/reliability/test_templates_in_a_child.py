"""A chat template of somebody else runs in a child process: it may take neither the memory nor the time of this one."""

from __future__ import annotations

import resource

import pytest

from finestep.errors import BadInput
from finestep.study import DataSpec, ModelSpec
from finestep.survey.example import Example, Turn
from finestep.train.model import load_tokenizer
from finestep.train.sandbox import in_child
from finestep.train.template_fields import TemplateFields
from finestep.train.tokenising import Told, tokenise

GREEDY = {
    "a long text": "{% set x = 'a' * 3000000000 %}{{ x|length }}",
    "a text that doubles": "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(29) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}{{ ns.x|length }}",
    "a wide field": "{{ 'a' | center(2000000000) }}",
    "a loop without end": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "much output": "{% for a in range(99999) %}{{ 'a' * 20000 }}{% endfor %}",
}
ROWS = [Example(turns=(Turn("user", f"say {n}"), Turn("assistant", f"{n}", trained=True)), row=n) for n in range(1, 40)]


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_template_is_refused_and_this_process_stays_small(shipped_model, name):
    tokenizer = load_tokenizer(ModelSpec(path=str(shipped_model)))
    tokenizer.chat_template = GREEDY[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInput, match="template"):
        tokenise(ROWS, tokenizer, DataSpec(path="x"), Told(TemplateFields.of(tokenizer)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("trap", ["{{ 'a' * 3000000000 }}", "{{ 'a' | center(2000000000) }}"])
def test_a_row_at_which_a_template_takes_too_much_is_left_out_and_the_others_stay(shipped_model, trap):
    tokenizer = load_tokenizer(ModelSpec(path=str(shipped_model)))
    plain = "{% for m in messages %}{{ m.role }} {{ m.content }}\n{% endfor %}"
    tokenizer.chat_template = "{% if messages[0].content == 'say 7' %}" + trap + "{% endif %}" + plain
    told = Told(TemplateFields.of(tokenizer))
    rows = tokenise(ROWS, tokenizer, DataSpec(path="x"), told)
    assert len(rows) == len(ROWS) - 1
    assert told.num_unrendered == 1
    assert "1 rows were left out" in told.notes()[0]
    assert "row 7" in told.notes()[0]


def test_a_call_that_no_signal_interrupts_ends_with_its_process():
    with pytest.raises(TimeoutError):
        in_child(lambda: len(str(7 ** (7**9))), cpu_s=1.0)


def test_rows_come_out_of_the_child_as_they_would_here(shipped_model):
    from finestep.train.tokenising import _pieces, _pieces_in_child

    tokenizer = load_tokenizer(ModelSpec(path=str(shipped_model)))
    told = Told(TemplateFields.of(tokenizer))
    spec = DataSpec(path="x")
    assert _pieces_in_child(ROWS, tokenizer, spec, told) == _pieces(ROWS, tokenizer, spec, told)
