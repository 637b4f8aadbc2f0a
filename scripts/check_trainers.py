"""Does `finestep tune --with` search the configs of real trainers? Each completes a study of two full runs, killed once in the middle.

`python scripts/check_trainers.py [--build build/trainers] [--python NAME=INTERPRETER ...] [name ...]`

For each trainer a config is written as a user would, with the shipped model and 200 rows. `tune --with` searches it, is killed, and
goes on. Then the framework alone, without finestep, trains the config that the study has left, and its validation loss must be the
reported one. A trial of a third of the length is run too. In all runs the framework's own log must say the rate, warmup, steps and
batch that were asked for. An environment is made for each framework as in `check_exports.py`, unless one is named.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_ROWS = 200
TOLERANCE = 1e-3
LIMIT_S = 3000.0
KILL_AFTER_STEPS = 3
OVERRIDE = "litgpt-override"
SHORT = 0.34


@dataclass(frozen=True)
class Case:
    """One trainer: the name of its environment, its files, and how it is started without finestep."""

    environment: str
    config: str
    files: Callable[[Path, list[dict[str, str]], Path], dict[str, str]]
    alone: tuple[str, ...]
    options: tuple[str, ...] = ()


COMMON = """
learning_rate: 1.0e-3   # what we always take
per_device_train_batch_size: 8
gradient_accumulation_steps: 2
num_train_epochs: 1
warmup_steps: 1
lr_scheduler_type: cosine
bf16: false
use_cpu: true
gradient_checkpointing: false
output_dir: own-output
"""


def main() -> None:
    """Run all or the named trainers; the exit status is 1 when any fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--build", type=Path, default=Path("build/trainers"))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=INTERPRETER")
    options = parser.parse_args()
    pythons = dict(one.split("=", 1) for one in options.python)
    failures = 0
    print("| trainer | trials | reported | trained alone | log agrees | killed, went on | seconds |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.names or (*CASES, OVERRIDE):
        began = time.monotonic()
        try:
            row, is_right = check(name, options.build.resolve() / name, pythons)
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            row, is_right = f"| {name} | failed: {str(error)[-400:]} |", False
        failures += not is_right
        print(f"{row} {time.monotonic() - began:.0f} |", flush=True)
    sys.exit(1 if failures else 0)


def check(name: str, folder: Path, pythons: dict[str, str]) -> tuple[str, bool]:
    """(a row of the table, is all well)."""
    if name == OVERRIDE:
        return check_override(folder, pythons)
    case = CASES[name]
    python = Path(pythons.get(case.environment) or _environment(case.environment, folder.parent)).absolute()
    prepare(case, folder)
    if name == "litgpt" and not (folder / "checkpoint/lit_model.pth").exists():
        convert(folder / "checkpoint", python)
    study = folder / "study"
    command = ["tune", "--with", case.config, "--budget", "2", "--out", str(study), *case.options]
    command += ["--python", str(python)] if case.environment not in ("hf", "trl") else []
    killed = run_and_kill(command, folder, study)
    finestep(command, folder)
    result = json.loads((study / "result.json").read_text())
    outcomes = [json.loads(path.read_text()) for path in sorted(study.glob("trials/*/outcome.json"))]
    short = short_trial(study, folder)
    agrees = sum("its log agrees" in one["reason"] for one in [*outcomes, short])
    reported, alone = result["best"]["eval_loss"], trained_alone(case, folder, study, python)
    is_right = agrees == len(outcomes) + 1 and len(outcomes) == 2 and abs(alone - reported) <= TOLERANCE and killed
    row = f"| {name} | {len(outcomes)} | {reported:.5f} | {alone:.5f} | {agrees} of {len(outcomes) + 1} | {killed} |"
    return row, is_right


def check_override(folder: Path, pythons: dict[str, str]) -> tuple[str, bool]:
    """litgpt ignores an option of its command line beside a config: `--command` must notice before its second trial."""
    case = CASES["litgpt"]
    python = Path(pythons.get("litgpt") or _environment("litgpt", folder.parent)).absolute()
    prepare(case, folder)
    if not (folder / "checkpoint/lit_model.pth").exists():
        convert(folder / "checkpoint", python)
    text = (folder / case.config).read_text().replace("val_split_fraction:\n", "val_split_fraction: 0.2\n")
    (folder / case.config).write_text(text)
    line = f"{python.parent}/litgpt finetune_lora --config {case.config} --optimizer.init_args.lr {{learning_rate}}"
    line += " --train.micro_batch_size {micro_batch_size} --train.global_batch_size {effective_batch_size}"
    line += " --train.max_steps {num_steps} --train.log_interval 1 --out_dir {output_dir}/out"
    command = [
        "tune",
        "--command",
        line,
        "--result",
        "eval_loss=val loss: ([0-9.]+)",
        "--rows",
        "60",
        "--budget",
        "2",
        "--out",
        "study",
    ]
    done = subprocess.run(_finestep(command), cwd=folder, env=_quiet(), capture_output=True, text=True, timeout=LIMIT_S)
    said = done.stdout + done.stderr
    (folder / "finestep.log").write_text(said)
    trials = len(list(folder.glob("study/trials/*")))
    is_right = done.returncode == 2 and "it was not used" in said and trials == 1
    words = next((one.strip() for one in said.splitlines() if "it was not used" in one), said[-200:])
    return f"| {OVERRIDE} | {trials} | exit code {done.returncode} | {words[:200]} | - | - |", is_right


def prepare(case: Case, folder: Path) -> None:
    """The user's files, once."""
    from finestep.survey.shipped import SHIPPED_DATA, SHIPPED_MODEL

    if (folder / case.config).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = SHIPPED_DATA.read_text(encoding="utf-8").splitlines()[:NUM_ROWS]
    rows = [json.loads(line) for line in lines]
    for name, text in case.files(folder, rows, SHIPPED_MODEL).items():
        (folder / name).write_text(text, encoding="utf-8")


def convert(target: Path, python: Path) -> None:
    """The shipped model in litgpt's format, by litgpt itself."""
    from finestep.survey.shipped import SHIPPED_MODEL

    shutil.rmtree(target, ignore_errors=True)
    script = Path(__file__).resolve().with_name("train_exports.py")
    command = [str(python), str(script), "--convert", str(SHIPPED_MODEL), str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)


def run_and_kill(command: list[str], folder: Path, study: Path) -> bool:
    """Start the study, and kill it without warning once its first trial has made a few steps; True when it was under way."""
    mark = folder / "was-killed"
    if mark.exists() or list(study.glob("trials/*/outcome.json")):
        return mark.exists()
    process = subprocess.Popen(
        _finestep(command), cwd=folder, env=_quiet(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        steps = list(study.glob("trials/*/steps.jsonl"))
        if any(len(path.read_text().splitlines()) >= KILL_AFTER_STEPS for path in steps):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            mark.touch()
            return True
        time.sleep(0.1)
    return False


def finestep(command: list[str], folder: Path) -> str:
    """Run finestep to its end."""
    done = subprocess.run(_finestep(command), cwd=folder, env=_quiet(), capture_output=True, text=True, timeout=LIMIT_S)
    (folder / "finestep.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-300:] + done.stderr[-300:])
    return done.stdout


def short_trial(study: Path, folder: Path) -> dict[str, Any]:
    """The outcome of a trial of a third of the length, through the study's own executor."""
    from finestep.executors.framework import FrameworkExecutor
    from finestep.protocol import TrialRequest
    from finestep.store.study_files import read_study_file
    from finestep.study import StudySpec

    spec = StudySpec.model_validate(read_study_file(study).spec)
    assert spec.framework is not None
    executor = FrameworkExecutor(spec.framework, spec.recipe, folder=study)
    executor.start()
    recipe = spec.recipe.changed(learning_rate=spec.recipe.learning_rate / 2)
    executor.submit(TrialRequest(number=99, recipe=recipe, fidelity=SHORT, folder=str(folder / "short" / "99")))
    *_, last = executor.events()
    if last.kind != "finished":
        raise RuntimeError(f"the short trial: {last.data}")
    return dict(last.data)


def trained_alone(case: Case, folder: Path, study: Path, python: Path) -> float:
    """The last validation loss that the framework itself reports for the config of the result."""
    from finestep.trainers.framework import Framework
    from finestep.trainers.frameworks import FRAMEWORKS
    from finestep.trainers.live_log import EvalRow, LiveLog
    from finestep.trainers.plan import TrialPlan

    tuned = study / f"tuned-{case.config}"
    words = [word.replace("{config}", str(tuned)) for word in case.alone]
    program = str(python) if words[0] == "python" else str(python.parent / words[0])
    shutil.rmtree(folder / "own-output", ignore_errors=True)
    log = folder / "alone.log"
    environment = {**_quiet(), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    with log.open("w") as output:
        subprocess.run(
            [program, *words[1:]],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            timeout=LIMIT_S,
            check=True,
        )
    spec = json.loads((study / "study.json").read_text())["spec"]["framework"]
    own: Framework = FRAMEWORKS[spec["name"]]
    plan = TrialPlan(1.0, 1, 1, 1, 1, 0, 1.0, 0, str(folder / "own-output"))
    rows = [row for row in LiveLog(own, plan, log).rows(is_over=True) if isinstance(row, EvalRow)]
    values = dict(rows[-1].values)
    for name in own.written.results:
        values |= json.loads((folder / "own-output" / name).read_text())
    return float(values.get("eval_loss", values.get("val_loss", float("nan"))))


def _finestep(command: list[str]) -> list[str]:
    return [sys.executable, "-m", "finestep", *command]


def _quiet() -> dict[str, str]:
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "PYTHONUNBUFFERED": "1",
    }


def _environment(name: str, build: Path) -> str:
    if name in ("hf", "trl"):
        return sys.executable
    from check_exports import environment

    return str(environment(name, build / f"venv-{name}"))


# ---- the files of a user


def json_lines(rows: list[dict[str, Any]]) -> str:
    """One object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def asked(row: dict[str, str]) -> str:
    """What a row asks."""
    return f"{row['instruction']} {row['input']}".strip() + "\n"


def trl_files(folder: Path, rows: list[dict[str, str]], model: Path) -> dict[str, str]:
    """`trl sft` with a mixture of one local file."""
    text = f"""# our usual run
model_name_or_path: {model}
datasets:
  - path: json
    data_files: rows.jsonl
{COMMON}max_length: 128
use_peft: true
lora_r: 8
lora_alpha: 16
lora_target_modules: all-linear
"""
    pairs = [{"prompt": asked(row), "completion": row["output"]} for row in rows]
    return {"trl_sft.yaml": text, "rows.jsonl": json_lines(pairs)}


def dpo_files(folder: Path, rows: list[dict[str, str]], model: Path) -> dict[str, str]:
    """`trl dpo`: the answer of another row is the rejected one."""
    text = f"""model_name_or_path: {model}
datasets: [{{path: json, data_files: pairs.jsonl}}]
beta: 0.1
{COMMON}use_peft: true
lora_r: 8
lora_alpha: 16
lora_target_modules: all-linear
"""
    pairs = [
        {"prompt": asked(row), "chosen": row["output"], "rejected": rows[index - 1]["output"] + " no"}
        for index, row in enumerate(rows)
    ]
    return {"trl_dpo.yaml": text, "pairs.jsonl": json_lines(pairs)}


def hf_files(folder: Path, rows: list[dict[str, str]], model: Path) -> dict[str, str]:
    """A script with HfArgumentParser, and its arguments."""
    example = Path(__file__).resolve().parent.parent / "docs/examples/any_trainer/hf_arguments.py"
    text = f"model_name_or_path: {model}\ntrain_file: rows.jsonl\nvalidation_file:\n{COMMON}"
    return {"arguments.yaml": text, "train.py": example.read_text(), "rows.jsonl": json_lines(rows)}


def llama_factory_files(folder: Path, rows: list[dict[str, str]], model: Path) -> dict[str, str]:
    """`llamafactory-cli train` with a data set in `dataset_info.json`."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/dataset_info.json").write_text(json.dumps({"ours": {"file_name": "rows.json"}}))
    (folder / "data/rows.json").write_text(json.dumps(rows))
    text = f"""### model
model_name_or_path: {model}

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all

### dataset
dataset: ours
dataset_dir: data
template: alpaca
cutoff_len: 128

### train
{COMMON.replace("gradient_checkpointing: false", "disable_gradient_checkpointing: true")}"""
    return {"llamafactory.yaml": text}


def swift_files(folder: Path, rows: list[dict[str, str]], model: Path) -> dict[str, str]:
    """`swift sft` with a local file."""
    text = f"""model: {model}
model_type: llama
template: chatml
torch_dtype: float32
tuner_type: lora
lora_rank: 8
lora_alpha: 16
target_modules: [all-linear]
dataset: [rows.jsonl]
max_length: 128
{COMMON}add_version: false
"""
    return {"swift.yaml": text, "rows.jsonl": json_lines(rows)}


def litgpt_files(folder: Path, rows: list[dict[str, str]], model: Path) -> dict[str, str]:
    """`litgpt finetune_lora`; the checkpoint is converted by litgpt's own function in its environment."""
    text = """checkpoint_dir: checkpoint
out_dir: own-output
precision: 32-true
devices: 1
lora_r: 8
lora_alpha: 16
lora_key: true
lora_projection: true
lora_mlp: true
data:
  class_path: litgpt.data.JSON
  init_args:
    json_path: rows.json
    mask_prompt: true
    val_split_fraction:
train:
  global_batch_size: 16   # rows a step
  micro_batch_size: 4
  lr_warmup_steps: 1
  epochs: 1
  max_seq_length: 128
optimizer:
  class_path: torch.optim.AdamW
  init_args:
    lr: 0.001
seed: 1337
"""
    return {"litgpt.yaml": text, "rows.json": json.dumps(rows)}


CASES: dict[str, Case] = {
    "hf": Case("hf", "arguments.yaml", hf_files, ("python", "train.py", "{config}")),
    "trl-sft": Case("trl", "trl_sft.yaml", trl_files, ("trl", "sft", "--config", "{config}")),
    "trl-dpo": Case("trl", "trl_dpo.yaml", dpo_files, ("trl", "dpo", "--config", "{config}")),
    "llamafactory": Case(
        "llamafactory", "llamafactory.yaml", llama_factory_files, ("llamafactory-cli", "train", "{config}")
    ),
    "ms-swift": Case("ms-swift", "swift.yaml", swift_files, ("swift", "sft", "{config}")),
    "litgpt": Case("litgpt", "litgpt.yaml", litgpt_files, ("litgpt", "finetune_lora", "--config", "{config}")),
}


if __name__ == "__main__":
    main()
