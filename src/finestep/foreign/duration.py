"""How long somebody's run is: steps, where its schedule ends, warmup, and the rows that it is limited to."""

from __future__ import annotations

import re
from typing import TypedDict

from finestep.foreign.names import Options, number, whole

_DURATION = re.compile(r"([\d.]+)\s*(ba|ep|dur)")


class Length(TypedDict, total=False):
    """How long a run is, in the fields of `StatedLength`; what is not there was not stated."""

    max_steps: int | None
    decay_steps: int | None
    num_epochs: float | None
    max_samples: int | None
    eval_share: float | None
    num_eval_rows: int | None


def length_of(options: Options, places: dict[str, str]) -> Length:
    """Steps, passes, and the rows that a run is limited to. Notes the place of a limit of steps."""
    return {**_steps(options, places), **_of_duration(options), **_sample_limit(options), **_eval_rows(options)}


def _steps(options: Options, places: dict[str, str]) -> Length:
    """`max_steps`, `decay_steps` and `num_epochs`; a limit of 0 or -1 is none. Notes the place of the limit."""
    limits = [found for found in options.all("max_steps") if (whole(found.value) or 0) > 0]
    ends = [found for found in options.all("decay_steps") if (whole(found.value) or 0) > 0]
    first = limits[0] if limits else None
    if first is not None:
        places["max_steps"] = first.place
    end = next((found for found in ends if first is not None and found.place != first.place), None)
    epochs = next((number(found.value) for found in options.all("num_epochs") if number(found.value)), None)
    return {
        "max_steps": whole(first.value) if first else None,
        "decay_steps": whole(end.value) if end else None,
        "num_epochs": epochs if epochs and epochs > 0 else None,
    }


def _of_duration(options: Options) -> Length:
    """LLM Foundry's `max_duration`: 3ep or 1000ba."""
    stated = options.find("max_duration")
    found = _DURATION.fullmatch(str(stated.value)) if stated else None
    if not found:
        return {}
    return {"num_epochs": float(found[1])} if found[2] == "ep" else {"max_steps": int(float(found[1]))}


def warmup_of(options: Options) -> float | None:
    """Below 1 a share of the run, otherwise steps; steps win where both are stated, as in the Trainer."""
    stated = [number(found.value) for found in options.all("warmup_steps")]
    steps = next((value for value in stated if value is not None and value > 0), None)
    ratio = options.find("warmup_ratio")
    share = number(ratio.value) if ratio else None
    if steps is None and share:
        return share / 100 if ratio and ratio.place.endswith("percent") else share
    if steps is None:
        for found in options.all("warmup_steps"):
            words = _DURATION.fullmatch(str(found.value))
            if words:
                return float(words[1])
    return (
        steps if steps is not None else share if share is not None else next((v for v in stated if v is not None), None)
    )


def _sample_limit(options: Options) -> Length:
    """`max_samples`: the most rows that are used, a limit a data set times their number."""
    stated = options.find("max_samples")
    limit = whole(stated.value) if stated else None
    data = options.find("dataset")
    names = _names(data.value if data else None)
    if limit and limit > 0 and len(names) > 1:
        limit *= len(names)
    marked = [re.search(r"#(\d+)$", name) for name in names]
    if not limit and names and all(marked):
        limit = sum(int(found[1]) for found in marked if found)
    sliced = next(
        (re.search(r"train\[:(\d+)\]", str(value)) for value in options.values.values() if "train[:" in str(value)),
        None,
    )
    if not limit and sliced:
        limit = int(sliced[1])
    return {"max_samples": limit if limit and limit > 0 else None}


def _names(value: object) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [str(one) for one in value] if isinstance(value, list) else []


def _eval_rows(options: Options) -> Length:
    """Rows that are kept for validation: a share below 1, or a number."""
    stated = options.find("eval_split")
    value = number(stated.value) if stated else None
    if value is None or value <= 0:
        return {}
    return {"eval_share": value} if value < 1 else {"num_eval_rows": int(value)}
