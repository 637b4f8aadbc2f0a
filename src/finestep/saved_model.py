"""SavedModel: what a folder with a tuned model holds and how it is loaded, kept beside the weights as `finestep.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finestep.errors import BadInput
from finestep.flat import Flat, Part
from finestep.recipe import Method, Recipe

FILE, ADAPTER_CONFIG, CONFIG = "finestep.json", "adapter_config.json", "config.json"
CAUSAL, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
PEFT_CLASSES = {CAUSAL: "AutoPeftModelForCausalLM", CLASSIFIER: "AutoPeftModelForSequenceClassification"}
"""Classes of transformers whose adapters PEFT loads together with their base."""
FOUR_BITS = (
    'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, '
    "bnb_4bit_compute_dtype=torch.bfloat16)"
)


class Loading(Part):
    """How the model is loaded, with the precision that its figures were measured in."""

    auto_class: str = Field(description="The class of transformers that has the head.")
    base: str = Field(description="Folder or Hub name of the base.")
    revision: str | None = None
    dtype: str = Field("float32", description="Precision of the weights when the figures were measured.")
    autocast: bool = Field(False, description="The figures were measured under bf16 autocast.")
    trust_remote_code: bool = False


class TrainedOn(Part):
    """The rows that it was tuned on."""

    data: str = ""
    num_rows: int | None = Field(None, description="Training rows.")
    num_eval_rows: int | None = None
    max_length: int | None = Field(None, description="Longest row in tokens.")


class SavedModel(Flat):
    """A tuned model on disk."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    format: int = 1
    method: Method
    labels: tuple[str, ...] = ()
    loading: Loading
    trained_on: TrainedOn = TrainedOn()
    recipe: Recipe
    figures: dict[str, float] = Field(
        default_factory=dict, description="Validation loss, loss before training, metrics."
    )
    merged: bool = Field(False, description="It was an adapter, and has been merged into its base.")

    @property
    def is_adapter(self) -> bool:
        """True for an adapter that needs its base."""
        return self.method != "full" and not self.merged


def read_saved(folder: Path) -> SavedModel | None:
    """What `finestep.json` says; None where there is none.

    Raises:
        BadInput: there is one, and it cannot be read.
    """
    try:
        return SavedModel.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        raise BadInput(f"{FILE} cannot be read", value=type(error).__name__, place=str(folder)) from None


def has_own_base(folder: Path) -> bool:
    """True where the base of a classifier's adapter stands beside it, with the labels in its config."""
    return (folder / CONFIG).is_file() and (folder / ADAPTER_CONFIG).is_file()


def load_lines(saved: SavedModel, *, place: str, has_own_base: bool) -> list[str]:
    """Python that loads the model from `place`, with the precision that its figures were measured in.

    Args:
        has_own_base: a classifier's base stands beside its adapter, with the labels in its config.
    """
    if saved.loading.auto_class == CLASSIFIER and not (saved.is_adapter and not has_own_base):
        return _pipeline_lines(place, saved)
    if not saved.is_adapter:
        return _lines(saved.loading.auto_class, "transformers", place, _options(saved))
    if saved.loading.auto_class == CLASSIFIER:
        return _labelled_lines(saved, place)
    if saved.loading.auto_class in PEFT_CLASSES:
        return _lines(PEFT_CLASSES[saved.loading.auto_class], "peft", place, _options(saved))
    return base_lines(saved, place=place, base=saved.loading.base)


def base_lines(saved: SavedModel, *, place: str, base: str) -> list[str]:
    """Python that loads an adapter onto a base that is named."""
    return [
        *_four_bit_imports(saved),
        "from peft import PeftModel",
        f"from transformers import AutoTokenizer, {saved.loading.auto_class}",
        f"base = {saved.loading.auto_class}.from_pretrained({base!r}{_options(saved)})",
        f"model = PeftModel.from_pretrained(base, {place!r}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({place!r})",
    ]


def _lines(kind: str, package: str, place: str, options: str) -> list[str]:
    imports = ["from transformers import AutoTokenizer"] if package == "peft" else []
    names = kind if package == "peft" else f"AutoTokenizer, {kind}"
    four = ["import torch", "from transformers import BitsAndBytesConfig"] if FOUR_BITS in options else []
    return [
        *four,
        f"from {package} import {names}",
        *imports,
        f"model = {kind}.from_pretrained({place!r}{options}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({place!r})",
    ]


def _pipeline_lines(place: str, saved: SavedModel) -> list[str]:
    remote = ", trust_remote_code=True" if saved.loading.trust_remote_code else ""
    dtype = f", dtype={saved.loading.dtype!r}" if saved.is_adapter else ""
    return [
        "from transformers import pipeline",
        f'classify = pipeline("text-classification", model={place!r}{dtype}{remote})',
        'print(classify("a text"))',
    ]


def _labelled_lines(saved: SavedModel, place: str) -> list[str]:
    """PEFT builds a base with two labels unless it is told; the names are in `finestep.json`."""
    names = str(Path(place) / FILE)
    return [
        "import json",
        *_four_bit_imports(saved),
        "from peft import AutoPeftModelForSequenceClassification",
        "from transformers import AutoTokenizer, pipeline",
        f'labels = dict(enumerate(json.load(open({names!r}, encoding="utf-8"))["labels"]))',
        f"model = {PEFT_CLASSES[CLASSIFIER]}.from_pretrained({place!r}, num_labels=len(labels), id2label=labels"
        f"{_options(saved)}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({place!r})",
        'classify = pipeline("text-classification", model=model, tokenizer=tokenizer)',
        'print(classify("a text"))',
    ]


def _four_bit_imports(saved: SavedModel) -> list[str]:
    return ["import torch", "from transformers import BitsAndBytesConfig"] if saved.method == "qlora" else []


def _options(saved: SavedModel) -> str:
    """Keywords of `from_pretrained`: an adapter's base is loaded as it was measured; a whole model has its own precision."""
    parts = []
    if saved.is_adapter:
        parts.append(f"dtype={saved.loading.dtype!r}")
    if saved.is_adapter and saved.method == "qlora":
        parts.append(f"quantization_config={FOUR_BITS}")
    if saved.is_adapter and saved.loading.revision and saved.loading.auto_class not in PEFT_CLASSES:
        parts.append(f"revision={saved.loading.revision!r}")
    if saved.loading.trust_remote_code:
        parts.append("trust_remote_code=True")
    return "".join(f", {part}" for part in parts)


Purpose = Literal["check", "merge"]


class Sample(BaseModel):
    """A validation row that is shown with the model's answer: where in its row the prompt ends, and the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int
    prompt_end: int
    answer_end: int


class CheckRows(BaseModel):
    """Tokenised validation rows, and what the training engine measured on each with the weights that were saved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[tuple[int, ...], ...]
    trained: tuple[tuple[bool, ...], ...] = ()
    """Tokens that carry loss; empty for labels."""
    classes: tuple[int, ...] = ()
    sums: tuple[float, ...] = Field(description="Sums of negative log-likelihoods, nats, a row each.")
    units: tuple[int, ...] = Field(description="Tokens that carry loss (1 for labels), a row each.")
    samples: tuple[Sample, ...] = ()

    @property
    def loss(self) -> float:
        """What the engine measured, in nats a token (or row, for labels)."""
        return sum(self.sums) / max(sum(self.units), 1)


class SavedRequest(BaseModel):
    """What a process that only loads saved models is asked: `python -m finestep.saved request.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: Purpose
    folder: str
    rows: str | None = Field(None, description="File with `CheckRows`, for a check.")
    out: str | None = Field(None, description="Folder of the merged model, for a merge.")
    device: str = "cpu"
    num_threads: int | None = None
