"""The examples of docs/any_trainer.md run as they are written there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples" / "any_trainer"


def _run(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment},
    )


def test_the_optuna_loop_around_the_trainer(shipped_model, instruct_file, tmp_path):
    done = _run(EXAMPLES / "optuna_loop.py", shipped_model, instruct_file, "--rows", 64, "--trials", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"best: .*learning_rate.* eval_loss \d", done.stdout)


def test_the_shell_script_under_tune(shipped_model, instruct_file, tmp_path):
    command = (
        f"sh {EXAMPLES / 'train.sh'} {shipped_model} {instruct_file} "
        "{learning_rate} {micro_batch_size} {accumulation_steps} {num_steps} {seed}"
    )
    done = _run(
        "-m", "finestep", "tune", "--command", command, "--result", "eval_loss=eval_loss=([0-9.]+)", "--rows", 108,
        "--set", "micro_batch_size=4", "--budget", 1, "--out", tmp_path / "s", "--json", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [trial["state"] for trial in result["trials"]] == ["completed"]
    assert 1 < result["best"]["eval_loss"] < 8
    assert "model" not in result["paths"]
    assert (tmp_path / "s" / "recipe.yaml").is_file()


def test_the_ask_and_tell_loop(tmp_path):
    done = _run(EXAMPLES / "ask_tell.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rate = re.search(r"learning rate ([0-9.e-]+), batch", done.stdout.splitlines()[-1])
    assert 2e-4 < float(rate.group(1)) < 1.8e-3


@pytest.mark.parametrize("name", ["optuna_loop.py", "hf_train.py", "train.sh", "ask_tell.py"])
def test_the_page_names_every_example(name):
    assert name in (ROOT / "docs" / "any_trainer.md").read_text(encoding="utf-8")
