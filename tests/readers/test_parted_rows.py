"""What belongs together stands apart: a rate on a line of its own, validation among training rows, evaluators' own tables."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest

from finestep.flows.diagnose import FileReport, diagnose_file
from finestep.readers.open_logs import read_logs

STEPS = range(10, 410, 10)
LOSSES = [round(1 + 1.2 * math.exp(-step / 100) + 0.002 * (step % 7), 4) for step in STEPS]


def report(tmp_path: Path, name: str, text: str) -> FileReport:
    path = tmp_path / name
    path.write_text(text)
    return diagnose_file(path)


def _deepspeed(step: int, skipped: int = 0) -> str:
    rate = 1e-5 * (1 - step / 500)
    return (f"[2024-05-01 10:00:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step={step}, skipped={skipped}, "
            f"lr=[{rate:.6g}, {rate:.6g}], mom=[(0.9, 0.95), (0.9, 0.95)]\n")  # fmt: skip


def test_the_rate_of_deepspeed_belongs_to_the_loss_of_its_step(tmp_path: Path) -> None:
    timer = "[INFO] [timer.py:260:stop] epoch=0/micro_step={0}/global_step={0}, RunningAvgSamplesPerSec=41.6, CurrSamplesPerSec=42.1\n"
    lines = [_deepspeed(step) + timer.format(step) + f"steps: {step} loss: {loss} iter time (s): 0.512 samples/sec: 31.2\n"
             for step, loss in zip(STEPS, LOSSES, strict=True)]  # fmt: skip
    (tmp_path / "out.log").write_text("".join(lines))
    [log] = read_logs(tmp_path / "out.log")
    assert log.train.step.tolist() == list(STEPS)
    assert log.train.loss.tolist() == LOSSES
    assert log.train.learning_rate[0] == pytest.approx(9.8e-6)


def test_steps_that_deepspeed_left_out_are_told(tmp_path: Path) -> None:
    lines = [
        _deepspeed(step, skipped=step - 2) + f"steps: {step} loss: 2.5{step % 9} iter time (s): 0.5\n" for step in STEPS
    ]
    said = report(tmp_path, "out.log", "".join(lines))
    assert (said.label, said.verdict.code) == ("numerical_failure", "steps_skipped")


@pytest.mark.parametrize(
    "names", [("phase", "train", "val"), ("split", "training", "Validation"), ("mode", "train", "dev")]
)
def test_a_column_may_say_which_rows_are_of_validation(names: tuple[str, str, str], tmp_path: Path) -> None:
    column, training, validation = names
    lines = [f"global_step,{column},loss,accuracy,learning_rate"]
    for n, (step, loss) in enumerate(zip(STEPS, LOSSES, strict=True), start=1):
        lines.append(f"{step},{training},{loss},,1e-5")
        lines += [f"{step},{validation},{loss + 0.4},{0.5 + n / 100},"] if n % 10 == 0 else []
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    [log] = read_logs(tmp_path / "metrics.csv")
    assert log.train.loss.tolist() == LOSSES
    assert log.evaluation is not None
    assert log.evaluation.loss.tolist() == [loss + 0.4 for loss in LOSSES[9::10]]
    assert log.evaluation.metrics["accuracy"].tolist() == pytest.approx([0.6, 0.7, 0.8, 0.9])


def test_an_evaluator_of_sentence_transformers_that_measures_an_error_alone_is_read(tmp_path: Path) -> None:
    rows = [f"{epoch},-1,{0.5 + 3 * math.exp(-epoch / 3):.4f}" for epoch in range(1, 9)]
    (tmp_path / "mse_evaluation_results.csv").write_text("\n".join(["epoch,steps,MSE", *rows]) + "\n")
    [log] = read_logs(tmp_path / "mse_evaluation_results.csv")
    assert log.evaluation is not None
    assert log.evaluation.metrics["mse"][0] == pytest.approx(0.5 + 3 * math.exp(-1 / 3), abs=1e-4)
    assert len(log.evaluation) == 8


def test_an_error_with_its_sign_changed_is_better_when_it_is_higher(tmp_path: Path) -> None:
    history = [{"epoch": n / 10, "loss": 0.3 + 2 * math.exp(-n), "learning_rate": 2e-5 * (1 - n / 11), "step": 100 * n}
               for n in range(1, 11)]  # fmt: skip
    history += [
        {"epoch": n / 10, "eval_negative_mse": -0.5 - 3 * math.exp(-n / 2), "step": 100 * n} for n in range(1, 11)
    ]
    state = {"log_history": history, "max_steps": 1000, "global_step": 1000}
    assert report(tmp_path, "trainer_state.json", json.dumps(state)).label == "healthy"


def test_a_resume_over_streamed_rows_is_no_second_run(tmp_path: Path) -> None:
    """The count of epochs begins anew then, and steps and losses go on."""
    rows = [{"step": 50 * n, "loss": 0.8 + 2 * math.exp(-n / 30) + 0.01 * (n % 3), "learning_rate": 1e-5,
             "epoch": n / 1000 if n < 60 else (n - 60) / 1000} for n in range(1, 161)]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_logs(tmp_path / "log.jsonl")) == 1


def test_epochs_and_losses_that_begin_anew_are_a_second_run(tmp_path: Path) -> None:
    rows = [{"step": 50 * n, "loss": 0.8 + 2 * math.exp(-(n % 80) / 30), "learning_rate": 1e-5, "epoch": (n % 80) / 1000}
            for n in range(1, 160)]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_logs(tmp_path / "log.jsonl")) == 2


def test_names_in_columns_of_blanks_keep_the_word_of_their_set(tmp_path: Path) -> None:
    lines = []
    for n in range(1, 31):
        lines += [
            f"[Epoch {n}/30]",
            f"INFO - Train Loss: {0.5 + 2 / n:.4f}, Train Acc: 0.7",
            f"INFO - Val   Loss: {0.9 + 2 / n:.4f}, Val   Acc: 0.6",
        ]
    (tmp_path / "train.log").write_text("\n".join(lines) + "\n")
    [log] = read_logs(tmp_path / "train.log")
    assert log.train.loss.tolist() == pytest.approx([0.5 + 2 / n for n in range(1, 31)], abs=1e-4)
    assert log.evaluation is not None
    assert log.evaluation.loss.tolist() == pytest.approx([0.9 + 2 / n for n in range(1, 31)], abs=1e-4)


def test_margins_by_another_name_are_of_preference(tmp_path: Path) -> None:
    rows = [
        f"{n},{0.69 * math.exp(-n / 20):.4f},{n / 10 + (n % 3) / 10:.3f},{min(0.5 + n / 50, 0.9):.3f}"
        for n in range(1, 41)
    ]
    (tmp_path / "dpo.csv").write_text(
        "\n".join(["step,train_loss,train_reward_margin,train_reward_accuracy", *rows]) + "\n"
    )
    [log] = read_logs(tmp_path / "dpo.csv")
    assert log.context.objective == "preference"
    assert log.train.pairs.margin[-1] == pytest.approx(4.1)


def test_a_counter_of_epochs_that_is_not_finite_makes_no_noise(tmp_path: Path) -> None:
    rows = [
        f'{{"step": {n}, "loss": {2 - n / 50}, "epoch": {"1e999" if n in (9, 20) else n / 10 % 2}}}'
        for n in range(1, 40)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(rows) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert diagnose_file(tmp_path / "log.jsonl").findings


def test_a_table_of_a_metric_alone_names_the_step_where_it_was_best(tmp_path: Path) -> None:
    rows = [f"0,{1000 * n},{0.5 + 3 * math.exp(-n / 2) + max(0, n - 5) * 0.08:.4f}" for n in range(1, 11)]
    said = report(tmp_path, "mse_evaluation_results.csv", "\n".join(["epoch,steps,MSE", *rows]) + "\n")
    assert [finding.advice for finding in said.findings if finding.code == "past_its_best"] == ["keep step 6000"]
