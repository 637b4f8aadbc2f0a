"""Values whose fields stand in parts here, and side by side in their files: what is on disk stays as it was."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from finestep.diagnosis.training_log import TRAIN_COLUMNS, columns_of, train_series
from finestep.facts import ModelFacts
from finestep.flat import flat_names, flat_values, from_flat
from finestep.probe import Measured
from finestep.saved_model import SavedModel
from finestep.study import FrameworkSpec, StudySpec
from finestep.trial import Cost, Forgetting, Outcome

FRAMEWORK = {
    "name": "trl", "config": "c.yaml", "text": "a: 1", "launcher": "trl sft", "working_dir": "/w", "settings": {"x.y": 1},
    "environment": {"A": "B"}, "num_rows": 10, "warmup_share": 0.1, "full_steps": 7, "parallel": 2, "timeout_s": 5.0,
    "guards": ["a<=1"],
}  # fmt: skip
FILES = {
    Outcome: {
        "state": "completed", "reason": "r", "eval_loss": "Infinity", "metrics": {"a": "NaN"}, "base_eval_loss": 2.0,
        "best_step": 3, "kl_at_end": "Infinity", "kl_limit": 0.5, "num_steps": 4, "num_train_tokens": 5,
        "elapsed_s": "NaN", "micro_batch_size": 2, "peak_memory_bytes": 9, "recipe_hash": "x", "by_hand": True,
        "projected": {"eval_loss": 1.0},
    },
    FrameworkSpec: FRAMEWORK,
    StudySpec: {
        "name": "n", "model": {"path": "m"}, "data": {"path": "d"}, "recipe": {}, "strategy": "auto",
        "start": {"learning_rate": 1e-4, "learning_rate_sd": 1.0, "batch_size": 8.0, "batch_size_sd": 1.0},
        "objective": "acc", "goal": "maximize", "prefer": "speed", "with_baseline": False, "framework": FRAMEWORK,
        "tuned": [{"name": "lora.rank", "values": [4.0, 8.0]}], "metrics": ["exact_match"], "num_threads": 2,
    },
    SavedModel: {
        "method": "lora", "auto_class": "A", "base": "b", "revision": "r", "dtype": "bfloat16", "autocast": True,
        "labels": ["x", "y"], "trust_remote_code": True, "data": "d", "num_rows": 4, "num_eval_rows": 2, "max_length": 9,
        "recipe": {}, "figures": {"l": 1.0}, "merged": True,
    },
    Measured: {
        "device": "cpu", "dtype": "float32", "num_threads": 2, "seconds_of_threads": {"1": 0.5, "2": 0.25}, "card": {},
        "lever": {}, "curves": [], "num_parameters": 5, "num_trained": 3, "largest_micro_batch": 4,
        "limit_source": "tried", "knee": 1, "update_s": 0.1, "evaluation_s": 0.2, "ceiling_breaks_at": 0.1,
        "rates": [{"micro_batch": 1, "seconds": 0.5, "num_tokens": 3.0, "num_padded_tokens": 4.0}], "elapsed_s": 3.0,
        "noise": {"value": None, "low": 1.0, "high": None, "num_steps": 3, "words": "w"}, "notes": ["n"],
    },
    ModelFacts: {
        "name": "n", "family": "llama", "num_parameters": 5, "num_layers": 2, "hidden_size": 4, "vocabulary_size": 9,
        "tied_embeddings": True, "is_instruct": False, "weights_bytes": 7, "source": "s",
    },
}  # fmt: skip
"""Each as the version before these parts wrote it (0.2.0 in November 2026), without the fields at their defaults."""


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.__name__)
def test_a_file_of_the_version_before_is_read_and_written_as_it_was(kind):
    text = json.dumps(FILES[kind])
    found = kind.model_validate_json(text)
    assert json.loads(found.model_dump_json(exclude_defaults=True)) == FILES[kind]
    assert kind.model_validate_json(found.model_dump_json()).model_dump_json() == found.model_dump_json()


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.__name__)
def test_the_schema_is_that_of_the_file(kind):
    told = kind.model_json_schema()
    assert set(FILES[kind]) <= set(told["properties"])
    assert set(told["required"]) <= set(FILES[kind])
    assert set(told["properties"]) == set(kind.model_validate(FILES[kind]).model_dump())


def test_what_a_file_states_stands_in_its_part():
    found = Outcome.model_validate(FILES[Outcome])
    assert (found.cost.num_steps, found.cost.micro_batch_size, found.forgetting.kl_limit) == (4, 2, 0.5)
    built = Outcome(state="completed", cost=Cost(num_steps=4), forgetting=Forgetting(kl_limit=0.5))
    assert (built.model_dump()["num_steps"], built.model_dump()["kl_limit"]) == (4, 0.5)


def test_a_key_that_belongs_nowhere_is_refused():
    with pytest.raises(ValidationError, match="num_stepps"):
        Outcome.model_validate({"state": "completed", "num_stepps": 4})
    with pytest.raises(ValidationError, match="num_rows"):
        StudySpec.model_validate({**FILES[StudySpec], "num_rows": 4})


@dataclass(frozen=True)
class Size:
    """A part."""

    width: int
    height: int = 1


@dataclass(frozen=True)
class Box:
    """A record with a part."""

    name: str
    size: Size
    color: str = "red"


def test_a_row_of_a_table_becomes_a_record_with_its_parts():
    row = {"name": "a", "width": 3}
    assert from_flat(Box, row) == Box("a", Size(3, 1), "red")
    assert flat_names(Box) == ("name", "width", "height", "color")
    assert flat_values(from_flat(Box, row)) == {"name": "a", "width": 3, "height": 1, "color": "red"}
    with pytest.raises(TypeError, match="depth"):
        from_flat(Box, {**row, "depth": 2})
    with pytest.raises(TypeError, match="width"):
        from_flat(Box, {"name": "a"})


def test_every_column_of_a_log_is_found_by_its_name():
    series = train_series(loss=[2.0, 1.0], kl=[0.1, 0.2], margin=[0.3, 0.4])
    columns = columns_of(series)
    assert tuple(columns) == TRAIN_COLUMNS
    assert columns["kl"] is series.answers.kl
    assert columns["margin"] is series.pairs.margin
