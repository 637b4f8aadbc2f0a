"""A file as a ForeignConfig: what kind of file it is, which tool's it is, and each setting in finestep's words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from finestep.disk import refuse_special
from finestep.errors import BadInput
from finestep.foreign.adapter import method_of, target_names, variant_of
from finestep.foreign.config import (
    ForeignConfig,
    Kind,
    Source,
    StatedAdapter,
    StatedBatch,
    StatedLength,
    StatedMemory,
    StatedOptimizer,
)
from finestep.foreign.duration import length_of, warmup_of
from finestep.foreign.interpolation import resolved
from finestep.foreign.layouts import LAYOUTS, Layout, layout_of
from finestep.foreign.machine import devices_of, precision_of, sharding_of
from finestep.foreign.markup import BY_SUFFIX
from finestep.foreign.model import model_of
from finestep.foreign.names import Found, Options, number, whole
from finestep.foreign.objective import objective_of
from finestep.foreign.own_words import in_own_words
from finestep.foreign.python_script import notebook_text, python_source
from finestep.foreign.shell_script import shell_source

MAX_BYTES = 1024 * 1024
SHELL, PYTHON = (".sh", ".bash", ".zsh", ".slurm", ".sbatch", ".job", ".bat", ".cmd"), (".py",)
READABLE = "YAML, JSON, TOML and INI configs, shell scripts, Python scripts and notebooks"
KINDS: dict[str, Kind] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".toml": "toml",
    ".ini": "ini",
    ".cfg": "ini",
}
NEEDED = ("learning_rate", "micro_batch_size", "effective_batch_size", "num_epochs", "max_steps", "lora_rank", "warmup")


def read_config(path: Path) -> ForeignConfig:
    """What a config or script of another tool says.

    Raises:
        BadInput: it cannot be read, or holds no training setting at all.
    """
    try:
        return config_of(source_of(_text(path), path), path)
    except RecursionError:
        raise BadInput("a config must not be nested without end, or hold itself", place=str(path)) from None


def _text(path: Path) -> str:
    refuse_special(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput("a config must be at most 1 MiB", place=str(path))
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput("no such config", value=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "a config must be a readable UTF-8 text file",
            value=type(error).__name__,
            place=str(path),
            next_step=f"read are {READABLE}",
        ) from None


def source_of(text: str, path: Path) -> Source:
    """The tree of names and values in a file, by its suffix, or by its first words where that does not tell."""
    suffix, place = path.suffix.lower(), str(path)
    if suffix in PYTHON:
        return python_source(text, place)
    if suffix == ".ipynb":
        python, shell = notebook_text(text, place)
        found = python_source(python, place)
        return found if found.tree.get("calls") or not shell else shell_source(shell, place)
    if suffix in SHELL or (suffix not in KINDS and _is_shell(text)):
        return _with_files(shell_source(text, place), path)
    kind = KINDS.get(suffix, "json" if text.lstrip().startswith("{") else "yaml")
    tree = BY_SUFFIX.get(suffix, BY_SUFFIX[f".{kind}"])(text, place)
    if not isinstance(tree, dict):
        law = "a config must be a mapping of names to values"
        raise BadInput(law, value=type(tree).__name__, place=place, next_step=f"read are {READABLE}")
    tree, unresolved = resolved(tree)
    return Source(kind=kind, tree=tree, text=text, unresolved=unresolved, notes=_defaults_elsewhere(tree))


def _is_shell(text: str) -> bool:
    return text.startswith("#!") or bool(
        re.search(r"^\s*(?:python3?|torchrun|accelerate|deepspeed|swift|trl)\s.*--\w", text, re.M)
    )


def _defaults_elsewhere(tree: dict[str, object]) -> tuple[str, ...]:
    """Hydra's `defaults` name other files."""
    named = tree.get("defaults")
    others = [one for one in named if one != "_self_"] if isinstance(named, list) else []
    shown = ", ".join(
        ":".join(map(str, next(iter(one.items())))) if isinstance(one, dict) else str(one) for one in others
    )
    return (f"`defaults` names other files ({shown}), which were not read",) if others else ()


def _with_files(source: Source, path: Path) -> Source:
    """A script that hands a config on: the config's values, under the script's own options."""
    if not source.files:
        return source
    beside = next((path.parent / name for name in source.files if (path.parent / name).is_file()), None)
    if beside is None:
        if source.tree.keys() - {"config", "config_file", "cfg"}:
            return replace(source, notes=(*source.notes, f"the config that it names was not found: {source.files[0]}"))
        raise BadInput(
            "the script hands its options on in a config file",
            value=source.files[0],
            place=str(path),
            next_step="review that file",
        )
    inner = source_of(_text(beside), beside)
    tree = {**inner.tree}
    for name, value in source.tree.items():
        _put(tree, name.split("."), value)
    return replace(
        source,
        tree=tree,
        text=inner.text,
        notes=(*source.notes, *inner.notes),
        unresolved=(*source.unresolved, *inner.unresolved),
    )


def _put(tree: dict[str, object], names: list[str], value: object) -> None:
    for name in names[:-1]:
        inner = tree.get(name)
        copied: dict[str, object] = dict(inner) if isinstance(inner, dict) else {}
        tree[name], tree = copied, copied
    tree[names[-1]] = value


def config_of(source: Source, path: Path) -> ForeignConfig:
    """The settings of a tree in finestep's words.

    Raises:
        BadInput: there is no training setting in it.
    """
    options = Options(source.tree)
    layout = layout_of(source, options)
    config = _common(source, options, layout, path)
    config = in_own_words(config, source, options)
    stated = config.stated()
    if all(stated[name] is None for name in NEEDED):
        raise BadInput(
            "no training settings were found in the file: neither a learning rate, a batch size, epochs, steps, nor a LoRA rank",
            value=sorted(map(str, source.tree))[:8],
            place=str(path),
            next_step=f"read are {READABLE}; known tools: "
            + ", ".join(one.words for one in list(LAYOUTS.values())[:-2]),
        )
    return config


def _common(source: Source, options: Options, layout: Layout, path: Path) -> ForeignConfig:
    """The settings that every tool writes, by their names."""
    places: dict[str, str] = {}

    def take(concept: str) -> object:
        found = options.find(concept)
        if found is not None:
            places[concept] = found.place
        return found.value if found else None

    rate = _rate(options, source)
    if rate is not None:
        places["learning_rate"] = rate.place
    checkpointing = take("gradient_checkpointing")
    method = method_of(source, options, layout, path)
    return ForeignConfig(
        framework=layout.name,
        layout=layout.words,
        kind=source.kind,
        objective=objective_of(source, options, layout),
        model=model_of(source, options, layout),
        method=method,
        optimization=_optimization(source, options, rate=rate, take=take),
        batch=StatedBatch(
            **_batches(options, layout),
            num_devices=source.num_devices or devices_of(options),
            auto_find_batch_size=take("auto_find_batch_size") is True,
            packing=take("packing") is True,
        ),
        length=StatedLength(**length_of(options, places), max_length=whole(take("max_length"))),
        adapter=_adapter(take, variant_of(options, method)),
        memory=StatedMemory(
            precision=precision_of(options),
            checkpointing=None if checkpointing is None else bool(checkpointing),
            sharding=sharding_of(source, options, path),
        ),
        defaults=layout.defaults,
        places=places,
        notes=_notes(source, options),
    )


def _optimization(
    source: Source, options: Options, *, rate: Found | None, take: Callable[[str], object]
) -> StatedOptimizer:
    clip = number(take("max_grad_norm"))
    return StatedOptimizer(
        learning_rate=number(rate.value) if rate else None,
        text_rate=source.kind == "yaml" and rate is not None and isinstance(rate.value, str),
        warmup=warmup_of(options),
        schedule=_short(take("schedule")),
        optimizer=_short(take("optimizer")),
        weight_decay=number(take("weight_decay")),
        beta2=_beta2(options),
        max_grad_norm=clip or None,
        clip_stated=clip is not None or options.has("max_norm", "clip_grad_norm"),
    )


def _adapter(take: Callable[[str], object], variant: str | None) -> StatedAdapter:
    scaled = take("use_rslora")
    return StatedAdapter(
        variant=variant,
        lora_rank=whole(take("lora_rank")),
        lora_alpha=number(take("lora_alpha")),
        lora_dropout=number(take("lora_dropout")),
        use_rslora=scaled if isinstance(scaled, bool) else None,
        target_modules=target_names(take("target_modules")),
    )


class _Batches(TypedDict):
    """The batch, in the fields of `StatedBatch`."""

    micro_batch_size: int | None
    accumulation_steps: int | None
    effective_batch_size: int | None


def _rate(options: Options, source: Source) -> Found | None:
    """The learning rate: the first place where it is a number."""
    return next((found for found in options.all("learning_rate") if number(found.value) is not None), None)


def _batches(options: Options, layout: Layout) -> _Batches:
    """Micro-batch, accumulation and effective batch; a bare `batch_size` counts what the tool counts with it."""
    micro, whole_batch = _int(options, "micro_batch_size"), _int(options, "effective_batch_size")
    accumulation, plain, trained = (
        _int(options, "accumulation_steps"),
        _int(options, "batch_size"),
        _int(options, "train_batch_size"),
    )
    if trained is not None:
        if micro is not None or layout.batch_size == "global":
            whole_batch = whole_batch or trained
        else:
            micro = trained
    if plain is not None:
        if layout.batch_size == "global" or (micro is not None and whole_batch is None and accumulation is None):
            whole_batch = whole_batch or plain
        else:
            micro = micro or plain
    return {"micro_batch_size": micro, "accumulation_steps": accumulation, "effective_batch_size": whole_batch}


def _int(options: Options, concept: str) -> int | None:
    value = next((whole(found.value) for found in options.all(concept) if whole(found.value) is not None), None)
    return value if value and value > 0 else None


def _short(value: object) -> str | None:
    """The last word of a class path; None for anything but a name."""
    return value.rsplit(".", 1)[-1] if isinstance(value, str) else None


def _beta2(options: Options) -> float | None:
    one, pair = options.find("beta2"), options.find("betas")
    if one is not None:
        return number(one.value)
    return number(pair.value[1]) if pair and isinstance(pair.value, list) and len(pair.value) > 1 else None


def _notes(source: Source, options: Options) -> tuple[str, ...]:
    out = list(source.notes)
    if source.unresolved:
        out.append("not resolved, as it stands elsewhere: " + "; ".join(source.unresolved[:4]))
    rates = {number(found.value) for found in options.all("learning_rate")} - {None}
    if len(rates) > 1:
        shown = ", ".join(f"{found.place} = {found.value}" for found in options.all("learning_rate")[:4])
        out.append(f"several rates are stated ({shown}): the first is judged")
    return tuple(out)
