"""What is known joins in: files beside the log, options, and the trainer's count of operations; and files that are no log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finestep.errors import BadInput
from finestep.flows.diagnose import diagnose_file, diagnose_paths
from finestep.flows.known_run import Told
from finestep.readers.beside import read_beside

LOSSES = (1.1 + 1.0 * np.exp(-np.arange(60) / 12)).round(4).tolist()


def write_state(folder: Path, *, rate: float = 1e-5, **top) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": n, "loss": x, "learning_rate": rate, "epoch": n / 60, "num_tokens": 1000 * n}
        for n, x in enumerate(LOSSES, 1)
    ]
    path = folder / "trainer_state.json"
    path.write_text(
        json.dumps({"log_history": rows, "max_steps": 60, "num_train_epochs": 1, "train_batch_size": 8, **top})
    )
    return path


def codes(report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_an_adapter_beside_the_log_tells_method_rank_and_model(tmp_path: Path) -> None:
    path = write_state(tmp_path / "checkpoint-60")
    adapter = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "meta-llama/Llama-3.1-8B"}
    (tmp_path / "checkpoint-60" / "adapter_config.json").write_text(json.dumps(adapter))
    known = read_beside(path)
    assert (known.method, known.rank, known.base_model) == ("lora", 8, "meta-llama/Llama-3.1-8B")
    report = diagnose_file(path)
    assert report.runs[0].log.context.advice.usual_rate is not None
    assert "rate_far_below_usual" in codes(report)


def test_a_config_beside_the_log_means_that_all_weights_were_trained(tmp_path: Path) -> None:
    path = write_state(tmp_path, rate=5e-2)
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "hidden_size": 2048,
                "num_hidden_layers": 16,
                "intermediate_size": 8192,
                "num_attention_heads": 32,
                "vocab_size": 128256,
            }
        )
    )
    report = diagnose_file(path)
    assert report.runs[0].log.context.method == "full"
    assert "rate_above_usual" in codes(report)


def test_options_win_and_the_counted_size_serves_without_them(tmp_path: Path) -> None:
    path = write_state(tmp_path, total_flos=6 * 1e9 * 60_000)
    guessed = diagnose_file(path)
    assert "If this is LoRA" in next(f.meaning for f in guessed.findings if f.code == "rate_far_below_usual")
    told = diagnose_file(path, told=Told(method="lora"))
    assert "for this model and method" in next(f.meaning for f in told.findings if f.code == "rate_far_below_usual")
    assert "rate_far_below_usual" not in codes(diagnose_file(path, told=Told(method="full")))


def test_a_broken_file_beside_the_log_does_no_harm(tmp_path: Path) -> None:
    path = write_state(tmp_path)
    for name in ("adapter_config.json", "config.json", "training_args.json", "hparams.yaml"):
        (tmp_path / name).write_text("{[: \x00 !!python/object:os.system x")
    assert diagnose_file(path).label == "healthy"


def test_an_unknown_layout_is_shown_and_not_blamed(tmp_path: Path) -> None:
    path = tmp_path / "odd.log"
    path.write_text("epoch the first, loss was two point one\nthen 7 epochs more\n")
    report = diagnose_file(path)
    assert report.verdict.code == "unreadable_layout"
    assert "I could not read this layout" in report.verdict.meaning
    assert "epoch the first" in report.verdict.advice
    assert "no training loss" not in report.verdict.meaning


OUT_OF_MEMORY = """Traceback (most recent call last):
  File "finetune.py", line 41, in <module>
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB.
"""


@pytest.mark.parametrize("before", ["", "epoch the first, 7 steps\n"])
def test_an_output_that_ends_out_of_memory_is_named_so(before: str, tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    path.write_text(before + OUT_OF_MEMORY)
    report = diagnose_file(path)
    assert report.verdict.code == "memory_ran_out"
    assert "CUDA out of memory" in str(report.verdict.evidence["error"])
    assert "fewer rows" in report.verdict.advice


@pytest.mark.parametrize(
    "content", [b"", b"Dear diary,\nnothing happened.\n", b"\x00\x01\x02" * 100, b"%PDF-1.7 \x00 step 1"]
)
def test_a_file_that_is_no_log_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="no training log"):
        diagnose_paths([str(path)])


def test_a_log_of_predictions_only_is_too_little(tmp_path: Path) -> None:
    path = tmp_path / "trainer_log.jsonl"
    path.write_text(
        "".join(json.dumps({"current_steps": n, "total_steps": 9, "percentage": 10.0}) + "\n" for n in range(9))
    )
    assert diagnose_file(path).verdict.code == "too_little_information"


def test_a_short_broken_start_does_not_hide_the_run(tmp_path: Path) -> None:
    rows = [(n, 2.0) for n in range(1, 7)] + list(enumerate(LOSSES, 1))
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": n, "loss": x, "learning_rate": 1e-4}) + "\n" for n, x in rows))
    report = diagnose_file(path)
    assert len(report.runs) == 2
    assert report.label == "healthy"
    assert codes(report)[-1] == "several_runs"


def test_no_escape_of_a_log_reaches_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2Jb.csv"
    path.write_text("step,my\x1b]0;owned\x07_loss\n" + "".join(f"{n},{x}\n" for n, x in enumerate(LOSSES, 1)))
    read = _finestep("diagnose", path)
    assert read.returncode == 0
    assert "owned" in read.stdout
    broken = tmp_path / "x\x1b[31m.txt"
    broken.write_text("\x1b]0;owned\x07 nothing\n")
    refused = _finestep("diagnose", broken)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "\x1b" not in read.stdout + read.stderr + refused.stdout + refused.stderr


def _finestep(*words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "finestep", *map(str, words)], capture_output=True, text=True)


def test_operations_a_row_bound_the_model_and_so_the_rate(tmp_path: Path) -> None:
    """Without any file beside the log a tiny model shows in the trainer's count: its usual rates are far above 2e-5."""
    rows = [{"step": n, "loss": 3.1 + 5.0 / n, "learning_rate": 2e-5 * (1 - n / 401)} for n in range(1, 401)]
    state = {"log_history": rows, "max_steps": 400, "train_batch_size": 8, "total_flos": 4.2e11}
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps(state))
    assert diagnose_file(path).verdict.code == "rate_below_usual"
    path.write_text(json.dumps({**state, "total_flos": 4.2e17}))
    assert diagnose_file(path).verdict.code != "rate_below_usual"
