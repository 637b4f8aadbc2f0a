"""One script, four rates: what `finestep diagnose` and the callback say of a plain Trainer on the shipped model.

    python -m benchmarks.rate_ladder [--steps 40,120,400]

Each run is judged twice: by the callback that watched it, and from its `trainer_state.json` alone, without what the callback measured.
Where a rate is advised, it must be nearer to the best of the four than the rate of the run.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from benchmarks.planted_faults.plants import task_rows
from finestep.diagnosis.verdict import Diagnosis
from finestep.flows.diagnose import FileReport, diagnose_file
from finestep.integrations.transformers import FinestepCallback
from finestep.survey.shipped import SHIPPED_MODEL

BEST = 5e-3
WANTED = {
    2e-5: {"lr_too_low"},
    BEST: {"healthy"},
    0.05: {"lr_too_high_unstable", "lr_too_high_diverged"},
    0.5: {"lr_too_high_diverged"},
}
BATCH, LONGEST, HELD_BACK, NUM_EVALUATIONS = 8, 48, 64, 8


class Said(NamedTuple):
    """A verdict on one run."""

    label: str
    advice: str

    def is_right(self, rate: float) -> bool:
        """The wanted label, and a rate that is nearer to the best one where a rate is named."""
        named = re.search(r"(?:about|try) ([\d.]+(?:e-?\d+)?)", self.advice)
        is_nearer = named is None or abs(math.log(float(named[1]) / BEST)) < abs(math.log(rate / BEST))
        return self.label in WANTED[rate] and (rate == BEST or is_nearer)


def encoded_rows(
    tokenizer: transformers.PreTrainedTokenizerBase, *, most: int | None = None
) -> list[dict[str, list[int]]]:
    """Question and answer in tokens, only the answer with loss; of so many rows at most."""
    rows = []
    for row in task_rows()[:most]:
        question = tokenizer(f"{row['instruction']}\n{row['input']}\n")["input_ids"]
        answer = [*tokenizer(row["output"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        labels = ([-100] * len(question) + answer)[:LONGEST]
        if any(label != -100 for label in labels):
            rows.append({"input_ids": (question + answer)[:LONGEST], "labels": labels})
    return rows


def trained(
    rate: float,
    rows: list[dict[str, list[int]]],
    tokenizer: transformers.PreTrainedTokenizerBase,
    folder: Path,
    *,
    steps: int,
    held_back: int,
    evaluate_every: int | None,
    callbacks: Sequence[transformers.TrainerCallback] = (),
) -> transformers.Trainer:
    """A plain Trainer at its end; the first `held_back` rows are those of validation."""
    torch.manual_seed(0)
    when = {"eval_strategy": "steps", "eval_steps": evaluate_every} if evaluate_every else {}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=rate, logging_steps=1, report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no", **when,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL), args=arguments, train_dataset=rows[held_back:],
        eval_dataset=rows[:held_back] if evaluate_every else None, callbacks=list(callbacks),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100),
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def verdicts(rate: float, steps: int, *, is_evaluated: bool, folder: Path) -> dict[str, Said]:
    """What is said of one run, by its state and by the callback."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(SHIPPED_MODEL)
    callback = FinestepCallback()
    every = max(1, steps // NUM_EVALUATIONS) if is_evaluated else None
    trainer = trained(
        rate, encoded_rows(tokenizer), tokenizer, folder, steps=steps, held_back=HELD_BACK, evaluate_every=every, callbacks=[callback]
    )  # fmt: skip
    return {"its state": _said(judged_by_state(trainer.state, folder)), "the callback": _said(callback.diagnosis())}


def judged_by_state(state: transformers.TrainerState, folder: Path) -> FileReport:
    """The verdict on the state as the Trainer saves it where no callback measured the base model."""
    path = folder / "plain" / "trainer_state.json"
    path.parent.mkdir(parents=True)
    state.save_to_json(str(path))
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["log_history"] = [row for row in saved["log_history"] if row["step"] > 0]
    path.write_text(json.dumps(saved), encoding="utf-8")
    return diagnose_file(path)


def _said(of: FileReport | Diagnosis) -> Said:
    return Said(of.label, of.verdict.advice)


def main() -> None:
    """Train and judge all runs; a line a verdict, and the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="40,120,400")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    right = total = 0
    for steps in map(int, options.steps.split(",")):
        for is_evaluated in (True, False):
            for rate in WANTED:
                with tempfile.TemporaryDirectory() as place:
                    said = verdicts(rate, steps, is_evaluated=is_evaluated, folder=Path(place))
                for by, one in said.items():
                    right, total = right + one.is_right(rate), total + 1
                    mark = "  " if one.is_right(rate) else "! "
                    print(f"{mark}{steps} steps, {'evaluated' if is_evaluated else 'not evaluated'}, rate {rate:g}, by {by}: {one.label}; "
                          f"{one.advice}", flush=True)  # fmt: skip
    print(f"{right} of {total} as wanted")


if __name__ == "__main__":
    main()
