"""ms-swift: arguments of `swift sft` as YAML; version 4 calls the method `tuner_type`, version 3 `train_type`."""

from __future__ import annotations

from finestep.export.exported import ExportContext, Exported, batch_comment
from finestep.export.hugging_face import cannot, not_here, trainer_fields
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text


class MsSwift:
    """`ms_swift.yaml`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One YAML file."""
        missing = cannot(recipe, context)
        fields: dict[str, object] = {
            "model": context.model,
            "dataset": [context.data],
            "tuner_type": Noted("full" if recipe.method == "full" else "lora", "`train_type` before version 4"),
            "output_dir": "output",
            **trainer_fields(recipe, context),
        }
        if recipe.max_length:
            fields["max_length"] = recipe.max_length
            fields["truncation_strategy"] = Noted("right", "its default deletes long rows")
        header = ["swift sft --config ms_swift.yaml, written by finestep", batch_comment(recipe), *not_here(missing)]
        files = {"ms_swift.yaml": yaml_text(fields | self._adapter(recipe), header=header)}
        return Exported(files, "swift sft --config ms_swift.yaml", missing)

    def _adapter(self, recipe: Recipe) -> dict[str, object]:
        if recipe.method == "full":
            return {}
        lora = recipe.lora
        fields: dict[str, object] = {
            "lora_rank": lora.rank,
            "lora_alpha": round(lora.alpha),
            "lora_dropout": lora.dropout,
            "use_rslora": lora.use_rslora,
            "target_modules": list(lora.target_modules) if lora.target_modules else ["all-linear"],
        }
        return fields | ({"quant_method": "bnb", "quant_bits": 4} if recipe.method == "qlora" else {})
