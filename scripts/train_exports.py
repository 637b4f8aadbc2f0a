"""Do the exported files train in the real frameworks? Two steps on the shipped model, with the figures read from their own logs.

Called by `python scripts/check_exports.py --train`. For each framework a recipe is exported by `finestep export` for a local file,
started by the command that the export prints, and the framework's own log must show the rate, the warmup, the number of steps and
the effective batch of the recipe.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_ROWS, BATCH, MICRO, WARMUP, RATE = 80, 30, 5, 1, 3e-3
"""80 rows leave 60 for training: two steps of 30."""
RECIPE = f"""
method: lora
learning_rate: {RATE}
effective_batch_size: {BATCH}
micro_batch_size: {MICRO}
num_epochs: 1
max_length: 128
schedule: {{warmup_steps: {WARMUP}}}
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "hf": ("python", "train.py"),
    "trl": ("trl", "sft", "--config", "trl_sft.yaml"),
    "llamafactory": ("llamafactory-cli", "train", "llamafactory.yaml"),
    "ms-swift": ("swift", "sft", "ms_swift.yaml"),
    "litgpt": ("litgpt", "finetune_lora", "--config", "litgpt.yaml"),
}
LIMIT_S = 900


@dataclass(frozen=True)
class Seen:
    """What a framework's own log says: the rates of its steps, how many there were, and rows a step."""

    rates: list[float]
    steps: int
    batch: int
    losses: list[float]


def train_all(names: list[str], build: Path, environment: Callable[[str, Path], Path]) -> int:
    """Train each, print a row of the table of docs/figures/exports.md, and return 1 when any differs."""
    failures = 0
    for name in names or COMMANDS:
        started = time.monotonic()
        python = Path(sys.executable) if name in ("hf", "trl") else environment(name, build / f"venv-{name}")
        try:
            seen = train(name, (build / f"train-{name}").resolve(), python.absolute())
        except (RuntimeError, OSError, ValueError, KeyError, StopIteration, subprocess.SubprocessError) as error:
            print(f"| {name} | did not train: {str(error)[:300]} |")
            failures += 1
            continue
        faults = differences(name, seen)
        failures += bool(faults)
        rates = " ".join(f"{rate:.4g}" for rate in seen.rates)
        losses = " ".join(f"{loss:.4g}" for loss in seen.losses)
        verdict = "; ".join(faults) or "as asked"
        print(
            f"| {name} | {seen.steps} | {rates} | {seen.batch} | {losses} | {time.monotonic() - started:.0f} s | {verdict} |"
        )
    return 1 if failures else 0


def differences(name: str, seen: Seen) -> list[str]:
    """What differs from the recipe; one step of offset is allowed in when a rate is logged."""
    out = []
    if abs(max(seen.rates) - RATE) > 1e-9:
        out.append(f"peak rate {max(seen.rates):g}, asked {RATE:g}")
    if seen.steps != 2:
        out.append(f"{seen.steps} steps, planned 2")
    if seen.batch != BATCH:
        out.append(f"batch {seen.batch}, asked {BATCH}")
    # Warmup of one step: the rate before the peak is 0, or the first one logged is the peak already (logged after the step).
    if seen.rates[0] not in (0.0, RATE):
        out.append(f"first rate {seen.rates[0]:g}: not a warmup of {WARMUP} step")
    return out


def train(name: str, folder: Path, python: Path) -> Seen:
    """Export, start, read."""
    from finestep.survey.shipped import SHIPPED_DATA, SHIPPED_MODEL

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = SHIPPED_DATA.read_text(encoding="utf-8").splitlines()[:NUM_ROWS]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    export = [sys.executable, "-m", "finestep", "export", "recipe.yaml", "--to", name, "--model", "shipped"]
    subprocess.run(
        [*export, "--data", "rows.jsonl", "--gpu", "cpu", "--output", "out"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    out = folder / "out"
    if name == "litgpt":
        run([str(python), str(Path(__file__).resolve()), "--convert", str(SHIPPED_MODEL), str(out / "checkpoint")], out)
    program, *rest = COMMANDS[name]
    text = run([str(python) if program == "python" else str(python.parent / program), *rest], out)
    return READERS[name](out, text)


def run(command: list[str], folder: Path) -> str:
    """Output of a command; its last lines when it fails."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "info",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "PYTHONPATH": "",
    }
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=LIMIT_S
    )
    text = done.stdout + done.stderr
    (folder / "log.txt").write_text(text)
    if done.returncode != 0:
        raise RuntimeError(" / ".join(line for line in text.strip().splitlines()[-4:]))
    return text


def of_trainer(out: Path, text: str) -> Seen:
    """Hugging Face's state file, and the batch from its printed lines."""
    state = json.loads(next(iter(sorted(out.glob("output/**/trainer_state.json"))), Path("missing")).read_text())
    rows = [row for row in state["log_history"] if "learning_rate" in row and "loss" in row]
    batch = re.search(r"Total train batch size[^=]*= ([\d,]+)", text)
    examples = re.search(r"Num examples = ([\d,]+)", text)
    rows_a_step = int(batch[1].replace(",", "")) if batch else int(examples[1]) // state["max_steps"] if examples else 0
    return Seen(
        [row["learning_rate"] for row in rows], state["global_step"], rows_a_step, [row["loss"] for row in rows]
    )


def of_printed_rows(out: Path, text: str) -> Seen:
    """TRL: the printed rows, as its run saves no state."""
    found = re.findall(r"\{'loss':[^}]*\}", text)
    rows = [{key: float(value) for key, value in re.findall(r"'(\w+)': '?([-\d.e]+)'?", row)} for row in found]
    steps = re.search(r"Total optimization steps = ([\d,]+)", text)
    batch = re.search(r"Total train batch size[^=]*= ([\d,]+)", text)
    assert steps is not None
    assert batch is not None
    return Seen([row["learning_rate"] for row in rows], int(steps[1]), int(batch[1]), [row["loss"] for row in rows])


def of_litgpt(out: Path, text: str) -> Seen:
    """metrics.csv has a row for each micro-batch, and counts those as its steps."""
    with next(out.glob("output/logs/csv/version_*/metrics.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss")]
    accumulation = BATCH // MICRO
    steps = max(int(float(row["iter"])) for row in rows) // accumulation
    rows = [
        row for row in rows if (int(float(row["iter"])) - 1) % accumulation == 0
    ]  # the first micro-batch of each step
    rates = [float(row["learning_rate"]) for row in rows]
    printed = re.search(r"'global_batch_size': (\d+)|global_batch_size=(\d+)", text)
    batch = int(next(group for group in printed.groups() if group)) if printed else 0
    return Seen(rates, steps, batch, [float(row["loss"]) for row in rows])


READERS: dict[str, Callable[[Path, str], Seen]] = {
    "hf": of_trainer,
    "trl": of_printed_rows,
    "llamafactory": of_trainer,
    "ms-swift": of_trainer,
    "litgpt": of_litgpt,
}


def convert(model: Path, target: Path) -> None:
    """The shipped model in litgpt's format: a Llama of a shape that litgpt has no name for, so that its config is written here."""
    from functools import partial

    import torch
    from litgpt.config import Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from litgpt.utils import save_config
    from safetensors.torch import load_file

    shutil.copytree(model, target)
    hf: dict[str, Any] = json.loads((target / "config.json").read_text())
    config = Config(
        name="shipped",
        hf_config={"org": "finestep", "name": "shipped"},
        block_size=hf["max_position_embeddings"],
        vocab_size=hf["vocab_size"],
        padded_vocab_size=hf["vocab_size"],
        n_layer=hf["num_hidden_layers"],
        n_head=hf["num_attention_heads"],
        n_query_groups=hf["num_key_value_heads"],
        n_embd=hf["hidden_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=hf["rms_norm_eps"],
        mlp_class_name="LLaMAMLP",
        intermediate_size=hf["intermediate_size"],
        rope_base=int(hf["rope_parameters"]["rope_theta"]),
    )
    save_config(config, target)
    weights = load_file(target / "model.safetensors")
    state: dict[str, Any] = {}
    copy = partial(copy_weights_hf_llama, config, {})
    copy(state, weights)
    if "lm_head.weight" not in state:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    torch.save(state, target / "lit_model.pth")


if __name__ == "__main__":
    convert(Path(sys.argv[2]), Path(sys.argv[3]))
