"""Model facts from a local folder, the table of known models, the Hub cache or the Hub; weights are never read, only
headers.

It imports neither torch nor transformers and runs no code of the model.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from finestep.disk import refuse_special
from finestep.errors import BadInput
from finestep.facts import ModelFacts, ModelShape
from finestep.knowledge.models import ENCODER_DECODERS, ENCODER_TYPES, known_model, known_names
from finestep.survey.adapter_files import adapter_folder, base_of
from finestep.survey.weights import check_weights, refuse_gguf, refuse_packed_weights, tensor_headers, weight_files

HUB = "https://huggingface.co"
HUB_TIMEOUT_S = 4.0
LARGEST_SIZE = 10**9
"""No width, depth or vocabulary of a model is larger."""
MAX_CONFIG_BYTES = 4 * 2**20
NAMES: dict[str, tuple[str, ...]] = {
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "intermediate_size": ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads", "multi_query_group_num", "num_kv_heads"),
    "vocabulary_size": ("vocab_size", "padded_vocab_size"),
    "context_length": ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "max_sequence_length"),
}
INSTRUCT_WORDS = ("instruct", "chat", "-it", "_it", "thinking", "-sft", "-dpo")
QUANTISED_BITS = {"gptq": "int4", "awq": "int4", "bitsandbytes": "int4"}


def model_facts(name: str, *, offline: bool = False) -> ModelFacts:
    """Facts of a model folder or a Hub name.

    Raises:
        BadInput: the folder has no readable config.json, or the name is known nowhere.
    """
    folder = Path(name).expanduser()
    refuse_gguf(folder)
    if adapter_folder(name) is not None:
        return model_facts(base_of(name), offline=offline)
    if folder.is_dir():
        return folder_facts(folder, name)
    if folder.is_file() or name.startswith((".", "/", "~")):
        raise BadInput("a model is a folder with a config.json, or a Hub name", value=name, next_step="check the path")
    known = known_model(name)
    if known is not None:
        return known
    cached = _cached_config(name)
    if cached is not None:
        return facts_from_config(cached, name=name, source="Hub cache")
    if not offline and not os.environ.get("HF_HUB_OFFLINE"):
        return _hub_facts(name)
    raise _unknown(name, "not in the table, and the Hub is switched off")


def model_config(name: str) -> dict[str, object] | None:
    """The parsed config.json of a folder or of the Hub cache; None when only the table of known models has the name."""
    folder = Path(base_of(name)).expanduser()
    if folder.is_dir():
        return _read_json(folder / "config.json", next_step="give the folder that holds config.json")
    return _cached_config(base_of(name))


def stand_in_config(facts: ModelFacts) -> dict[str, object]:
    """A Llama's config with the shape of these facts, for models whose own config is not at hand.

    Raises:
        BadInput: the facts have no shape.
    """
    if not (facts.shape.hidden_size and facts.shape.num_layers):
        raise BadInput(
            "predicting memory needs the model's shape",
            value=facts.name,
            next_step="give a folder with its config.json",
        )
    heads = facts.shape.num_attention_heads or max(1, facts.shape.hidden_size // 128)
    return {
        "model_type": "llama",
        "hidden_size": facts.shape.hidden_size,
        "num_hidden_layers": facts.shape.num_layers,
        "intermediate_size": facts.shape.intermediate_size or 4 * facts.shape.hidden_size,
        "num_attention_heads": heads,
        "num_key_value_heads": facts.shape.num_key_value_heads or heads,
        "vocab_size": facts.shape.vocabulary_size or 128_000,
        "max_position_embeddings": facts.shape.context_length or 8192,
        "tie_word_embeddings": bool(facts.shape.tied_embeddings),
    }


def facts_from_size(text: str) -> ModelFacts:
    """A model of which only the size is known, e.g. "7B", "350M" or "7e9".

    >>> facts_from_size("1.5B").num_parameters
    1500000000
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMBT]?)\s*", text, flags=re.IGNORECASE)
    factor = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
    try:
        count = float(match[1]) * factor[match[2].lower()] if match else 0.0
    except ValueError:
        count = 0.0
    if not 1e5 <= count <= 1e14:
        raise BadInput(
            "`--params` must be a number of parameters", value=text, next_step="e.g. --params 7B or --params 350M"
        )
    return ModelFacts(name=f"a model of {text.strip()} parameters", num_parameters=round(count), source="--params")


def folder_facts(folder: Path, name: str) -> ModelFacts:
    """Facts from config.json and the safetensors headers of a local folder."""
    config = _read_json(folder / "config.json", next_step="give the folder that holds config.json and the weights")
    refuse_packed_weights(config, name)
    counted, dtype, size = _headers(folder)
    facts = facts_from_config(config, name=name, source="config.json", counted=counted)
    return facts.model_copy(update={"weights_dtype": dtype or facts.weights_dtype, "weights_bytes": size})


def facts_from_config(config: dict[str, object], *, name: str, source: str, counted: int | None = None) -> ModelFacts:
    """Facts from a parsed config.json; `counted` is the number of parameters where the headers gave it."""
    text = _text_config(config)
    family = str(text.get("model_type") or config.get("model_type") or "") or None
    if (
        text.get("model_type") is None
        and family is None
        and not any(_find(text, key) for key in ("num_layers", "hidden_size"))
    ):
        raise BadInput("config.json names no model type and no shape", place=name, next_step="is this a model folder?")
    shape = {key: _find(text, key) for key in NAMES}
    known = known_model(name)
    total = counted or (known.num_parameters if known else None) or _count(text, shape, family)
    return ModelFacts(
        name=name,
        family=family,
        num_parameters=total,
        num_active_parameters=_active(text, shape, total, known),
        shape=ModelShape(
            **shape, tied_embeddings=_flag(config.get("tie_word_embeddings", text.get("tie_word_embeddings")))
        ),
        is_encoder=family in ENCODER_TYPES and not text.get("is_decoder"),
        is_encoder_decoder=bool(config.get("is_encoder_decoder")) or family in ENCODER_DECODERS,
        is_instruct=_is_instruct(name, config),
        pretraining_learning_rate=known.pretraining_learning_rate if known else None,
        weights_dtype=_dtype(config),
        source=source,
    )


def _text_config(config: dict[str, object]) -> dict[str, object]:
    """The language part of a multimodal config."""
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := config.get(key), dict):
            return inner
    return config


def _find(config: dict[str, object], key: str) -> int | None:
    return next(filter(None, (_whole(config, name) for name in NAMES[key])), None)


def _whole(config: dict[str, object], name: str) -> int | None:
    """A positive whole number of a believable size; None for anything else, e.g. "auto"."""
    value = config.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= LARGEST_SIZE else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _dtype(config: dict[str, object]) -> str | None:
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        return QUANTISED_BITS.get(str(quantised.get("quant_method")), str(quantised.get("quant_method")))
    value = config.get("dtype") or config.get("torch_dtype")
    return str(value) if value else None


def _is_instruct(name: str, config: dict[str, object]) -> bool | None:
    low = f"{name} {config.get('_name_or_path', '')}".lower()
    if any(word in low for word in INSTRUCT_WORDS):
        return True
    return False if "base" in low else None


def _count(config: dict[str, object], shape: dict[str, int | None], family: str | None) -> int | None:
    """Parameters by shape, when the headers are missing: embeddings, attention and (possibly many) feed-forward
    blocks."""
    hidden, layers, inner = shape["hidden_size"], shape["num_layers"], shape["intermediate_size"]
    if not (hidden and layers):
        return None
    experts = _experts(config)
    attention = 2 * hidden * _head_width(config, shape) + 2 * hidden * _kv_width(config, shape)
    matrices = 2 if family in ENCODER_TYPES or family in ("gpt2", "opt", "gpt_neox", "phi") else 3
    expert_inner = _whole(config, "moe_intermediate_size") or inner or 4 * hidden
    feed = matrices * hidden * (expert_inner if experts > 1 else inner or 4 * hidden) * experts
    tied = _flag(config.get("tie_word_embeddings"))
    tied = family in ENCODER_TYPES if tied is None else tied
    return layers * (attention + feed) + (shape["vocabulary_size"] or 0) * hidden * (1 if tied else 2)


def _head_width(config: dict[str, object], shape: dict[str, int | None]) -> int:
    heads, hidden = shape["num_attention_heads"] or 1, shape["hidden_size"] or 1
    return heads * (_whole(config, "head_dim") or hidden // heads)


def _kv_width(config: dict[str, object], shape: dict[str, int | None]) -> int:
    heads = shape["num_attention_heads"] or 1
    return _head_width(config, shape) * (shape["num_key_value_heads"] or heads) // heads


def _experts(config: dict[str, object]) -> int:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return next(filter(None, (_whole(config, name) for name in names)), 1)


def _active(
    config: dict[str, object], shape: dict[str, int | None], total: int | None, known: ModelFacts | None
) -> int | None:
    """Parameters used for a token in a mixture of experts; None for a dense model."""
    if known is not None and known.num_active_parameters:
        return known.num_active_parameters
    experts, used = _experts(config), _whole(config, "num_experts_per_tok") or 1
    hidden, layers = shape["hidden_size"], shape["num_layers"]
    inner = _whole(config, "moe_intermediate_size") or shape["intermediate_size"]
    if experts <= 1 or not (total and hidden and layers and inner):
        return None
    return max(1, total - 3 * hidden * inner * (experts - used) * layers)


def _read_json(path: Path, *, next_step: str) -> dict[str, object]:
    refuse_special(path)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise BadInput("config.json must be at most 4 MiB", place=str(path))
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput("the model folder has no config.json", place=str(path.parent), next_step=next_step) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "config.json must be a readable UTF-8 file", value=type(error).__name__, place=str(path)
        ) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput("config.json is not valid JSON", value=str(error)[:80], place=str(path)) from None
    if not isinstance(value, dict):
        raise BadInput("config.json must hold an object", value=type(value).__name__, place=str(path))
    return value


def _headers(folder: Path) -> tuple[int | None, str | None, int | None]:
    """(parameters, dtype on disk, bytes on disk) from all safetensors headers; (None, None, None) without any."""
    check_weights(folder)
    files = weight_files(folder)
    if not files:
        return None, None, None
    count, kinds = 0, dict[str, int]()
    for file in files:
        for shape, dtype in tensor_headers(file).values():
            size = 1
            for length in shape:
                size *= length
            count += size
            kinds[dtype] = kinds.get(dtype, 0) + size
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    main = max(kinds, key=lambda kind: kinds[kind], default="")
    packed = main in ("U8", "I32", "I8")
    return None if packed else count, names.get(main, main.lower() or None), sum(file.stat().st_size for file in files)


def _cached_config(name: str) -> dict[str, object] | None:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    found = sorted((hub / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/config.json"))
    return _read_json(found[-1], next_step="") if found else None


def _hub_facts(name: str) -> ModelFacts:
    """Facts from the Hub's config.json and its count of parameters; needs the network."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise _unknown(name, "neither a folder, nor a known name, nor owner/name of the Hub")
    base = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    try:
        config = json.loads(_fetch(f"{base}/{name}/resolve/main/config.json"))
        counted = json.loads(_fetch(f"{base}/api/models/{name}")).get("safetensors", {}).get("total")
    except urllib.error.HTTPError as error:
        reason = (
            "the Hub has no such public model" if error.code in (401, 403, 404) else f"the Hub answered {error.code}"
        )
        raise _unknown(name, reason) from None
    except (OSError, ValueError) as error:
        raise _unknown(name, f"the Hub could not be asked ({type(error).__name__})") from None
    return facts_from_config(config, name=name, source="Hub", counted=counted if isinstance(counted, int) else None)


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "finestep"})
    with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S) as answer:
        return bytes(answer.read(MAX_CONFIG_BYTES))


def _unknown(name: str, reason: str) -> BadInput:
    import difflib

    known = {full.split("/")[-1].lower(): full for full in known_names()}
    near = difflib.get_close_matches(name.split("/")[-1].lower(), known, n=1, cutoff=0.6)
    hint = f" (did you mean `{known[near[0]]}`?)" if near else ""
    return BadInput(
        f"nothing is known about this model: {reason}{hint}",
        value=name,
        next_step="give a local folder, or its size: --params 7B",
    )
