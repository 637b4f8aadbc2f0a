"""One history in every format reads back to the same numbers; broken files end cleanly."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from finestep.diagnosis.training_log import TrainSeries
from finestep.errors import BadInput, FinestepError
from finestep.flat import flat_names, flat_values
from finestep.flows.diagnose import diagnose_file
from finestep.readers import text_stream
from finestep.readers.open_logs import find_logs, read_logs
from finestep.trial import EvalRecord, StepRecord
from tests.readers.mutations import mutated

FIXTURES = Path(__file__).parent / "fixtures"
MAKER = Path(__file__).parents[2] / "scripts" / "make_log_fixtures" / "make.py"

FORMATS = {
    "trainer_state.json": "Hugging Face trainer_state.json",
    "trl_trainer_state.json": "Hugging Face trainer_state.json",
    "axolotl_trainer_state.json": "Hugging Face trainer_state.json",
    "log_history_list.json": "JSON rows",
    "trainer_output.txt": "Hugging Face Trainer output",
    "llamafactory_trainer_log.jsonl": "LLaMA-Factory trainer_log.jsonl",
    "ms_swift_logging.jsonl": "ms-swift logging.jsonl",
    "torchtune_log.txt": "torchtune disk log",
    "lightning_metrics.csv": "Lightning metrics.csv",
    "litgpt_metrics.csv": "litgpt metrics.csv",
    "events.out.tfevents.fixture": "TensorBoard events",
    "run-fixture.wandb": "W&B offline file",
    "wandb_panel.csv": "W&B CSV export",
    "mlflow.db": "MLflow SQLite store",
    "mlflow_run": "MLflow file store",
    "trackio.db": "trackio project",
    "plain.csv": "CSV",
    "plain.jsonl": "JSON lines",
}
ONLY_LOSSES = {"wandb_panel.csv"}
NO_GRADIENT_NORM = {"llamafactory_trainer_log.jsonl"}
THREE_DIGITS = {"trainer_output.txt"}


def _history():
    spec = importlib.util.spec_from_file_location("make_log_fixtures", MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.history()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_reads_to_the_same_records(name: str) -> None:
    train, evals = _history()
    (log,) = read_logs(FIXTURES / name)
    tolerance = 2e-3 if name in THREE_DIGITS else 1e-5
    assert log.format == FORMATS[name]
    np.testing.assert_array_equal(log.train.step, [row["step"] for row in train])
    np.testing.assert_allclose(log.train.loss, [row["loss"] for row in train], rtol=tolerance)
    if name in ONLY_LOSSES:
        return
    np.testing.assert_allclose(
        log.train.learning_rate, [row["learning_rate"] for row in train], rtol=tolerance, atol=1e-9
    )
    if name not in NO_GRADIENT_NORM:
        np.testing.assert_allclose(log.train.grad_norm, [row["grad_norm"] for row in train], rtol=tolerance)
    np.testing.assert_array_equal(log.evaluation.step, [row["step"] for row in evals])
    np.testing.assert_allclose(log.evaluation.loss, [row["eval_loss"] for row in evals], rtol=tolerance)


def test_a_folder_gives_its_logs_and_only_the_last_checkpoint(tmp_path: Path) -> None:
    for step in (10, 9, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
    assert find_logs(str(tmp_path)) == [tmp_path / "checkpoint-100" / "trainer_state.json"]


def test_a_missing_log_is_named() -> None:
    with pytest.raises(BadInput, match="nowhere"):
        find_logs("nowhere.json")


def test_bare_nan_and_a_torn_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(
        '{"max_steps": 9, "log_history": [{"loss": NaN, "step": 1}, {"loss": 2.5, "grad_norm": NaN, "step": 2}, {"lo'
    )
    (log,) = read_logs(path)
    assert log.train.loss.tolist() == [np.inf, 2.5]
    assert np.isinf(log.train.grad_norm[1])
    assert log.context.settings.max_steps == 9


def test_two_writers_in_one_file_are_merged_and_a_second_run_is_not(tmp_path: Path) -> None:
    twice = [f'{{"step": {step}, "loss": {3 - step / 50}}}' for step in range(1, 60) for _ in range(2)]
    interleaved = tmp_path / "two_writers.jsonl"
    interleaved.write_text("\n".join(twice[1:] + twice[:1]))
    (log,) = read_logs(interleaved)
    assert log.train.step.tolist() == list(range(1, 60))
    again = [f'{{"step": {step}, "loss": {3 - step / 50}}}' for _ in range(2) for step in range(1, 60)]
    second = tmp_path / "two_runs.jsonl"
    second.write_text("\n".join(again))
    assert [len(each.train) for each in read_logs(second)] == [59, 59]


def test_a_resumed_run_keeps_the_later_rows(tmp_path: Path) -> None:
    rows = [(step, 2.0) for step in range(1, 81)] + [(step, 1.0) for step in range(61, 121)]
    path = tmp_path / "resumed.jsonl"
    path.write_text("\n".join(f'{{"step": {step}, "loss": {loss}}}' for step, loss in rows))
    (log,) = read_logs(path)
    assert log.train.step.tolist() == list(range(1, 121))
    assert log.train.loss[59:62].tolist() == [2.0, 1.0, 1.0]


def test_several_evaluation_sets_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 1, "eval_news_loss": 1.5}\n{"step": 1, "eval_law_loss": 1.7}\n')
    (log,) = read_logs(path)
    assert {series.name: series.loss.tolist() for series in log.evaluations} == {"news": [1.5], "law": [1.7]}


def test_a_trial_of_finestep_is_read_with_its_evaluations(tmp_path: Path) -> None:
    steps = [
        StepRecord(step=n, loss=3 - n / 20, learning_rate=1e-3, grad_norm=1.0, clipped=False, num_tokens=9,
                   num_loss_tokens=4, elapsed_s=0.1) for n in [*range(1, 21), *range(15, 41)]
    ]  # fmt: skip
    evals = [EvalRecord(step=n, num_tokens=9, eval_loss=3.1 - n / 20, metrics={"perplexity": 2.0}) for n in (0, 20, 40)]
    (tmp_path / "steps.jsonl").write_text("".join(each.model_dump_json() + "\n" for each in steps))
    (tmp_path / "evaluations.jsonl").write_text("".join(each.model_dump_json() + "\n" for each in evals))
    (found,) = find_logs(str(tmp_path))
    (log,) = read_logs(found)
    assert log.format == "finestep records"
    assert log.train.step.tolist() == list(range(1, 41))
    assert log.evaluation.step.tolist() == [0, 20, 40]


def test_own_epoch_blocks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    block = "Epoch: {0}/3\nTime: 3s - LR: 1e-04\nTrain Loss: {1}.5 - x\nValid Loss: {2}.25\n--\n"
    path.write_text("".join(block.format(n, 3 - n, 4 - n) for n in (1, 2, 3)))
    (log,) = read_logs(path)
    assert log.train.loss.tolist() == [2.5, 1.5, 0.5]
    assert log.evaluation.loss.tolist() == [3.25, 2.25, 1.25]
    assert log.train.epoch.tolist() == [1, 2, 3]


def test_a_guessed_column_is_said(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("step,my_loss_value\n" + "".join(f"{step},{3 - step / 10}\n" for step in range(1, 11)))
    (log,) = read_logs(path)
    assert len(log.train) == 10
    assert any("my_loss_value" in note for note in log.notes)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("printed", [False, True])
def test_rows_read_together_are_those_read_one_by_one(printed: bool, broken: bool, tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    odd = {3: "nan", 50: "x", 51: None, 90: 10**400, 200: True}
    rows = [
        {
            "loss": float(rng.random()),
            "lr": odd.get(step, 1e-4),
            "step": step,
            **({"eval_loss": 1.0} if step % 40 == 0 else {}),
        }
        for step in range(300)
    ]
    lines = [str(row) if printed else json.dumps(row) for row in rows]
    if broken:
        lines[7], lines[120] = lines[7][:-5], lines[120] + "}"
    path = tmp_path / ("out.log" if printed else "log.jsonl")
    path.write_text("\n".join(lines))
    (together,) = read_logs(path)
    monkeypatch.setattr(text_stream, "ROWS_AT_ONCE", 1)
    (single,) = read_logs(path)
    assert len(together.train) >= 296
    read_together, read_alone = flat_values(together.train), flat_values(single.train)
    assert read_together.keys() == set(flat_names(TrainSeries))
    for name, column in read_together.items():
        np.testing.assert_array_equal(column, read_alone[name])
    assert together.notes == single.notes
    assert [series.loss.tolist() for series in together.evaluations] == [s.loss.tolist() for s in single.evaluations]


@pytest.mark.parametrize("seed", range(400))
def test_a_broken_file_ends_cleanly(seed: int, tmp_path: Path) -> None:
    fixtures = sorted(path for path in FIXTURES.iterdir() if path.is_file())
    source = fixtures[seed % len(fixtures)]
    path = tmp_path / source.name
    path.write_bytes(mutated(source.read_bytes(), 100_000 + seed))
    try:
        report = diagnose_file(path)
    except FinestepError:
        return
    assert report.findings


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 1000, b"{", b"[", b"[" * 200_000, b'{"a":' * 200_000, b"SQLite format 3\0", b":W&B"]
)
def test_files_without_a_log_end_cleanly(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    try:
        label = diagnose_file(path).label
    except BadInput as error:
        refused = str(error)
    else:
        assert label == "too_little_information"
        return
    assert content.startswith(b"SQLite") or "no training log" in refused
    """A trainer state names its planned steps behind its rows, however many those are."""
    rows = [{"loss": 2.0 + 1 / (step + 1), "step": step} for step in range(1, 50_001)]
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": rows, "max_steps": 123_456}, indent=2))
    (log,) = read_logs(path)
    assert len(log.train) == 50_000
    assert log.context.settings.max_steps == 123_456
