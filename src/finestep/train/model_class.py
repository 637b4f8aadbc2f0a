"""Which class of transformers can do a task with a model, and whether its weights fit. It loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finestep.errors import BadInput
from finestep.study import ModelSpec
from finestep.survey.weights import SEQ2SEQ_LAW, SEQ2SEQ_NEXT_STEP
from finestep.train.optimizer import HEAD_NAMES
from finestep.train.tokens import TrainingData

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def auto_class(config: PretrainedConfig, data: TrainingData, spec: ModelSpec) -> str:
    """The class of transformers that has the head for the task.

    Raises:
        BadInput: transformers has none for this type of model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSequenceClassification

    has_own_code = bool(getattr(config, "auto_map", None)) and spec.trust_remote_code
    kind, text = type(config), config.model_type
    if data.label_names:
        if kind in AutoModelForSequenceClassification._model_mapping or has_own_code:
            return "AutoModelForSequenceClassification"
        raise BadInput(
            "transformers has no classification head for this type of model",
            value=text,
            place=spec.path,
            next_step="let it write the label instead: --columns prompt=TEXT_COLUMN,completion=LABEL_COLUMN",
        )
    if config.is_encoder_decoder:
        raise BadInput(
            SEQ2SEQ_LAW,
            value=text,
            place=spec.path,
            next_step=SEQ2SEQ_NEXT_STEP,
        )
    if kind in AutoModelForCausalLM._model_mapping or has_own_code:
        return "AutoModelForCausalLM"
    if kind in AutoModelForImageTextToText._model_mapping:
        return "AutoModelForImageTextToText"
    raise BadInput(
        "this data needs a causal language model",
        value=text,
        place=spec.path,
        next_step="an encoder learns from rows with a text and a label",
    )


def check_new(new: list[str], replaced: list[str], data: TrainingData, spec: ModelSpec) -> None:
    """Raise BadInput where weights are missing that only a new classification head may lack."""
    if new and not data.label_names:
        raise BadInput("the weights lack parameters of the model", value=", ".join(new[:4]), place=spec.path)
    inside = [name for name in replaced if not HEAD_NAMES.search(name)]
    if inside:
        raise BadInput("the weights must fit the config", value=", ".join(inside[:4]), place=spec.path)
