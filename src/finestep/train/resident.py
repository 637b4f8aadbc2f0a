"""The resident base: loaded once, put back into its initial state for every trial.

For LoRA the base stays frozen and trials are rows of adapters on it; for method `full` the initial weights are restored in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec, RetentionSpec
from finestep.train.adapters import AdapterRows, Values, WholeModel, load_trained, trained
from finestep.train.longest_row import longest_row
from finestep.train.loss import TokenLoss
from finestep.train.model import Placement, choose_placement, context_length, load_model, load_tokenizer
from finestep.train.retention import Retention, read_general_text
from finestep.train.tokens import TrainingData, prepare_data

Rows = AdapterRows | WholeModel


class Resident:
    """Tokenizer, data and model of a study, shared by all its trials.

    The base is in one of two states: a plain model (PEFT's, for an adapter), which `begin` gives, or the base of a pack of trials,
    which `open_rows` gives. Each call ends the other state.

    Args:
        placement: where and in which precision to compute; None: what suits the device.
    """

    def __init__(
        self,
        model: ModelSpec,
        data: DataSpec,
        recipe: Recipe,
        *,
        retention: RetentionSpec | None = None,
        placement: Placement | None = None,
    ):
        self.placement = placement or choose_placement(model, recipe)
        self.tokenizer = load_tokenizer(model)
        self.data: TrainingData = prepare_data(
            data, self.tokenizer, context_length=context_length(model), longest=longest_row(model, recipe)
        )
        self.base, self.new_names = load_model(model, self.data, recipe, self.placement)
        self.token_loss = TokenLoss(self.base, self.placement)
        self._has_dropout = _has_dropout(self.base)
        self.retention = self._retention(retention)
        self.max_forgetting = retention.max_forgetting if retention else None
        self._plain: Any = self.base
        self._rows: Rows | None = None
        self._untouched: dict[str, torch.Tensor] = {}
        self._initial: dict[object, dict[str, torch.Tensor]] = {}
        self._base_losses: dict[object, Any] = {}

    def begin(self, recipe: Recipe) -> Any:
        """The plain model in the initial state of `recipe`: its seed, its method, its adapter; equal recipes start equal."""
        self._to_base()
        if self.new_names:
            _reset_new(self.base, self.new_names, seed=recipe.seed)
        if recipe.method == "full":
            self.base.requires_grad_(True)
            self._untouched = self._untouched or _copies(self.base)
        else:
            self._plain = _attach_lora(self.base, recipe, self.data)
        return self._plain

    def initial_values(self, recipe: Recipe) -> Values:
        """The trained tensors before the first step by their names in a saved adapter or model; of adapters copies."""
        if recipe.method == "full":
            return trained(self.begin(recipe))
        key = (recipe.method, recipe.lora.rank, recipe.lora.target_modules, recipe.seed)
        if key not in self._initial:
            with self._rows_aside():
                self._initial[key] = _copies(self.begin(recipe))
        return self._initial[key]

    def open_rows(self, recipe: Recipe) -> Rows:
        """An empty pack on the base, for trials with the method and the target layers of `recipe`."""
        if recipe.method == "full":
            self._rows = WholeModel(self.begin(recipe))
        else:
            self._to_base()
            self._rows = AdapterRows(self.base, self.placement.device, dropout=recipe.lora.dropout)
        return self._rows

    def base_evaluation(self, recipe: Recipe, compute: Any) -> Any:
        """The evaluation of the initial state, which only the seed of a new head can change; computed once."""
        key = recipe.seed if self.new_names else None
        if key not in self._base_losses:
            self._base_losses[key] = compute()
        return self._base_losses[key]

    def forgetting(self, rows: Rows, number: int) -> dict[str, float]:
        """How far the trial has moved from the base on general text; nothing when that is not watched."""
        watch = self.retention
        if watch is None:
            return {}
        with rows.only(number):
            return watch.measure(self.base)

    def _retention(self, spec: RetentionSpec | None) -> Retention | None:
        if spec is None:
            return None
        if self.data.label_names:
            raise BadInput(
                "the retention watch needs a model that writes text; a classifier writes nothing", value="labels"
            )
        text = read_general_text(Path(spec.text_path))
        watch = Retention(text, self.tokenizer, self.placement, vocabulary_size=self.base.config.vocab_size)
        watch.learn_base(self.base)
        return watch

    def tuned(self, recipe: Recipe, values: Values) -> Any:
        """The plain model with these trained tensors; of method `full` the model as it stands, with `values` in place."""
        model = self._plain if recipe.method == "full" else self.begin(recipe)
        load_trained(model, values)
        return model

    def save_tuned(self, recipe: Recipe, values: Values, folder: str) -> None:
        """Write a tuned model: a PEFT adapter (with the head, if new) or a whole model, and the tokenizer beside it."""
        with self._rows_aside():
            self.tuned(recipe, values).save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    def why_alone(self, recipe: Recipe) -> str | None:
        """Why a trial cannot share a forward pass with others, or None when it can."""
        if recipe.method == "full":
            return "full fine-tuning changes the base, so every trial needs its own"
        if random := self.why_random(recipe):
            return random
        strange = [name for name in self.new_names if not _is_linear(self.base, name)]
        return f"the new parameter {strange[0]} is not part of a linear layer" if strange else None

    def why_random(self, recipe: Recipe) -> str | None:
        """Why a pass in training mode draws random numbers, or None when it does not."""
        if self._has_dropout or (recipe.lora.dropout and recipe.method != "full"):
            return "its dropout draws are shared by all rows of a batch"
        return None

    @contextmanager
    def _rows_aside(self) -> Iterator[None]:
        """Inside, the base is free for a plain model; afterwards the pack is on it again."""
        rows = self._rows
        if not isinstance(rows, AdapterRows):
            yield
            return
        rows.uninstall()
        try:
            yield
        finally:
            self._to_base()
            self._rows = rows
            rows.install()

    def _to_base(self) -> None:
        """Back to the base as it was loaded."""
        if self._rows is not None:
            self._rows.uninstall()
            self._rows = None
        if self._plain is not self.base:
            self._plain.unload()
            self._plain = self.base
        if self._untouched:
            load_trained(self.base.requires_grad_(True), self._untouched)
            self.base.zero_grad(set_to_none=True)


def lora_scale(recipe: Recipe) -> float:
    """The factor of an adapter's output: alpha / rank, or alpha / sqrt(rank) for rsLoRA (arXiv 2312.03732)."""
    return recipe.lora.alpha / (math.sqrt(recipe.lora.rank) if recipe.lora.use_rslora else recipe.lora.rank)


def _has_dropout(model: torch.nn.Module) -> bool:
    """True when a forward pass in training mode draws random numbers."""
    layers = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    names = ("attention_dropout", "attention_probs_dropout_prob")
    return layers or any(getattr(model.config, name, 0) for name in names)


def _copies(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in trained(model).items()}


def _attach_lora(base: Any, recipe: Recipe, data: TrainingData) -> Any:
    import peft

    base.requires_grad_(False)
    if recipe.method == "qlora":
        base = peft.prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    config = peft.LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=recipe.lora.dropout,
        use_rslora=recipe.lora.use_rslora,
        target_modules=list(recipe.lora.target_modules) if recipe.lora.target_modules else "all-linear",
        task_type="SEQ_CLS" if data.label_names else "CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    try:
        return peft.get_peft_model(base, config)
    except ValueError as error:
        raise BadInput(
            "`lora.target_modules` must name linear layers of the model",
            value=recipe.lora.target_modules,
            next_step=f"leave it out for all linear layers ({str(error)[:80]})",
        ) from None


def _is_linear(model: Any, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), torch.nn.Linear)


@torch.no_grad()
def _reset_new(model: Any, names: list[str], *, seed: int) -> None:
    """Initialise a new head again from `seed`, as loading did."""
    torch.manual_seed(seed)
    for module_name in sorted({name.rpartition(".")[0] for name in names}):
        module = model.get_submodule(module_name)
        for flag in ("_is_hf_initialized",):
            for holder in (module, *module.parameters()):
                if hasattr(holder, flag):
                    delattr(holder, flag)
        model._init_weights(module)
