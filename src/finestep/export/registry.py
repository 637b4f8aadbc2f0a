"""The frameworks by name, and which one a parsed config belongs to."""

from __future__ import annotations

from typing import Any

from finestep.errors import BadInput, did_you_mean
from finestep.export.axolotl import Axolotl
from finestep.export.deepspeed import DeepSpeed
from finestep.export.exported import Exporter
from finestep.export.hugging_face import HuggingFace, Trl
from finestep.export.litgpt import Litgpt
from finestep.export.llama_factory import LlamaFactory
from finestep.export.ms_swift import MsSwift
from finestep.export.torchtune import Torchtune
from finestep.export.unsloth import Unsloth

EXPORTERS: dict[str, Exporter] = {
    "hf": HuggingFace(),
    "trl": Trl(),
    "llamafactory": LlamaFactory(),
    "axolotl": Axolotl(),
    "ms-swift": MsSwift(),
    "unsloth": Unsloth(),
    "litgpt": Litgpt(),
    "torchtune": Torchtune(),
    "deepspeed": DeepSpeed(),
}


def exporter(name: str) -> Exporter:
    """The exporter of a framework.

    Raises:
        BadInput: no such framework.
    """
    if name not in EXPORTERS:
        raise BadInput(
            f"unknown framework{did_you_mean(name, EXPORTERS)}", value=name, next_step="known: " + ", ".join(EXPORTERS)
        )
    return EXPORTERS[name]


def framework_of(tree: dict[str, Any]) -> str | None:
    """The framework that a config's keys speak of; None when they fit none."""
    keys = set(tree)
    tests: list[tuple[str, bool]] = [
        (
            "deepspeed",
            bool(keys & {"train_micro_batch_size_per_gpu", "zero_optimization", "zero_allow_untested_optimizer"}),
        ),
        ("axolotl", bool(keys & {"base_model", "micro_batch_size", "sequence_len"})),
        ("unsloth", isinstance(tree.get("training"), dict)),
        ("litgpt", isinstance(tree.get("train"), dict) or "checkpoint_dir" in keys),
        ("torchtune", isinstance(tree.get("optimizer"), dict) and "_component_" in tree["optimizer"]),
        ("llamafactory", bool(keys & {"finetuning_type", "cutoff_len", "stage", "lora_target"})),
        ("ms-swift", bool(keys & {"tuner_type", "train_type", "lora_rank", "torch_dtype"} and "model" in keys)),
        ("trl", bool(keys & {"use_peft", "lora_target_modules", "max_length", "packing", "dataset_name", "lora_r"})),
        ("hf", bool(keys & {"per_device_train_batch_size", "learning_rate", "num_train_epochs"})),
    ]
    return next((name for name, fits in tests if fits), None)
