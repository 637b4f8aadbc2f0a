"""The commands as a person runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow


def _finestep(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "finestep", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def study(shipped_model, instruct_file, tmp_path_factory):
    """A small real study of three trials: (folder, finished process)."""
    folder = tmp_path_factory.mktemp("study")
    done = _finestep(
        "tune",
        str(shipped_model),
        str(instruct_file),
        "--strategy",
        "sweep",
        "--budget",
        "3",
        "--max-length",
        "96",
        "--threads",
        "1",
        "--metric",
        "exact_match",
        "--out",
        str(folder / "s"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    return folder / "s", done


def test_tune_ends_with_one_json_object(study):
    folder, done = study
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(done.stdout.splitlines()) == 1
    assert len(result["trials"]) == 3
    for name in ("baseline", "best"):
        assert {"learning_rate", "effective_batch_size", "eval_loss"} <= result[name].keys()
    assert "exact_match" in result["best"]["metrics"]
    assert result["best"]["eval_loss"] < result["best"]["base_eval_loss"]
    assert (folder / "model" / "adapter_model.safetensors").is_file()
    assert "learning rate" in done.stderr


def test_the_saved_model_was_loaded_again_and_is_what_was_measured(study):
    folder, done = study
    result = json.loads(done.stdout)
    saved = result["saved"]
    assert saved["agrees"] is True, saved
    assert saved["num_rows"] == min(32, result["facts"]["data eval rows"])
    assert abs(saved["reloaded_loss"] - saved["measured_loss"]) <= 1e-3 * (1 + saved["measured_loss"])
    assert [set(one) for one in result["answers"]] == [{"prompt", "answer", "expected"}] * 3
    assert result["use"]["folder"] == str((folder / "model").resolve())
    assert result["use"]["merge"] == f"finestep merge {folder.resolve() / 'model'}"
    page = (folder / "report.html").read_text(encoding="utf-8")
    said = "".join(done.stderr.replace("│", " ").split())
    for shown in (
        saved["sentence"],
        "AutoPeftModelForCausalLM.from_pretrained(",
        "3 validation rows, and what the saved",
    ):
        assert "".join(shown.split()) in said
    assert "What the tuned model answers to 3 validation rows" in page
    assert saved["sentence"][1:] in page


def test_only_the_best_model_is_kept(study):
    folder, done = study
    best = json.loads(done.stdout)["best"]["trial"]
    kept = [path.parent.name for path in folder.glob("trials/*/model")]
    assert kept == [f"{best:04d}"]


def test_the_same_command_again_repeats_the_answer_without_a_worker(study, shipped_model, instruct_file):
    folder, done = study
    (folder / "session.json").unlink()
    again = _finestep(
        "tune",
        str(shipped_model),
        str(instruct_file),
        "--strategy",
        "sweep",
        "--budget",
        "3",
        "--max-length",
        "96",
        "--threads",
        "1",
        "--metric",
        "exact_match",
        "--out",
        str(folder),
        "--json",
    )
    assert json.loads(again.stdout) == json.loads(done.stdout)
    assert "nothing is left to do" in again.stderr
    assert not (folder / "session.json").exists(), "a worker was started"


def test_other_conditions_are_refused(study, shipped_model, label_file):
    folder, _ = study
    refused = _finestep("tune", str(shipped_model), str(label_file), "--out", str(folder))
    assert refused.returncode == 2
    assert "data" in refused.stderr
    assert "--out" in refused.stderr


def test_report_needs_no_torch(study):
    folder, _ = study
    code = (
        "import sys\n"
        "class Nowhere:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] == 'torch': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Nowhere())\nfrom finestep.cli.main import main\n"
        f"sys.argv = ['finestep', 'report', {str(folder)!r}]\nmain()\n"
    )
    (folder / "report.html").unlink()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "learning rate" in done.stdout, done.stderr
    assert (folder / "report.html").is_file()


def test_train_repeats_a_recipe(study, shipped_model, instruct_file, tmp_path):
    folder, done = study
    best = json.loads(done.stdout)["best"]
    again = _finestep(
        "train",
        str(folder / "recipe.yaml"),
        str(shipped_model),
        str(instruct_file),
        "--threads",
        "1",
        "--no-check-saved",
        "--out",
        str(tmp_path / "t"),
        "--json",
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["best"]["eval_loss"] == pytest.approx(best["eval_loss"], abs=1e-6)


def test_data_shows_the_mask(shipped_model, instruct_file):
    done = _finestep("data", str(instruct_file), "--model", str(shipped_model))
    assert done.returncode == 0, done.stderr
    for word in ("rows", "tokens", "carry loss", "length", "duplicates", "over-long", "[["):
        assert word in done.stdout


def test_data_shows_labels(shipped_model, label_file):
    done = _finestep("data", str(label_file), "--model", str(shipped_model), "--json")
    card = json.loads(done.stdout)
    assert card["facts"]["num_labels"] == 3
    assert sum(card["labels"].values()) == card["facts"]["num_rows"]


def test_doctor_says_what_is_there():
    done = _finestep("doctor", "--json")
    report = json.loads(done.stdout)
    assert report["extras"]["train"]["torch"]
    assert "error" not in report["device"]
    assert "CPU" in _finestep("doctor").stdout or report["device"]["cuda"]


def test_an_unknown_command_is_a_usage_error():
    done = _finestep("tunee")
    assert done.returncode == 2


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_the_same_command_goes_on(
    number, code, shipped_model, instruct_file, tmp_path
):
    command = [
        sys.executable,
        "-m",
        "finestep",
        "tune",
        str(shipped_model),
        str(instruct_file),
        "--budget",
        "1",
        "--epochs",
        "12",
        "--max-length",
        "96",
        "--threads",
        "1",
        "--no-check-saved",
        "--out",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    steps = tmp_path / "s" / "trials" / "0000" / "steps.jsonl"
    _wait_for(lambda: steps.exists() and steps.read_text().count("\n") >= 5)
    os.kill(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    assert list((tmp_path / "s" / "trials" / "0000" / "checkpoints").glob("step-*"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on from step" in done.stdout


def test_the_second_signal_stops_at_once(shipped_model, instruct_file, tmp_path):
    command = [
        sys.executable,
        "-m",
        "finestep",
        "tune",
        str(shipped_model),
        str(instruct_file),
        "--budget",
        "1",
        "--epochs",
        "200",
        "--threads",
        "1",
        "--no-check-saved",
        "--out",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for(lambda: (tmp_path / "s" / "session.json").exists())
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def _wait_for(condition, timeout_s: float = 90.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
