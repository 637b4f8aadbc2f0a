"""Recommend: survey the model, the data and the machine, then run the rules; no training, no GPU, no torch.

It also reviews a configuration of another framework against what it would recommend.
"""

from __future__ import annotations

from dataclasses import replace

from finestep.errors import BadInput
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.rules.compose import Ask, check_method, compose
from finestep.rules.recommendation import Recommendation
from finestep.study import DataSpec


def recommend(
    model: str | ModelFacts | None = None,
    data: str | DataSpec | DataFacts | None = None,
    *,
    method: str | None = None,
    hardware: HardwareFacts | str | None = None,
    params: str | None = None,
    ask: Ask | None = None,
    offline: bool = False,
) -> Recommendation:
    """The best-supported starting recipe, with an interval and a source for each number.

    Args:
        model: folder, Hub name, or facts that are already known.
        data: file, folder, Hub name, specification, or facts that are already known.
        hardware: facts, or what to assume, e.g. "24GB", "h100", "4xa100", "cpu"; None = what is found here.
        params: size of a model that is not at hand, e.g. "7B".
        ask: what the user fixed (rank, batch, ...); `method` wins over its method.

    Raises:
        BadInput: an unknown name, unreadable files, or a model that cannot fit.
    """
    wanted = replace(ask or Ask(), method=method or (ask.method if ask else None))
    check_method(wanted.method)
    facts = _model(model, params, offline)
    return compose(facts, _data(data), _hardware(hardware), wanted)


def _model(model: str | ModelFacts | None, params: str | None, offline: bool) -> ModelFacts:
    from finestep.survey.model import facts_from_size, model_facts

    if isinstance(model, ModelFacts):
        return model
    if params is None:
        if model is None:
            raise BadInput("say which model", next_step="give a folder or a Hub name, or its size: --params 7B")
        return model_facts(model, offline=offline)
    sized = facts_from_size(params)
    if model is None:
        return sized
    try:
        return model_facts(model, offline=True)
    except BadInput:
        return sized.model_copy(update={"name": model})


def _data(data: str | DataSpec | DataFacts | None) -> DataFacts | None:
    from finestep.survey.data_sample import data_facts

    if data is None or isinstance(data, DataFacts):
        return data
    return data_facts(data if isinstance(data, DataSpec) else DataSpec(path=data))


def _hardware(hardware: HardwareFacts | str | None) -> HardwareFacts:
    from finestep.survey.hardware import hardware_facts

    return hardware if isinstance(hardware, HardwareFacts) else hardware_facts(hardware)
