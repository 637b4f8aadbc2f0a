"""Under which names tools write the settings of a run, and the search for them in a tree; it knows no tool's defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_ADAPTER = r"[^.]*(?:lora|peft|adapter)[^.]*"
_OPTIMIZER = r"[^.]*(?:optim|adam)[^.]*(?:\.\w*(?:params|args|kwargs)\w*)?"
_SCHEDULE = r"[^.]*(?:sched|warmup)[^.]*(?:\.\w*(?:params|args|kwargs)\w*)?"
NAMES: dict[str, tuple[str, ...]] = {
    "learning_rate": (
        "learning_rate",
        rf"{_OPTIMIZER}\.lr",
        "lr",
        "peak_lr",
        "max_lr",
        "base_lr",
        "base_learning_rate",
        "learning_rate_multiplier_base",
        "warmup_max_lr",
        "init_lr",
    ),
    "micro_batch_size": (
        "per_device_train_batch_size",
        "micro_batch_size",
        "train_micro_batch_size_per_gpu",
        "micro_train_batch_size",
        "per_gpu_train_batch_size",
        "per_device_batch_size",
        "per_gpu_batch_size",
        "train_batch_size_per_device",
        "batch_size_per_device",
        "batch_size_per_gpu",
        "device_train_microbatch_size",
        "device_batch_size",
        "local_batch_size",
        "micro_batch_size_per_gpu",
        "mbs",
    ),
    "effective_batch_size": (
        "effective_batch_size",
        "global_batch_size",
        "total_batch_size",
        "global_train_batch_size",
        r"data\.train_batch_size",
        "gbs",
    ),
    "train_batch_size": ("train_batch_size",),
    "batch_size": ("batch_size", "bsz", "batch"),
    "accumulation_steps": (
        "gradient_accumulation_steps",
        "grad_accumulation_steps",
        "gradient_accumulation",
        "accumulate_grad_batches",
        "accumulative_counts",
        "grad_accum_steps",
        "grad_accum",
        "grad_acc_steps",
        "accumulation_steps",
        "batch_accumulation_per_replica",
        "gradient_accumulation_iters",
        "update_freq",
        "iters_to_accumulate",
    ),
    "num_epochs": (
        "num_train_epochs",
        "num_epochs",
        "epochs",
        "max_epochs",
        "n_epochs",
        "total_epochs",
        "num_epoch",
        "train_epochs",
        "epoch",
        "max_epoch",
    ),
    "max_steps": (
        "max_steps",
        "max_train_steps",
        "total_training_steps",
        "num_training_steps",
        "train_iters",
        "max_iters",
        "iters",
        "max_iterations",
        "num_train_steps",
        "total_steps",
        "training_steps",
        "train_steps",
        r"train(?:ing|er)?\.steps",
        "num_iterations",
        "num_steps",
        "max_updates?",
        "total_num_steps",
    ),
    "decay_steps": ("lr_decay_steps", "lr_decay_iters", "decay_steps", "total_num_steps"),
    "max_duration": ("max_duration",),
    "warmup_steps": (
        "warmup_steps",
        "num_warmup_steps",
        "lr_warmup_steps",
        "warmup_num_steps",
        "lr_warmup_iters",
        "warmup_iters",
        "warmup_updates",
        "warmup_iterations",
        rf"{_SCHEDULE}\.warmup",
        "warmup",
        "t_warmup",
    ),
    "warmup_ratio": (
        "warmup_ratio",
        "lr_warmup_ratio",
        "lr_warmup_fraction",
        "warmup_fraction",
        "lr_warmup_steps_ratio",
        "warmup_steps_ratio",
        "warmup_proportion",
        "warmup_percent",
        "warmup_fraction_of_steps",
    ),
    "schedule": (
        "lr_scheduler_type",
        "lr_decay_style",
        r"lr_scheduler\._component_",
        rf"{_SCHEDULE}\.(?:name|type|_target_|class_path)",
        "learning_rate_scheduler",
        "lr_scheduler",
        "lr_schedule",
        "scheduler_type",
        "scheduler",
        "warmup_style",
        "schedule",
    ),
    "optimizer": (
        "optim",
        rf"{_OPTIMIZER}\.(?:name|type|_target_|_component_|class_path)",
        "optimizer_type",
        "optimizer_name",
        "optimizer",
    ),
    "weight_decay": ("weight_decay", "wd"),
    "beta2": ("adam_beta2", "beta2", "adam_b2"),
    "betas": ("betas", "adam_betas"),
    "max_grad_norm": (
        "max_grad_norm",
        "gradient_clipping",
        "gradient_clip_val",
        "clip_grad_norm",
        "clip_grad",
        "grad_clip",
        "max_norm",
        "grad_norm_clip",
        "gradient_clip",
        "clip_norm",
        "clipping_threshold",
    ),
    "max_length": (
        "max_length",
        "cutoff_len",
        "max_seq_length",
        "max_seq_len",
        "model_max_length",
        "sequence_len",
        "seq_length",
        "seq_len",
        "sequence_length",
        "max_sequence_length",
        "encoder_seq_length",
        "block_size",
        "max_len",
        "context_length",
        "max_input_length",
    ),
    "lora_rank": (
        "lora_r",
        "lora_rank",
        "lora_dim",
        rf"{_ADAPTER}\.(?:r|rank|dim|adapter_dim|lora_r|lora_rank)",
        "peft_lora_r",
        "^r",
    ),
    "lora_alpha": ("lora_alpha", rf"{_ADAPTER}\.alpha", "peft_lora_alpha"),
    "lora_scale": (rf"{_ADAPTER}\.scale",),
    "lora_dropout": ("lora_dropout", rf"{_ADAPTER}\.dropout", "peft_lora_dropout"),
    "target_modules": (
        "lora_target_modules",
        "lora_target",
        "target_modules",
        "lora_modules",
        "lora_attn_modules",
        rf"{_ADAPTER}\.keys",
    ),
    "use_rslora": ("use_rslora", "peft_use_rslora"),
    "packing": ("packing", "sample_packing", "neat_packing", "packed", "pack_samples"),
    "auto_find_batch_size": ("auto_find_batch_size",),
    "num_devices": (
        "num_devices",
        "num_gpus",
        "n_gpus",
        "ngpus",
        "num_processes",
        "world_size",
        "nproc_per_node",
        "gpu_num",
    ),
    "devices_per_node": ("n_gpus_per_node", "gpus_per_node", "num_gpus_per_node", "nproc_per_node", "devices", "gpus"),
    "num_nodes": ("num_nodes", "nnodes", "num_machines"),
    "max_samples": (
        "max_samples",
        "max_train_samples",
        "max_train_examples",
        "num_train_samples",
        "train_samples",
        "max_examples",
        "n_samples",
    ),
    "eval_split": (
        "val_size",
        "val_set_size",
        "split_dataset_ratio",
        "val_split_fraction",
        "validation_split",
        "eval_split_ratio",
        "test_size",
    ),
    "gradient_checkpointing": (
        "gradient_checkpointing",
        "grad_checkpoint",
        "activation_checkpointing",
        "enable_activation_checkpointing",
        "use_gradient_checkpointing",
        "enable_gradient_checkpointing",
        "recompute_granularity",
    ),
    "model": (
        "model_name_or_path",
        "base_model",
        "pretrained_model_name_or_path",
        "model_id_or_path",
        "base_model_name_or_path",
        "model_name",
        "model_id",
        "model_path",
        r"model\.(?:partial_pretrain|name|path|base|hf_path|id)",
        "base_model_path",
        "pretrained_model",
        "pretrained_path",
        "hf_model",
        "hf_path",
        "restore_from_path",
        "checkpoint_dir",
        "pretrain",
        "model_dir",
        "ckpt_path",
        "model",
        "load",
    ),
    "dataset": (
        "dataset",
        "dataset_name",
        "data_path",
        r"datasets\.0\.path",
        "train_file",
        "train_files",
        "train_data",
        "dataset_path",
        "data",
    ),
}
"""Concept -> patterns of dotted names, best first; each must match a whole end of the name."""
_ELSEWHERE = re.compile(
    r"(?:^|\.)(?:eval\w*|validation|test|generation\w*|rollout|critic\w*|ref|reference|reward\w*|vllm\w*|inference|teacher|draft|wandb\w*"
    r"|logg\w+|ema|infer|sampling\w*|profiler|discriminator|tokenizer\w*|AutoTokenizer|GenerationConfig|callbacks?)\."
)


def _pattern(name: str) -> re.Pattern[str]:
    start = "" if name.startswith("^") else r"(?:^|\.)"
    return re.compile(rf"{start}(?:{name})$", re.IGNORECASE)


_COMPILED = {concept: [_pattern(name) for name in names] for concept, names in NAMES.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """A value and the dotted name under which it stood."""

    value: object
    place: str


def flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values, the shallow ones first; lists of mappings are counted, other lists are values."""
    deeper: list[tuple[str, Mapping[str, object]]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("-", "_")
        if isinstance(value, Mapping):
            deeper.append((f"{name}.", value))
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            deeper += [(f"{name}.{index}.", one) for index, one in enumerate(value)]
        else:
            yield name, value
    for start, inner in deeper:
        yield from flat(inner, start)


class Options:
    """The settings of a tree by concept."""

    def __init__(self, tree: Mapping[str, object]) -> None:
        found = list(flat(tree))
        self.values = {name: value for name, value in found if not _ELSEWHERE.search(name)}
        self.leaves = {name.rsplit(".", 1)[-1].lower() for name in self.values}

    def find(self, concept: str) -> Found | None:
        """The first stated value of a concept; "auto" and empty values state nothing."""
        for pattern in _COMPILED[concept]:
            for name, value in self.values.items():
                if _is_stated(value) and pattern.search(name):
                    return Found(value, name)
        return None

    def all(self, concept: str) -> list[Found]:
        """All stated values of a concept, best first, each place once."""
        out = [
            Found(value, name)
            for pattern in _COMPILED[concept]
            for name, value in self.values.items()
            if _is_stated(value) and pattern.search(name)
        ]
        return list({found.place: found for found in out}.values())

    def has(self, *leaves: str) -> bool:
        """Whether any of these last names stands in the file."""
        return any(leaf in self.leaves for leaf in leaves)

    def get(self, name: str) -> object:
        """The value under one dotted name, or None."""
        return self.values.get(name)


def _is_stated(value: object) -> bool:
    return (
        value is not None and value != "" and value != [] and str(value).lower() not in ("auto", "none", "null", "???")
    )


def number(value: object) -> float | None:
    """A number, also where YAML 1.1 took `1e-5` for text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = float(value.replace("_", "") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < float("inf") else None


def whole(value: object) -> int | None:
    """An integer, or None."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None
