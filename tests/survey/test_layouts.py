"""Every data layout of the table: the right rows and mask, or a refusal by name; recommend, data, tune and train agree on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.studies.asked import starting_recipe
from finestep.study import DataSpec, ModelSpec
from finestep.survey.data_sample import data_facts
from finestep.train.model import load_tokenizer
from finestep.train.tokens import TrainingData, prepare_data
from tests.survey.layouts import LAYOUTS, NUM_ROWS, Read, Refused

READ = {name: case for name, case in LAYOUTS.items() if isinstance(case, Read)}
REFUSED = {name: case for name, case in LAYOUTS.items() if isinstance(case, Refused)}


@pytest.fixture(scope="module")
def tokenizer(shipped_model):
    return load_tokenizer(ModelSpec(path=str(shipped_model)))


def spec_of(case: Read | Refused, folder: Path) -> DataSpec:
    return DataSpec(path=str(case.write(folder)), split_seed=1, **dict(case.options))


def rows_of(data: TrainingData, tokenizer) -> list[tuple[str, str]]:
    """(text that carries loss, other text) of all rows."""
    found = []
    for rows in (data.train, data.evaluation):
        for row in range(len(rows)):
            start, end = rows.offsets[row], rows.offsets[row + 1]
            flags, ids = rows.trained[start:end], rows.ids[start:end]
            found.append((tokenizer.decode(ids[flags].tolist()), tokenizer.decode(ids[~flags].tolist())))
    return found


def test_the_table_is_long():
    assert len(LAYOUTS) >= 100


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_a_layout_is_read_whole(case, tokenizer, tmp_path):
    data = prepare_data(spec_of(case, tmp_path), tokenizer, context_length=512)
    card = data.card
    assert card.facts.format == case.format
    notes = "\n".join(card.notes)
    for piece in case.notes:
        assert piece in notes
    rows = rows_of(data, tokenizer)
    fitting = [
        row
        for row in rows
        if all(text in row[0] for text in case.trained) and all(text in row[1] for text in case.context)
    ]
    assert fitting, rows[:2]
    for trained, other in fitting:
        assert not any(text in trained for text in case.context)
        assert not any(text in other for text in case.trained if len(text) > 4), "an answer stands in its own prompt"
        assert "None" not in trained + other
    assert (case.label is not None) == bool(data.label_names)
    if case.label is not None:
        assert case.label in data.label_names


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_recommend_and_tune_accept_what_is_trained(case, tmp_path):
    spec = spec_of(case, tmp_path)
    facts = data_facts(spec)
    assert facts.format == case.format
    assert NUM_ROWS - 3 <= facts.num_rows + facts.num_eval_rows <= 2 * NUM_ROWS
    recipe = starting_recipe("lora", spec)
    assert recipe.num_epochs == (3.0 if case.label is not None else 1.0)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_layout_is_refused_by_all_alike(case, tokenizer, tmp_path):
    spec = spec_of(case, tmp_path)
    with pytest.raises(BadInput) as by_training:
        prepare_data(spec, tokenizer, context_length=512)
    with pytest.raises(BadInput) as by_recommend:
        data_facts(spec)
    assert str(by_training.value) == str(by_recommend.value)
    for piece in case.says:
        assert piece in str(by_training.value)
