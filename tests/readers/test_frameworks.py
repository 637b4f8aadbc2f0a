"""What the trainers really print: steps are optimizer steps, numbered as they were, with the rate that stands beside them."""

from __future__ import annotations

import numpy as np
import pytest

from finestep.readers.open_logs import read_logs


def one(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (log,) = read_logs(tmp_path / name)
    return log


def trainer_output(steps, total, *, every=1, name="", evaluated_at=()):
    """The Trainer's standard output: tokenising counts examples, each row is printed above the bar, which is drawn anew behind it."""
    lines = ["Tokenizing train dataset: 100%|██████████| 500/500 [00:00<00:00, 550.72 examples/s]"]
    lines.append("Loading weights: 100%|██████████| 38/38 [00:00<00:00, 6397.61it/s]")
    for step in range(1, steps + 1):
        bar = f"{name}{100 * step // total:3d}%|█▍        | {step}/{total} [00:05<00:31,  1.76s/it]"
        lines.append(bar)
        if step % every == 0:
            row = f"{{'loss': '{5 - step / 10:.3f}', 'grad_norm': '1.2', 'learning_rate': '{step / 1000:g}', 'epoch': '{step / 50:.2f}'}}"
            lines += ["                                              ", row, "", bar]
        if step in evaluated_at:
            lines += [f"{100 * k // 7:3d}%|███       | {k}/7 [00:00<00:00, 21.11it/s]" for k in range(1, 8)]
            lines += [
                "",
                f"{{'eval_loss': '{4 - step / 100:.3f}', 'eval_runtime': '0.3', 'epoch': '{step / 50:.2f}'}}",
                "",
                bar,
            ]
    return "\r".join(lines) + "\n"


@pytest.mark.parametrize("name", ["", "Train: "])
@pytest.mark.parametrize("every", [1, 5, 10])
def test_printed_rows_stand_at_the_step_of_the_bar_behind_them(tmp_path, name, every):
    log = one(tmp_path, "out.txt", trainer_output(40, 60, every=every, name=name))
    assert log.train.step.tolist() == list(range(every, 41, every))
    assert log.train.learning_rate.tolist() == pytest.approx([step / 1000 for step in range(every, 41, every)])
    assert log.context.settings.max_steps == 60


def test_a_bar_of_validation_is_no_bar_of_training(tmp_path):
    log = one(tmp_path, "out.txt", trainer_output(20, 20, evaluated_at=(10, 20)))
    assert log.train.step.tolist() == list(range(1, 21))
    assert log.evaluation.step.tolist() == [10, 20]


def litgpt_table(steps, passes, rate):
    rows = ["batches,epoch,iter,iter_time,learning_rate,lengths,loss,samples,step,tokens,val_loss,val_ppl"]
    for done in range(1, steps * passes + 1):
        rows.append(f"{done},,,,,968,,8,{done},,,")
        rows.append(f",0,{done},2.1,{rate(done // passes)},,{4 - done / 100},,{done},863,,")
    rows.append(",,,,,,,,0,,3.25,25.8")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_the_table_of_litgpt_counts_micro_batches_and_is_read_by_steps(tmp_path, passes):
    text = litgpt_table(12, passes, lambda step: min(step / 3, 1) * 1e-3 * (1 - step / 50))
    log = one(tmp_path, "metrics.csv", text)
    assert log.train.step.tolist() == list(range(1, 13))
    assert log.train.learning_rate.max() == pytest.approx(1e-3 * (1 - 3 / 50))
    assert log.train.loss.tolist() == pytest.approx([4 - step * passes / 100 for step in range(1, 13)])
    assert (log.evaluation.step.tolist(), log.evaluation.loss.tolist()) == ([12], [3.25])


def test_what_litgpt_prints_is_read_by_steps(tmp_path):
    lines = ["{'train': TrainArgs(save_interval=1000, epochs=2, max_steps=15)}", " 'eval': EvalArgs(interval=100,"]
    for done in range(1, 13):
        ended = " (step)" if done % 3 == 0 else ""
        lines.append(
            f"Epoch 1 | iter {done} step {done // 3} | loss train: {4 - done / 10:.3f}, val: n/a | iter time: 2331.10 ms{ended}"
        )
    lines.append("Final evaluation | val loss: 3.884 | val ppl: 48.602")
    log = one(tmp_path, "out.txt", "\n".join(lines) + "\n")
    assert log.train.step.tolist() == [1, 2, 3, 4]
    assert log.train.loss.tolist() == pytest.approx([3.7, 3.4, 3.1, 2.8])
    assert np.isnan(log.train.learning_rate).all()
    assert (log.evaluation.step.tolist(), log.evaluation.loss.tolist()) == ([4], [3.884])


def test_the_bar_of_torchtune_gives_each_step_once_and_its_settings_are_no_rate(tmp_path):
    lines = ["optimizer:", "  lr: 0.003", "epochs: 2"]
    for step in range(1, 9):
        for share in (step, step + 1):
            lines.append(
                f"{1 + step // 5}|{step}|Loss: {6 - step / 4}:  {share}%|▊         | {share}/12 [00:04<00:48,  4.39s/it]"
            )
    log = one(tmp_path, "out.txt", "\r".join(lines) + "\n")
    assert log.train.step.tolist() == list(range(1, 9))
    assert log.train.loss.tolist() == pytest.approx([6 - step / 4 for step in range(1, 9)])
    assert np.isnan(log.train.learning_rate).all()


def test_settings_that_are_printed_are_no_validation(tmp_path):
    (tmp_path / "out.txt").write_text(
        "data: JSON(val_split_fraction=0.05)\n'eval': EvalArgs(interval=100, max_iters=100)\nValueError: no\n"
    )
    assert not [log for log in read_logs(tmp_path / "out.txt") if len(log.train) or log.evaluations]
