"""One script, four rates: a plain Trainer on the shipped model is called too low, healthy, too high and lost."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from benchmarks.planted_faults.plants import task_rows  # noqa: E402

from finestep.flows.diagnose import diagnose_file  # noqa: E402
from finestep.integrations.transformers import FinestepCallback  # noqa: E402
from finestep.survey.shipped import SHIPPED_MODEL  # noqa: E402

STEPS, BATCH, LONGEST = 50, 8, 48
ALLOWED = {
    2e-5: {"lr_too_low"},
    5e-3: {"healthy", "undertrained"},
    0.05: {"lr_too_high_unstable", "lr_too_high_diverged"},
    0.5: {"lr_too_high_diverged"},
}
"""Fifty steps are few: the best rate may be told to go on, and then with the same rate."""
BEST = 5e-3


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(SHIPPED_MODEL)


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Tokenised question and answer, only the answer with loss."""
    encoded = []
    for row in task_rows()[: STEPS * BATCH + 32]:
        question = tokenizer(f"{row['instruction']}\n{row.get('input', '')}\n")["input_ids"]
        answer = [*tokenizer(row["output"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        labels = ([-100] * len(question) + answer)[:LONGEST]
        if any(label != -100 for label in labels):
            encoded.append({"input_ids": (question + answer)[:LONGEST], "labels": labels})
    return encoded


def trained(folder: Path, rate: float, rows, tokenizer, callbacks=()):
    torch.manual_seed(0)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=rate, logging_steps=1, report_to=[],
        eval_strategy="steps", eval_steps=10, use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL), args=arguments, train_dataset=rows[32:],
        eval_dataset=rows[:32], callbacks=list(callbacks),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100),
    )  # fmt: skip
    trainer.train()
    folder.mkdir(exist_ok=True)
    trainer.state.save_to_json(str(folder / "trainer_state.json"))
    return trainer


@pytest.mark.parametrize("rate", sorted(ALLOWED))
def test_only_the_rate_differs(rate: float, tmp_path: Path, rows, tokenizer) -> None:
    callback = FinestepCallback()
    trainer = trained(tmp_path / "run", rate, rows, tokenizer, [callback])
    with_callback = callback.diagnosis()
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    state["log_history"] = [row for row in state["log_history"] if row["step"] > 0]
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "trainer_state.json").write_text(json.dumps(state))
    without = diagnose_file(tmp_path / "plain" / "trainer_state.json")
    assert {with_callback.label, without.label} <= ALLOWED[rate], (with_callback.findings, without.findings)
    assert math.isclose(callback.evaluations[0].eval_loss, trainer.state.log_history[0]["eval_loss"])
    if with_callback.label not in ("healthy", "undertrained"):
        advised = _rate_in(with_callback.verdict.advice)
        assert abs(math.log(advised / BEST)) < abs(math.log(rate / BEST))


def _rate_in(advice: str) -> float:
    return float(re.search(r"about ([\d.]+(?:e-\d+)?)", advice).group(1))


def test_the_measurement_of_the_base_changes_nothing(tmp_path: Path, rows, tokenizer) -> None:
    def losses(name: str, *callbacks) -> list[float]:
        history = trained(tmp_path / name, BEST, rows, tokenizer, callbacks).state.log_history
        return [row["loss"] for row in history if "loss" in row]

    assert losses("plain") == losses("watched", FinestepCallback())
