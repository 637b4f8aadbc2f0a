"""Which tool a file belongs to, by marks that only this tool's files have, and what the tool takes where the file says nothing.

A file that has no tool's marks stays unknown, and gets nobody's defaults. The defaults of LLaMA-Factory 0.9.5, ms-swift 4.6,
litgpt 0.5.13, TRL 1.16 and the Trainer were read in their sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from finestep.foreign.config import Source
from finestep.foreign.names import Options


@dataclass(frozen=True, slots=True)
class Layout:
    """A tool: its words, its defaults, and what its `batch_size` counts (rows a device and pass, or rows a step)."""

    name: str
    words: str
    defaults: Mapping[str, float] = field(default_factory=dict)
    method: str | None = None
    """The method when the file does not say; None = it stays open."""
    batch_size: str = "micro"
    objective: str = "sft"


_TRAINER = {
    "learning_rate": 5e-5,
    "micro_batch_size": 8,
    "accumulation_steps": 1,
    "num_epochs": 3,
    "max_grad_norm": 1.0,
}
_PEFT = {"lora_rank": 8, "lora_alpha": 8}
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("hf", "Hugging Face Trainer", {**_TRAINER, **_PEFT}),
        Layout("trl", "TRL", {**_TRAINER, "learning_rate": 2e-5, "lora_rank": 16, "lora_alpha": 32}, "full"),
        Layout("llamafactory", "LLaMA-Factory", {**_TRAINER, "lora_rank": 8}, "lora"),
        Layout(
            "ms-swift",
            "ms-swift",
            {"micro_batch_size": 1, "num_epochs": 3, "max_grad_norm": 1.0, "lora_rank": 8, "lora_alpha": 32},
            "lora",
        ),
        Layout(
            "axolotl",
            "Axolotl",
            {"micro_batch_size": 1, "accumulation_steps": 1, "num_epochs": 1, "max_grad_norm": 1.0},
            "full",
        ),
        Layout(
            "unsloth",
            "Unsloth",
            {
                "learning_rate": 2e-4,
                "micro_batch_size": 2,
                "accumulation_steps": 4,
                "num_epochs": 3,
                "lora_rank": 64,
                "lora_alpha": 16,
            },
            "qlora",
        ),
        Layout(
            "litgpt",
            "litgpt",
            {
                "learning_rate": 1e-3,
                "micro_batch_size": 1,
                "effective_batch_size": 16,
                "num_epochs": 5,
                "lora_rank": 8,
                "lora_alpha": 16,
            },
            "full",
        ),
        Layout("torchtune", "torchtune", {"micro_batch_size": 2, "accumulation_steps": 8, "num_epochs": 1}, "full"),
        Layout("deepspeed", "DeepSpeed", batch_size="global"),
        Layout(
            "mlx_lm",
            "mlx_lm",
            {
                "learning_rate": 1e-5,
                "micro_batch_size": 4,
                "accumulation_steps": 1,
                "max_steps": 1000,
                "lora_rank": 8,
                "lora_scale": 20.0,
            },
            "lora",
        ),
        Layout("ludwig", "Ludwig", {}, "full"),
        Layout("prime-rl", "prime-rl", {}, "full", "global"),
        Layout("torchtitan", "torchtitan", {}, "full"),
        Layout("openrlhf", "OpenRLHF", {}, "full"),
        Layout("verl", "verl", {}, "full", "global"),
        Layout("nemo", "NeMo", {}, "full"),
        Layout("megatron", "Megatron-LM", {}, "full"),
        Layout("xtuner", "XTuner", {}),
        Layout("alpaca-lora", "alpaca-lora", {}, "lora", "global"),
        Layout("llm-foundry", "LLM Foundry", {}, "full"),
        Layout("autotrain", "AutoTrain", {}, None),
        Layout("trainer-script", "a script with the options of the Hugging Face Trainer", _TRAINER),
        Layout("unsloth-script", "a script with Unsloth", {}),
        Layout("unknown", "no layout that we know", {}),
    )
}
_BY_TRAINER = ("hf", "trl", "ms-swift", "llamafactory", "axolotl")
_PROGRAMS: tuple[tuple[str, str], ...] = (
    (r"llamafactory|llama_factory|src/train(?:_bash)?\.py", "llamafactory"),
    (r"(?:^|[/ ])(?:swift|megatron-swift) |swift[./]cli", "ms-swift"),
    (r"(?:^|[/ ])trl |trl/scripts|trl\.scripts", "trl"),
    (r"axolotl", "axolotl"),
    (r"litgpt", "litgpt"),
    (r"(?:^|[/ ])tune run", "torchtune"),
    (r"mlx_lm", "mlx_lm"),
    (r"openrlhf", "openrlhf"),
    (r"verl\.", "verl"),
    (r"pretrain_gpt\.py|megatron|finetune_gpt\.py", "megatron"),
    (r"autotrain", "autotrain"),
    (r"xtuner", "xtuner"),
    (r"ludwig", "ludwig"),
    (r"(?:^|[/ ])unsloth ", "unsloth"),
    (r"torchtitan", "torchtitan"),
    (r"nemo|megatron_gpt_finetuning", "nemo"),
)


def layout_of(source: Source, options: Options) -> Layout:
    """The tool of a file; `unknown` where no marks fit."""
    for pattern, name in _PROGRAMS:
        if source.program and re.search(pattern, source.program):
            return LAYOUTS[name]
    if source.kind == "python":
        return LAYOUTS[_of_script(source, options)]
    names = _names(source.tree)
    found = next((name for name, marks in _MARKS if _fits(marks, names)), "unknown")
    if source.kind == "shell" and found in _BY_TRAINER:
        # Somebody's own script: its program is none of these tools', so only what the Trainer itself assumes is known.
        found = "trainer-script"
    return LAYOUTS[found]


def _of_script(source: Source, options: Options) -> str:
    called = source.calls
    if called & {"FastLanguageModel", "FastModel", "FastVisionModel"}:
        return "unsloth-script"
    if any(
        re.fullmatch(r"(SFT|DPO|KTO|ORPO|GRPO|PPO|RLOO|Reward|CPO|GKD|OnlineDPO)(Config|Trainer)", name)
        for name in called
    ):
        return "trl"
    if any(name.endswith("TrainingArguments") for name in called) or _is_trainer_class(source):
        return "hf"
    if options.has("accumulative_counts"):
        return "xtuner"
    if options.has("base_model") and options.has("micro_batch_size") and options.has("cutoff_len"):
        return "alpaca-lora"
    return "unknown"


def _is_trainer_class(source: Source) -> bool:
    return "HfArgumentParser" in source.calls and "TrainingArguments" in source.text


_TRAINER_KEYS = (
    "per_device_train_batch_size num_train_epochs lr_scheduler_type per_device_eval_batch_size gradient_accumulation_steps "
    "learning_rate warmup_ratio max_steps output_dir"
)
_MARKS: tuple[tuple[str, tuple[tuple[int, str], ...]], ...] = (
    ("deepspeed", ((1, "train_micro_batch_size_per_gpu zero_optimization zero_allow_untested_optimizer"),)),
    ("ludwig", ((2, "input_features output_features"),)),
    ("ludwig", ((2, "model_type trainer"), (1, "trainer.learning_rate trainer.type trainer.epochs"))),
    ("autotrain", ((3, "task base_model params"),)),
    ("torchtune", ((1, "optimizer._component_ model._component_ dataset._component_ tokenizer._component_"),)),
    ("litgpt", ((1, "checkpoint_dir"), (1, "train lora_r data precision"))),
    ("litgpt", ((1, "train.lr_warmup_fraction train.lr_warmup_steps train.global_batch_size"),)),
    (
        "mlx_lm",
        (
            (
                2,
                "iters lora_parameters num_layers lora_layers fine_tune_type steps_per_report steps_per_eval adapter_path val_batches",
            ),
        ),
    ),
    ("unsloth", ((1, "training.max_seq_length training.load_in_4bit training.training_type"), (1, "lora data"))),
    ("verl", ((1, "actor_rollout_ref model.partial_pretrain"),)),
    ("nemo", ((1, "model.global_batch_size model.micro_batch_size"), (1, "trainer"))),
    ("llm-foundry", ((2, "max_duration global_train_batch_size device_train_microbatch_size"),)),
    (
        "torchtitan",
        ((2, "optimizer.lr training.steps"), (1, "training.local_batch_size training.batch_size training.seq_len job")),
    ),
    ("prime-rl", ((2, "optim.lr model.name"), (1, "data.seq_len data.batch_size"))),
    ("openrlhf", ((2, "micro_train_batch_size pretrain"),)),
    ("megatron", ((3, "micro_batch_size global_batch_size train_iters train_samples lr_decay_style"),)),
    ("xtuner", ((1, "accumulative_counts"),)),
    ("alpaca-lora", ((2, "base_model micro_batch_size"), (1, "data_path cutoff_len"))),
    (
        "axolotl",
        (
            (1, "base_model"),
            (2, "adapter sequence_len micro_batch_size datasets num_epochs lora_model_dir sample_packing val_set_size"),
        ),
    ),
    (
        "llamafactory",
        (
            (1, "model_name_or_path"),
            (1, "finetuning_type stage lora_target cutoff_len dataset_dir"),
            (2, "finetuning_type stage lora_target cutoff_len dataset_dir template dataset do_train quantization_bit"),
        ),
    ),
    (
        "ms-swift",
        (
            (1, "model model_id_or_path"),
            (
                1,
                "tuner_type train_type sft_type split_dataset_ratio quant_bits rlhf_type truncation_strategy lora_rank torch_dtype",
            ),
            (1, _TRAINER_KEYS),
        ),
    ),
    (
        "trl",
        (
            (1, "model_name_or_path use_peft dataset_name dataset_mixer"),
            (
                1,
                "use_peft lora_target_modules dataset_mixer packing dataset_name lora_r completion_only_loss beta max_prompt_length",
            ),
            (2, _TRAINER_KEYS),
        ),
    ),
    ("hf", ((3, _TRAINER_KEYS), (1, "per_device_train_batch_size num_train_epochs lr_scheduler_type output_dir"))),
)
"""Tool -> (how many, of these names) that must all hold; the first that fits. A name with a dot stands within a section."""


def _fits(marks: tuple[tuple[int, str], ...], names: set[str]) -> bool:
    return all(len(names & set(words.split())) >= least for least, words in marks)


def _names(tree: Mapping[str, object]) -> set[str]:
    """Names at the root, and those one section below."""
    out = set()
    for key, value in tree.items():
        root = str(key).replace("-", "_")
        out.add(root)
        out |= {f"{root}.{inner}".replace("-", "_") for inner in value} if isinstance(value, Mapping) else set()
    return out
