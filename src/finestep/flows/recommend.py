"""Recommend: survey the model, the data and the machine, then run the rules; no training, no GPU, no torch.

It also reviews a configuration of another framework against what it would recommend.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finestep.errors import BadInput
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.rules.compose import CPU_PARAMS, Ask, check_method, compose
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
    return compose(facts, _data(data), _hardware(hardware, facts), wanted)


def _model(model: str | ModelFacts | None, params: str | None, offline: bool) -> ModelFacts:
    from finestep.survey.model import facts_from_size, model_facts

    if isinstance(model, ModelFacts):
        return model
    if params is None:
        if model is None:
            raise BadInput("say which model", next_step="give a folder or a Hub name, or its size: --params 7B")
        return _by_files_or_name(model, offline)
    sized = facts_from_size(params)
    if model is None:
        return sized
    try:
        return model_facts(model, offline=True)
    except BadInput:
        return sized.model_copy(update={"name": model})


def _by_files_or_name(model: str, offline: bool) -> ModelFacts:
    """The model's own facts; for a Hub name that cannot be asked for, what its name says. A path that is not here is refused."""
    from finestep.survey.model import model_facts
    from finestep.survey.model_name import facts_from_name

    try:
        return model_facts(model, offline=offline)
    except BadInput:
        by_name = None if model.startswith((".", "/", "~")) or Path(model).exists() else facts_from_name(model)
        if by_name is None:
            raise
    return by_name


def _data(data: str | DataSpec | DataFacts | None) -> DataFacts | None:
    from finestep.survey.data_sample import data_facts, few_rows_facts

    if data is None or isinstance(data, DataFacts):
        return data
    spec = data if isinstance(data, DataSpec) else DataSpec(path=data)
    return few_rows_facts(spec) or data_facts(spec)


def _hardware(hardware: HardwareFacts | str | None, model: ModelFacts) -> HardwareFacts:
    """What is named, else what is here; a CPU decides nothing about a model that nobody trains on one."""
    from finestep.survey.hardware import hardware_facts

    if isinstance(hardware, HardwareFacts):
        return hardware
    found = hardware_facts(hardware)
    is_large = (model.num_parameters or 0) > CPU_PARAMS
    return (
        HardwareFacts(device="cpu", name="no card named")
        if hardware is None and found.device == "cpu" and is_large
        else found
    )
