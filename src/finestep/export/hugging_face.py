"""Hugging Face Trainer and TRL's SFTTrainer: TrainingArguments fields as YAML, and PEFT's LoraConfig as JSON or as
TRL's own keys.

transformers 5.7 and later reject `warmup_ratio`: a float `warmup_steps` below 1 is the ratio there.
`auto_find_batch_size` halves
the micro-batch without raising the accumulation, so it is always written as false.
"""

from __future__ import annotations

import json
from typing import Any

from finestep.export.exported import (
    ExportContext,
    Exported,
    ForeignConfig,
    batch_comment,
    micro_batch,
    unsupported,
    warmup_share,
)
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text

RATIO_REJECTED = (5, 7)
SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
    "polynomial": "polynomial",
    "inverse_sqrt": "inverse_sqrt",
    "wsd": "warmup_stable_decay",
}


def trainer_fields(recipe: Recipe, context: ExportContext) -> dict[str, object]:
    """TrainingArguments of the recipe."""
    micro = micro_batch(recipe)
    optimizer, clip = recipe.optimizer, recipe.optimizer.max_grad_norm
    fields: dict[str, object] = {
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": Noted(micro, batch_comment(recipe)),
        "gradient_accumulation_steps": recipe.accumulation_steps(micro),
        "auto_find_batch_size": Noted(False, "would halve the batch without raising the accumulation"),
        "num_train_epochs": recipe.num_epochs,
        "lr_scheduler_type": schedule_name(recipe),
    }
    kwargs = schedule_kwargs(recipe, context)
    if kwargs:
        fields["lr_scheduler_kwargs"] = Noted(json.dumps(kwargs), "JSON text")
    fields |= warmup_fields(recipe, context)
    return fields | {
        "optim": "adamw_torch",
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": clip if clip is not None else Noted(0.0, "0 = clipping off"),
        "seed": recipe.seed,
    }


def schedule_name(recipe: Recipe) -> str:
    """lr_scheduler_type."""
    if recipe.schedule.name == "cosine" and recipe.schedule.min_lr_ratio > 0:
        return "cosine_with_min_lr"
    return SCHEDULES[recipe.schedule.name]


def schedule_kwargs(recipe: Recipe, context: ExportContext) -> dict[str, object]:
    """lr_scheduler_kwargs: floor, power or the length of the final decay."""
    schedule = recipe.schedule
    if schedule.name == "cosine" and schedule.min_lr_ratio > 0:
        return {"min_lr_rate": schedule.min_lr_ratio}
    if schedule.name == "polynomial":
        return {"power": schedule.power, "lr_end": schedule.min_lr_ratio * recipe.learning_rate}
    if schedule.name == "wsd" and context.num_steps:
        decay = max(1, round(schedule.decay_ratio * context.num_steps))
        return {"num_decay_steps": decay, "min_lr_ratio": schedule.min_lr_ratio, "decay_type": "1-sqrt"}
    return {}


def warmup_fields(recipe: Recipe, context: ExportContext) -> dict[str, object]:
    """Warmup in steps where the length is known, else as a ratio in the words of the version."""
    steps = context.warmup_steps(recipe)
    if steps is not None:
        note = f"of {context.num_steps:,} steps" if context.num_steps else ""
        return {"warmup_steps": Noted(steps, note) if note else steps}
    if context.transformers_version >= RATIO_REJECTED:
        share = warmup_share(recipe)
        return {"warmup_steps": Noted(share, "below 1 = share of the run; this version rejects warmup_ratio")}
    return {"warmup_ratio": warmup_share(recipe)}


def cannot(recipe: Recipe, context: ExportContext) -> list[str]:
    """What TrainingArguments cannot say."""
    out = unsupported(recipe)
    schedule = recipe.schedule
    if schedule.min_lr_ratio > 0 and schedule.name not in ("cosine", "polynomial", "wsd"):
        out.append(f"floor {schedule.min_lr_ratio:g} of the {schedule.name} schedule: decays to 0 instead")
    if schedule.warmup_shape == "cosine":
        out.append("cosine-shaped warmup: linear instead")
    if schedule.name == "wsd" and not context.num_steps:
        out.append("warmup-stable-decay needs the number of steps: set num_decay_steps in lr_scheduler_kwargs")
    return out


def lora_config(recipe: Recipe) -> dict[str, object]:
    """PEFT's LoraConfig."""
    targets: object = list(recipe.lora.target_modules) if recipe.lora.target_modules else "all-linear"
    alpha = recipe.lora.alpha
    return {
        "r": recipe.lora.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": recipe.lora.dropout,
        "target_modules": targets,
        "use_rslora": recipe.lora.use_rslora,
        "bias": "none",
    }


class HuggingFace:
    """`training_arguments.yaml` for HfArgumentParser.parse_yaml_file, and `lora_config.json` for LoraConfig(**...)."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """TrainingArguments and LoraConfig."""
        missing = cannot(recipe, context)
        header = [
            "TrainingArguments, written by finestep",
            f"model: {context.model}",
            batch_comment(recipe),
            *_not_here(missing),
        ]
        fields = {"output_dir": "output", **trainer_fields(recipe, context)}
        files = {"training_arguments.yaml": yaml_text(fields, header=header)}
        if recipe.method != "full":
            files["lora_config.json"] = json.dumps(lora_config(recipe), indent=2) + "\n"
        if recipe.max_length:
            missing.append(f"max_length {recipe.max_length}: truncate in your own preprocessing")
        if recipe.method == "qlora":
            missing.append("4-bit base: load it with BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')")
        command = "HfArgumentParser(TrainingArguments).parse_yaml_file('training_arguments.yaml')"
        return Exported(files, command, missing)

    def read(self, tree: dict[str, Any]) -> ForeignConfig:
        """TrainingArguments, with LoRA keys where they stand beside."""
        return read_trainer(tree, "hf")


class Trl:
    """`trl_sft.yaml` for `trl sft --config`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """SFTConfig, ModelConfig and ScriptArguments in one file."""
        missing = cannot(recipe, context)
        fields: dict[str, object] = {
            "model_name_or_path": context.model,
            "dataset_name": context.data,
            "output_dir": "output",
            **trainer_fields(recipe, context),
        }
        if recipe.max_length:
            fields["max_length"] = Noted(recipe.max_length, "longer rows are cut (Axolotl drops them)")
        fields |= {"packing": False, "gradient_checkpointing": True, "logging_steps": 10}
        fields["bf16"] = Noted(True, "its default; false on a device without it")
        fields |= self._adapter(recipe)
        header = ["trl sft --config trl_sft.yaml, written by finestep", batch_comment(recipe), *_not_here(missing)]
        return Exported({"trl_sft.yaml": yaml_text(fields, header=header)}, "trl sft --config trl_sft.yaml", missing)

    def _adapter(self, recipe: Recipe) -> dict[str, object]:
        if recipe.method == "full":
            return {"use_peft": False}
        config = lora_config(recipe)
        targets = config["target_modules"]
        fields: dict[str, object] = {
            "use_peft": True,
            "lora_r": config["r"],
            "lora_alpha": config["lora_alpha"],
            "lora_dropout": config["lora_dropout"],
            "lora_target_modules": targets if isinstance(targets, list) else [targets],
            "use_rslora": config["use_rslora"],
        }
        return fields | ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"} if recipe.method == "qlora" else {})

    def read(self, tree: dict[str, Any]) -> ForeignConfig:
        """A TRL config."""
        return read_trainer(tree, "trl")


def _not_here(missing: list[str]) -> list[str]:
    return [f"not expressed here: {line}" for line in missing]


def not_here(missing: list[str]) -> list[str]:
    """Comment lines for what a file cannot say."""
    return _not_here(missing)


def number(value: Any) -> float | None:
    """A number, also where YAML 1.1 took `1e-5` for text; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def whole(value: Any) -> int | None:
    """An integer, or None."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def read_trainer(tree: dict[str, Any], framework: str) -> ForeignConfig:
    """The common keys of the Trainer family."""
    warmup = number(tree.get("warmup_steps")) or number(tree.get("warmup_ratio"))
    clip = number(tree.get("max_grad_norm"))
    return ForeignConfig(
        framework=framework,
        model=tree.get("model_name_or_path") or tree.get("model"),
        method=_method(tree),
        learning_rate=number(tree.get("learning_rate")),
        text_rate=isinstance(tree.get("learning_rate"), str),
        micro_batch_size=whole(tree.get("per_device_train_batch_size")),
        accumulation_steps=whole(tree.get("gradient_accumulation_steps")),
        num_epochs=number(tree.get("num_train_epochs")),
        max_steps=_positive(whole(tree.get("max_steps"))),
        warmup=warmup,
        schedule=str(tree["lr_scheduler_type"]) if tree.get("lr_scheduler_type") else None,
        weight_decay=number(tree.get("weight_decay")),
        beta2=number(tree.get("adam_beta2")),
        max_grad_norm=clip or None,
        clip_stated=clip is not None,
        max_length=whole(tree.get("max_length") or tree.get("cutoff_len") or tree.get("max_seq_length")),
        lora_rank=whole(tree.get("lora_r") or tree.get("lora_rank") or tree.get("r")),
        lora_alpha=number(tree.get("lora_alpha")),
        lora_dropout=number(tree.get("lora_dropout")),
        use_rslora=tree.get("use_rslora"),
        target_modules=_targets(
            tree.get("lora_target_modules") or tree.get("target_modules") or tree.get("lora_target")
        ),
        auto_find_batch_size=bool(tree.get("auto_find_batch_size")),
        packing=bool(tree.get("packing") or tree.get("neat_packing")),
    )


def _positive(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None


def _targets(value: Any) -> tuple[str, ...] | None:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not names or list(names) in (["all"], ["all-linear"]):
        return None
    return tuple(str(name) for name in names)


def _method(tree: dict[str, Any]) -> str | None:
    four = tree.get("load_in_4bit") or whole(tree.get("quantization_bit")) == 4 or whole(tree.get("quant_bits")) == 4
    kind = tree.get("finetuning_type") or tree.get("train_type") or tree.get("tuner_type")
    if kind == "full" or tree.get("use_peft") is False:
        return "full"
    if kind == "lora" or tree.get("use_peft") or "lora_r" in tree or "lora_rank" in tree or "r" in tree:
        return "qlora" if four else "lora"
    return None
