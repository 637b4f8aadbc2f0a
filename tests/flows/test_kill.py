"""Killing controller and worker at random: no trial is lost, none is run twice, and the results are those of a quiet run."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import optuna
import psutil
import pytest

from finestep.store.study_files import read_records
from finestep.trial import StepRecord, Trial
from tests.flows.targets import complaints, pid_of, start

NUM_KILLS = 20
BUDGET = 6


def _start(folder: Path, model: Path, data: Path) -> subprocess.Popen:
    return start("tests.flows.kill_target", folder, model, data, BUDGET)


def _trials(folder: Path) -> list[Trial]:
    if not (folder / "study.json").exists():
        return []
    study = optuna.load_study(study_name="kill", storage=f"sqlite:///{folder / 'study.db'}")
    return [Trial.model_validate_json(trial.user_attrs["trial"]) for trial in study.get_trials()]


def _results(trials: list[Trial]) -> dict[int, tuple]:
    return {
        trial.number: (
            trial.recipe.learning_rate,
            trial.recipe.effective_batch_size,
            trial.state,
            trial.outcome.eval_loss,
        )
        for trial in trials
        if trial.outcome
    }


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_random_kills(shipped_model, instruct_file, tmp_path):
    quiet = _start(tmp_path / "quiet", shipped_model, instruct_file)
    assert quiet.wait(300) == 0
    expected = _results(_trials(tmp_path / "quiet"))
    assert len(expected) == BUDGET
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, folder = random.Random(seed), tmp_path / "killed"
    process, kills, known = _start(folder, shipped_model, instruct_file), 0, {}
    while kills < NUM_KILLS and process.poll() is None:
        _await_progress(folder, process)
        time.sleep(chance.uniform(0.0, 1.5))
        kills += _kill(folder, process, chance)
        if process.poll() is not None and kills < NUM_KILLS:
            now = _results(_trials(folder))
            assert known.items() <= now.items(), "a completed trial is never lost or changed"
            known = now
            if len(known) < BUDGET:
                process = _start(folder, shipped_model, instruct_file)
    if process.poll() is not None and len(_results(_trials(folder))) < BUDGET:
        process = _start(folder, shipped_model, instruct_file)
    assert process.wait(300) == 0, complaints(folder)
    assert kills >= NUM_KILLS // 2, f"the study ended after {kills} kills"
    found = _results(_trials(folder))
    assert {number: values[:3] for number, values in found.items()} == {
        number: values[:3] for number, values in expected.items()
    }
    for number, values in found.items():
        assert values[3] == pytest.approx(expected[number][3], rel=1e-3), "who shares a pass changes rounding alone"
    for number in expected:
        steps = read_records(folder / "trials" / f"{number:04d}" / "steps.jsonl", StepRecord)
        assert [step.step for step in steps] == list(range(1, len(steps) + 1)), "no step is missing"


def _await_progress(folder: Path, process: subprocess.Popen) -> None:
    """Wait until a step is made that was never made before, or the study ends."""
    before, deadline = _furthest(folder), time.monotonic() + 60
    while _furthest(folder) <= before and process.poll() is None:
        assert time.monotonic() < deadline, "the study does not go on"
        time.sleep(0.02)


def _furthest(folder: Path) -> int:
    """Steps that were made so far, each counted once, over all trials: several train at the same time."""
    files = (folder / "trials").glob("*/steps.jsonl")
    return sum(max((record.step for record in read_records(file, StepRecord)), default=0) for file in files)


def _kill(folder: Path, process: subprocess.Popen, chance: random.Random) -> int:
    """Kill the controller or its worker with SIGKILL; 1 if somebody was there to be killed."""
    try:
        controller = psutil.Process(pid_of(folder))
        victim = chance.choice([controller, *controller.children()])
        victim.kill()
        if victim == controller:
            process.wait(10)
        return 1
    except psutil.NoSuchProcess:
        return 0
