"""What lies beside a log: adapter_config.json, config.json, the trainer's arguments, hparams.yaml; facts of the run, no judgement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finestep.readers.limits import number

MAX_BYTES = 4 << 20
_ARGUMENT_FILES = (
    "training_args.json",
    "args.json",
    "training_args.yaml",
    "llamaboard_config.yaml",
    "hparams.yaml",
    "finetune_config.json",
)
_METHODS = {
    "LORA": "lora",
    "ADALORA": "lora",
    "PREFIX_TUNING": "prefix",
    "P_TUNING": "p-tuning",
    "PROMPT_TUNING": "prompt",
}
_CLASSIFIER = re.compile(r"For(?:Sequence|Token)Classification")


@dataclass(frozen=True)
class Beside:
    """Facts of a run from the files beside its log; None = no file says it."""

    method: str | None = None
    rank: int | None = None
    alpha: float | None = None
    base_model: str | None = None
    config: Mapping[str, object] | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    num_epochs: float | None = None
    num_labels: int | None = None


def read_beside(log: Path) -> Beside:
    """Facts from the folder of a log, and from the one above when that folder is a checkpoint."""
    found = Beside()
    for folder in _folders(log):
        adapter, config = _values(folder / "adapter_config.json"), _values(folder / "config.json")
        found = _filled(found, _of_adapter(adapter)) if adapter else found
        found = _filled(found, _of_config(config)) if config else found
        for name in _ARGUMENT_FILES:
            found = _filled(found, _of_arguments(_values(folder / name)))
    if found.config is not None and found.method is None and found.base_model is None:
        return replace(found, method="full")
    return found


def _folders(log: Path) -> Iterator[Path]:
    folder = log if log.is_dir() else log.parent
    yield folder
    if re.fullmatch(r"checkpoint-\d+|lightning_logs|version_\d+|logs?", folder.name):
        yield folder.parent


def _filled(known: Beside, more: Beside) -> Beside:
    """What is known, and what another file adds."""
    return Beside(
        **{
            name: value if (value := getattr(known, name)) is not None else getattr(more, name)
            for name in known.__dict__
        }
    )


def _of_adapter(values: Mapping[str, object]) -> Beside:
    rank = number(values.get("r"))
    alpha = number(values.get("lora_alpha"))
    base = values.get("base_model_name_or_path")
    return Beside(
        method=_METHODS.get(str(values.get("peft_type", "LORA")).upper()),
        rank=int(rank) if 0 < rank < 1e5 else None,
        alpha=alpha if 0 < alpha < 1e6 else None,
        base_model=str(base)[:300] if base else None,
    )


def _of_config(values: Mapping[str, object]) -> Beside:
    if "model_type" not in values and "hidden_size" not in values:
        return Beside()
    labels, names = values.get("id2label"), values.get("architectures")
    is_classifier = isinstance(names, list) and any(_CLASSIFIER.search(str(name)) for name in names)
    return Beside(
        config=values,
        num_labels=len(labels) if is_classifier and isinstance(labels, dict) and len(labels) > 1 else None,
    )


def _of_arguments(values: Mapping[str, object]) -> Beside:
    def value(*names: str, most: float = 1e9) -> float | None:
        found = next((number(values[name]) for name in names if name in values), 0.0)
        return found if 0 < found < most else None

    method = next(
        (
            str(values[name]).lower()
            for name in ("finetuning_type", "tuner_type", "train_type", "sft_type")
            if values.get(name)
        ),
        "",
    )
    model = next(
        (
            str(values[name])[:300]
            for name in ("model_name_or_path", "model_id_or_path", "model", "base_model")
            if values.get(name)
        ),
        None,
    )
    rank, batch = value("lora_rank", "lora_r", "r", most=1e5), value("per_device_train_batch_size", "batch_size")
    return Beside(
        method=method if method in ("full", "lora", "qlora") else None,
        rank=int(rank) if rank else None,
        base_model=model,
        learning_rate=value("learning_rate", "lr", most=1e3),
        batch_size=int(batch * (value("gradient_accumulation_steps") or 1)) if batch else None,
        num_epochs=value("num_train_epochs", "num_epochs", "max_epochs", most=1e6),
    )


def _values(path: Path) -> Mapping[str, object]:
    """The top level of a small JSON or YAML file; empty for anything else."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return {}
        text = path.read_text(encoding="utf-8", errors="replace")
        value = json.loads(text) if path.suffix == ".json" else YAML(typ="safe", pure=True).load(text)
    except (OSError, ValueError, RecursionError, YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
