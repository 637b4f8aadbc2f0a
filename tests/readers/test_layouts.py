"""Printed layouts of trainers that write no file of rows: each reads to the same steps and losses."""

from __future__ import annotations

import json
import math
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from finestep.errors import FinestepError
from finestep.flows.diagnose import diagnose_file
from finestep.readers.open_logs import read_logs
from tests.readers.mutations import mutated

LOSSES = [round(1.2 + 2 * math.exp(-n / 12) + 0.01 * (n * 7 % 5), 4) for n in range(1, 41)]
EVERY = 20


def _with_evals(row, evaluation):
    """The lines of all rows, and of an evaluation after each 20th."""
    return "".join(row(n, loss) + (evaluation(n, loss) if n % EVERY == 0 else "") for n, loss in enumerate(LOSSES, 1))


LAYOUTS = {
    "mlx_lm": _with_evals(
        lambda n, x: f"Iter {n}: Train loss {x:.4f}, Learning Rate 1.0e-05, It/sec 0.9, Tokens/sec 80.1, Peak mem 8.1 GB\n",
        lambda n, x: f"Iter {n}: Val loss {x + 0.1:.4f}, Val took 17.177s\n",
    ),
    "nanoGPT": _with_evals(
        lambda n, x: f"iter {n}: loss {x:.4f}, time 120.33ms, mfu 3.01%\n",
        lambda n, x: f"step {n}: train loss {x:.4f}, val loss {x + 0.1:.4f}\nsaving checkpoint to out\n",
    ),
    "litgpt": _with_evals(
        lambda n, x: f"Epoch 1 | iter {n * 4} step {n} | loss train: {x:.4f}, val: n/a | iter time: 123.4 ms (step)\n",
        lambda n, x: f"iter {n * 4}: val loss {x + 0.1:.4f}, val time: 1234.5 ms\n",
    ),
    "fairseq": _with_evals(
        lambda n, x: f"2021-05-01 10:00:00 | INFO | train_inner | epoch 001:    {n} / 500 loss={x:.4f}, ppl=5.1, wps=100, "
        f"num_updates={n}, lr=0.0001, gnorm=1.2, loss_scale=128\n",
        lambda n, x: f"2021-05-01 10:00:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss {x + 0.1:.4f} | ppl 5.2 | "
        f"num_updates {n} | best_loss 0.7\n",
    ),
    "fairseq with hydra": _with_evals(
        lambda n, x: f'[2021-05-01 10:00:00,1][train_inner][INFO] - {{"epoch": 1, "loss": "{x}", "num_updates": "{n}", "lr": "1e-4"}}\n',
        lambda n, x: f'[2021-05-01 10:00:00,1][valid][INFO] - {{"valid_loss": "{x + 0.1:.4f}", "valid_num_updates": "{n}"}}\n',
    ),
    "Megatron": _with_evals(
        lambda n, x: f" iteration {n:8d}/    1000 | consumed samples: 640 | elapsed time per iteration (ms): 1243.1 | learning rate: "
        f"3.0E-05 | global batch size:    64 | lm loss: {x:.6E} | loss scale: 1.0 | grad norm: 1.200 |\n",
        lambda n, x: f" validation loss at iteration {n} | lm loss value: {x + 0.1:.6E} | lm loss PPL: 3.1E+00 |\n",
    ),
    "Keras": "".join(
        f"Epoch {n}/40\n782/782 [==============================] - 5s 6ms/step - loss: {x:.4f} - accuracy: 0.8 - val_loss: "
        f"{x + 0.1:.4f} - val_accuracy: 0.81\n" for n, x in enumerate(LOSSES, 1)
    ),
    "Keras 3": "".join(
        f"Epoch {n}/40\n\x1b[1m782/782\x1b[0m \x1b[32m━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m5s\x1b[0m 6ms/step - accuracy: 0.8 - loss: "
        f"{x:.4f} - val_accuracy: 0.8 - val_loss: {x + 0.1:.4f}\n" for n, x in enumerate(LOSSES, 1)
    ),
    "torchtune's bar": "".join(
        f"1|{n}|Loss: {x}:   3%|# | {n}/40 [03:01<11:21,  1.34s/it]" + "\r" for n, x in enumerate(LOSSES, 1)
    ),
    "OpenRLHF": "".join(
        f"Train step of epoch 0:  {n}%|█   | {n}/40 [00:10<01:30,  1.2s/it, gpt_loss={x}, lr=5e-06]\r"
        for n, x in enumerate(LOSSES, 1)
    ),
    "Lightning's bar": "".join(
        f"Epoch 0:  {n}%|█   | {n}/40 [00:10<01:30,  1.20it/s, v_num=0, train_loss={x}]\r" for n, x in enumerate(LOSSES, 1)
    ),
    "keys and values": "".join(f"step {n} | loss {x} | lr 1e-4 | gnorm 1.0\n" for n, x in enumerate(LOSSES, 1)),
    "steps that begin again in each epoch": "".join(
        f"Epoch {1 + (n - 1) // 10}, Step {(n - 1) % 10}, Loss: {x}:  9%|#  | {n}/40 [00:01<02:35]\n" for n, x in enumerate(LOSSES, 1)
    ),
    "a counter in brackets": "".join(
        f"Epoch:[1/1]({n}/40), loss: {x}, aux_loss: 0.0, learning_rate: 0.00001, epoch_time: 9.0min\n"
        for n, x in enumerate(LOSSES, 1)
    ),
    "a notebook's table": "Step  Training Loss  Validation Loss\n"
    + "".join(f"{n}     {x}         {x + 0.1:.4f}\n" for n, x in enumerate(LOSSES, 1)),
    "LLaMA-Factory's echo": "".join(
        f"03/12/2024 11:24:{n:02d} - INFO - llmtuner.extras.callbacks - {{'loss': {x}, 'learning_rate': 4.9e-05, 'epoch': 0.0}}\n"
        f"{{'loss': {x}, 'grad_norm': 1.2, 'learning_rate': 4.9e-05, 'epoch': 0.0}}\n" for n, x in enumerate(LOSSES, 1)
    ),
}  # fmt: skip
NO_EVALUATION = {"torchtune's bar", "OpenRLHF", "Lightning's bar", "keys and values", "steps that begin again in each epoch",
                 "a counter in brackets", "LLaMA-Factory's echo"}  # fmt: skip
FROM_ZERO = {"steps that begin again in each epoch"}


@pytest.fixture
def read(tmp_path: Path):
    def reader(text: str, name: str = "train.log"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_logs(tmp_path / name)

    return reader


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_printed_layout_is_read(layout: str, read) -> None:
    (log,) = read(LAYOUTS[layout])
    spacing = 782 if layout.startswith("Keras") else 1
    assert log.train.step.tolist() == [spacing * (n - (layout in FROM_ZERO)) for n in range(1, 41)]
    np.testing.assert_allclose(log.train.loss, LOSSES, atol=1e-4)
    if layout not in NO_EVALUATION:
        series = log.evaluation
        assert series is not None
        rows = (series.step / spacing).astype(int)
        np.testing.assert_allclose(series.loss, np.array(LOSSES)[rows - 1] + 0.1, atol=2e-4)


@pytest.mark.parametrize(
    ("line", "column", "value"),
    [
        ("Epoch: 0 | Step: {n} | PPO Epoch: 1 | Actor Loss: 0.1 | Critic Loss: 0.3\nAverage reward score: 0.{n} | EMA reward score: 9\n",
         "reward", 0.11),
        ("step:{n} - actor/pg_loss:0.02 - actor/lr:1e-06 - critic/rewards/mean:np.float64(0.{n}) - response_length/clip_ratio:0.1\n",
         "answers.clipped_completions", 0.1),
    ],
)  # fmt: skip
def test_rewards_of_reinforcement_learning_are_read(line: str, column: str, value: float, read) -> None:
    (log,) = read("".join(line.format(n=n) for n in range(11, 31)))
    assert log.context.objective == "reinforcement"
    assert log.train.step.tolist() == list(range(11, 31))
    assert attrgetter(column)(log.train)[0] == pytest.approx(value)


def test_steps_that_the_trainer_left_out_are_counted(read) -> None:
    skipped = "[loss_scaler.py] [deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 2, reducing to 1\n"
    rows = "".join(skipped + f"{{'loss': {x}, 'learning_rate': 9e-08, 'epoch': 0.01}}\n" for x in LOSSES)
    (log,) = read(rows)
    assert log.context.num_skipped_steps == 40


def test_a_progress_bar_numbers_printed_rows(read) -> None:
    rows = "".join(
        f"{{'loss': {x}, 'epoch': {n / 40:.2f}}}\n  1%|  | {n * 10}/800 [00:01<02:35]\n"
        for n, x in enumerate(LOSSES, 1)
    )
    (log,) = read(rows)
    assert log.train.step.tolist() == [10 * n for n in range(1, 41)]
    assert log.context.settings.max_steps == 800


def test_empty_columns_of_rewards_make_no_reinforcement_learning(read) -> None:
    rows = "".join(f'{{"current_steps": {n}, "loss": {x}, "reward": null}}\n' for n, x in enumerate(LOSSES, 1))
    (log,) = read(rows, "trainer_log.jsonl")
    assert log.context.objective == "supervised"


def test_a_rate_that_falls_back_with_a_jump_in_loss_begins_a_new_run(read) -> None:
    rates = [1e-4 * min(n / 5, (41 - n) / 36) for n in range(1, 41)]
    pair = [(x, rate) for _ in range(2) for x, rate in zip(LOSSES, rates, strict=True)]
    rows = "".join(f'{{"step": {n}, "loss": {x}, "learning_rate": {rate}}}\n' for n, (x, rate) in enumerate(pair, 1))
    assert [len(log.train) for log in read(rows, "log.jsonl")] == [40, 40]


def test_a_cosine_that_restarts_is_one_run(read) -> None:
    rates = [1e-4 * (0.5 + 0.5 * math.cos(math.pi * (n % 20) / 20)) for n in range(40)]
    rows = "".join(
        f'{{"step": {n}, "loss": {x}, "learning_rate": {rate}}}\n'
        for n, (x, rate) in enumerate(zip(LOSSES, rates, strict=True), 1)
    )
    assert len(read(rows, "log.jsonl")) == 1


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("seed", range(8))
def test_a_broken_layout_ends_cleanly(layout: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(mutated(LAYOUTS[layout].encode(), 500_000 + seed))
    try:
        report = diagnose_file(path)
    except FinestepError:
        return
    assert report.findings


def _read(tmp_path: Path, text: str, name: str = "train.log"):
    path = tmp_path / name
    path.write_text(text)
    (log,) = read_logs(path)
    return log


def test_a_finished_bar_before_each_epoch_is_no_counter(tmp_path: Path) -> None:
    lines = [
        f"Epoch {n}/10\nTraining: 100%|###| 348/348 [00:20<00:00] Train Loss: {x:.4f}, Train Acc: 80.1%\n"
        f"Validation: 100%|###| 80/80 [00:01<00:00] Val Loss: {x + 0.1:.4f}, Val Acc: {80 + n}.5%\n"
        for n, x in enumerate(LOSSES[:8], 1)
    ]
    log = _read(tmp_path, "".join(lines))
    assert log.train.loss.tolist() == LOSSES[:8]
    assert np.allclose(log.evaluation.metrics["acc"], np.arange(81.5, 89))
    assert log.context.settings.num_epochs == 10


def test_epochs_in_brackets_say_how_many_were_planned(tmp_path: Path) -> None:
    log = _read(
        tmp_path, "".join(f"Epoch [{n}/80], Loss: {x:.4f}, Accuracy: 5{n % 10}%\n" for n, x in enumerate(LOSSES, 1))
    )
    assert log.train.epoch.tolist() == list(range(1, 41))
    assert log.context.settings.num_epochs == 80


def test_a_count_that_begins_again_where_the_loss_goes_on_is_one_run(tmp_path: Path) -> None:
    losses = iter(LOSSES[:24])
    log = _read(
        tmp_path, "".join(f"  step {n * 20}/120  loss {next(losses):.4f}\n" for _ in range(4) for n in range(1, 7))
    )
    assert len(log.train) == 24
    assert (np.diff(log.train.step) > 0).all()


def test_rewards_alone_are_read_as_reinforcement(tmp_path: Path) -> None:
    rows = "".join(
        f'{{"step": {n}, "reward": {0.3 + 0.01 * (n * 7 % 5):.3f}, "valid_action": 1.0}}\n' for n in range(1, 61)
    )
    log = _read(tmp_path, rows, "metrics.jsonl")
    assert log.context.objective == "reinforcement"
    assert len(log.train) == 60


def test_lines_of_pairs_and_printed_evaluations_are_both_read(tmp_path: Path) -> None:
    lines = [f"[2025-07-07 12:01:{n:02d}] INFO: loss: {x:.4f}, grad_norm: 2.1\n" for n, x in enumerate(LOSSES)]
    log = _read(tmp_path, "".join(lines) + "INFO: Eval Metrics: {'eval_loss': 1.32, 'epoch': 3.0}\n")
    assert log.train.loss.tolist() == LOSSES
    assert log.evaluation.loss.tolist() == [1.32]


def test_a_document_that_lists_its_series_beside_its_rows_is_one_run(tmp_path: Path) -> None:
    rows = [{"step": n, "loss": x, "learning_rate": 1e-4} for n, x in enumerate(LOSSES, 1)]
    series = [{"step": n, "loss": round(x, 3)} for n, x in enumerate(LOSSES, 1)]
    document = {"train_loss": series, "learning_rate": [{"step": 1, "learning_rate": 1e-4}], "history": rows}
    log = _read(tmp_path, json.dumps(document, indent=1), "history.json")
    assert len(log.train) == len(LOSSES)
    assert log.train.learning_rate[0] == 1e-4


def test_a_rate_that_is_printed_as_zero_is_no_fault_of_a_run_that_learns(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    path.write_text("".join(f"step:{n} - loss:{x:.4f} - lr:0.000\n" for n, x in enumerate(LOSSES, 1)))
    assert diagnose_file(path).verdict.code != "nothing_trained"


def test_a_bar_that_is_shown_again_at_the_start_of_an_epoch_is_one_run(tmp_path: Path) -> None:
    """A training bar that counts validation batches too shows the end of the epoch before, with its old loss, before it begins anew."""
    losses = [0.9, 0.7, 0.6, 0.5, 0.45, 0.42, 0.4, 0.39]
    lines = []
    for epoch, loss in enumerate(losses):
        before = losses[max(epoch - 1, 0)]
        lines += [f"Epoch {epoch}: 100%|##| 120/120 [00:01<00:00, 1.2it/s, loss={before}, v_num=3]"] if epoch else []
        lines += [f"Epoch {epoch}:  {part}%|##| {step}/120 [00:01<00:00, 1.2it/s, loss={loss + more:.3f}, v_num=3]"
                  for part, step, more in ((50, 60, 0.02), (83, 100, 0.01), (100, 120, 0.0))]  # fmt: skip
        lines.append(f"val_loss: {loss + 0.1:.3f}")
    log = _read(tmp_path, "\n".join(lines))
    assert log.train.loss[[0, 3, -1]].tolist() == pytest.approx([0.92, 0.72, 0.39])
    assert (np.diff(log.train.step) > 0).all()
    assert len(log.evaluation) == len(losses)


def test_evaluations_without_steps_are_ordered_by_their_epochs(tmp_path: Path) -> None:
    rows = [f"{{'eval_loss': {0.7 - n / 100:.3f}, 'eval_runtime': 0.1, 'epoch': {n}.0}}" for n in range(1, 31)]
    rows.insert(20, "{'loss': 0.61, 'grad_norm': 2.0, 'learning_rate': 1e-06, 'epoch': 20.5}")
    bar = "100%|##########| 60/60 [00:10<00:00,  6.0it/s]"
    for text in ("\n".join(rows), "\n".join([*rows, bar])):
        log = _read(tmp_path, text)
        assert len(log.evaluation) == 30
        assert log.evaluation.loss[0] == pytest.approx(0.69)
        assert (np.diff(log.evaluation.step) > 0).all()


def test_losses_of_both_signs_are_no_likelihood(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = "".join(f"step {n} avg_loss={x:.4f}\n" for n, x in enumerate(rng.normal(0, 0.02, 60), 1))
    path = tmp_path / "run.log"
    path.write_text(text)
    report = diagnose_file(path)
    assert report.label == "too_little_information"
    assert "both signs" in report.verdict.meaning


def test_a_script_that_prints_right_answers_is_judged_by_them(tmp_path: Path) -> None:
    """Many scripts of GRPO print the share of right answers and no reward; beside a supervised loss that share changes nothing."""
    chance = np.random.default_rng(0)
    (tmp_path / "grpo.log").write_text(
        "".join(
            f"[step {10 * n}] grpo_loss={chance.normal(0, 0.02):.4f} acc={min(0.3 + 0.015 * n + chance.normal(0, 0.03), 1):.3f}\n"
            for n in range(1, 41)
        )
    )
    (tmp_path / "classes.log").write_text(
        "".join(f"[step {10 * n}] loss={loss:.4f} acc={1 - loss / 4:.3f}\n" for n, loss in enumerate(LOSSES, 1))
    )
    paid, classes = (read_logs(tmp_path / name)[0] for name in ("grpo.log", "classes.log"))
    assert (paid.context.objective, len(paid.train)) == ("reinforcement", 40)
    assert (classes.context.objective, len(classes.train)) == ("supervised", 40)
    assert diagnose_file(tmp_path / "grpo.log").label == "healthy"
