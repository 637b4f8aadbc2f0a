"""litgpt: YAML for `litgpt finetune_lora` or `finetune_full`; it wants the product of the batch, and clips only when
told.

Its warmup fraction is of one epoch, not of the run, so steps are written; `min_lr` is read by pre-training only.
"""

from __future__ import annotations

import math

from finestep.export.exported import (
    ExportContext,
    Exported,
    batch_comment,
    micro_batch,
    unsupported,
    warmup_share,
)
from finestep.export.hugging_face import not_here
from finestep.export.unsloth import plain_alpha
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text

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
        missing = self._cannot(recipe)
        tree: dict[str, object] = {
            "checkpoint_dir": f"checkpoints/{context.model}",
            "out_dir": "output",
            "precision": "bf16-true",
            "devices": recipe.num_devices,
            **self._adapter(recipe),
            "data": {
                "class_path": "litgpt.data.JSON",
                "init_args": {"json_path": context.data, "mask_prompt": True, "val_split_fraction": 0.05},
            },
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
        header = [f"{command}, written by finestep", batch_comment(recipe), *not_here(missing)]
        return Exported({"litgpt.yaml": yaml_text(tree, header=header)}, command, missing)

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
            "max_norm": Noted(recipe.optimizer.max_grad_norm, "null = clipping off, its default"),
        }

    def _warmup(self, recipe: Recipe, context: ExportContext) -> dict[str, object]:
        steps = context.warmup_steps(recipe)
        if steps is not None:
            return {"lr_warmup_steps": steps}
        share = min(1.0, warmup_share(recipe) * recipe.num_epochs)
        note = f"of one epoch: {warmup_share(recipe):g} of the run x {recipe.num_epochs:g} epochs"
        return {"lr_warmup_steps": None, "lr_warmup_fraction": Noted(share, note)}

    def _max_steps(self, recipe: Recipe, context: ExportContext) -> object:
        if recipe.num_epochs == int(recipe.num_epochs) or context.num_steps is None:
            return None
        return Noted(context.num_steps, f"{recipe.num_epochs:g} epochs")

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

    def _cannot(self, recipe: Recipe) -> list[str]:
        out = unsupported(recipe)
        if recipe.schedule.name != "cosine":
            out.append(
                f"schedule {recipe.schedule.name}: it always decays by a cosine to 0 (the same mean rate as linear)"
            )
        if recipe.schedule.min_lr_ratio > 0:
            out.append("floor of the decay: `train.min_lr` is ignored by its fine-tuning")
        if recipe.num_epochs != int(recipe.num_epochs):
            out.append(f"{recipe.num_epochs:g} epochs: whole epochs only, so the steps are limited instead")
        return out
