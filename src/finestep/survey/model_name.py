"""What a model's name alone says: a known model under another path, or its size, family and kind; it opens no file and asks no Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator

from finestep.facts import ModelFacts, ModelShape
from finestep.knowledge.models import known_model

_PACKED = re.compile(
    r"[-_.](?:unsloth|bnb|4bit|8bit|int4|int8|awq|gptq|gguf|fp8|bf16|fp16|hf|mlx|qat|nf4|safetensors|dynamic|q4_0|sft|lora|merged)(?=$|[-_.])",
    re.IGNORECASE,
)
_INSTRUCT = re.compile(r"[-_](?:instruct|chat|it|thinking|sft|dpo)(?=$|[-_.])", re.IGNORECASE)
_EXPERTS = re.compile(r"(?<![\d.])(\d{1,3})x(\d{1,3}(?:\.\d+)?)b(?![a-z])", re.IGNORECASE)
_SIZE = re.compile(
    r"(?<![\d.])(\d{1,4}(?:\.\d{1,2})?) ?([bm])(?![a-z\d])(?:[-_ ]a(\d{1,3}(?:\.\d+)?)b(?![a-z]))?", re.IGNORECASE
)
_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"modernbert", "modernbert"),
    (r"deberta", "deberta-v2"),
    (r"xlm-?r", "xlm-roberta"),
    (r"roberta", "roberta"),
    (r"electra", "electra"),
    (r"albert", "albert"),
    (r"bert|minilm|bge|e5-", "bert"),
    (r"qwen-?3\.[5-9]|qwen-?3-next", "qwen3_5"),
    (r"qwen-?3", "qwen3"),
    (r"qwen-?(?:1\.5|2)|qwq", "qwen2"),
    (r"qwen", "qwen"),
    (r"gemma-?3", "gemma3"),
    (r"gemma-?2", "gemma2"),
    (r"gemma", "gemma"),
    (r"mixtral", "mixtral"),
    (r"mistral|ministral|codestral|devstral", "mistral"),
    (r"deepseek-?(?:v|r1$|r1-0)", "deepseek_v3"),
    (r"kimi", "kimi_k2"),
    (r"nemotron", "nemotron"),
    (r"gpt-?oss", "gpt_oss"),
    (r"phi-?3|phi-?4", "phi3"),
    (r"phi", "phi"),
    (r"smollm", "smollm3"),
    (r"olmo", "olmo2"),
    (r"falcon", "falcon"),
    (r"chatglm|glm", "chatglm"),
    (r"internlm", "internlm2"),
    (r"minicpm", "minicpm"),
    (r"pythia|neox|dolly", "gpt_neox"),
    (r"opt-\d", "opt"),
    (r"gpt2|gpt-2", "gpt2"),
    (r"bloom", "bloom"),
    (r"flan-?t5|\bt5|mt5", "t5"),
    (r"bart", "bart"),
    (r"vicuna|alpaca|llama|guanaco|wizardlm|tulu|hermes|yi-", "llama"),
)
_ENCODERS = ("modernbert", "deberta-v2", "xlm-roberta", "roberta", "electra", "albert", "bert")
_ENCODER_SIZES = {"large": 335_000_000, "base": 110_000_000, "small": 30_000_000}
_EXPERTS_USED = 2
SMALL = 1e9
SMALL_VOCABULARY, VOCABULARY, HEAD_WIDTH, SHARED_HEADS = 32_000, 128_256, 128, 4


def facts_from_name(name: str) -> ModelFacts | None:
    """Facts of a model that is not at hand, from the words of its name or path; None when they say no size.

    >>> facts_from_name("/models/Llama-3.2-3B/").num_parameters
    3213000000
    >>> facts_from_name("our/assistant-13b-v2").num_parameters
    13000000000
    """
    parts = [part for part in re.split(r"[/\\]|--", name.rstrip("/\\")) if part]
    for part in reversed(parts):
        for shorter in _shorter(part):
            found = known_model(shorter)
            if found is not None:
                instruct = found.is_instruct or bool(_INSTRUCT.search(part)) or None
                return found.model_copy(update={"name": name, "is_instruct": instruct, "source": "its name"})
    return next((found for part in reversed(parts) if (found := _sized(part, name)) is not None), None)


def _shorter(part: str) -> Iterator[str]:
    """The name, and what remains of it without what people add to names."""
    bare = re.sub(r"^(?:path[_-]?to[_-]|your[_-]|my[_-])", "", part, flags=re.IGNORECASE)
    unpacked = _PACKED.sub("", _PACKED.sub("", bare))
    for one in (part, bare, unpacked, _INSTRUCT.sub("", unpacked)):
        yield one
        yield f"Meta-{one}"
        yield re.sub(r"^meta-", "", one, flags=re.IGNORECASE)
        yield from (f"{one}-{end}" for end in ("pt", "hf", "v0.1"))
        yield re.sub(r"^llama-?(\d)[._-](\d)", r"Llama-\1.\2", one, flags=re.IGNORECASE)


def _sized(part: str, name: str) -> ModelFacts | None:
    low = _PACKED.sub("", part.lower())
    family = next((kind for pattern, kind in _FAMILIES if re.search(pattern, low)), None)
    total, active = _count(low)
    if total is None and family in _ENCODERS:
        total = next((size for word, size in _ENCODER_SIZES.items() if word in low), None)
    if total is None:
        return None
    return ModelFacts(
        name=name,
        family=family,
        num_parameters=total,
        num_active_parameters=active,
        is_encoder=family in _ENCODERS,
        is_encoder_decoder=family in ("t5", "bart"),
        is_instruct=bool(_INSTRUCT.search(part)) or None,
        source="its name",
    )


def _count(low: str) -> tuple[int | None, int | None]:
    """(parameters, those used a token) as the name writes them: 7b, 350m, 30b-a3b, 8x7b."""
    experts = _EXPERTS.search(low)
    if experts:
        each = float(experts[2]) * 1e9
        return round(int(experts[1]) * each), round(_EXPERTS_USED * each)
    found = _SIZE.search(re.sub(r"(\d)b(\d)(?!\w)", r"\1.\2b", low))  # bloom-7b1
    if not found or float(found[1]) == 0:
        return None, None
    count = round(float(found[1]) * (1e9 if found[2] == "b" else 1e6))
    return count, round(float(found[3]) * 1e9) if found[3] else None


def with_usual_shape(facts: ModelFacts) -> ModelFacts:
    """Facts of a bare size with the shape that decoders of this size have: Llama's proportions, and layers until the size is met.

    >>> with_usual_shape(ModelFacts(name="x", num_parameters=8_000_000_000)).shape.hidden_size
    4096
    """
    if facts.shape.hidden_size or not facts.num_parameters:
        return facts
    total = facts.num_parameters
    wanted = (total * HEAD_WIDTH / 14.0) ** (1 / 3)
    heads = (
        max(1, round(wanted / HEAD_WIDTH))
        if wanted < 1024
        else SHARED_HEADS * round(wanted / HEAD_WIDTH / SHARED_HEADS)
    )
    hidden, is_small = heads * HEAD_WIDTH, total < SMALL
    vocabulary = SMALL_VOCABULARY if is_small else VOCABULARY
    inner = HEAD_WIDTH * round(3.5 * hidden / HEAD_WIDTH)
    groups = heads if heads % SHARED_HEADS else heads // SHARED_HEADS
    layer = 2 * hidden * hidden + 2 * hidden * groups * HEAD_WIDTH + 3 * hidden * inner
    embeddings = vocabulary * hidden * (1 if is_small else 2)
    shape = ModelShape(
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=max(1, round((total - embeddings) / layer)),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        vocabulary_size=vocabulary,
        context_length=facts.shape.context_length,
        tied_embeddings=is_small,
    )
    return facts.model_copy(update={"shape": shape})
