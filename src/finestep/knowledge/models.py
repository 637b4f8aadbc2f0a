"""Well-known models: shapes and history as published, for when no config is at hand; it reads no files of the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from finestep.facts import ModelFacts
from finestep.knowledge.packaged import rows

LINEAGE_OF_TYPE = {
    "llama": "llama",
    "mllama": "llama",
    "llama4": "llama",
    "qwen": "qwen",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3",
    "qwen3_5": "qwen3.5",
    "qwen3_5_text": "qwen3.5",
    "qwen3_5_moe": "qwen3.5",
    "qwen3_next": "qwen3.5",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "kimi_k2": "kimi",
    "kimi_k25": "kimi",
    "nemotron_h": "nemotron",
    "nemotron": "nemotron",
    "gpt_oss": "gpt-oss",
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "xlm-r",
    "deberta": "deberta",
    "deberta-v2": "deberta",
    "electra": "electra",
    "albert": "albert",
    "modernbert": "modernbert",
    "phi": "phi",
    "phi3": "phi",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "gpt2": "gpt2",
    "gpt_neox": "pythia",
    "opt": "opt",
    "chatglm": "chatglm",
    "glm": "chatglm",
    "glm4": "chatglm",
    "falcon": "falcon",
    "smollm3": "smollm",
    "internlm2": "internlm",
    "minicpm": "minicpm",
    "olmo2": "olmo",
    "olmo": "olmo",
    "bloom": "bloom",
    "mpt": "mpt",
    "starcoder2": "starcoder",
    "stablelm": "stablelm",
    "t5": "t5",
    "bart": "bart",
    "xlnet": "xlnet",
    "ernie": "ernie",
}
"""`model_type` of a config -> the family of training history that the measured offsets belong to."""

RECIPE_FAMILY = {
    "qwen2": "qwen",
    "qwen3": "qwen",
    "qwen3.5": "qwen",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "nemotron": "nemotron",
}
"""Lineage -> the coarser family name of the public recipes, where they differ."""

ENCODER_TYPES = frozenset(
    {
        "bert",
        "distilbert",
        "roberta",
        "xlm-roberta",
        "deberta",
        "deberta-v2",
        "electra",
        "albert",
        "modernbert",
        "ernie",
        "camembert",
        "mpnet",
        "xlm",
        "eurobert",
        "nomic_bert",
        "funnel",
        "longformer",
        "big_bird",
        "roformer",
        "xlm-roberta-xl",
        "megatron-bert",
        "mobilebert",
        "squeezebert",
    }
)


ENCODER_DECODERS = frozenset(
    {"t5", "mt5", "umt5", "longt5", "bart", "mbart", "pegasus", "marian", "m2m_100", "blenderbot"}
)
"""Sequence-to-sequence types whose names may come without a config; no measured best rate stands behind them."""


@cache
def _by_key() -> dict[str, Mapping[str, object]]:
    out: dict[str, Mapping[str, object]] = {}
    for row in rows("models.jsonl"):
        out[_key(str(row["name"]))] = row
        out.setdefault(_key(str(row["name"]).split("/")[-1]), row)
    return out


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9/]", "", name.lower())


def known_model(name: str) -> ModelFacts | None:
    """Facts of a well-known model by its Hub name, with or without the owner; None when it is not in the table.

    >>> known_model("Llama-3.1-8B").shape.num_layers
    32
    """
    row = _by_key().get(_key(name)) or _by_key().get(_key(name.split("/")[-1]))
    if row is None:
        return None
    fields = {key: value for key, value in row.items() if key not in ("name", "lineage")}
    return ModelFacts.model_validate({**fields, "name": name, "source": "table of known models"})


def known_names() -> list[str]:
    """Hub names of all well-known models."""
    return [str(row["name"]) for row in rows("models.jsonl")]


def lineage(facts: ModelFacts) -> str | None:
    """The training family that a model belongs to, from the table, its `model_type` or its name; None = unknown.

    >>> lineage(ModelFacts(name="x", family="qwen3_moe"))
    'qwen3'
    """
    row = _by_key().get(_key(facts.name)) or _by_key().get(_key(facts.name.split("/")[-1]))
    if row is not None:
        return str(row["lineage"])
    if "smollm" in facts.name.lower():
        return "smollm"
    return LINEAGE_OF_TYPE.get((facts.family or "").lower())


def recipe_family(lineage_name: str | None) -> str | None:
    """The family name that public recipes use for a lineage."""
    return RECIPE_FAMILY.get(lineage_name, lineage_name) if lineage_name else None
