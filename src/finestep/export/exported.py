"""What an exporter is given besides the recipe, what it returns, and what an importer returns; plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from finestep.errors import BadInput
from finestep.export.rows import ExportData
from finestep.recipe import Recipe
from finestep.rules.warmup import warmup_steps

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of Llama-like models, for frameworks that take names only."""
DEFAULT_WARMUP_RATIO = 0.05
SHORT_RUN = 200
TRAIN_FILE, EVAL_FILE = "train.jsonl", "eval.jsonl"


@dataclass(frozen=True, slots=True)
class ExportContext:
    """Where the recipe is to run. `num_steps`: optimizer steps of the whole run, None = unknown.

    `rows` are those of local data; `family` is the model's `model_type`; `device` and `precision` are those of the machine that will
    train.
    """

    model: str = "MODEL"
    data: str = "DATA"
    num_steps: int | None = None
    num_labels: int | None = None
    transformers_version: tuple[int, int] = (5, 7)
    rows: ExportData | None = None
    family: str | None = None
    is_local: bool = False
    """The model is a folder here."""
    is_own_model: bool = False
    """A local folder whose name is no public model's."""
    device: str = "cuda"
    precision: str = "bf16"
    """bf16, fp16 or fp32."""

    @property
    def on_cpu(self) -> bool:
        """Whether there is no GPU."""
        return self.device == "cpu"

    @property
    def logging_steps(self) -> int:
        """Each step of a short run, each tenth of a longer one."""
        return 1 if self.num_steps is not None and self.num_steps < SHORT_RUN else 10

    def warmup_steps(self, recipe: Recipe) -> int | None:
        """Warmup in steps; None when only its share of an unknown length is known."""
        if recipe.schedule.warmup_steps is not None and self.num_steps is None:
            return recipe.schedule.warmup_steps
        return None if self.num_steps is None else warmup_steps(recipe.schedule, self.num_steps)


def warmup_share(recipe: Recipe) -> float:
    """Warmup as a share of the run, for when its length is unknown."""
    return DEFAULT_WARMUP_RATIO if recipe.schedule.warmup_ratio is None else recipe.schedule.warmup_ratio


@dataclass(frozen=True, slots=True)
class Exported:
    """Files to write (name -> text), how to start the run, and what the framework cannot express."""

    files: dict[str, str]
    command: str
    cannot: list[str] = field(default_factory=list)


class Exporter(Protocol):
    """One framework."""

    def write(self, recipe: Recipe, context: ExportContext) -> Exported:
        """The recipe as this framework's files."""
        ...


def micro_batch(recipe: Recipe) -> int:
    """Rows per forward pass and device. The frameworks multiply, so that it must divide the batch."""
    return recipe.first_micro_batch(must_divide=True)


def batch_comment(recipe: Recipe) -> str:
    """The effective batch in full.

    >>> batch_comment(Recipe(effective_batch_size=32, micro_batch_size=4, num_devices=2))
    'effective batch 32 = 4 rows x 4 accumulation x 2 devices'
    """
    micro = micro_batch(recipe)
    accumulation = recipe.accumulation_steps(micro)
    product = micro * accumulation * recipe.num_devices
    text = f"effective batch {product} = {micro} rows x {accumulation} accumulation x {recipe.num_devices} devices"
    return text if product == recipe.effective_batch_size else f"{text} (asked: {recipe.effective_batch_size})"


def lora_fields(recipe: Recipe) -> dict[str, object]:
    """Rank, alpha, dropout and scaling of an adapter, by the names that LLaMA-Factory and ms-swift share."""
    lora = recipe.lora
    return {
        "lora_rank": lora.rank,
        "lora_alpha": round(lora.alpha),
        "lora_dropout": lora.dropout,
        "use_rslora": lora.use_rslora,
    }


def lora_scale_alpha(recipe: Recipe) -> float:
    """alpha / rank scaling of the adapter as the alpha of plain LoRA (rsLoRA divides by the root of the rank)."""
    return recipe.lora.alpha * recipe.lora.rank**0.5 if recipe.lora.use_rslora else recipe.lora.alpha


def unsupported(recipe: Recipe, *, head: bool = True, layerwise: bool = True) -> list[str]:
    """What no framework here takes from a config file."""
    out = []
    if layerwise and recipe.optimizer.layerwise_decay != 1.0:
        out.append(
            f"layer-wise decay {recipe.optimizer.layerwise_decay:g}: no setting for it; all layers use the peak rate"
        )
    if head and recipe.optimizer.head_lr_multiplier != 1.0:
        out.append(
            f"head rate x{recipe.optimizer.head_lr_multiplier:g}: no setting for it; the head uses the peak rate"
        )
    if not recipe.optimizer.bias_correction:
        out.append("Adam without bias correction: not offered; bias correction stays on")
    if recipe.num_train_tokens is not None:
        out.append(
            f"token budget {recipe.num_train_tokens:,}: no setting for it; {recipe.num_epochs:g} epochs are written"
        )
    if recipe.evaluation.patience is not None:
        out.append(f"early stopping (patience {recipe.evaluation.patience}): add the framework's callback by hand")
    return out


def refuse_labels(context: ExportContext, framework: str) -> None:
    """Raise BadInput where rows carry labels and the framework trains answers only."""
    if context.rows is not None and context.rows.is_labelled:
        raise BadInput(
            f"{framework} trains models that write; these rows carry labels",
            value=context.data,
            next_step="export to hf, whose script trains a classifier",
        )


def row_notes(context: ExportContext) -> list[str]:
    """What of the rows this export cannot hold."""
    if context.rows is None:
        return (
            []
            if context.data == "DATA"
            else [f"the rows of {context.data}: it is no local file, so set its columns by hand"]
        )
    return list(context.rows.notes)
