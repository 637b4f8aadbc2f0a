"""torchtune: a fragment of a recipe config, best effort: the project is no longer maintained (last release 0.6.1,
April 2025).

Clipping is off by default there, and the output projection of attention is called `output_proj`.
"""

from __future__ import annotations

import math

from finestep.export.exported import (
    ALL_LINEAR,
    ExportContext,
    Exported,
    batch_comment,
    micro_batch,
    refuse_labels,
    unsupported,
)
from finestep.export.hugging_face import not_here
from finestep.export.unsloth import plain_alpha
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text

ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
MLP = ("gate_proj", "up_proj", "down_proj")
UNKNOWN_WARMUP = 100


class Torchtune:
    """`torchtune.yaml`: to be merged into one of its recipe configs."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """A fragment: everything but model builder, checkpointer and tokenizer."""
        refuse_labels(context, "torchtune")
        missing = self._cannot(recipe, context)
        micro, steps = micro_batch(recipe), context.warmup_steps(recipe)
        tree: dict[str, object] = {
            "batch_size": Noted(micro, batch_comment(recipe)),
            "gradient_accumulation_steps": recipe.accumulation_steps(micro),
            "epochs": math.ceil(recipe.num_epochs),
            "clip_grad_norm": Noted(recipe.optimizer.max_grad_norm, "null = off, its default"),
            "optimizer": {
                "_component_": "torch.optim.AdamW",
                "lr": recipe.learning_rate,
                "weight_decay": recipe.optimizer.weight_decay,
                "betas": [recipe.optimizer.beta1, recipe.optimizer.beta2],
                "eps": recipe.optimizer.epsilon,
            },
            "lr_scheduler": {
                "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
                "num_warmup_steps": UNKNOWN_WARMUP if steps is None else steps,
            },
            "tokenizer": {"max_seq_len": recipe.max_length},
            "dataset": {"packed": False},
            "seed": recipe.seed,
        }
        if recipe.method != "full":
            tree["model"] = self._adapter(recipe)
        header = [
            "to be merged into a torchtune config (unmaintained since 2025), written by finestep",
            batch_comment(recipe),
        ]
        files = {"torchtune.yaml": yaml_text(tree, header=[*header, *not_here(missing)])}
        return Exported(files, "tune run RECIPE --config CONFIG (with these values)", missing)

    def _adapter(self, recipe: Recipe) -> dict[str, object]:
        targets = recipe.lora.target_modules or ALL_LINEAR
        return {
            "lora_attn_modules": [ours for name, ours in ATTENTION.items() if name in targets],
            "apply_lora_to_mlp": any(name in targets for name in MLP),
            "apply_lora_to_output": "lm_head" in targets,
            "lora_rank": recipe.lora.rank,
            "lora_alpha": plain_alpha(recipe),
            "lora_dropout": recipe.lora.dropout,
        }

    def _cannot(self, recipe: Recipe, context: ExportContext) -> list[str]:
        out = [
            *unsupported(recipe),
            "model builder, tokenizer and checkpointer: take them from a torchtune config of your model",
        ]
        if recipe.schedule.name != "cosine":
            out.append(
                f"schedule {recipe.schedule.name}: its recipes decay by a cosine to 0 (the same mean rate as linear)"
            )
        if recipe.method == "qlora":
            out.append("4-bit base: use the qlora_ builder of the model")
        if context.warmup_steps(recipe) is None:
            out.append(f"warmup: only steps are taken; {UNKNOWN_WARMUP} is written, set it when the length is known")
        return out
