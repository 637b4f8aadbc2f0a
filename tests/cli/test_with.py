"""`tune --with` and `train --with` as a user runs them, with a trainer that starts in a moment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

STAND_IN = Path(__file__).parent.parent / "trainers" / "stand_in.py"
CONFIG = """\
# Our usual run. Keep the eval set!
model_name_or_path: {model}
train_file: rows.jsonl        # relative to here
validation_file:
base: &rate 1e-3
learning_rate: *rate
per_device_train_batch_size: 8
gradient_accumulation_steps: 2
num_train_epochs: 1
warmup_steps: 1
deepspeed: {{train_batch_size: auto, zero_optimization: {{stage: 2}}}}
output_dir: runs/${{base}}
use_lora: true
step_s: 0.05
"""


def write(folder, model):
    (folder / "arguments.yaml").write_text(CONFIG.format(model=model))
    rows = [{"prompt": f"what is {n}", "completion": f"it is {n}"} for n in range(200)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def folder(tmp_path, shipped_model):
    return write(tmp_path, shipped_model)


@pytest.fixture(scope="module")
def studied(tmp_path_factory, shipped_model):
    """(folder, what was printed) of a study that was killed without warning in its first trial, and went on."""
    folder = write(tmp_path_factory.mktemp("with"), shipped_model)
    options = ("--budget", "2", "--out", "study", "--objective", "max:eval_rewards/accuracies")
    process = subprocess.Popen(command(*options), cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(folder.glob("study/trials/*/steps.jsonl")):
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # on a busy machine it may have come to its end
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return folder, run(folder, *options)


def command(*more, verb="tune", file="arguments.yaml"):
    launcher = f"{{python}} {STAND_IN} {{config}}"
    return [sys.executable, "-m", "finestep", verb, "--with", file, "--trainer", "hf", "--launcher", launcher, *more]


def run(folder, *more, verb="tune", file="arguments.yaml", code=0):
    done = subprocess.run(command(*more, verb=verb, file=file), cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_killed_study_goes_on_and_leaves_a_config_that_trains_to_its_loss(studied):
    folder, text = studied
    assert "Review of arguments.yaml" in text
    assert "150 of rows.jsonl to train on, 50 held out" in text
    assert "a full run takes about" in text
    result = json.loads((folder / "study/result.json").read_text())
    assert len(result["trials"]) == 2
    assert all(trial["state"] == "completed" for trial in result["trials"])
    again = run(folder, "--out", "again", verb="train", file=result["paths"]["config"])
    repeated = json.loads((folder / "again/result.json").read_text())
    assert repeated["best"]["eval_loss"] == pytest.approx(result["best"]["eval_loss"], abs=1e-3)
    assert repeated["best"]["learning_rate"] == pytest.approx(result["best"]["learning_rate"], rel=1e-4)
    assert "its own validation rows" in again


def test_the_best_is_the_best_by_the_objective(studied):
    result = json.loads((studied[0] / "study/result.json").read_text())
    best = max(result["trials"], key=lambda trial: trial["metrics"]["eval_rewards/accuracies"])
    assert result["best"]["metrics"] == best["metrics"]


def test_the_result_changes_only_the_lines_that_it_names(studied):
    folder, _ = studied
    before, after = ((folder / name).read_text() for name in ("arguments.yaml", "study/tuned-arguments.yaml"))
    old, new = before.splitlines(), after.splitlines()
    assert [line for line in new if "finestep" not in line.partition("#")[2]] == [line for line in old if line in new]
    changed = {line.partition(":")[0] for line in old if line not in new}
    assert changed <= {"learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "warmup_steps",
                       "train_file", "validation_file"}  # fmt: skip
    assert "# relative to here; finestep" in after
    rate = next(line for line in new if line.startswith("learning_rate"))
    assert "validation loss" in rate
    tree = YAML(typ="safe", pure=True).load(after)
    assert tree["output_dir"] == "runs/${base}"
    assert tree["deepspeed"] == {"train_batch_size": "auto", "zero_optimization": {"stage": 2}}
    assert YAML(typ="safe", pure=True).load(before)["base"] == tree["base"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--launcher", "no-such-program {config}"), "no-such-program"),
        (("--launcher", "python train.py"), "{config}"),
        (("--trainer", "lamafactory"), "did you mean `llamafactory`"),
        (("--guard", "kl"), "NAME<=NUMBER"),
        (("--tune", "rank"), "--tune"),
        (("--set", "seed=1"), "--set"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(folder, more, says):
    text = run(folder, "--budget", "2", "--out", "study", *more, code=2)
    assert says in text
    assert "Traceback" not in text
    assert not (folder / "study/study.json").exists()


def test_options_of_with_need_it(folder):
    done = subprocess.run(
        [sys.executable, "-m", "finestep", "tune", "--launcher", "x {config}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "`--launcher` would change nothing" in done.stdout + done.stderr
