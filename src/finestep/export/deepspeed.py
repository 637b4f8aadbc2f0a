"""DeepSpeed: the JSON that `deepspeed.initialize` or the Trainer's `deepspeed` argument takes; JSON has no room for
comments."""

from __future__ import annotations

import json

from finestep.export.exported import ExportContext, Exported, batch_comment, micro_batch, unsupported
from finestep.recipe import Recipe


class DeepSpeed:
    """`deepspeed.json`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One JSON file."""
        missing, micro = self._cannot(recipe, context), micro_batch(recipe)
        accumulation, optimizer = recipe.accumulation_steps(micro), recipe.optimizer
        tree: dict[str, object] = {
            "train_batch_size": micro * accumulation * recipe.num_devices,
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": accumulation,
            "optimizer": {
                "type": "AdamW",
                "params": {
                    "lr": recipe.learning_rate,
                    "betas": [optimizer.beta1, optimizer.beta2],
                    "eps": optimizer.epsilon,
                    "weight_decay": optimizer.weight_decay,
                },
            },
            "gradient_clipping": optimizer.max_grad_norm or 0.0,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": 2 if recipe.num_devices > 1 else 0},
        }
        steps = context.warmup_steps(recipe)
        if context.num_steps is not None and steps is not None:
            tree["scheduler"] = self._scheduler(recipe, context.num_steps, steps)
        return Exported(
            {"deepspeed.json": json.dumps(tree, indent=2) + "\n"},
            "deepspeed train.py --deepspeed deepspeed.json",
            missing,
        )

    def _scheduler(self, recipe: Recipe, total: int, warmup: int) -> dict[str, object]:
        if recipe.schedule.name == "cosine":
            params = {
                "total_num_steps": total,
                "warmup_num_steps": warmup,
                "cos_min_ratio": recipe.schedule.min_lr_ratio,
            }
            return {"type": "WarmupCosineLR", "params": params}
        common = {
            "warmup_min_lr": 0.0,
            "warmup_max_lr": recipe.learning_rate,
            "warmup_num_steps": warmup,
            "warmup_type": "linear",
        }
        if recipe.schedule.name == "constant":
            return {"type": "WarmupLR", "params": common}
        return {"type": "WarmupDecayLR", "params": {**common, "total_num_steps": total}}

    def _cannot(self, recipe: Recipe, context: ExportContext) -> list[str]:
        out = [batch_comment(recipe), *unsupported(recipe), "epochs, seed and row length: your own script sets them"]
        if recipe.method != "full":
            out.append(
                f"{recipe.method} (rank {recipe.lora.rank}, alpha {recipe.lora.alpha:g}): your own script sets it up"
            )
        if context.num_steps is None:
            out.append("schedule and warmup: they need the number of steps, so no scheduler is written (constant rate)")
        elif recipe.schedule.name not in ("linear", "cosine", "constant"):
            out.append(f"schedule {recipe.schedule.name}: linear instead")
        return out
