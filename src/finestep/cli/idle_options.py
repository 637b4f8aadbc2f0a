"""Options that would change nothing beside the others that were given: refused by name, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import typer

from finestep.errors import BadInput
from finestep.search.traits import traits_of

OPTION_OF = {
    "data_format": "--format",
    "setting": "--set",
    "tuned": "--tune",
    "recipe_file": "--recipe",
    "as_json": "--json",
}
"""Options whose parameter has another name."""
READING = ("columns", "data_format", "prompt", "completion", "system", "eval_data", "eval_share", "max_rows")
OWN_TRAINING = ("template", "unsafe_pickle", "trust_remote_code", "metric", "device", "threads", "pack", "max_length")
ON_DEVICES = ("on", "workers", "devices_per_trial", "sharding")


def given(context: typer.Context) -> set[str]:
    """Names of the parameters that stand on the command line."""
    return {name for name in context.params if _source(context, name) == "COMMANDLINE"}


def refuse_idle(names: Collection[str], idle: Mapping[str, str]) -> None:
    """Refuse the first of the given options that is idle.

    Args:
        names: parameters that were given.
        idle: reason by parameter.

    Raises:
        BadInput: with the option and the reason.
    """
    for name in names:
        if name in idle:
            option = OPTION_OF.get(name, "--" + name.replace("_", "-"))
            raise BadInput(f"`{option}` would change nothing: {idle[name]}", next_step="leave it out")


def idle_in_tune(*, strategy: str, has_command: bool, has_data: bool) -> dict[str, str]:
    """Options of `tune` that do nothing for this strategy and trainer, with the reason."""
    idle: dict[str, str] = {}
    if has_command:
        idle |= dict.fromkeys((*OWN_TRAINING, *ON_DEVICES), "`--command` trains by itself and is not told")
        if not has_data:
            idle |= dict.fromkeys(READING, "no data are named beside `--command`")
    traits = traits_of(strategy)
    if not traits.takes_prior:
        idle |= {
            "prior": "`--strategy sweep` has rates of its own",
            "prefer": "`--strategy sweep` takes the lowest loss",
        }
    else:
        idle["scaling"] = "only `--strategy sweep` scales rates by a rule"
    if not traits.adds_baseline:
        idle["baseline"] = f"`--strategy {strategy}` decides by itself what it runs"
    return idle


def idle_on_one_device(asked: Mapping[str, object]) -> dict[str, str]:
    """Options for several devices or machines that do nothing beside those that were given."""
    idle: dict[str, str] = {}
    if asked.get("on") is None:
        idle["workers"] = "it counts the workers of `--on`"
    if asked.get("devices_per_trial") in (None, 1) and not any(
        str(one).startswith("num_devices=") for one in _listed(asked.get("setting"))
    ):
        idle["sharding"] = "one device holds the whole model; `--devices-per-trial` says how many share it"
    return idle


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def idle_in_probe(*, predicts: bool) -> dict[str, str]:
    """Options of `probe` that do nothing when it predicts, or when it measures."""
    if not predicts:
        return dict.fromkeys(("gpu", "params", "optimizer"), "only a prediction (`--predict`, or no data) takes it")
    measuring = ("data", "columns", "batch", "price_per_hour", "budget", "device", "threads", "time", "again")
    return dict.fromkeys(measuring, "a prediction measures nothing and reads no data")


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None else ""
