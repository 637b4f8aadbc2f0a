"""A folder with a tuned model into memory, as its README says; only transformers and PEFT do the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from finestep.saved_model import ADAPTER_CONFIG, CLASSIFIER, PEFT_CLASSES, SavedModel, has_own_base

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


class _Answered(Protocol):
    """What a model answers to a pass."""

    logits: torch.Tensor


class Loaded(Protocol):
    """What is asked of a loaded model; those of transformers and of PEFT have all of it."""

    device: torch.device
    generation_config: object

    def __call__(self, **inputs: object) -> _Answered: ...

    def generate(self, **options: object) -> torch.Tensor: ...

    def get_input_embeddings(self) -> torch.nn.Embedding: ...

    def to(self, device: str) -> Loaded: ...

    def merge_and_unload(self) -> Loaded: ...

    def save_pretrained(self, folder: str, *, safe_serialization: bool) -> None: ...


def load_saved(folder: Path, saved: SavedModel) -> Loaded:
    """The model of a folder, in evaluation mode, on the CPU (a base in 4 bits: where bitsandbytes puts it)."""
    import transformers

    options: dict[str, object] = {"dtype": saved.loading.dtype}
    if saved.loading.trust_remote_code:
        options["trust_remote_code"] = True
    if not (folder / ADAPTER_CONFIG).is_file():
        whole: Loaded = getattr(transformers, saved.loading.auto_class).from_pretrained(str(folder), **options).eval()
        return whole
    if saved.method == "qlora":
        options["quantization_config"] = _four_bits()
    if saved.loading.auto_class in PEFT_CLASSES:
        return _with_peft(folder, saved, options)
    import peft

    base = getattr(transformers, saved.loading.auto_class).from_pretrained(named_base(folder), **options)
    adapted: Loaded = peft.PeftModel.from_pretrained(base, str(folder)).eval()  # type: ignore[assignment]
    return adapted


def named_base(folder: Path) -> str:
    """The base that the adapter names."""
    return str(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])


def _with_peft(folder: Path, saved: SavedModel, options: dict[str, object]) -> Loaded:
    import peft

    if saved.loading.auto_class == CLASSIFIER and not has_own_base(folder):
        options |= {"num_labels": len(saved.labels), "id2label": dict(enumerate(saved.labels))}
        options["label2id"] = {name: place for place, name in enumerate(saved.labels)}
    found: Loaded = getattr(peft, PEFT_CLASSES[saved.loading.auto_class]).from_pretrained(str(folder), **options).eval()
    return found


def _four_bits() -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
