"""Any trainer as a command: what it is told, how its result is read, and that it is never run twice or left behind."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.executors.command import CommandExecutor
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.studies.memory_words import memory_words
from finestep.study import CommandSpec
from finestep.trainers.command_fields import check_command, field_values, fields_of
from finestep.trial import Outcome

LOSS = r"eval_loss=eval_loss: ([0-9.]+)"


def trainer(command, *results, **more):
    values = {"command": command + " # {learning_rate}", "results": results or (LOSS,), "num_rows": 1000}
    return CommandSpec(**{**values, **more})


def request(folder, number=0, **more):
    recipe = Recipe(learning_rate=3e-4, effective_batch_size=32, micro_batch_size=8, num_epochs=2)
    return TrialRequest(number=number, recipe=recipe, folder=str(folder / f"{number}"), **more)


def run(spec, folder, **more):
    """(events, outcome) of one trial."""
    executor = CommandExecutor(spec, folder=folder)
    executor.start()
    executor.submit(request(folder, **more))
    events = list(executor.events())
    assert events[0].kind == "started"
    assert events[-1].kind == "finished"
    return events, Outcome.model_validate(events[-1].data)


def test_the_command_is_told_what_to_do(tmp_path):
    command = "echo {learning_rate} {micro_batch_size} {accumulation_steps} {num_steps} {num_epochs} {seed}; echo eval_loss: 1.5"
    events, outcome = run(trainer(command), tmp_path, fidelity=0.25)
    assert (tmp_path / "0" / "output.log").read_text().splitlines() == ["0.0003 8 4 16 0.5 0", "eval_loss: 1.5"]
    assert outcome.state == "completed"
    assert outcome.eval_loss == 1.5
    assert events[0].data["num_steps"] == 16
    assert Outcome.model_validate_json((tmp_path / "0" / "outcome.json").read_text()) == outcome


MEMORY_FOR_TWO = """
if [ {micro_batch_size} -gt 2 ]; then echo "torch.OutOfMemoryError: CUDA out of memory."; exit 1; fi
echo {micro_batch_size} x {accumulation_steps}; echo eval_loss: 1.5
"""


def test_a_command_that_runs_out_of_memory_gets_fewer_rows_a_pass_of_the_same_batch(tmp_path):
    events, outcome = run(trainer(MEMORY_FOR_TWO), tmp_path)
    assert (outcome.state, outcome.cost.micro_batch_size) == ("completed", 2)
    assert (tmp_path / "0" / "output.log").read_text().splitlines()[0] == "2 x 16"
    notes = [event.data["text"] for event in events if event.kind == "note"]
    assert [note.partition(":")[0] for note in notes] == [f"memory ran out at micro-batch {rows}" for rows in (8, 4)]
    assert memory_words(tmp_path / "0") == tuple(notes), "they are kept, for the card and the report"
    assert "CUDA out of memory" in (tmp_path / "0" / "output.log.stale-1").read_text()
    events, _ = run(trainer(MEMORY_FOR_TWO), tmp_path, number=1)
    assert [event.kind for event in events] == ["started", "finished"]  # it is known from the first trial


def test_a_command_whose_batch_would_change_is_not_given_fewer_rows(tmp_path):
    command = MEMORY_FOR_TWO.replace("{accumulation_steps}", "1")
    _, outcome = run(trainer(command), tmp_path)
    assert (outcome.state, outcome.cost.micro_batch_size) == ("out_of_memory", 8)


def test_the_last_match_counts_and_further_results_are_metrics(tmp_path):
    spec = trainer("echo eval_loss: 3.0 acc: 0.1; echo eval_loss: 2.0 acc: 0.7", LOSS, r"accuracy=acc: ([0-9.]+)")
    _, outcome = run(spec, tmp_path)
    assert outcome.eval_loss == 2.0
    assert outcome.metrics == {"accuracy": 0.7}


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("eval_loss=out.json", '{"eval_loss": 1.25}'),
        ("eval_loss=out.json:eval.loss", '{"eval": {"loss": 1.25}}'),
        ("eval_loss={output_dir}/out.json:loss", '{"loss": 1.25}'),
    ],
)
def test_a_result_may_be_in_a_json_file(tmp_path, place, text):
    write = f"mkdir -p {{output_dir}}; echo {shlex.quote(text).replace('{', '{{').replace('}', '}}')} > {{output_dir}}/out.json"
    assert run(trainer(write, place), tmp_path)[1].eval_loss == 1.25


@pytest.mark.parametrize(
    ("command", "state", "reason"),
    [
        ("echo boom; exit 3", "failed", "exit code 3: boom"),
        ("echo torch.OutOfMemoryError: CUDA out of memory >&2; exit 1", "out_of_memory", "CUDA out of memory"),
        ("echo eval_loss: nan", "diverged", "nan"),
        ("echo nothing", "failed", "was not found"),
        ("kill -9 $$", "failed", "killed"),
        ("no-such-program", "failed", "exit code 127"),
        ("echo 'eval_loss: 1..2'", "failed", "was not found"),
    ],
)
def test_failures_are_data(tmp_path, command, state, reason):
    _, outcome = run(trainer(command), tmp_path)
    assert outcome.state == state
    assert reason in outcome.reason
    assert outcome.eval_loss is None


def test_a_command_that_takes_too_long_is_ended_with_all_its_children(tmp_path):
    began = time.monotonic()
    _, outcome = run(trainer("sleep 61 & sleep 61", timeout_s=0.5), tmp_path)
    assert time.monotonic() - began < 20
    assert outcome.state == "failed"
    assert "--timeout" in outcome.reason
    assert not _running("sleep 61")


def test_a_stop_ends_the_command_and_the_next_call_runs_it_anew(tmp_path):
    flag = tmp_path / "flag"
    spec = trainer(f"test -e {flag} && echo eval_loss: 1.0 || sleep 62")
    executor = CommandExecutor(spec, folder=tmp_path)
    executor.submit(request(tmp_path))
    kinds = []
    for event in executor.events():
        kinds.append(event.kind)
        executor.stop()
    assert kinds == ["started", "interrupted"]
    assert not _running("sleep 62")
    flag.touch()
    assert run(spec, tmp_path)[1].eval_loss == 1.0


CONTROLLER = """
import sys
from finestep.executors.command import CommandExecutor
from tests.executors.test_command import request, trainer
from pathlib import Path
executor = CommandExecutor(trainer(sys.argv[2]), folder=Path(sys.argv[1]))
executor.submit(request(Path(sys.argv[1])))
list(executor.events())
"""


@pytest.mark.parametrize("wait_s", [0.0, 2.5], ids=["still running", "ended meanwhile"])
def test_a_command_whose_controller_was_killed_is_taken_up(tmp_path, wait_s):
    command = "echo begun >> {output_dir}/begun; sleep 2; echo eval_loss: 1.75"
    controller = subprocess.Popen([sys.executable, "-c", CONTROLLER, str(tmp_path), command])
    begun = tmp_path / "0" / "begun"
    end = time.monotonic() + 30
    while not begun.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    time.sleep(wait_s)
    events, outcome = run(trainer(command), tmp_path)
    assert outcome.eval_loss == 1.75
    assert begun.read_text() == "begun\n"
    assert any(event.kind == "note" for event in events) == (wait_s == 0.0)


def test_values_are_quoted_for_the_shell(tmp_path):
    _, outcome = run(trainer("ls -d {output_dir}; echo eval_loss: 1"), tmp_path / "a b; false")
    assert outcome.state == "completed"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (CommandSpec(command="train {lr}", results=(LOSS,)), "unknown field"),
        (CommandSpec(command="train {learning_rat}", results=(LOSS,)), "did you mean `learning_rate`"),
        (CommandSpec(command="train", results=(LOSS,)), "must take the learning rate"),
        (CommandSpec(command="train {learning_rate", results=(LOSS,)), "cannot be read"),
        (CommandSpec(command="train {learning_rate} {num_steps}", results=(LOSS,)), "--rows"),
        (CommandSpec(command="train {learning_rate}", results=("accuracy=acc ([0-9.]+)",)), "must be `eval_loss`"),
        (CommandSpec(command="train {learning_rate}", results=("eval_loss=loss [0-9]",)), "one group"),
        (CommandSpec(command="train {learning_rate}", results=("eval_loss=loss ([0-9",)), "no regular expression"),
        (CommandSpec(command="train {learning_rate}", results=("eval_loss",)), "name=regular expression"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(spec, message):
    with pytest.raises(BadInput, match=message):
        check_command(spec)


def test_every_field_is_filled():
    values = field_values(request(Path()), num_rows=100)
    check_command(trainer(" ".join(f"{{{name}}}" for name in values)))
    assert fields_of("a {seed} {{x}}") == {"seed"}


def _running(text: str) -> bool:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return any(line.strip() == text for line in listed.splitlines())


STAND_IN = Path(__file__).parent.parent / "trainers" / "stand_in.py"
FILE = """cat > {output_dir}/c.yaml <<END
learning_rate: {learning_rate}
per_device_train_batch_size: 8
gradient_accumulation_steps: 4
max_steps: 12
logging_steps: 1
output_dir: {output_dir}/out
"""


def stand_in(more="", **spec):
    """A command that writes a config and starts a trainer with it."""
    command = f"{FILE}{more}END\n{sys.executable} {STAND_IN} {{output_dir}}/c.yaml"
    return CommandSpec(command=command, results=(r"eval_loss='eval_loss': '([0-9.]+)'",), num_rows=1000, **spec)


def events_of(spec, folder, rates):
    executor = CommandExecutor(spec, folder=folder)
    for number, rate in enumerate(rates):
        recipe = Recipe(learning_rate=rate, effective_batch_size=32, micro_batch_size=8)
        executor.submit(TrialRequest(number=number, recipe=recipe, folder=str(folder / f"{number:04d}")))
    return list(executor.events())


def test_a_command_that_ignores_its_rate_is_caught_before_the_second_trial(tmp_path):
    events = events_of(stand_in("own_rate: 0.003\n"), tmp_path, [5e-5, 1e-4])
    first = next(event for event in events if event.kind in ("error", "finished"))
    assert first.kind == "error"
    assert "0.003" in first.data["text"]
    assert "5e-05" in first.data["text"]
    assert not (tmp_path / "0000/outcome.json").exists()


def test_a_command_that_obeys_goes_on(tmp_path):
    events = events_of(stand_in(), tmp_path, [5e-5, 1e-4])
    assert [event.kind for event in events if event.kind != "note"] == ["started", "finished"] * 2


def test_a_command_may_scale_its_rate_when_the_user_says_so(tmp_path):
    events = events_of(stand_in("own_rate: 0.003\n", check_log=False), tmp_path, [5e-5])
    assert events[-1].kind == "finished"


def test_the_same_losses_at_different_rates_stop_a_study_whose_log_says_no_rate(tmp_path):
    spec = CommandSpec(
        command="echo {learning_rate} > /dev/null; echo eval_loss: 2.718281", results=(LOSS,), num_rows=10
    )
    events = events_of(spec, tmp_path, [1e-4, 4e-4])
    assert [event.kind for event in events] == ["started", "finished", "started", "error"]
    assert "0.0001" in events[-1].data["text"]
    assert "same" in events[-1].data["text"]


def test_losses_of_few_digits_may_be_equal_by_chance(tmp_path):
    spec = CommandSpec(command="echo {learning_rate} > /dev/null; echo eval_loss: 2.71", results=(LOSS,), num_rows=10)
    assert events_of(spec, tmp_path, [1e-4, 4e-4])[-1].kind == "finished"


def test_the_log_of_a_folder_that_the_program_names_is_read(tmp_path):
    """litgpt's table in an output folder of its own, and its settings on standard output."""
    out = tmp_path / "elsewhere" / "logs/csv/version_0"
    table = "epoch,iter,iter_time,learning_rate,loss,step\\n" + "".join(
        f"0,{i},0.1,{0.003 * (1 - i // 2 / 10):.6f},{3 - i / 10:.3f},{i}\\n" for i in range(1, 13)
    )
    command = (
        f"echo {{learning_rate}}; mkdir -p {out}; printf '{table}' > {out}/metrics.csv; "
        f"echo \"'out_dir': PosixPath('{tmp_path / 'elsewhere'}'),\"; echo eval_loss: 2.5"
    )
    spec = CommandSpec(command=command, results=(LOSS,), num_rows=10)
    last = events_of(spec, tmp_path, [5e-5])[-1]
    assert last.kind == "error"
    assert "0.0027" in last.data["text"]
