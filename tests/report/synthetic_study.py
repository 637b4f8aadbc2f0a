"""TEST DATA, NOT A MEASUREMENT: a made-up study of 13 trials, built through the real types, that looks like a real one.

Losses follow an invented bowl around a learning rate of 1e-3 at batch 16; a learning rate far above it diverges.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from finestep.recipe import Recipe
from finestep.report.told import Interval, RunFinding, Told, Use
from finestep.report.view import ReportView, build_view
from finestep.result import LabelAnswer, Spent, WrittenAnswer
from finestep.search.belief import BelievedCurve, BelievedPoint
from finestep.trial import Cost, EvalRecord, Outcome, StepRecord, Trial

_ATTACK = "document.documentElement.dataset.pwn = 1"
HOSTILE = f"</script><script>{_ATTACK}</script><img src=x onerror='{_ATTACK}'>&\u2028{{{{ 7 * 7 }}}}"
TOKENS_PER_ROW = 300
NUM_ROWS = 7_200

# number, learning rate, batch, fidelity, stage, seed
PLAN = [
    (0, 2e-4, 16, 1.0, "baseline", 0),
    (1, 1e-4, 16, 0.25, "learning-rate scan", 0),
    (2, 5e-4, 16, 0.25, "learning-rate scan", 0),
    (3, 2.2e-3, 16, 0.25, "learning-rate scan", 0),
    (4, 1e-2, 16, 0.25, "learning-rate scan", 0),
    (5, 5e-4, 16, 1.0, "refinement", 0),
    (6, 1e-3, 16, 1.0, "refinement", 0),
    (7, 2e-3, 32, 1.0, "batch check", 0),
    (8, 1e-3, 32, 1.0, "batch check", 0),
    (9, 5e-3, 32, 1.0, "batch check", 0),
    (10, 4.5e-4, 8, 1.0, "batch check", 0),
    (11, 4.5e-3, 16, 1.0, "upper bound", 0),
    (12, 1e-3, 64, 1.0, "batch check", 0),
]
WHY = {
    "baseline": "The recommendation before any measurement.",
    "learning-rate scan": "A quarter of the budget shows where the basin lies.",
    "refinement": "The surrogate expects the minimum here, with the largest expected improvement.",
    "batch check": "The best rate moved with the square root of the batch size.",
    "upper bound": "Nothing above the best learning rate was tried at full length.",
}


def make_trials(hostile: str = "") -> list[Trial]:
    """The trials; `hostile` is put in front of every free text."""
    return [_trial(*plan, hostile=hostile) for plan in PLAN]


def make_logs(trials: list[Trial]) -> tuple[dict[int, list[StepRecord]], dict[int, list[EvalRecord]]]:
    """Step and evaluation records by trial number."""
    steps = {trial.number: _steps(trial) for trial in trials if trial.state != "failed"}
    evaluations = {trial.number: _evaluations(trial, steps[trial.number]) for trial in trials if trial.number in steps}
    return steps, evaluations


def make_view(hostile: str = "", **changes: Any) -> ReportView:
    """The view of the whole study."""
    trials = changes.pop("trials", None) or make_trials(hostile)
    logs = (changes.pop("steps"), changes.pop("evaluations")) if "steps" in changes else make_logs(trials)
    given: dict[str, Any] = {
        "title": f"{hostile}Synthetic example: a 1.1 B model on 7,200 instructions (test data, not a measurement)",
        "trials": trials,
        "steps": logs[0],
        "evaluations": logs[1],
        "facts": {
            "model": f"{hostile}TinyLlama-1.1B",
            "num_parameters": 1_100_048_384,
            "data": "instructions.jsonl",
            "num_rows": NUM_ROWS,
            "num_tokens": NUM_ROWS * TOKENS_PER_ROW,
            "device": "synthetic",
            "finestep": "0.1.0",
        },
        "baseline": 0,
        "best": 6,
        "notes": [f"{hostile}Every number on this page is invented by a test.", "No run was repeated."],
        "spent": Spent(tokens=19_800_000, elapsed_s=8_040.0, full_runs=9.0),
        "told": make_told(hostile),
        "answers": [
            WrittenAnswer(prompt=f"{hostile}Name a city.", answer=f"{hostile}Oslo", expected=f"{hostile}Paris"),
            LabelAnswer(text=f"{hostile}it rains", predicted=f"{hostile}sad", true=f"{hostile}happy"),
        ],
    }
    return build_view(**{**given, **changes})


def make_told(hostile: str = "", **changes: Any) -> Told:
    """What the made-up study says beside its trials: settled, with an interval, a curve, findings and a model."""
    rates = [10 ** (-4 + i / 5) for i in range(11)]
    bowl = [(rate, 1.2412 + 0.16 * (math.log10(rate) + 3) ** 2) for rate in rates]
    points = tuple(BelievedPoint(learning_rate=r, value=v, low=v - 0.01, high=v + 0.02) for r, v in bowl)
    given: dict[str, Any] = {
        "settled": True,
        "intervals": tuple(
            Interval(batch=b, value=1e-3, low=7e-4, high=1.6e-3, excess_percent=0.1 * b, tokens_per_second=2e3)
            for b in (8, 16, 32)
        ),
        "expected_regret": 0.4,
        "expected_gain": 0.06,
        "belief": (BelievedCurve(effective_batch_size=16, points=points),),
        "findings": (
            RunFinding(
                trial=6,
                label="Undertrained",
                severity="warning",
                meaning=f"{hostile}The run ended while the loss was still falling fast.",
                advice=f"{hostile}Train 1.5-2 times as many steps with the same peak rate.",
                evidence={"last loss": "1.24"},
            ),
        ),
        "data_notes": (f"{hostile}Not used: `{hostile}id` 3 % of the characters.",),
        "use": Use(
            load=("from peft import AutoPeftModelForCausalLM", f"model = load('{hostile}')"),
            recipe=f"{hostile}recipe.yaml",
            again=f"finestep tune {hostile}TinyLlama-1.1B ./instructions.jsonl",
        ),
    }
    return Told(**{**given, **changes})


def _trial(number: int, rate: float, batch: int, fidelity: float, stage: str, seed: int, *, hostile: str) -> Trial:
    micro = min(8, batch)
    recipe = Recipe(
        learning_rate=rate, effective_batch_size=batch, micro_batch_size=min(4, batch), seed=seed, num_devices=2
    )
    state, reason = _end(number, rate, batch)
    steps = _num_steps(recipe, fidelity)
    done = steps if state in ("completed", "stopped") else steps // 3
    reached = _final_loss(rate, batch, fidelity) if state in ("completed", "stopped") else None
    outcome = Outcome(
        state=state,
        reason=hostile + reason,
        eval_loss=math.nan if state == "diverged" else reached,
        metrics={"token_accuracy": round(1 / (1 + reached * 0.45), 4)} if reached else {},
        base_eval_loss=1.9124,
        cost=Cost(
            num_steps=done,
            num_train_tokens=done * batch * TOKENS_PER_ROW,
            elapsed_s=done * batch * 0.09,
            micro_batch_size=micro // 2,
        ),
    )
    return Trial(
        number=number,
        recipe=recipe,
        fidelity=fidelity,
        stage=hostile + stage,
        why=hostile + WHY[stage],
        state=state,
        outcome=outcome,
    )


def _end(number: int, rate: float, batch: int) -> tuple[Any, str]:
    if number == 12:
        return "failed", "the worker ended with exit code 1: CUDA error: an illegal memory access was encountered"
    if rate > 2.5e-3 * math.sqrt(batch / 16) or number == 9:
        return "diverged", "the loss rose to 3 times its start within 20 steps, then was not a number"
    if number == 10:
        return "stopped", "no gain over 2 evaluations"
    return "completed", ""


def _num_steps(recipe: Recipe, fidelity: float) -> int:
    return int(NUM_ROWS * fidelity) // recipe.effective_batch_size


def _final_loss(rate: float, batch: int, fidelity: float) -> float:
    distance = math.log10(rate / (1e-3 * math.sqrt(batch / 16)))
    return round(1.2412 + 0.16 * distance**2 + 0.006 * abs(math.log2(batch / 16)) + 0.09 * (1 - fidelity), 4)


def _steps(trial: Trial) -> list[StepRecord]:
    generator = np.random.default_rng(trial.number)
    recipe, total = trial.recipe, _num_steps(trial.recipe, trial.fidelity)
    done = trial.outcome.cost.num_steps if trial.outcome else 0
    end = _final_loss(recipe.learning_rate, recipe.effective_batch_size, trial.fidelity)
    records = []
    for step in range(1, done + 1):
        part = step / total
        loss = (
            end
            + (1.91 - end) * math.exp(-9 * part)
            + generator.normal(0, 0.28 / math.sqrt(recipe.effective_batch_size))
        )
        norm = float(np.exp(generator.normal(-0.25 - 0.4 * part, 0.35)))
        if step % 97 == 50:
            loss, norm = loss + 0.4, norm * 5
        if trial.state == "diverged" and step > done - 25:
            loss, norm = loss + 0.35 * (step - done + 25), norm * (step - done + 26)
        if trial.state == "diverged" and step == done:
            loss, norm = math.nan, math.inf
        records.append(
            StepRecord(
                step=step,
                loss=loss,
                learning_rate=recipe.learning_rate * min(1.0, step / (0.06 * total)) * min(1.0, (1 - part) / 0.94),
                grad_norm=norm,
                clipped=norm > 1.0,
                num_tokens=recipe.effective_batch_size * TOKENS_PER_ROW,
                num_loss_tokens=recipe.effective_batch_size * TOKENS_PER_ROW // 2,
                elapsed_s=step * recipe.effective_batch_size * 0.09,
            )
        )
    return records


def _evaluations(trial: Trial, steps: list[StepRecord]) -> list[EvalRecord]:
    records, total = [], _num_steps(trial.recipe, trial.fidelity)
    end = _final_loss(trial.recipe.learning_rate, trial.recipe.effective_batch_size, trial.fidelity)
    for part in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0):
        step = int(part * total)
        if step <= len(steps):
            loss = end + (1.91 - end) * (math.exp(-9 * part) - math.exp(-9.0)) + 0.02 * (1 - part)
            bad = trial.state == "diverged" and step > len(steps) - 10
            records.append(
                EvalRecord(
                    step=step,
                    num_tokens=step * trial.recipe.effective_batch_size * TOKENS_PER_ROW,
                    eval_loss=math.nan if bad else loss,
                    elapsed_s=step * trial.recipe.effective_batch_size * 0.09,
                )
            )
    return records
