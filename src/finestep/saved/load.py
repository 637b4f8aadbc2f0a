"""A folder with a tuned model into memory, as its README says; only transformers and PEFT do the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from finestep.saved_model import ADAPTER_CONFIG, CLASSIFIER, PEFT_CLASSES, SavedModel, has_own_base


def load_saved(folder: Path, saved: SavedModel) -> Any:
    """The model of a folder, in evaluation mode, on the CPU (a base in 4 bits: where bitsandbytes puts it)."""
    import transformers

    options: dict[str, Any] = {"dtype": saved.dtype}
    if saved.trust_remote_code:
        options["trust_remote_code"] = True
    if not (folder / ADAPTER_CONFIG).is_file():
        return getattr(transformers, saved.auto_class).from_pretrained(str(folder), **options).eval()
    if saved.method == "qlora":
        options["quantization_config"] = _four_bits(transformers)
    if saved.auto_class in PEFT_CLASSES:
        return _with_peft(folder, saved, options)
    import peft

    base = getattr(transformers, saved.auto_class).from_pretrained(named_base(folder), **options)
    return peft.PeftModel.from_pretrained(base, str(folder)).eval()


def named_base(folder: Path) -> str:
    """The base that the adapter names."""
    return str(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])


def _with_peft(folder: Path, saved: SavedModel, options: dict[str, Any]) -> Any:
    import peft

    if saved.auto_class == CLASSIFIER and not has_own_base(folder):
        options |= {"num_labels": len(saved.labels), "id2label": dict(enumerate(saved.labels))}
        options["label2id"] = {name: place for place, name in enumerate(saved.labels)}
    return getattr(peft, PEFT_CLASSES[saved.auto_class]).from_pretrained(str(folder), **options).eval()


def _four_bits(transformers: Any) -> Any:
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
