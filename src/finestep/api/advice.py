"""`recommend` from Python: the same advice as on the command line, for rows in memory too. It runs nothing and needs no torch."""

from __future__ import annotations

from pathlib import Path

from finestep.api.rows import Rows, data_path
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.flows.recommend import recommend as recommended
from finestep.rules.compose import Ask
from finestep.rules.recommendation import Recommendation
from finestep.study import DataSpec
from finestep.survey.shipped import model_path


def recommend(
    model: str | Path | ModelFacts | None = None,
    data: Rows | DataSpec | DataFacts | None = None,
    *,
    method: str | None = None,
    hardware: HardwareFacts | str | None = None,
    params: str | None = None,
    ask: Ask | None = None,
    offline: bool = False,
) -> Recommendation:
    """The best-supported starting recipe, with an interval and a source for each number.

    Args:
        model: folder, Hub name, `shipped`, or facts that are already known.
        data: what `tune` takes (path, Hub name, rows in memory), or a specification, or facts that are already known.
        hardware: facts, or what to assume, e.g. "24GB", "h100", "4xa100", "cpu"; None = what is found here.
        params: size of a model that is not at hand, e.g. "7B".
        ask: what the user fixed (rank, batch, ...); `method` wins over its method.

    Raises:
        BadInput: an unknown name, unreadable files, or a model that cannot fit.

    >>> recommend(params="7B", method="lora", hardware="24GB").recipe.method
    'lora'
    """
    named = model if isinstance(model, ModelFacts) or model is None else model_path(str(model))
    known = data if isinstance(data, DataSpec | DataFacts) or data is None else data_path(data)
    return recommended(named, known, method=method, hardware=hardware, params=params, ask=ask, offline=offline)
