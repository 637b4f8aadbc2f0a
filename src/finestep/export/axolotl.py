"""Axolotl: one YAML for `axolotl train`; it drops rows that are longer than `sequence_len` unless told to cut them."""

from __future__ import annotations

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
from finestep.export.hugging_face import SCHEDULES, not_here, schedule_notes
from finestep.export.rows import chat_rows, json_lines
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text


class Axolotl:
    """`axolotl.yaml`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One YAML file."""
        refuse_labels(context, "Axolotl")
        missing = [*self._cannot(recipe), *row_notes(context)]
        micro, optimizer = micro_batch(recipe), recipe.optimizer
        fields: dict[str, object] = {
            "base_model": context.model,
            **self._data(context),
            "output_dir": "output",
            "sequence_len": recipe.max_length or 2048,
            "excess_length_strategy": Noted("truncate", "its default drops long rows, which would change the data"),
            "sample_packing": False,
            "learning_rate": recipe.learning_rate,
            "micro_batch_size": Noted(micro, batch_comment(recipe)),
            "gradient_accumulation_steps": recipe.accumulation_steps(micro),
            "auto_find_batch_size": False,
            "num_epochs": recipe.num_epochs,
            "lr_scheduler": SCHEDULES[recipe.schedule.name],
            **self._warmup(recipe, context),
            **self._floor(recipe),
            "optimizer": "adamw_torch",
            "adam_beta1": optimizer.beta1,
            "adam_beta2": optimizer.beta2,
            "adam_epsilon": optimizer.epsilon,
            "weight_decay": optimizer.weight_decay,
            "max_grad_norm": optimizer.max_grad_norm or 0.0,
            "seed": recipe.seed,
            "logging_steps": context.logging_steps,
            "bf16": context.precision == "bf16",
            "fp16": context.precision == "fp16",
            "gradient_checkpointing": not context.on_cpu,
            **self._adapter(recipe),
            **self._kernels(recipe, context),
        }
        header = ["axolotl train axolotl.yaml, written by finestep", batch_comment(recipe), *not_here(missing)]
        files = {"axolotl.yaml": yaml_text(fields, header=header)}
        if context.rows is not None:
            files |= {
                TRAIN_FILE: json_lines(chat_rows(context.rows.train)),
                EVAL_FILE: json_lines(chat_rows(context.rows.evaluation)),
            }
        return Exported(files, "axolotl train axolotl.yaml", missing)

    def _data(self, context: ExportContext) -> dict[str, object]:
        if context.rows is None:
            return {"datasets": [{"path": context.data, "type": Noted("alpaca", "set it to the format of the data")}]}
        kind = "completion" if context.rows.is_text else "chat_template"
        return {
            "datasets": [{"path": TRAIN_FILE, "ds_type": "json", "type": kind}],
            "test_datasets": [{"path": EVAL_FILE, "ds_type": "json", "type": kind, "split": "train"}],
            **({} if context.rows.has_template else {"chat_template": "alpaca"}),
        }

    def _kernels(self, recipe: Recipe, context: ExportContext) -> dict[str, object]:
        """Its kernels for LoRA need CUDA."""
        if recipe.method == "full" or not context.on_cpu:
            return {}
        return {f"lora_{part}_kernel": False for part in ("mlp", "qkv", "o")}

    def _warmup(self, recipe: Recipe, context: ExportContext) -> dict[str, object]:
        steps = context.warmup_steps(recipe)
        return {"warmup_ratio": warmup_share(recipe)} if steps is None else {"warmup_steps": steps}

    def _floor(self, recipe: Recipe) -> dict[str, object]:
        wanted = recipe.schedule.name == "cosine" and recipe.schedule.min_lr_ratio > 0
        return {"cosine_min_lr_ratio": recipe.schedule.min_lr_ratio} if wanted else {}

    def _adapter(self, recipe: Recipe) -> dict[str, object]:
        if recipe.method == "full":
            return {}
        lora = recipe.lora
        fields: dict[str, object] = {
            "adapter": recipe.method,
            "lora_r": lora.rank,
            "lora_alpha": round(lora.alpha),
            "lora_dropout": lora.dropout,
            "peft_use_rslora": lora.use_rslora,
        }
        fields |= (
            {"lora_target_modules": list(lora.target_modules)} if lora.target_modules else {"lora_target_linear": True}
        )
        return fields | ({"load_in_4bit": True} if recipe.method == "qlora" else {})

    def _cannot(self, recipe: Recipe) -> list[str]:
        out = [*unsupported(recipe), *schedule_notes(recipe)]
        if recipe.schedule.min_lr_ratio > 0 and recipe.schedule.name != "cosine":
            out.append(
                f"floor {recipe.schedule.min_lr_ratio:g} of the {recipe.schedule.name} schedule: decays to 0 instead"
            )
        return out
