"""A log that still grows: each row once, whole lines only, and what the trainer says of its run."""

from __future__ import annotations

import pytest

from finestep.trainers.frameworks import FRAMEWORKS
from finestep.trainers.live_log import EvalRow, LiveLog, TrainRow
from finestep.trainers.plan import TrialPlan


def live(tmp_path, name="trl", **more):
    values = {
        "learning_rate": 1e-3,
        "micro_batch": 4,
        "accumulation": 2,
        "num_devices": 1,
        "num_steps": 12,
        "warmup_steps": 1,
    }
    plan = TrialPlan(**{**values, **more}, num_epochs=1.0, seed=0, output=str(tmp_path / "out"))
    return LiveLog(FRAMEWORKS[name], plan, tmp_path / "output.log")


def append(tmp_path, text):
    with (tmp_path / "output.log").open("a", encoding="utf-8") as file:
        file.write(text)


ROW = "{'loss': '%s', 'grad_norm': '1.5', 'learning_rate': '0.001', 'epoch': '0.1'}"


def test_rows_come_once_and_a_torn_line_waits(tmp_path):
    log = live(tmp_path)
    assert log.rows() == []
    append(tmp_path, f"  8%|▊  | 1/12 [00:01<00:12, 1.42s/it]\r{ROW % '5.1'}\n{(ROW % '4.9')[:30]}")
    (first,) = log.rows()
    assert (first.step, first.loss, first.learning_rate, first.grad_norm) == (1, 5.1, 0.001, 1.5)
    append(tmp_path, (ROW % "4.9")[30:] + "\n")
    assert [(row.step, row.loss) for row in log.rows()] == [(2, 4.9)]
    append(tmp_path, ROW % "4.7")
    assert log.rows() == []
    assert [row.step for row in log.rows(is_over=True)] == [3]


def test_a_row_that_a_logger_repeats_is_one_row(tmp_path):
    append(tmp_path, f"{ROW % '5.1'}\n[INFO|callbacks.py:143] 10:13:31 >> {ROW % '5.1'}\n{ROW % '4.9'}\n")
    assert [row.loss for row in live(tmp_path).rows()] == [5.1, 4.9]


def test_what_is_said_of_rows_steps_and_batch(tmp_path):
    log = live(tmp_path)
    append(
        tmp_path,
        "  Num examples = 1,234\n  Total train batch size (w. parallel, accumulation) = 8\n  Total optimization steps = 12\n",
    )
    log.rows()
    assert (log.said.num_rows, log.said.batch, log.said.num_steps) == (1234, 8, 12)


def test_an_evaluation_has_all_its_numbers_and_no_times(tmp_path):
    append(
        tmp_path,
        "{'eval_loss': '2.5', 'eval_rewards/accuracies': '0.7', 'eval_runtime': '1.2', 'eval_steps_per_second': '3'}\n",
    )
    (row,) = live(tmp_path).rows()
    assert isinstance(row, EvalRow)
    assert row.step == 12
    assert row.values == {"eval_loss": 2.5, "eval_rewards/accuracies": 0.7}


@pytest.mark.parametrize(
    "text",
    ["{'train_runtime': '3.1', 'train_loss': '2.2', 'epoch': '1'}\n", "{'lr': 0.003, 'a': {'loss': 1}}\n", "loss\n"],
)
def test_summaries_and_settings_are_no_rows(tmp_path, text):
    append(tmp_path, text)
    assert live(tmp_path).rows() == []


def test_the_table_of_litgpt_is_read_by_steps_while_it_is_written_anew(tmp_path):
    log = live(tmp_path, "litgpt")
    table = tmp_path / "out/logs/csv/version_0/metrics.csv"
    table.parent.mkdir(parents=True)
    head = "epoch,iter,iter_time,learning_rate,loss,step"
    table.write_text(f"{head}\n0,1,0.1,0.0,4.0,1\n0,2,0.1,0.001,3.9,2\n")
    assert [(row.step, row.loss, row.learning_rate) for row in log.rows()] == [(1, 3.9, 0.001)]
    table.write_text(
        f"{head},val_loss\n0,1,0.1,0.0,4.0,1,\n0,2,0.1,0.001,3.9,2,\n0,3,0.1,0.001,3.8,3,\n0,4,0.1,0.0005,3.7,4,\n,,,,,0,3.2\n"
    )
    found = log.rows()
    assert [(row.step, row.loss) for row in found if isinstance(row, TrainRow)] == [(2, 3.7)]
    assert [row.values for row in found if isinstance(row, EvalRow)] == [{"val_loss": 3.2}]


def test_a_table_that_is_short_for_a_moment_gives_no_row_twice(tmp_path):
    log = live(tmp_path, "litgpt")
    table = tmp_path / "out/logs/csv/version_0/metrics.csv"
    table.parent.mkdir(parents=True)
    head, rows = (
        "epoch,iter,iter_time,learning_rate,loss,step",
        [f"0,{i},0.1,0.001,{4 - i / 10},{i}" for i in range(1, 7)],
    )
    table.write_text("\n".join([head, *rows[:4]]) + "\n")
    assert [row.step for row in log.rows()] == [1, 2]
    table.write_text(head)
    assert log.rows() == []
    table.write_text("\n".join([head, *rows[:2], rows[2][:5]]))
    assert log.rows() == []
    table.write_text("\n".join([head, *rows]) + "\n")
    assert [row.step for row in log.rows()] == [3]
