"""How somebody's config is started: the framework's own command for what it trains, or the script beside a file of arguments."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from finestep.errors import BadInput
from finestep.foreign.config import ForeignConfig
from finestep.survey.hardware import hardware_facts
from finestep.trainers.framework import Framework

TRL_TASKS = ("sft", "dpo", "kto")


def launcher_of(own: Framework, config: ForeignConfig, path: Path, tree: dict[str, object]) -> str:
    """The framework's own command for what the file trains."""
    if own.name == "hf":
        return _script_launcher(path)
    task = config.objective
    if own.name == "trl":
        if task not in TRL_TASKS:
            raise BadInput(
                f"finestep drives `trl {'|'.join(TRL_TASKS)}`",
                value=task,
                place=str(path),
                next_step="say how it is started: --launcher 'trl orpo --config {config}'",
            )
        return own.launch[task]
    if own.name == "ms-swift" and "rlhf_type" in tree:
        return own.launch["rlhf"]
    return own.launch.get(task) or (own.launch.get(config.method or "") or own.launch[""])


def _script_launcher(path: Path) -> str:
    """The one script beside a file of arguments that parses them."""
    scripts = [one for one in sorted(path.resolve().parent.glob("*.py")) if _parses_arguments(one)]
    if len(scripts) != 1:
        found = ", ".join(one.name for one in scripts)
        raise BadInput(
            f"which script these arguments are for cannot be told: {found or 'none beside them parses arguments of the Trainer'}",
            place=str(path),
            next_step="say how it is started: --launcher '{python} train.py {config}'",
        )
    return f"{{python}} {scripts[0]} {{config}}"


def method_of_script(launcher: str, base: Path) -> str | None:
    """A script that never speaks of adapters trains all weights; None where no script is named."""
    scripts = [base / word for word in shlex.split(launcher) if word.endswith(".py")]
    texts = [script.read_text(encoding="utf-8", errors="replace") for script in scripts if script.is_file()]
    if not texts:
        return None
    return "lora" if any(re.search(r"\bpeft\b|LoraConfig|get_peft_model", text) for text in texts) else "full"


def _parses_arguments(script: Path) -> bool:
    try:
        text = script.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "HfArgumentParser" in text and "TrainingArguments" in text


def visible_gpus() -> Sequence[str]:
    """The GPUs that trials may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    facts = hardware_facts()
    return [str(index) for index in range(facts.num_devices)] if facts.device == "cuda" else []
