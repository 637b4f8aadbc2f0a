"""Layouts with a grammar of their own: rows, evaluations and steps are those that the trainer printed."""

from __future__ import annotations

import json
import math

import pytest

from finestep.flows.diagnose import diagnose_file
from finestep.readers.open_logs import read_logs

ROWS = 18


def _loss(row: int) -> float:
    return 1.2 + 1.5 * math.exp(-row / 6)


def _composer(row: int) -> str:
    text = f"[batch={5 * row}/90]:\n\t Train time/batch: {5 * row - 1}\n\t Train loss/train/total: {_loss(row):.4f}\n"
    text += f"\t Train metrics/train/LanguagePerplexity: {math.exp(_loss(row)):.4f}\n\t Train lr-AdamW/group0: 0.0002\n"
    if row % 6 == 0:
        text += (
            f"[Eval batch=1/3] Eval on eval data:\n\t Eval metrics/eval/LanguageCrossEntropy: {_loss(row) + 0.1:.4f}\n"
        )
    return text


def _composer_of_ranks(row: int) -> str:
    return f"0: [batch={5 * row}/90]:\n0:      Train loss/train/total: {_loss(row):.4f}\n" + (
        f"0:      Eval metrics/eval/LanguageCrossEntropy: {_loss(row) + 0.1:.4f}\n" if row % 6 == 0 else ""
    )


def _maxtext(row: int) -> str:
    text = (
        f"completed step: {5 * row}, seconds: 3.1, TFLOP/s/device: 80.5, total_weights: 4096, loss: {_loss(row):.3f}\n"
    )
    return text + (
        f"eval metrics after step: {5 * row}, loss={_loss(row) + 0.1:.3f}, total_weights=64.0\n" if row % 6 == 0 else ""
    )


def _torchtitan(row: int) -> str:
    text = f"[titan] INFO - step: {5 * row:2d}  loss: {_loss(row):7.4f}  grad_norm:  1.1  memory: 41.85GiB(44.05%)  tps: 5,123\n"
    return text + (
        f"[titan] INFO - validate step: {5 * row}  loss: {_loss(row) + 0.1:7.4f}  tps: 5,123\n" if row % 6 == 0 else ""
    )


def _marian(row: int) -> str:
    text = f"Ep. 1 : Up. {5 * row} : Sen. 60,000 : Cost {_loss(row):.6f} * 1,000,000 @ 10,000 : Time 30s : L.r. 3.0000e-04\n"
    words = f"perplexity : {math.exp(_loss(row) + 0.1):.4f} : new best\n"
    return text + (f"[valid] Ep. 1 : Up. {5 * row} : {words}" if row % 6 == 0 else "")


def _flax(row: int) -> str:
    text = f"Step... ({5 * row} | Loss: {_loss(row):.6f}, Learning Rate: 5.0e-05)\n"
    return text + (
        f"Step... ({5 * row}/90 | Eval Loss: {_loss(row) + 0.1:.5f} | Eval WER: 0.2)\n" if row % 6 == 0 else ""
    )


def _mmengine(row: int) -> str:
    text = f"mmengine - INFO - Iter(train) [{5 * row:3d}/90]  lr: 1.0e-04  eta: 0:10:01  loss: {_loss(row):.4f}\n"
    return text + (
        f"mmengine - INFO - Iter(val) [7/7]  loss: {_loss(row) + 0.1:.4f}  time: 0.2\n" if row % 6 == 0 else ""
    )


def _deepspeed_chat(row: int) -> str:
    text = f"Epoch: 0, Step: {5 * row}, Rank: 0, loss = {_loss(row):.6f}\n"
    loss = _loss(row) + 0.1
    shown = f"***** Evaluating perplexity, Epoch {row // 6}/3 *****\nppl: {math.exp(loss):.4f}, loss: {loss:.4f}\n"
    return text + (shown if row % 6 == 0 else "")


def _nemo(row: int) -> str:
    text = f"Training epoch 0, iteration {5 * row}/89 | lr: 1.9e-06 | global_step: {5 * row} | reduced_train_loss: {_loss(row):.4f}"
    return text + (f" | val_loss: {_loss(row) + 0.1:.4f}" if row % 6 == 0 else "") + "\n"


def _opennmt(row: int) -> str:
    text = (
        f"Step {5 * row}/90; acc: 41.2; ppl: {math.exp(_loss(row)):.2f}; xent: {_loss(row):.2f}; lr: 0.0001; 12 sec;\n"
    )
    return text + (f"Validation perplexity: {math.exp(_loss(row) + 0.1):.4f}\n" if row % 6 == 0 else "")


LAYOUTS = [
    _composer,
    _composer_of_ranks,
    _maxtext,
    _torchtitan,
    _marian,
    _flax,
    _mmengine,
    _deepspeed_chat,
    _nemo,
    _opennmt,
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__.strip("_"))
def test_rows_evaluations_and_steps_are_those_that_were_printed(tmp_path, layout):
    path = tmp_path / "train.log"
    path.write_text("started\n" + "".join(layout(row) for row in range(1, ROWS + 1)))
    (log,) = read_logs(path)
    assert list(log.train.step) == [5 * row for row in range(1, ROWS + 1)]
    assert log.train.loss == pytest.approx([_loss(row) for row in range(1, ROWS + 1)], abs=0.006)
    assert log.evaluation is not None
    assert log.evaluation.loss == pytest.approx([_loss(row) + 0.1 for row in (6, 12, 18)], abs=0.006)
    assert list(log.evaluation.step) == [30, 60, 90]


def _by_epoch(text):
    return "".join(text(epoch) for epoch in range(1, ROWS + 1))


def _flair(epoch: int) -> str:
    means = "".join(
        f"epoch {epoch} - iter {part}/4 - loss {_loss(epoch) + 0.3 - part / 20:.6f} - lr: 0.05\n"
        for part in range(1, 5)
    )
    scored = f"DEV : loss {_loss(epoch) + 0.1:.6f} - f1-score (micro avg)  0.61\nTEST : loss 9.9 - f1-score (micro avg)  0.1\n"
    return f"{means}EPOCH {epoch} done: loss {_loss(epoch):.4f} - lr 0.0500\n{scored}"


def _keras(epoch: int) -> str:
    on_the_way = f"\r 1/40 [>........] - ETA: 1:20 - loss: {_loss(epoch) + 0.4:.4f}"
    end = f"\r40/40 [========] - 12s 120ms/step - loss: {_loss(epoch):.4f} - val_loss: {_loss(epoch) + 0.1:.4f}\n"
    return f"Epoch {epoch}/18\n{on_the_way}{end}"


def _espnet(epoch: int) -> str:
    trained = f"[train] iter_time=0.1, loss_ctc=9.1, loss={_loss(epoch):.4f}, optim0_lr0=0.001, time=1 hour"
    return f"INFO: {epoch}epoch results: {trained}, [valid] loss_ctc=9.2, loss={_loss(epoch) + 0.1:.4f}, cer=0.1\n"


def _chinese(epoch: int) -> str:
    return f"第{epoch}轮 训练损失: {_loss(epoch):.4f}，验证损失: {_loss(epoch) + 0.1:.4f}，准确率: 0.71\n"


def _korean(epoch: int) -> str:
    return f"에폭 {epoch}/18 - 훈련 손실: {_loss(epoch):.4f}, 검증 손실: {_loss(epoch) + 0.1:.4f}\n"


def _spanish(epoch: int) -> str:
    return f"Época {epoch}/18 - Pérdida entrenamiento: {_loss(epoch):.4f} - Pérdida de validación: {_loss(epoch) + 0.1:.4f}\n"


def _peft(epoch: int) -> str:
    losses = (
        f"train_epoch_loss=tensor({_loss(epoch):.4f}, device='cuda:0') eval_epoch_loss=tensor({_loss(epoch) + 0.1:.4f})"
    )
    return f"epoch={epoch}: {losses}\n"


def _fastai(epoch: int) -> str:
    head = "epoch     train_loss  valid_loss  accuracy  time    \n" if epoch == 1 else ""
    return f"{head}{epoch}         {_loss(epoch):.6f}    {_loss(epoch) + 0.1:.6f}    0.812300    00:42     \n"


def _model_card(epoch: int) -> str:
    head = "| Training Loss | Epoch | Validation Loss |\n|:---:|:---:|:---:|\n" if epoch == 1 else ""
    return f"{head}| {_loss(epoch):.4f} | {epoch}.0 | {_loss(epoch) + 0.1:.4f} |\n"


EPOCHS = [_flair, _keras, _espnet, _chinese, _korean, _spanish, _peft, _fastai, _model_card]


@pytest.mark.parametrize("text", EPOCHS, ids=lambda text: text.__name__.strip("_"))
def test_epochs_are_read_once_with_the_loss_of_their_end(tmp_path, text):
    path = tmp_path / "train.log"
    path.write_text(_by_epoch(text))
    (log,) = read_logs(path)
    assert log.train.loss == pytest.approx([_loss(epoch) for epoch in range(1, ROWS + 1)], abs=0.001)
    assert log.evaluation is not None
    assert log.evaluation.loss == pytest.approx([_loss(epoch) + 0.1 for epoch in range(1, ROWS + 1)], abs=0.001)


def test_the_sums_of_spacy_are_read_without_that_of_step_0(tmp_path):
    path = tmp_path / "train.log"
    rows = "".join(
        f"{row // 3:3d}  {100 * row:6d}  {40:12.2f}  {900 / (row + 1):8.2f}  {60 + row:6.2f}  {0.6 + row / 100:6.2f}\n"
        for row in range(ROWS)
    )
    rows = rows.replace("900.00", " 11.30")
    path.write_text(
        f"E    #       LOSS TOK2VEC  LOSS NER  ENTS_F  SCORE\n---  ------  ------------  --------  ------  ------\n{rows}"
    )
    (log,) = read_logs(path)
    assert list(log.train.step) == [100.0 * row for row in range(1, ROWS)]
    assert log.train.loss[0] == pytest.approx(450)
    assert log.evaluation is not None
    assert len(log.evaluation.metrics["score"]) == ROWS


def test_a_count_of_tokens_is_no_loss(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(
            f'{{"step": {row}, "num_loss_tokens": 5000, "train_mean_nll": {_loss(row):.4f}}}\n' for row in range(30)
        )
    )
    report = diagnose_file(path)
    assert report.runs[0].log.train.loss[0] == pytest.approx(_loss(0), abs=1e-3)
    assert report.label != "no_learning"


def test_rewards_of_answers_printed_in_passing_are_not_the_log(tmp_path):
    path = tmp_path / "run.log"
    lines = [f"INFO - Step {row} loss: {_loss(row):.4f} entropy: 0.5\n" for row in range(1, 60)]
    for place in range(0, 60, 10):
        lines.insert(place, "INFO - reward: {'format_reward': 1.0, 'reward': 0.0}\n")
    path.write_text("".join(lines))
    (log,) = read_logs(path)
    assert len(log.train) == 59
    assert log.context.objective == "supervised"


def test_the_last_row_of_the_trainer_ends_a_run(tmp_path):
    path = tmp_path / "sweep.log"
    run = "".join(
        f"{{'loss': {_loss(row):.4f}, 'learning_rate': 1e-05, 'epoch': {row / 6:.2f}}}\n" for row in range(1, 7)
    )
    end = "{'train_runtime': 10.2, 'train_loss': 1.9, 'epoch': 1.0}\n"
    path.write_text((run + end) * 3)
    assert [len(log.train) for log in read_logs(path)] == [6, 6, 6]


def test_rows_behind_a_logger_are_kept_where_only_the_summary_is_plain(tmp_path):
    path = tmp_path / "train.log"
    rows = "".join(
        f"10:01 | INFO | worker.py:644 | {{'loss': {_loss(row):.4f}, 'epoch': {row / 6:.2f}}}\n" for row in range(1, 13)
    )
    path.write_text(rows + "{'train_runtime': 10.2, 'train_loss': 1.9, 'epoch': 2.0}\n")
    (log,) = read_logs(path)
    assert len(log.train) == 12


LOSSES = [_loss(row) for row in range(ROWS)]
EVALS = [loss + 0.1 for loss in LOSSES]


@pytest.mark.parametrize(
    "document",
    [
        {"loss": LOSSES, "val_loss": EVALS},
        {"train_losses": LOSSES, "val_losses": EVALS, "best_epoch": 7},
        {"config": {"lr": 1e-4}, "history": {"loss": LOSSES, "val_loss": EVALS}},
        {"train": {"loss": LOSSES}, "val": {"loss": EVALS}},
        {"history": [{"epoch": row, "train_loss": LOSSES[row], "val_loss": EVALS[row]} for row in range(ROWS)]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_lists_of_losses_in_json_are_read_in_one_line_or_many(tmp_path, document, indent):
    path = tmp_path / "history.json"
    path.write_text(json.dumps(document, indent=indent))
    (log,) = read_logs(path)
    assert log.train.loss == pytest.approx(LOSSES)
    assert log.evaluation is not None
    assert log.evaluation.loss == pytest.approx(EVALS)


def test_boxes_drawn_around_names_and_values_are_read(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(
        "".join(f"╭── Step {5 * row} ──╮\n│ loss │ {_loss(row):.4f} │\n╰──╯\n" for row in range(1, ROWS + 1))
    )
    (log,) = read_logs(path)
    assert list(log.train.step) == [5 * row for row in range(1, ROWS + 1)]


def test_a_training_loss_of_another_name_stands_beside_validation_losses(tmp_path):
    path = tmp_path / "results.csv"
    rows = "".join(f"{row},{_loss(row):.4f},{_loss(row) + 0.1:.4f}\n" for row in range(1, ROWS + 1))
    path.write_text(f"epoch,train/box_loss,val/box_loss\n{rows}")
    (log,) = read_logs(path)
    assert len(log.train) == len(log.evaluations[0]) == ROWS
