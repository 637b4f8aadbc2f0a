"""What is trained: the whole model, an adapter, an adapter on a base in 4 bits, or something else; and which variant of LoRA."""

from __future__ import annotations

import re
from pathlib import Path

from finestep.foreign.config import Source
from finestep.foreign.layouts import Layout
from finestep.foreign.names import Options, whole

_KIND_NAMES = (
    "finetuning_type",
    "tuner_type",
    "train_type",
    "sft_type",
    "fine_tune_type",
    "peft_scheme",
    "peft_method",
    "peft_type",
    "training_type",
    "adapter_type",
    "adapter",
)
_FULL = ("full", "none", "false", "full_weight", "full_finetune", "sft", "")
_SWITCHES = ("use_lora", "use_peft", "lora", "peft", "enable_lora", "use_qlora", "q_lora", "qlora")
_LORA_WORDS = ("lora", "qlora", "dora", "rslora", "longlora", "lora_plus", "pissa")
_QUANTISED_NAME = re.compile(r"(?:^|[-_/])(?:4bit|bnb|int4|nf4|awq|gptq|q4)(?:$|[-_/])", re.IGNORECASE)


def method_of(source: Source, options: Options, layout: Layout, path: Path) -> str | None:
    """full, lora, qlora, the tool's own word for something else, or None where nobody says."""
    kind = _stated_kind(options)
    if kind is not None and kind not in _LORA_WORDS:
        return "full" if kind in _FULL else kind
    if prompt := _prompt_method(source, options):
        return prompt
    four = _four_bits(source, options, layout)
    if kind in _LORA_WORDS or _is_adapter(source, options):
        return "qlora" if kind == "qlora" or four else "lora"
    if _switched_off(options) or _program_says(source, "full"):
        return "full"
    if _program_says(source, "lora") or (path.parent / "lora_config.json").is_file():
        return "qlora" if four or "qlora" in source.program else "lora"
    if source.kind == "python" and not re.search(r"lora|peft", source.text, re.IGNORECASE):
        return "full"
    if layout.method in ("lora", "qlora"):
        return "qlora" if four else "lora"
    return layout.method


def _prompt_method(source: Source, options: Options) -> str | None:
    """Methods that train a few vectors before the prompt."""
    if options.has("pre_seq_len"):
        return "p-tuning"  # ChatGLM's own script
    calls = {"PromptEncoderConfig": "p-tuning", "PrefixTuningConfig": "prefix", "PromptTuningConfig": "prompt"}
    return next((method for name, method in calls.items() if name in source.calls), None)


def _stated_kind(options: Options) -> str | None:
    for name in _KIND_NAMES:
        for place, value in options.values.items():
            leaf = place.rsplit(".", 1)[-1]
            in_section = name == "adapter" and place.endswith("adapter.type")
            if (leaf == name or in_section) and isinstance(value, str | bool):
                return str(value).lower().strip()
    return None


def _is_adapter(source: Source, options: Options) -> bool:
    """LoRA settings that nothing switches off."""
    if _switched_off(options):
        return False
    if any(options.get(place) is True for place in _places(options, _SWITCHES)):
        return True
    rank = options.find("lora_rank")
    if rank is not None and whole(rank.value) == 0:
        return False
    called = bool(source.calls & {"LoraConfig", "get_peft_model"})
    return called or rank is not None or options.find("lora_alpha") is not None or "lora_component" in options.leaves


def _switched_off(options: Options) -> bool:
    return any(options.get(place) is False for place in _places(options, _SWITCHES)) or _full_finetuning(options)


def _full_finetuning(options: Options) -> bool:
    return any(options.get(place) is True for place in _places(options, ("full_finetuning", "full_finetune")))


def _places(options: Options, leaves: tuple[str, ...]) -> list[str]:
    return [place for place in options.values if place.rsplit(".", 1)[-1].lower() in leaves]


def _program_says(source: Source, word: str) -> bool:
    last = source.program.split(" ")[-1] if source.program else ""
    return bool(re.search(rf"(?:^|[_./-])q?{word}(?:$|[_./-])", last)) and not source.program.startswith("mlx")


def _four_bits(source: Source, options: Options, layout: Layout) -> bool:
    """Whether the base is held in 4 bits."""
    for place, value in options.values.items():
        leaf = place.rsplit(".", 1)[-1].lower()
        if leaf == "load_in_4bit" and isinstance(value, bool):
            return value
        if leaf in ("q_lora", "use_qlora", "qlora") and value is True:
            return True
        if leaf in ("quantization_bit", "quant_bits", "quantization_bits", "bits", "kbit") and whole(value) == 4:
            return True
        if leaf == "quantize" and str(value).startswith(("bnb.nf4", "nf4", "bnb.fp4")):
            return True
    model = options.find("model")
    if model is not None and isinstance(model.value, str) and _QUANTISED_NAME.search(model.value):
        return True
    return (
        layout.method == "qlora"
        or (layout.name == "unsloth-script" and "FastLanguageModel" in source.calls)
        or "qlora" in _builders(options)
    )


def _builders(options: Options) -> str:
    """The class paths in the file, which torchtune's configs name."""
    return " ".join(str(value) for place, value in options.values.items() if place.endswith("_component_"))


def variant_of(options: Options, method: str | None) -> str | None:
    """A variant of LoRA whose rate is another one; None for plain LoRA and for other methods."""
    if method not in ("lora", "qlora", *_LORA_WORDS):
        return None
    for place, value in options.values.items():
        leaf, word = place.rsplit(".", 1)[-1].lower(), str(value).lower()
        if leaf in ("use_dora", "peft_use_dora", "lora_use_dora") and value is True:
            return "dora"
        if leaf in ("use_rslora", "peft_use_rslora") and value is True:
            return "rslora"
        if leaf == "pissa_init" and value is True:
            return "pissa"
        if (
            "init" in leaf
            and "lora" in f"{place} init_weights"
            and word.startswith(("pissa", "olora", "milora", "lora-ga", "lora_ga"))
        ):
            return re.split(r"_niter", word)[0].replace("_", "-")
        if leaf in ("loraplus_lr_ratio", "lora_plus_lr_ratio", "lorap_lr_ratio") and value:
            return "lora+"
    if any(place.endswith("fine_tune_type") and value == "dora" for place, value in options.values.items()):
        return "dora"
    return None


def target_names(value: object) -> tuple[str, ...] | None:
    """Named target modules; None for "all of them", whatever the tool calls that."""
    names = [part.strip(" '\"[]") for part in value.split(",")] if isinstance(value, str) else value
    if (
        not isinstance(names, list)
        or not names
        or (len(names) == 1 and str(names[0]).lower() in ("all", "all-linear", "all_linear"))
    ):
        return None
    return tuple(str(name).rsplit(".", 1)[-1] for name in names)
