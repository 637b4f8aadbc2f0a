"""The command that goes on: from a recommendation to the search of the same experiment, or with a study; it runs nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from finestep.recipe import Recipe
from finestep.rules.compose import TOO_FEW_TO_SPLIT
from finestep.rules.recommendation import Recommendation
from finestep.study import Budget

USUAL_RUNS, MORE_RUNS = 6.0, 4.0
"""Full runs that usually settle a study (docs/figures/search.md), and how many more when it had as many."""
PROGRAM, COMMAND = "finestep", "tune"
BY_THE_SEARCH = ("learning_rate", "effective_batch_size", "optimizer.head_lr_multiplier")
"""What `tune` takes from `recommend` itself, and looks for."""
BY_THE_MACHINE = ("micro_batch_size", "num_devices")
BY_OPTION = ("method", "num_epochs", "max_length")


@dataclass(frozen=True)
class Asked:
    """What was given to `recommend`: its model and data as written, options on reading the data, and recipe fields that were fixed."""

    model: str | None = None
    data: str | None = None
    reading: Mapping[str, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)
    """Further options of `recommend`, to repeat it."""
    written: str | None = None
    """The file that the recipe was written to."""


def after_recommend(answer: Recommendation, asked: Asked) -> str:
    """What to do next with a recommendation, as a command where there is one that runs just this experiment."""
    recipe, rows = answer.recipe, answer.data.num_rows if answer.data else None
    if recipe is None:
        return "these values go into your own trainer"
    if answer.model.is_encoder_decoder and (answer.data is None or answer.data.task != "classification"):
        return (
            "finestep does not train sequence-to-sequence models; your own trainer does, under finestep tune --command"
        )
    if rows is not None and rows < TOO_FEW_TO_SPLIT:
        return f"these values go into your own trainer, as finestep needs {TOO_FEW_TO_SPLIT} rows to hold some out"
    if asked.data is None or asked.model is None:
        return _words([PROGRAM, "recommend", asked.model or "MODEL", asked.data or "DATA", *_options(asked.others)])
    if recipe.num_devices > 1:
        return _exported(asked)
    return _words([PROGRAM, COMMAND, asked.model, asked.data, *_experiment(recipe, asked)])


def after_rescale(recipe: Recipe, file: str, *, model: str | None, data: str | None) -> str:
    """What to do with a recipe that was moved: train it here, or in a trainer of several devices."""
    if recipe.num_devices > 1:
        return _words([PROGRAM, "export", file, "--to", "trl", "--model", model or "MODEL", "--data", data or "DATA"])
    return _words([PROGRAM, "train", file, model or "MODEL", data or "DATA"])


def _exported(asked: Asked) -> str:
    """A recipe for several devices goes to a trainer of its own; `--devices-per-trial` would train it here."""
    file = asked.written or "start.yaml"
    where = ["--to", "trl", "--model", str(asked.model), "--data", str(asked.data), *_options(asked.reading)]
    gpu = {"gpu": asked.others["gpu"]} if "gpu" in asked.others else {}
    export = _words([PROGRAM, "export", file, *where, *_options(gpu)])
    if asked.written:
        return export
    own = [PROGRAM, "recommend", str(asked.model), str(asked.data), *_options(asked.others), *_options(asked.reading)]
    return f"{_words([*own, '--yaml', file])} && {export}"


def _experiment(recipe: Recipe, asked: Asked) -> list[str]:
    """The options of `tune` that make its full run this recipe; rate and batch are what it looks for, unless they were fixed."""
    words = ["--method", recipe.method, "--epochs", f"{recipe.num_epochs:g}"]
    words += ["--max-length", str(recipe.max_length)] if recipe.max_length else []
    words += _options(asked.reading)
    start = Recipe(method=recipe.method)
    for name, value in _fields(recipe.model_dump()):
        own = name in asked.fixed
        skipped = name in (*BY_OPTION, *BY_THE_MACHINE) or (name in BY_THE_SEARCH and not own)
        if not skipped and (own or value != start.field(name)):
            words += ["--set", f"{name}={_value(value)}"]
    return words


def _fields(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _options(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ([f"--{name}", value] if value else [f"--{name}"])]


def _words(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def next_command(command: str, budget: Budget) -> str | None:
    """`command` with a larger `--budget` (and twice the `--time`, where that was given); None when it is no `finestep tune`.

    >>> next_command("finestep tune m d.jsonl --budget 2", Budget(full_runs=2))
    'finestep tune m d.jsonl --budget 6'
    """
    words = shlex.split(command)
    if words[:2] != [PROGRAM, COMMAND]:
        return None
    runs = USUAL_RUNS if budget.full_runs < USUAL_RUNS else budget.full_runs + MORE_RUNS
    words = _with_option(words, "--budget", f"{runs:g}")
    if budget.time_s is not None:
        words = _with_option(words, "--time", f"{2 * budget.time_s:g}s")
    return shlex.join(words)


def with_budget(command: str, full_runs: float) -> str:
    """A command with another `--budget`; one that takes none, such as `finestep train`, as it is.

    >>> with_budget("finestep tune m d.jsonl --budget 2.0", 3)
    'finestep tune m d.jsonl --budget 3'
    """
    words = shlex.split(command)
    return shlex.join(_with_option(words, "--budget", f"{full_runs:g}")) if words[:2] == [PROGRAM, COMMAND] else command


def _with_option(words: list[str], name: str, value: str) -> list[str]:
    """The words with the option's value replaced, wherever it stands, or added at the end."""
    kept = list(words)
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            kept[index + 1] = value
            return kept
        if re.match(rf"{re.escape(name)}=", word):
            kept[index] = f"{name}={value}"
            return kept
    return [*kept, name, value]
