"""Hugging Face Trainer and TRL's SFTTrainer: TrainingArguments fields as YAML, and PEFT's LoraConfig as JSON or as
TRL's own keys.

transformers 5.7 and later reject `warmup_ratio`: a float `warmup_steps` below 1 is the ratio there.
`auto_find_batch_size` halves
the micro-batch without raising the accumulation, so it is always written as false.
"""

from __future__ import annotations

import json

from finestep.export.exported import (
    EVAL_FILE,
    TRAIN_FILE,
    ExportContext,
    Exported,
    batch_comment,
    micro_batch,
    refuse_labels,
    row_notes,
    unsupported,
    warmup_share,
)
from finestep.export.rows import chat_rows, json_lines, labelled_rows, trl_rows
from finestep.export.script import script_text
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
NEAREST: dict[str, str] = {
    # One line a schedule; none of today's needs one.
}
"""A schedule of ours whose name in `SCHEDULES` is only the nearest -> how the two differ, for `cannot`."""


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
        "logging_steps": context.logging_steps,
        **device_fields(context),
    }


def device_fields(context: ExportContext) -> dict[str, object]:
    """Precision, device and checkpointing, for the machine that will train."""
    if context.on_cpu:
        return {
            "bf16": False,
            "fp16": False,
            "use_cpu": Noted(True, "for a GPU: export with --gpu NAME"),
            "gradient_checkpointing": False,
            "report_to": "none",
        }
    return {
        "bf16": context.precision == "bf16",
        "fp16": context.precision == "fp16",
        "gradient_checkpointing": Noted(True, "less memory, the same results"),
        "report_to": "none",
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


def schedule_notes(recipe: Recipe) -> list[str]:
    """What to say where `SCHEDULES` has only the nearest schedule."""
    name = recipe.schedule.name
    return [f"schedule {name}: {NEAREST[name]}"] if name in NEAREST else []


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
    schedule = recipe.schedule
    out = [*unsupported(recipe), *schedule_notes(recipe)]
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
    """`train.py`, the arguments that it parses, `lora_config.json` for LoraConfig(**...), and the rows."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """TrainingArguments, LoraConfig and a script."""
        missing = [*cannot(recipe, context), *row_notes(context)]
        header = [
            "TrainingArguments, written by finestep",
            f"model: {context.model}",
            batch_comment(recipe),
            *not_here(missing),
        ]
        fields: dict[str, object] = {"output_dir": "output", **trainer_fields(recipe, context), "save_strategy": "no"}
        if context.rows is not None and context.rows.evaluation:
            fields["eval_strategy"] = "epoch"
        files = {"training_arguments.yaml": yaml_text(fields, header=header)}
        if recipe.method != "full":
            files["lora_config.json"] = json.dumps(lora_config(recipe), indent=2) + "\n"
        if context.rows is None:
            command = "HfArgumentParser(TrainingArguments).parse_yaml_file('training_arguments.yaml')"
            if recipe.max_length:
                missing.append(f"max_length {recipe.max_length}: truncate in your own preprocessing")
            if recipe.method == "qlora":
                missing.append(
                    "4-bit base: load it with BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')"
                )
            return Exported(files, command, missing)
        rows = context.rows
        make = labelled_rows if rows.is_labelled else chat_rows
        files |= {"train.py": script_text(recipe, context), TRAIN_FILE: json_lines(make(rows.train))}
        if rows.evaluation:
            files[EVAL_FILE] = json_lines(make(rows.evaluation))
        return Exported(files, "python train.py", missing)


class Trl:
    """`trl_sft.yaml` for `trl sft --config`, and the rows."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """SFTConfig, ModelConfig and ScriptArguments in one file."""
        refuse_labels(context, "TRL's SFT")
        missing = [*cannot(recipe, context), *row_notes(context)]
        fields: dict[str, object] = {
            "model_name_or_path": context.model,
            "dtype": "float32" if recipe.method == "full" or context.on_cpu else _dtype(context),
            **self._data(context),
            "output_dir": "output",
            **trainer_fields(recipe, context),
        }
        if recipe.max_length:
            fields["max_length"] = Noted(recipe.max_length, "longer rows are cut (Axolotl drops them)")
        fields |= {"packing": False, "gradient_checkpointing": not context.on_cpu, "eval_strategy": "no"}
        fields |= self._adapter(recipe)
        header = ["trl sft --config trl_sft.yaml, written by finestep", batch_comment(recipe), *not_here(missing)]
        files = {"trl_sft.yaml": yaml_text(fields, header=header)}
        if context.rows is not None:
            rows = context.rows
            files[TRAIN_FILE] = json_lines(trl_rows(rows.train, has_template=rows.has_template))
            files[EVAL_FILE] = json_lines(trl_rows(rows.evaluation, has_template=rows.has_template))
        return Exported(files, "trl sft --config trl_sft.yaml", missing)

    def _data(self, context: ExportContext) -> dict[str, object]:
        if context.rows is None:
            return {"dataset_name": context.data}
        return {"datasets": [{"path": "json", "data_files": {"train": TRAIN_FILE}, "split": "train"}]}

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


def _dtype(context: ExportContext) -> str:
    return {"bf16": "bfloat16", "fp16": "float16"}.get(context.precision, "float32")


def not_here(missing: list[str]) -> list[str]:
    """Comment lines for what a file cannot say."""
    return [f"not expressed here: {line}" for line in missing]
