"""What a run is trained for: answers of its own (sft), running text, preferences, rewards, or no text at all."""

from __future__ import annotations

import re

from finestep.foreign.config import Source
from finestep.foreign.layouts import Layout
from finestep.foreign.names import Options

_KNOWN = "dpo|kto|orpo|simpo|cpo|ipo|grpo|rloo|ppo|gkd|reward|rm|bco|online_dpo|reinforce"
_NAMED = re.compile(rf"(?:^|[_./ -])(?:train_|run_)?({_KNOWN})(?:_trainer|_train)?(?:$|[_./ -])", re.IGNORECASE)
_CLASS = re.compile(r"(DPO|KTO|ORPO|CPO|GRPO|RLOO|PPO|GKD|Reward|BCO|OnlineDPO)(?:Config|Trainer)")
_IMAGE = (
    "instance_prompt",
    "instance_data_dir",
    "network_dim",
    "unet_lr",
    "text_encoder_lr",
    "class_prompt",
)
_EMBEDDING = ("SentenceTransformerTrainer", "SentenceTransformerTrainingArguments", "MultipleNegativesRankingLoss")


def objective_of(source: Source, options: Options, layout: Layout) -> str:
    """sft, pretraining, or the name of another objective."""
    if options.has(*_IMAGE):
        return "images"
    if source.calls & set(_EMBEDDING):
        return "sentence embeddings"
    named = _stated(options) or _of_program(source) or _of_calls(source)
    if named:
        return named
    if options.has("actor_rollout_ref", "num_generations") or any(
        place.startswith("actor_rollout_ref") for place in options.values
    ):
        return "grpo"
    if options.has("max_prompt_length") and options.has("beta"):
        return "dpo"
    return "sft"


def _stated(options: Options) -> str | None:
    for place, value in options.values.items():
        leaf, word = place.rsplit(".", 1)[-1], str(value).lower()
        if leaf in ("stage", "rlhf_type", "rl", "training_stage", "trainer") and isinstance(value, str):
            if word in ("sft", "pt"):
                return "sft" if word == "sft" else "pretraining"
            if re.fullmatch(_KNOWN, word):
                return {"rm": "reward"}.get(word, word)
    return None


def _of_program(source: Source) -> str | None:
    found = _NAMED.search(source.program)
    if found:
        return {"rm": "reward"}.get(found[1].lower(), found[1].lower())
    return "pretraining" if re.search(r"(?:^|[ /])swift pt\b|run_clm|pretrain_gpt", source.program) else None


def _of_calls(source: Source) -> str | None:
    found = next((_CLASS.fullmatch(name) for name in sorted(source.calls) if _CLASS.fullmatch(name)), None)
    return found[1].lower() if found else None
