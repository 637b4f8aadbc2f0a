"""ms-swift: arguments of `swift sft` as YAML; version 4 calls the method `tuner_type`, version 3 `train_type`."""

from __future__ import annotations

from finestep.export.exported import (
    EVAL_FILE,
    TRAIN_FILE,
    ExportContext,
    Exported,
    batch_comment,
    lora_fields,
    refuse_labels,
    row_notes,
)
from finestep.export.hugging_face import cannot, not_here, trainer_fields
from finestep.export.rows import chat_rows, json_lines
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text


class MsSwift:
    """`ms_swift.yaml`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One YAML file."""
        refuse_labels(context, "ms-swift's sft")
        missing = [*cannot(recipe, context), *row_notes(context)]
        fields: dict[str, object] = {
            "model": context.model,
            **self._own_model(context, missing),
            **self._data(context),
            "tuner_type": Noted("full" if recipe.method == "full" else "lora", "`train_type` before version 4"),
            "torch_dtype": "float32" if context.on_cpu else {"fp16": "float16"}.get(context.precision, "bfloat16"),
            "output_dir": "output",
            "add_version": Noted(False, "else it writes into output/v0-TIME"),
            **trainer_fields(recipe, context),
        }
        if recipe.max_length:
            fields["max_length"] = recipe.max_length
            fields["truncation_strategy"] = Noted("right", "its default deletes long rows")
        header = ["swift sft ms_swift.yaml, written by finestep", batch_comment(recipe), *not_here(missing)]
        files = {"ms_swift.yaml": yaml_text(fields | self._adapter(recipe), header=header)}
        if context.rows is not None:
            files |= {
                TRAIN_FILE: json_lines(chat_rows(context.rows.train)),
                EVAL_FILE: json_lines(chat_rows(context.rows.evaluation)),
            }
        return Exported(files, "swift sft ms_swift.yaml", missing)

    def _data(self, context: ExportContext) -> dict[str, object]:
        if context.rows is None:
            return {"dataset": [context.data]}
        own = {"dataset": [TRAIN_FILE], "split_dataset_ratio": Noted(0.0, "the rows are split already")}
        return own | ({"val_dataset": [EVAL_FILE]} if context.rows.evaluation else {})

    def _own_model(self, context: ExportContext, missing: list[str]) -> dict[str, object]:
        """A folder under a name that ms-swift does not know needs its type and a template."""
        if not context.is_own_model or context.family is None:
            return {}
        missing.append(
            "the chat template: ms-swift takes none from a tokenizer, and `chatml` is written; set the model's own"
        )
        return {"model_type": Noted(context.family, "as its config says"), "template": "chatml"}

    def _adapter(self, recipe: Recipe) -> dict[str, object]:
        if recipe.method == "full":
            return {}
        targets = recipe.lora.target_modules
        fields = {**lora_fields(recipe), "target_modules": list(targets) if targets else ["all-linear"]}
        return fields | ({"quant_method": "bnb", "quant_bits": 4} if recipe.method == "qlora" else {})
