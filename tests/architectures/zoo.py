"""Tiny random models of transformers' own config classes: two layers, 64 wide, with the shipped tokenizer's vocabulary.

A config is made by its own class with small numbers under the names that it knows; what a type needs besides is in `NEEDS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

HIDDEN = dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size"), 64)
INNER = dict.fromkeys(("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim"), 128)
DEPTH = dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2)
HEADS = dict.fromkeys(
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"), 4
)
SMALL: dict[str, Any] = {
    **HIDDEN,
    **INNER,
    **DEPTH,
    **HEADS,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 16,
    "vocab_size": 2560,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # mixtures of experts
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # latent attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    # state-space and linear attention
    "state_size": 8,
    "ssm_state_size": 8,
    "mamba_d_state": 8,
    "n_groups": 1,
    "mamba_n_groups": 1,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
MAY_BE_NONE = ("pad_token_id", "bos_token_id", "eos_token_id")
HYBRID = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
LATENT = {"num_key_value_heads": 4, "head_dim": 8}
NEEDS: dict[str, dict[str, Any]] = {
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [1, 3], "mamba_n_heads": 8, "mamba_d_head": 16},
    "codegen": {"rotary_dim": 16},
    "deberta": {"pooler_hidden_size": 64},
    "deberta-v2": {"pooler_hidden_size": 64},
    "deepseek_v2": {**LATENT, "topk_method": "greedy", "num_experts_per_tok": 2},
    "deepseek_v3": LATENT,
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gptj": {"rotary_dim": 16},
    "jamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
        "mamba_dt_rank": 4,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 128},
    "longformer": {"attention_window": 16},
    "mamba2": {"num_heads": 8},
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention", "mamba", "attention"],
        "num_hidden_layers": 4,
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
    },
    "qwen3_5_text": HYBRID,
    "qwen3_next": HYBRID,
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 48},
    "rwkv": {"attention_hidden_size": 64},
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "mamba_ngroups": 1,
        "n_mamba_heads": 8,
        "mamba_headdim": 16,
        "num_mem_blocks": 1,
        "use_mem_rope": False,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
}
NO_LAYER_TYPES_OF = {"bamba": ("layer_types",), "falcon_h1": ("layer_types",)}
"""Their list of layers follows from other fields and must not be given."""


def config_of(model_type: str, **more: Any) -> Any:
    """A tiny config of a type; `more` are further fields."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    usual = kind()
    known = {*vars(usual), *getattr(kind, "__dataclass_fields__", {}), *getattr(kind, "attribute_map", {})}
    values = {name: value for name, value in SMALL.items() if name in known and _takes(usual, name)}
    for name, inner in vars(usual).items():
        if hasattr(inner, "to_dict") and getattr(inner, "model_type", "") in CONFIG_MAPPING:
            values[name] = config_of(inner.model_type).to_dict()
    values |= NEEDS.get(model_type, {}) | more
    usual_types = getattr(usual, "layer_types", None)
    if usual_types and "layer_types" in known - {*values, *NO_LAYER_TYPES_OF.get(model_type, ())}:
        depth = values["num_hidden_layers"]
        values["layer_types"] = (list(dict.fromkeys(usual_types)) * depth)[:depth]
    return kind(**values)


def _takes(usual: Any, name: str) -> bool:
    value = getattr(usual, name, None)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (value is None and name in MAY_BE_NONE)


def save_model(model_type: str, folder: Path, *, tokenizer: Any, dtype: str = "float32", **more: Any) -> Path:
    """A random model of a type, saved as transformers saves a pre-trained one: with its own head, if it has one."""
    import transformers

    config = config_of(model_type, **more)
    torch.manual_seed(0)
    classes = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModel")
    classes = ("AutoModelForSeq2SeqLM",) if config.is_encoder_decoder else classes
    kind = next(name for name in classes if type(config) in getattr(transformers, name)._model_mapping)
    model = getattr(transformers, kind).from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.mul_(3.0)  # random models answer nearly the same to everything otherwise
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
