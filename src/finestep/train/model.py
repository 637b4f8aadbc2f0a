"""Loading a model and its tokenizer for the device at hand; safetensors only, and no code that comes with the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from finestep.errors import BadInput, MissingDependency
from finestep.recipe import Recipe
from finestep.study import ModelSpec
from finestep.survey.adapter_files import adapter_folder, base_of
from finestep.survey.weights import check_weights, refuse_gguf, refuse_packed_weights
from finestep.train.memory import is_out_of_memory
from finestep.train.model_class import auto_class, check_new
from finestep.train.tokenizer import SavedTokenizer
from finestep.train.tokens import TrainingData

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

BITSANDBYTES_ON_CPU = (0, 50)
FAST_PRODUCT = "support_avx512bf16_for_cpu"
"""The switch of a layer of bitsandbytes."""
LONGEST_TABLE_OF_POSITIONS = 8192
"""Models for longer texts compute positions; only short tables are learned."""


@dataclass(frozen=True)
class Placement:
    """Where and in which precision to compute.

    Attributes:
        autocast: plain models (PEFT's among them) compute in bfloat16 by autocast.
        native_rows: passes of packed adapters need no autocast, because weights and adapters are in bfloat16 already. Autocast
            would look at every operation, and cast adapters anew in every layer of every micro-batch.
    """

    device: torch.device
    weights_dtype: torch.dtype
    autocast: bool
    native_rows: bool = False

    @property
    def is_exact(self) -> bool:
        """True where every product is computed in float32, so that equal things can be told to be equal."""
        return self.weights_dtype is torch.float32 and not self.autocast

    @property
    def rows_dtype(self) -> torch.dtype:
        """The precision in which packed adapters compute."""
        return torch.bfloat16 if self.autocast or self.native_rows else self.weights_dtype

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
    return Placement(device, weights, has_bf16, native_rows=has_bf16 and recipe.method == "lora")


def based_on(spec: ModelSpec) -> ModelSpec:
    """The specification of the base that is loaded: of an adapter's folder its base, else the model itself."""
    return spec.model_copy(update={"path": base_of(spec.path)})


def load_tokenizer(spec: ModelSpec) -> SavedTokenizer:
    """The model's tokenizer, with its chat template if it has one."""
    from transformers import AutoTokenizer

    folder = adapter_folder(spec.path)
    has_own = folder is not None and (folder / "tokenizer_config.json").is_file()
    place = spec.path if has_own else based_on(spec).path
    if not has_own:
        _check_folder(based_on(spec))
    try:
        # Its own signatures are wider: they answer by options that this room never gives.
        found = cast(
            "SavedTokenizer",
            AutoTokenizer.from_pretrained(place, revision=spec.revision, trust_remote_code=spec.trust_remote_code),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput("the tokenizer cannot be loaded", value=_short(error), place=spec.path) from None
    return found


def context_length(spec: ModelSpec) -> int | None:
    """Longest input in tokens, or None when nothing limits it.

    Models of the RoBERTa kind number positions from their padding id on, so that their table of positions holds fewer
    tokens than the config says. The table itself tells: a model without weights is built from the config to see it.
    """
    config = _config(based_on(spec))
    inner = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = getattr(inner, name, None)
        if isinstance(value, int) and value > 0:
            return value - (_positions_lost(config) if value <= LONGEST_TABLE_OF_POSITIONS else 0)
    return None


def _positions_lost(config: PretrainedConfig) -> int:
    """Places of a learned table of positions that no token gets, because numbering starts behind the padding id."""
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config)
    except (ValueError, TypeError, RuntimeError, ImportError, KeyError, AttributeError, NotImplementedError):
        return 0
    for name, module in model.named_modules():
        if "position" in name and isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def load_model(
    spec: ModelSpec, data: TrainingData, recipe: Recipe, placement: Placement
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """(model, names of its newly initialised parameters, what a user should know); a causal model has no new parameters.

    Raises:
        BadInput: the weights are missing, damaged, quantised, not safetensors, or of a model that cannot do the task.
    """
    import transformers

    config = _config(spec)
    _check_checkpoint(config, spec)
    kind = auto_class(config, data, spec)
    options: dict[str, object] = {
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
            "ignore_mismatched_sizes": True,
        }
    if recipe.method == "qlora":
        options["quantization_config"] = _four_bit(placement)
    torch.manual_seed(recipe.seed)
    try:
        model, loading = getattr(transformers, kind).from_pretrained(spec.path, **options)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise BadInput(
            "the model cannot be loaded", value=_short(error), place=spec.path, next_step=_loading_hint(spec)
        ) from None
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = data.pad_id
    model.config.use_cache = False
    replaced = sorted(name for name, *_ in loading.get("mismatched_keys", ()))
    new = sorted({*loading["missing_keys"], *replaced})
    check_new(new, replaced, data, spec)
    if recipe.method == "qlora":
        model = _prepared_for_adapters(model)
    return model if recipe.method == "qlora" else model.to(placement.device), new, _notes(model, replaced, data)


def _notes(model: PreTrainedModel, replaced: list[str], data: TrainingData) -> list[str]:
    notes = []
    if replaced:
        notes.append(
            f"the checkpoint's own head has other labels than the data's {len(data.label_names)}: a new head starts"
        )
    if hasattr(model, "quantization_method") and model.device.type == "cpu":
        notes.append("qlora on a CPU unpacks every weight in each pass: slow, good for trying things out")
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        notes.append(
            "the auxiliary loss of the experts' router (`output_router_logits`) is not part of the training loss"
        )
    return notes


def _prepared_for_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """PEFT's preparation of a base in 4 bits: what is not quantised goes to float32.

    On a CPU bitsandbytes repacks weights for a faster product that has no gradient once a layer is called in evaluation
    mode. Our loop trains models without dropout in evaluation mode, so that shortcut is switched off.
    """
    import peft

    for module in model.modules():
        if hasattr(module, FAST_PRODUCT):
            setattr(module, FAST_PRODUCT, False)
    prepared: PreTrainedModel = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return prepared


def _device_name(asked: str) -> str:
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if has[name])
    if not has[asked]:
        raise BadInput(f"device `{asked}` must be there", value="not available", next_step="see `finestep doctor`")
    return asked


def _check_qlora(device: torch.device) -> None:
    import importlib.metadata

    try:
        version = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependency("bitsandbytes", needed_for="method `qlora`", extra="quant") from None
    if device.type != "cuda" and tuple(int(part) for part in version.split(".")[:2]) < BITSANDBYTES_ON_CPU:
        raise BadInput(
            "method `qlora` on a CPU needs bitsandbytes 0.50 or newer",
            value=version,
            next_step="`pip install -U bitsandbytes`, or use --method lora",
        )


def _four_bit(placement: Placement) -> BitsAndBytesConfig:
    """NF4 with quantised scales (arXiv 2305.14314); products in bfloat16, on a CPU in float32."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if placement.device.type == "cpu" else torch.bfloat16,
    )


def _check_folder(spec: ModelSpec) -> None:
    place = Path(spec.path).expanduser()
    refuse_gguf(place)
    looks_local = spec.path.startswith((".", "/", "~")) or spec.path.count("/") > 1 or place.exists()
    if looks_local and not place.is_dir():
        raise BadInput(
            "no such model folder", value=spec.path, next_step="give a folder with config.json, or a Hub name"
        )
    if looks_local and not (place / "config.json").is_file():
        raise BadInput("a model folder needs a config.json", place=spec.path)


def _check_checkpoint(config: PretrainedConfig, spec: ModelSpec) -> None:
    """Raise BadInput for quantised or damaged weights, with the words that `recommend` uses."""
    refuse_packed_weights(config.to_dict(), spec.path)
    place = Path(spec.path).expanduser()
    if place.is_dir():
        check_weights(place)


def _config(spec: ModelSpec) -> PretrainedConfig:
    from transformers import AutoConfig

    _check_folder(spec)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            spec.path, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise BadInput("the model's config cannot be read", value=_short(error), place=spec.path) from None
    return config


def _loading_hint(spec: ModelSpec) -> str | None:
    place = Path(spec.path).expanduser()
    if not place.is_dir() or any(place.glob("*.safetensors")):
        return None
    if any(place.glob("*.bin")) or any(place.glob("*.pt")):
        return "these weights are pickles, which can run code; convert them, or insist with --unsafe-pickle"
    return "the folder holds no *.safetensors"


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
