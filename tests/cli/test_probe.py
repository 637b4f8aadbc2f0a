"""`finestep probe` as a person runs it: predicted for another device, measured here, known the second time."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from finestep.cli.main import app
from finestep.errors import BadInput
from finestep.flows.probe import best_micro_batch, cached, shape_of_pass
from finestep.studies.asked import starting_recipe
from finestep.studies.run import StudyRun
from finestep.studies.spec import StudyOptions, study_spec
from finestep.study import Budget, DataSpec, ModelSpec

pytestmark = pytest.mark.slow


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["probe", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_memory_is_predicted_without_weights_or_gpu(shipped_model):
    answer = json.loads(run(str(shipped_model), "--gpu", "24GB", "--max-length", "64", "--method", "full", "--json"))
    assert [bool(s["chunk_tokens"]) for s in answer["settings"]] == [False, True, False, True]
    rows = [setting["largest_micro_batch"] for setting in answer["settings"]]
    assert rows[3] > rows[2] > rows[0] > 100
    plain = answer["settings"][0]
    assert plain["parts_one_row"]["optimizer"] == pytest.approx(8 * answer["num_parameters"], rel=0.01)
    assert sum(plain["parts_one_row"].values()) == pytest.approx(plain["peak_bytes_one_row"], rel=1e-3)
    assert "checkpointing:" in answer["advice"]


def test_memory_is_predicted_for_a_bare_size():
    shown = run("--predict", "--params", "350M", "--gpu", "24GB", "--max-length", "128")
    assert "only the size is known" in shown
    assert "largest micro-batch" in shown


def test_a_wrong_word_is_a_message():
    with pytest.raises(BadInput, match="did you mean `adamw`"):
        run("x", "--predict", "--optimizer", "adamv")
    with pytest.raises(BadInput, match="nothing is known about this model"):
        run("no/such-model", "--predict")
    with pytest.raises(BadInput, match="say which model"):
        run("--predict")


def test_the_machine_is_measured_once(shipped_model, instruct_file, tmp_path):
    asked = (str(shipped_model), str(instruct_file), "--max-length", "48", "--time", "6s", "--threads", "1")
    first = json.loads(run(*asked, "--price-per-hour", "3", "--device", "cpu", "--json"))
    measured = first["measured"]
    assert not first["was_cached"]
    assert measured["largest_micro_batch"] >= measured["knee"] >= 1
    assert measured["limit_source"] == "prediction"
    assert all(point["seconds"] > 0 for point in measured["rates"])
    assert first["run_s"] > 0
    assert first["study_price"] == pytest.approx(first["study_s"] / 1200)
    again = run(*asked, "--device", "cpu")
    assert "measured before" in again
    assert "tokens per second" in again

    model, data = ModelSpec(path=str(shipped_model), device="cpu"), DataSpec(path=str(instruct_file), max_length=48)
    recipe = starting_recipe("lora", data)
    known = cached(model, data, recipe.changed(learning_rate=1e-3), num_threads=1)
    assert known.speed.knee == measured["knee"], "the learning rate does not matter"
    assert cached(model, data, recipe.changed(method="full"), num_threads=1) is None
    assert best_micro_batch(known, recipe) <= 16
    assert shape_of_pass(known, recipe, wanted=1).lanes == 1
    spec = study_spec(model=model, data=data, recipe=recipe, strategy="single", options=StudyOptions(num_threads=1))
    study = StudyRun(spec, tmp_path / "study", Budget(full_runs=1), command="finestep", check_saved=False)
    assert study._session().micro_batch_limit == known.memory.largest_micro_batch
    study.store.close()
