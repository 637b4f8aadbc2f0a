"""A framework by its own config: what it is told, what is read, what stops a study, and what a killed controller leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finestep.errors import FinestepError
from finestep.executors.framework import FrameworkExecutor
from finestep.foreign.markup import yaml_tree
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.study import FrameworkSpec
from finestep.trial import Outcome

STAND_IN = Path(__file__).parent.parent / "trainers" / "stand_in.py"
RECIPE = Recipe(learning_rate=1e-3, effective_batch_size=16, micro_batch_size=8, seed=42)
TEXT = """learning_rate: 1e-3   # ours
per_device_train_batch_size: 8
gradient_accumulation_steps: 2
warmup_steps: 1
output_dir: out
"""


def spec_of(folder, more="", **values):
    fields = {"warmup_share": 0.1, "warmup_in_steps": True, "num_eval_rows": 40, **values}
    fields |= {"name": "hf", "config": str(folder / "arguments.yaml"), "text": TEXT + more}
    fields |= {"launcher": f"{{python}} {STAND_IN} {{config}}", "working_dir": str(folder)}
    return FrameworkSpec.model_validate(fields)


def start(folder, more="", **values):
    executor = FrameworkExecutor(spec_of(folder, more, **values), RECIPE, folder=folder)
    return executor, executor.start()


def submit(executor, folder, number=0, fidelity=1.0, **recipe):
    place = folder / "trials" / f"{number:04d}"
    executor.submit(TrialRequest(number=number, recipe=RECIPE.changed(**recipe), fidelity=fidelity, folder=str(place)))
    return place


def run(executor, folder, number=0, **more):
    """(events, outcome) of one trial."""
    submit(executor, folder, number, **more)
    events = list(executor.events())
    assert events[-1].kind == "finished", events[-1]
    return events, Outcome.model_validate(events[-1].data)


def test_two_steps_tell_what_the_rows_are_and_what_a_run_costs(tmp_path):
    executor, ready = start(tmp_path, "step_s: 0.2\n")
    assert ready.card.facts.num_rows == 160
    assert ready.machine.step_s == pytest.approx(0.2, abs=0.15)
    assert "start-up" in ready.card.notes[0]
    output = tmp_path / "preflight" / "output.log"
    began = output.stat().st_mtime
    FrameworkExecutor(spec_of(tmp_path, "step_s: 0.2\n"), RECIPE, folder=tmp_path).start()
    assert output.stat().st_mtime == began, "a study that goes on flies no second time"
    assert executor


def test_a_trial_is_the_file_with_a_few_settings_changed(tmp_path):
    executor, _ = start(tmp_path)
    events, outcome = run(executor, tmp_path, learning_rate=2e-3, effective_batch_size=8)
    text = (tmp_path / "trials/0000/config.yaml").read_text()
    assert "learning_rate: 0.002   # ours" in text
    tree = yaml_tree(text, "c")
    assert tree["gradient_accumulation_steps"] == 1
    assert tree["max_steps"] == 20
    assert tree["warmup_steps"] == 2
    assert [event.data["step"] for event in events if event.kind == "step"] == list(range(1, 21))
    assert outcome.state == "completed"
    assert "agrees: peak rate 0.002, 20 steps, 8 rows a step" in outcome.reason
    assert outcome.metrics["eval_rewards/accuracies"] == pytest.approx(1 / outcome.eval_loss, abs=1e-3)
    assert (tmp_path / "trials/0000/model/adapter_config.json").exists()


@pytest.mark.parametrize("fidelity", [0.12, 0.35, 1.0])
def test_a_run_of_any_length_agrees_with_its_log(tmp_path, fidelity):
    executor, _ = start(tmp_path)
    _, outcome = run(executor, tmp_path, fidelity=fidelity)
    assert "its log agrees" in outcome.reason
    assert outcome.cost.num_steps == max(1, -(-int(1000 * fidelity) // 100))


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("own_rate: 0.003\n", "learning rate 0.003"),
        ("own_batch: 16\n", "32 rows a step"),
        ("own_rate: 1e-4\n", "0.0001 at most"),
    ],
)
def test_a_setting_that_is_not_obeyed_is_caught_before_the_first_trial(tmp_path, setting, word):
    with pytest.raises(FinestepError, match=word):
        start(tmp_path, setting)


def test_what_only_some_trials_show_stops_the_study(tmp_path):
    executor, _ = start(tmp_path, "own_rate: 1e-3\n")
    submit(executor, tmp_path, learning_rate=5e-4)
    last = list(executor.events())[-1]
    assert last.kind == "error"
    assert "0.001" in last.data["text"]
    assert not (tmp_path / "trials/0000/outcome.json").exists()


def test_the_framework_is_quoted_and_not_its_launcher(tmp_path):
    with pytest.raises(FinestepError, match="no such column: text") as raised:
        start(tmp_path, "says: 'ValueError: no such column: text'\n")
    assert "CalledProcessError" not in str(raised.value)


def test_memory_halves_the_micro_batch_and_is_remembered(tmp_path):
    executor, _ = start(tmp_path, "memory_rows: 3\n")
    _, outcome = run(executor, tmp_path)
    tree = yaml_tree((tmp_path / "trials/0000/config.yaml").read_text(), "c")
    assert (tree["per_device_train_batch_size"], tree["gradient_accumulation_steps"]) == (2, 8)
    assert outcome.cost.micro_batch_size == 2
    again, _ = start(tmp_path, "memory_rows: 3\n")
    events, _ = run(again, tmp_path, 1)
    assert not [event for event in events if event.kind == "note"], "the second trial begins with what memory allows"


def test_a_guard_that_is_broken_does_not_rank(tmp_path):
    executor, _ = start(tmp_path, guards=("eval_kl<=0.15",))
    _, kept = run(executor, tmp_path, 0, learning_rate=1e-3)
    _, broken = run(executor, tmp_path, 1, learning_rate=2e-3)
    assert not kept.forgets_too_much
    assert broken.forgets_too_much
    assert "eval_kl" in broken.reason


def test_a_guard_on_something_that_is_not_measured_is_refused_at_once(tmp_path):
    with pytest.raises(FinestepError, match="eval_kl"):
        start(tmp_path, guards=("kl<=1",))


def test_two_trials_at_a_time_are_told_as_they_come(tmp_path):
    executor, ready = start(tmp_path, "step_s: 0.1\n", parallel=2)
    assert ready.sharing.at_once == 2
    for number, rate in enumerate((1e-3, 2e-3)):
        submit(executor, tmp_path, number, learning_rate=rate)
    told = [event.trial for event in executor.events() if event.kind == "step"]
    assert set(told[:6]) == {0, 1}


def test_after_an_error_nothing_is_left_running(tmp_path):
    executor, _ = start(tmp_path, "own_rate: 1e-3\nstep_s: 0.2\n", parallel=2)
    submit(executor, tmp_path, 0)
    submit(executor, tmp_path, 1, learning_rate=5e-4)
    assert [event.kind for event in executor.events()][-1] == "error"
    executor.close()
    assert not _running(str(tmp_path / "trials"))


def test_a_time_limit_ends_the_whole_group(tmp_path):
    executor, _ = start(tmp_path, "hangs_after: 3\n", timeout_s=5)
    _, outcome = run(executor, tmp_path)
    assert outcome.state == "failed"
    assert "--timeout" in outcome.reason
    assert not _running(str(tmp_path / "trials"))


def test_a_stop_interrupts_and_the_next_call_runs_anew(tmp_path):
    executor, _ = start(tmp_path, "step_s: 0.1\n")
    place = submit(executor, tmp_path)
    kinds = []
    for event in executor.events():
        kinds.append(event.kind)
        if kinds.count("step") == 2:
            executor.stop()
    assert kinds[-1] == "interrupted"
    assert not _running(str(place))
    again, _ = start(tmp_path, "step_s: 0.1\n")
    assert run(again, tmp_path)[1].state == "completed"


CONTROLLER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.executors.test_framework import start, submit
executor, _ = start(Path({folder!r}), "step_s: 0.3\\n")
submit(executor, Path({folder!r}))
for event in executor.events():
    print(event.kind, flush=True)
"""


def test_a_run_whose_controller_was_killed_is_followed_and_not_run_again(tmp_path):
    code = CONTROLLER.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path))
    controller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in controller.stdout:
        if line.strip() == "step":
            break
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    controller.stdout.close()
    place = tmp_path / "trials/0000"
    pid = (place / "command.lock").read_text()
    executor, _ = start(tmp_path, "step_s: 0.3\n")
    events, outcome = run(executor, tmp_path)
    assert (place / "command.lock").read_text() == pid
    assert any("still running" in event.data.get("text", "") for event in events if event.kind == "note")
    steps = [json.loads(line)["step"] for line in (place / "steps.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 11))
    assert outcome.state == "completed"


def test_a_run_that_was_killed_with_its_controller_is_run_again(tmp_path):
    executor, _ = start(tmp_path, "step_s: 0.2\n")
    place = submit(executor, tmp_path)
    for event in executor.events():
        if event.kind == "step":
            break
    os.killpg(int((place / "command.lock").read_text()), signal.SIGKILL)
    time.sleep(0.3)
    again, _ = start(tmp_path, "step_s: 0.2\n")
    assert run(again, tmp_path)[1].state == "completed"


def _running(words):
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if words in line and "ps -eo" not in line]
