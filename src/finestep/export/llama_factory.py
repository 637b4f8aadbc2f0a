"""LLaMA-Factory: one YAML for `llamafactory-cli train`; its pinned transformers still takes `warmup_ratio`."""

from __future__ import annotations

import json

from finestep.export.exported import (
    EVAL_FILE,
    TRAIN_FILE,
    ExportContext,
    Exported,
    batch_comment,
    lora_fields,
    refuse_labels,
    row_notes,
    warmup_share,
)
from finestep.export.hugging_face import cannot, not_here, schedule_kwargs, trainer_fields
from finestep.export.rows import chat_rows, json_lines, text_rows
from finestep.recipe import Recipe
from finestep.yaml_text import Noted, yaml_text

CHAT = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
"""How LLaMA-Factory is told, in its `dataset_info.json`, that a file holds `messages`."""


class LlamaFactory:
    """`llamafactory.yaml`."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """One YAML file."""
        refuse_labels(context, "LLaMA-Factory")
        missing = [*cannot(recipe, context), *row_notes(context)]
        is_text = context.rows is not None and context.rows.is_text
        fields: dict[str, object] = {
            "model_name_or_path": context.model,
            "stage": "pt" if is_text else "sft",
            "do_train": True,
            "finetuning_type": "full" if recipe.method == "full" else "lora",
            **self._data(context),
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
        files = {"llamafactory.yaml": yaml_text(fields, header=header), **self._rows(context)}
        return Exported(files, "llamafactory-cli train llamafactory.yaml", missing)

    def _data(self, context: ExportContext) -> dict[str, object]:
        """The data set's name in `dataset_info.json`; without `template` the tokenizer's own is taken."""
        if context.rows is None:
            return {
                "dataset": Noted(context.data, "a name in dataset_info.json"),
                "template": Noted("default", "set it to the model's"),
            }
        fields: dict[str, object] = {"dataset": "train", "dataset_dir": Noted(".", "holds dataset_info.json")}
        if context.rows.evaluation:
            fields["eval_dataset"] = "eval"
        return fields if context.rows.has_template else {**fields, "template": "alpaca"}

    def _rows(self, context: ExportContext) -> dict[str, str]:
        if context.rows is None:
            return {}
        form = {"columns": {"prompt": "text"}} if context.rows.is_text else CHAT
        rows = {"train": (TRAIN_FILE, context.rows.train), "eval": (EVAL_FILE, context.rows.evaluation)}
        make = text_rows if context.rows.is_text else chat_rows
        info = {name: {"file_name": file, **form} for name, (file, _) in rows.items()}
        files = {"dataset_info.json": json.dumps(info, indent=2) + "\n"}
        return files | {file: json_lines(make(own)) for file, own in rows.values()}

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
        targets = recipe.lora.target_modules
        fields = {**lora_fields(recipe), "lora_target": ",".join(targets) if targets else "all"}
        return fields | ({"quantization_bit": 4, "quantization_method": "bnb"} if recipe.method == "qlora" else {})
