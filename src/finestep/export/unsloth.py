"""Unsloth's command line: `unsloth train --config`; it has no schedule, betas or clipping, and whole epochs only."""

from __future__ import annotations

import math

from finestep.export.exported import (
    ALL_LINEAR,
    DEFAULT_WARMUP_RATIO,
    TRAIN_FILE,
    ExportContext,
    Exported,
    batch_comment,
    lora_scale_alpha,
    micro_batch,
    refuse_labels,
    unsupported,
)
from finestep.export.hugging_face import not_here
from finestep.export.rows import chat_rows, json_lines
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text


class Unsloth:
    """`unsloth.yaml`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One YAML file of four sections."""
        refuse_labels(context, "Unsloth")
        missing = self._cannot(recipe, context)
        micro, targets = micro_batch(recipe), recipe.lora.target_modules or ALL_LINEAR
        steps = context.warmup_steps(recipe)
        training: dict[str, object] = {
            "training_type": "full" if recipe.method == "full" else "lora",
            "max_seq_length": recipe.max_length or 2048,
            "load_in_4bit": Noted(recipe.method == "qlora", "its default is true"),
            "num_epochs": math.ceil(recipe.num_epochs),
            "learning_rate": recipe.learning_rate,
            "batch_size": Noted(micro, batch_comment(recipe)),
            "gradient_accumulation_steps": recipe.accumulation_steps(micro),
            "warmup_steps": 10 if steps is None else steps,
            "weight_decay": recipe.optimizer.weight_decay,
            "random_seed": recipe.seed,
            "packing": False,
            "train_on_completions": True,
        }
        if recipe.num_epochs != int(recipe.num_epochs) and context.num_steps:
            training["max_steps"] = Noted(context.num_steps, f"{recipe.num_epochs:g} epochs")
        tree: dict[str, object] = {
            "model": context.model,
            "data": {"local_dataset": [context.data if context.rows is None else TRAIN_FILE]},
            "training": training,
        }
        if recipe.method != "full":
            tree["lora"] = {
                "lora_r": recipe.lora.rank,
                "lora_alpha": round(recipe.lora.alpha),
                "lora_dropout": recipe.lora.dropout,
                "target_modules": ",".join(targets),
                "use_rslora": recipe.lora.use_rslora,
            }
        header = ["unsloth train --config unsloth.yaml, written by finestep", batch_comment(recipe), *not_here(missing)]
        files = {"unsloth.yaml": yaml_text(tree, header=header)}
        if context.rows is not None:
            files[TRAIN_FILE] = json_lines(chat_rows(context.rows.train))
        return Exported(files, "unsloth train --config unsloth.yaml", missing)

    def _cannot(self, recipe: Recipe, context: ExportContext) -> list[str]:
        out = unsupported(recipe)
        out.append(f"schedule {recipe.schedule.name}, betas, epsilon and clipping: no settings; Unsloth's own are used")
        if recipe.num_devices > 1:
            out.append(f"{recipe.num_devices} devices: start it under torchrun")
        if context.warmup_steps(recipe) is None:
            out.append(
                f"warmup of {DEFAULT_WARMUP_RATIO:.0%}: only steps are taken; 10 is written, set it by the length"
            )
        return out


def plain_alpha(recipe: Recipe) -> int:
    """alpha of plain LoRA with the same scale, for frameworks without rsLoRA."""
    return round(lora_scale_alpha(recipe))
