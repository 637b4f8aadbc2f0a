"""The resident base: loaded once, put back into its initial state for every trial.

For LoRA the base stays frozen and the adapter is reset; for method `full` the initial weights are restored in place.
"""

from __future__ import annotations

from typing import Any

import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.train.loss import TokenLoss
from finestep.train.model import Placement, choose_placement, context_length, load_model, load_tokenizer
from finestep.train.tokens import TrainingData, prepare_data


class Resident:
    """Tokenizer, data and model of a study, shared by all its trials."""

    def __init__(self, model: ModelSpec, data: DataSpec, recipe: Recipe):
        self._spec = model
        self.placement: Placement = choose_placement(model, recipe)
        self.tokenizer = load_tokenizer(model)
        self.data: TrainingData = prepare_data(data, self.tokenizer, context_length=context_length(model))
        self._base, self.new_names = load_model(model, self.data, recipe, self.placement)
        self.token_loss = TokenLoss(self._base, self.placement)
        self.model: Any = self._base
        self._initial: dict[str, torch.Tensor] = {}
        self._initial_key: object = None
        self._base_losses: dict[object, Any] = {}

    def begin(self, recipe: Recipe) -> Any:
        """The model in the initial state of `recipe`: its seed, its method, its adapter; equal recipes start equal."""
        key = (recipe.method, recipe.lora if recipe.method != "full" else None, recipe.seed)
        if key != self._initial_key:
            self._build(recipe)
            self._initial = {name: value.detach().to("cpu", copy=True) for name, value in trained(self.model).items()}
            self._initial_key = key
        load_trained(self.model, self._initial)
        self.model.zero_grad(set_to_none=True)
        return self.model

    def base_evaluation(self, compute: Any) -> Any:
        """The evaluation of the initial state, computed once a seed and adapter."""
        if self._initial_key not in self._base_losses:
            self._base_losses[self._initial_key] = compute()
        return self._base_losses[self._initial_key]

    def _build(self, recipe: Recipe) -> None:
        if self.model is not self._base:
            self._base = self.model.unload()
        elif self._initial:
            load_trained(self._base, self._initial)
        if self._initial and self.new_names:
            _reset_new(self._base, self.new_names, seed=recipe.seed)
        self.model = self._base if recipe.method == "full" else _attach_lora(self._base, recipe, self.data)
        if recipe.method == "full":
            self.model.requires_grad_(True)


def trained(model: Any) -> dict[str, torch.Tensor]:
    """The parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def load_trained(model: Any, values: dict[str, torch.Tensor]) -> None:
    """Copy `values` into the trained parameters in place.

    Raises:
        BadInput: names or shapes do not fit (a checkpoint of another recipe).
    """
    parameters = trained(model)
    if parameters.keys() != values.keys():
        odd = sorted(parameters.keys() ^ values.keys())[:3]
        raise BadInput("the saved weights must fit the recipe's method and adapter", value=odd)
    for name, parameter in parameters.items():
        parameter.copy_(values[name].to(parameter.device, parameter.dtype))


def save_tuned(resident: Resident, folder: str) -> None:
    """Write the tuned model: a PEFT adapter (with the head, if new) or a whole model, and the tokenizer beside it."""
    resident.model.save_pretrained(folder, safe_serialization=True)
    resident.tokenizer.save_pretrained(folder)


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
