"""Where a study keeps its files: every name in its folder, in one place; nothing is read or written here.

study.json          what is studied, and the fingerprint of data, model and versions
study.db            Optuna's SQLite storage (unless another one is named)
ready.json          what the trainer found before the first trial
result.json         the figures of the study, the same as `--json`
recipe.yaml         the recipe of the chosen trial
report.html         the page
running.json        who runs the study, with which budget, or did last
commands/           what the user asks of it, a file each, until it is done (`steering.json`: what was made of it)
model/              the chosen trial's model
trials/0003/        one trial: its records, its outcome, its checkpoints and its model
"""

from __future__ import annotations

from pathlib import Path

SPEC, DATABASE, LOCK, READY, RESULT = "study.json", "study.db", "study.lock", "ready.json", "result.json"
RECIPE, REPORT, MODEL, TRIALS = "recipe.yaml", "report.html", "model", "trials"
CLAIM, OUTCOME, STEPS, EVALUATIONS = "trial.json", "outcome.json", "steps.jsonl", "evaluations.jsonl"
"""In a trial's folder: whose it is, how it ended, and its records."""
NOTES = "notes.jsonl"
"""In a trial's folder: what the monitor and the guard said while it trained."""
PLAN = "packing.json"
"""How trials share the device, kept by the worker that measured it."""
RUNNING, COMMANDS, STEERING = "running.json", "commands", "steering.json"
CHECKPOINTS, CHECK_ROWS = "checkpoints", "check_rows.json"
"""In a trial's folder: its checkpoints, and rows on which a reload of its model can be checked."""


def trial_folder(study: Path, number: int) -> Path:
    """Where a trial keeps its files.

    >>> trial_folder(Path("study"), 3).as_posix()
    'study/trials/0003'
    """
    return study / TRIALS / f"{number:04d}"
