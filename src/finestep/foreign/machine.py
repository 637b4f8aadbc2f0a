"""The devices of somebody's run, how the model is spread over them, and in which precision it computes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from finestep.foreign.config import Source
from finestep.foreign.names import Options, whole

_STAGE_IN_NAME = re.compile(r"(?:z|zero|stage|ds|deepspeed)[_-]?(?:stage|z|zero)?[_-]?([0-3])(?![\d.])", re.IGNORECASE)


def devices_of(options: Options) -> int | None:
    """Processes that share an optimizer step; None when the file does not say."""
    stated = options.find("num_devices")
    count = _count(stated.value) if stated else None
    if count:
        return count
    each, nodes = options.find("devices_per_node"), options.find("num_nodes")
    per_node = _count(each.value) if each else None
    return per_node * ((_count(nodes.value) if nodes else None) or 1) if per_node else None


def _count(value: object) -> int | None:
    if isinstance(value, list):
        return len(value) if value and all(isinstance(one, int) for one in value) else None
    if isinstance(value, str) and re.fullmatch(r"\d+(?:\s*,\s*\d+)+", value):
        return len(value.split(","))
    count = whole(value)
    return count if count and count > 0 else None


def precision_of(options: Options) -> str | None:
    """bf16, fp16 or fp32; None when the file does not say."""
    for place, value in options.values.items():
        leaf = place.removesuffix(".enabled").rsplit(".", 1)[-1].lower()
        if leaf in ("bf16", "fp16") and (value is True or str(value).lower() in ("full", "true")):
            return leaf
    for place, value in options.values.items():
        leaf, word = place.rsplit(".", 1)[-1].lower(), str(value).lower()
        if leaf in (
            "precision",
            "mixed_precision",
            "dtype",
            "torch_dtype",
            "mixed_precision_param",
            "model_dtype",
            "param_dtype",
        ):
            if "bf16" in word or "bfloat16" in word:
                return "bf16"
            if "16" in word or word == "half":
                return "fp16"
            if "32" in word:
                return "fp32"
    return None


def sharding_of(source: Source, options: Options, path: Path) -> str | None:
    """zero-1, zero-2, zero-3 or fsdp: from the DeepSpeed settings, the file that is named, or that file's name."""
    stage = next(
        (whole(v) for place, v in options.values.items() if re.search(r"zero(?:_optimization\.|_)stage$", place)), None
    )
    if stage is None:
        stage = _named_stage(source, options, path)
    if stage:
        return f"zero-{stage}"
    spread = [v for place, v in options.values.items() if re.search(r"(?:^|\.)(?:fsdp|fsdp_config)(?:\.|$)", place)]
    by_launcher = re.search(r"--config_file[= ]\S*fsdp", source.text) if source.kind == "shell" else None
    return "fsdp" if by_launcher or any(v not in (None, "", False, []) for v in spread) else None


def _named_stage(source: Source, options: Options, path: Path) -> int | None:
    names = ("deepspeed", "deepspeed_config")
    named = [v for place, v in options.values.items() if place.rsplit(".", 1)[-1] in names and isinstance(v, str)]
    if source.kind == "shell":
        named += re.findall(r"--config_file[= ](\S*(?:zero|deepspeed|ds)\S*)", source.text)
    for name in named:
        for place in (path.parent / name, Path(name)):
            try:
                tree = (
                    json.loads(place.read_text(encoding="utf-8"))
                    if place.suffix == ".json" and place.is_file()
                    else None
                )
                stage = whole(tree["zero_optimization"]["stage"]) if tree else None
            except (OSError, ValueError, KeyError, TypeError):
                stage = None
            if stage is not None:
                return stage
        found = _STAGE_IN_NAME.search(Path(name).stem)
        if found:
            return int(found[1])
    return None
