"""litgpt: YAML for `litgpt finetune_lora` or `finetune_full`; it wants the product of the batch, and never clips.

Its fine-tuning refuses a warmup fraction and clipping (`validate_args` of 0.5.13), and reads `min_lr` in pre-training only.
"""

from __future__ import annotations

import json
import math
import shlex

from finestep.export.exported import (
    ExportContext,
    Exported,
    batch_comment,
    micro_batch,
    refuse_labels,
    row_notes,
    unsupported,
    warmup_share,
)
from finestep.export.hugging_face import not_here
from finestep.export.rows import litgpt_rows
from finestep.export.unsloth import plain_alpha
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text

UNKNOWN_WARMUP = 100
STYLES = {
    "qwen2": "qwen2.5",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "phi3": "phi-3",
}
"""`model_type` -> the prompt style of litgpt that is its template. Llama's differ by version, so that the prompt stands in the rows."""
SWITCHES = {
    "lora_query": ("q_proj",),
    "lora_key": ("k_proj",),
    "lora_value": ("v_proj",),
    "lora_projection": ("o_proj",),
    "lora_mlp": ("gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
    "lora_head": ("lm_head",),
}


class Litgpt:
    """`litgpt.yaml`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One YAML file."""
        refuse_labels(context, "litgpt")
        missing = [*self._cannot(recipe, context), *row_notes(context)]
        tree: dict[str, object] = {
            "checkpoint_dir": "checkpoint" if context.is_local else f"checkpoints/{context.model}",
            "out_dir": "output",
            "precision": {"bf16": "bf16-true", "fp16": "16-true"}.get(context.precision, "32-true"),
            "devices": recipe.num_devices,
            **self._adapter(recipe),
            "data": {"class_path": "litgpt.data.JSON", "init_args": self._data(context)},
            "train": self._train(recipe, context),
            "optimizer": {
                "class_path": "torch.optim.AdamW",
                "init_args": {
                    "lr": recipe.learning_rate,
                    "weight_decay": recipe.optimizer.weight_decay,
                    "betas": [recipe.optimizer.beta1, recipe.optimizer.beta2],
                    "eps": recipe.optimizer.epsilon,
                },
            },
            "seed": recipe.seed,
        }
        kind = "full" if recipe.method == "full" else "lora"
        command = f"litgpt finetune_{kind} --config litgpt.yaml"
        first = self._checkpoint(context)
        header = [first, f"{command}, written by finestep", batch_comment(recipe), *not_here(missing)]
        files = {"litgpt.yaml": yaml_text(tree, header=header)}
        if context.rows is not None:
            by_style = context.family in STYLES
            for file, rows in (("data/train.json", context.rows.train), ("data/val.json", context.rows.evaluation)):
                files[file] = json.dumps(litgpt_rows(rows, by_style=by_style), ensure_ascii=False, indent=0) + "\n"
        return Exported(files, f"{first} && {command}", missing)

    def _checkpoint(self, context: ExportContext) -> str:
        """litgpt trains its own format, of the architectures that it knows by name."""
        if context.is_local:
            name = "NAME_IN_LITGPT" if context.is_own_model else context.model.rstrip("/").rsplit("/", 1)[-1]
            copy = f"cp -rL {shlex.quote(context.model)} checkpoint"
            return f"{copy} && litgpt convert_to_litgpt checkpoint --model_name {name}"
        return f"litgpt download {context.model}"

    def _data(self, context: ExportContext) -> dict[str, object]:
        if context.rows is None:
            return {"json_path": context.data, "mask_prompt": True, "val_split_fraction": 0.05}
        style: object = STYLES.get(context.family or "", {"class_path": "litgpt.prompts.Default"})

        return {"json_path": "data", "mask_prompt": True, "prompt_style": style}

    def _train(self, recipe: Recipe, context: ExportContext) -> dict[str, object]:
        micro = micro_batch(recipe)
        product = micro * recipe.accumulation_steps(micro) * recipe.num_devices
        return {
            "global_batch_size": Noted(product, batch_comment(recipe)),
            "micro_batch_size": micro,
            **self._warmup(recipe, context),
            "epochs": math.ceil(recipe.num_epochs),
            "max_steps": self._max_steps(recipe, context),
            "max_seq_length": recipe.max_length,
        }

    def _warmup(self, recipe: Recipe, context: ExportContext) -> dict[str, object]:
        """At least one step, as it divides by it; its fraction is refused by its own fine-tuning."""
        steps = context.warmup_steps(recipe)
        if steps is not None:
            return {"lr_warmup_steps": max(1, steps)}
        return {"lr_warmup_steps": Noted(UNKNOWN_WARMUP, f"set it to {warmup_share(recipe):.0%} of the steps")}

    def _max_steps(self, recipe: Recipe, context: ExportContext) -> object:
        return None if context.num_steps is None else Noted(context.num_steps, f"{recipe.num_epochs:g} epochs")

    def _adapter(self, recipe: Recipe) -> dict[str, object]:
        if recipe.method == "full":
            return {}
        targets = recipe.lora.target_modules
        switches = {
            key: (any(name in targets for name in names) if targets else key != "lora_head")
            for key, names in SWITCHES.items()
        }
        fields: dict[str, object] = {"quantize": "bnb.nf4"} if recipe.method == "qlora" else {}
        alpha: object = plain_alpha(recipe)
        if recipe.lora.use_rslora:
            alpha = Noted(alpha, f"rsLoRA alpha {recipe.lora.alpha:g} x sqrt(rank): the same scale")
        return {
            **fields,
            "lora_r": recipe.lora.rank,
            "lora_alpha": alpha,
            "lora_dropout": recipe.lora.dropout,
            **switches,
        }

    def _cannot(self, recipe: Recipe, context: ExportContext) -> list[str]:
        out = unsupported(recipe)
        if recipe.optimizer.max_grad_norm is not None:
            out.append(
                f"clipping at {recipe.optimizer.max_grad_norm:g}: its fine-tuning does not clip, and refuses `max_norm`"
            )
        if context.warmup_steps(recipe) is None:
            out.append(f"warmup: only steps are taken; {UNKNOWN_WARMUP} is written, set it when the length is known")
        if context.is_own_model:
            out.append(
                "the model: litgpt converts architectures that it knows by name; give the name of one of the same shape"
            )
        if context.rows is not None and any(row.messages and not row.is_one_answer for row in context.rows.train):
            out.append("conversations of several answers: only the first answer is written")
        if recipe.schedule.name != "cosine":
            out.append(
                f"schedule {recipe.schedule.name}: it always decays by a cosine to 0 (the same mean rate as linear)"
            )
        if recipe.schedule.min_lr_ratio > 0:
            out.append("floor of the decay: `train.min_lr` is ignored by its fine-tuning")
        if recipe.num_epochs != int(recipe.num_epochs):
            out.append(f"{recipe.num_epochs:g} epochs: whole epochs only, so the steps are limited instead")
        return out
