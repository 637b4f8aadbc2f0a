"""Loading a model and its tokenizer for the device at hand; safetensors only, and no code that comes with the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finestep.errors import BadInput, MissingDependency
from finestep.recipe import Recipe
from finestep.study import ModelSpec
from finestep.train.tokens import TrainingData


@dataclass(frozen=True)
class Placement:
    """Where and in which precision to compute."""

    device: torch.device
    weights_dtype: torch.dtype
    autocast: bool

    def computing(self) -> torch.autocast:
        """A context for forward passes: bf16 autocast on CUDA, nothing elsewhere."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)


def choose_placement(spec: ModelSpec, recipe: Recipe) -> Placement:
    """Device and precision: fp32 on CPU and MPS; on CUDA bf16 compute, with fp32 master weights for method `full`.

    Raises:
        BadInput: the device asked for is not there, or qlora without CUDA.
    """
    device = torch.device(_device_name(spec.device))
    if recipe.method == "qlora":
        _check_qlora(device)
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    weights = torch.bfloat16 if has_bf16 and recipe.method != "full" else torch.float32
    return Placement(device, weights, has_bf16)


def load_tokenizer(spec: ModelSpec) -> Any:
    """The model's tokenizer, with its chat template if it has one."""
    from transformers import AutoTokenizer

    _check_folder(spec)
    try:
        return AutoTokenizer.from_pretrained(
            spec.path, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput("the tokenizer cannot be loaded", value=_short(error), place=spec.path) from None


def context_length(spec: ModelSpec) -> int | None:
    """Longest input in tokens by the config, or None."""
    config = _config(spec)
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            offset = 2 if getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"} else 0
            return value - offset
    return None


def load_model(spec: ModelSpec, data: TrainingData, recipe: Recipe, placement: Placement) -> tuple[Any, list[str]]:
    """(model, names of its newly initialised parameters); a classification head is new, a causal model has none.

    Raises:
        BadInput: the weights are missing, not safetensors, or of a model that cannot do the task.
    """
    import transformers

    config = _config(spec)
    kind = _auto_class(config, data, spec)
    options: dict[str, Any] = {
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "dtype": placement.weights_dtype,
        "use_safetensors": None if spec.unsafe_pickle else True,
        "output_loading_info": True,
    }
    if data.label_names:
        options |= {
            "num_labels": len(data.label_names),
            "id2label": dict(enumerate(data.label_names)),
            "label2id": {name: place for place, name in enumerate(data.label_names)},
        }
    if recipe.method == "qlora":
        options["quantization_config"] = _four_bit(transformers)
    torch.manual_seed(recipe.seed)
    try:
        model, loading = getattr(transformers, kind).from_pretrained(spec.path, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadInput(
            "the model cannot be loaded", value=_short(error), place=spec.path, next_step=_loading_hint(spec)
        ) from None
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = data.pad_id
    model.config.use_cache = False
    new = sorted(loading["missing_keys"])
    _check_new(new, data, spec)
    return model.to(placement.device), new


def _device_name(asked: str) -> str:
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if has[name])
    if not has[asked]:
        raise BadInput(f"device `{asked}` must be there", value="not available", next_step="see `finestep doctor`")
    return asked


def _check_qlora(device: torch.device) -> None:
    import importlib.util

    if device.type != "cuda":
        raise BadInput("method `qlora` needs a CUDA GPU", value=str(device), next_step="use --method lora")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependency("bitsandbytes", needed_for="method `qlora`", extra="quant")


def _four_bit(transformers: Any) -> Any:
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _check_folder(spec: ModelSpec) -> None:
    place = Path(spec.path).expanduser()
    looks_local = spec.path.startswith((".", "/", "~")) or spec.path.count("/") > 1 or place.exists()
    if looks_local and not place.is_dir():
        raise BadInput(
            "no such model folder", value=spec.path, next_step="give a folder with config.json, or a Hub name"
        )
    if looks_local and not (place / "config.json").is_file():
        raise BadInput("a model folder needs a config.json", place=spec.path)


def _config(spec: ModelSpec) -> Any:
    from transformers import AutoConfig

    _check_folder(spec)
    try:
        return AutoConfig.from_pretrained(spec.path, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise BadInput("the model's config cannot be read", value=_short(error), place=spec.path) from None


def _auto_class(config: Any, data: TrainingData, spec: ModelSpec) -> str:
    if data.label_names:
        return "AutoModelForSequenceClassification"
    from transformers import AutoModelForCausalLM

    if type(config) not in AutoModelForCausalLM._model_mapping or _is_encoder(config):
        raise BadInput(
            "this data needs a causal language model",
            value=config.model_type,
            place=spec.path,
            next_step="use rows with text and label for an encoder",
        )
    return "AutoModelForCausalLM"


def _is_encoder(config: Any) -> bool:
    names = getattr(config, "architectures", None) or [""]
    causal = any(part in names[0] for part in ("CausalLM", "LMHeadModel", "ConditionalGeneration"))
    return not causal and config.model_type in {
        "bert",
        "roberta",
        "distilbert",
        "electra",
        "deberta",
        "deberta-v2",
        "albert",
        "xlm-roberta",
        "modernbert",
        "camembert",
        "mpnet",
    }


def _check_new(new: list[str], data: TrainingData, spec: ModelSpec) -> None:
    if new and not data.label_names:
        raise BadInput("the weights lack parameters of the model", value=", ".join(new[:4]), place=spec.path)


def _loading_hint(spec: ModelSpec) -> str | None:
    place = Path(spec.path).expanduser()
    if not place.is_dir() or any(place.glob("*.safetensors")):
        return None
    if any(place.glob("*.bin")) or any(place.glob("*.pt")):
        return "these weights are pickles, which can run code; convert them, or insist with --unsafe-pickle"
    return "the folder holds no *.safetensors"


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
