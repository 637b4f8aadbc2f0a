"""LLaMA-Factory: one YAML for `llamafactory-cli train`; its pinned transformers still takes `warmup_ratio`."""

from __future__ import annotations

from finestep.export.exported import ExportContext, Exported, batch_comment, warmup_share
from finestep.export.hugging_face import cannot, not_here, schedule_kwargs, trainer_fields
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text


class LlamaFactory:
    """`llamafactory.yaml`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One YAML file."""
        missing = cannot(recipe, context)
        fields: dict[str, object] = {
            "model_name_or_path": context.model,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full" if recipe.method == "full" else "lora",
            "dataset": Noted(context.data, "a name in dataset_info.json"),
            "template": Noted("default", "set it to the model's"),
            "cutoff_len": Noted(recipe.max_length or 2048, "longer rows are cut (Axolotl drops them)"),
            "packing": False,
            "output_dir": "output",
            **self._trainer(recipe, context),
            **self._adapter(recipe),
        }
        header = [
            "llamafactory-cli train llamafactory.yaml, written by finestep",
            batch_comment(recipe),
            *not_here(missing),
        ]
        return Exported(
            {"llamafactory.yaml": yaml_text(fields, header=header)}, "llamafactory-cli train llamafactory.yaml", missing
        )

    def _trainer(self, recipe: Recipe, context: ExportContext) -> dict[str, object]:
        fields = {key: value for key, value in trainer_fields(recipe, context).items() if key != "lr_scheduler_kwargs"}
        kwargs = schedule_kwargs(recipe, context)
        if kwargs:
            fields["lr_scheduler_kwargs"] = kwargs
        if context.warmup_steps(recipe) is None:
            fields.pop("warmup_steps", None)
            fields["warmup_ratio"] = Noted(warmup_share(recipe), "its transformers is below 5.7, which takes the ratio")
        return fields

    def _adapter(self, recipe: Recipe) -> dict[str, object]:
        if recipe.method == "full":
            return {}
        lora = recipe.lora
        fields: dict[str, object] = {
            "lora_rank": lora.rank,
            "lora_alpha": round(lora.alpha),
            "lora_dropout": lora.dropout,
            "lora_target": ",".join(lora.target_modules) if lora.target_modules else "all",
            "use_rslora": lora.use_rslora,
        }
        return fields | ({"quantization_bit": 4, "quantization_method": "bnb"} if recipe.method == "qlora" else {})
