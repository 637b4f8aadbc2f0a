"""`finestep schema`: what a command takes, and what the files hold, as JSON schemas for programs; made from the options and the values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from types import UnionType
from typing import Annotated, TypeAlias, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, ParameterInfo

Schema: TypeAlias = dict[str, object]

WORDS = ((bool, "boolean"), (int, "integer"), (float, "number"))
VALUES = {
    "recipe": ("finestep.recipe", "Recipe", "a recipe file, and every trial's recipe"),
    "study": ("finestep.study", "StudySpec", "`spec` in a study's study.json"),
    "trial": ("finestep.trial", "Trial", "`trial` in a trial's trial.json"),
    "outcome": ("finestep.trial", "Outcome", "a trial's outcome.json"),
    "step": ("finestep.trial", "StepRecord", "a line of a trial's steps.jsonl"),
    "evaluation": ("finestep.trial", "EvalRecord", "a line of a trial's evaluations.jsonl"),
    "steering": ("finestep.store.commands", "Command", "a file in a study's commands/"),
}
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "kind": {"type": "string", "description": "A word for machines, e.g. BadInput."},
                "message": {"type": "string", "description": "What must hold, what was found, and where."},
                "place": {"type": ["string", "null"], "description": "File and line, option or field."},
                "next_step": {"type": "string", "description": "One thing to do about it."},
                "exit_code": {"type": "integer"},
            },
            "required": ["kind", "message", "place", "next_step", "exit_code"],
        }
    },
    "required": ["error"],
    "description": "The last line of standard output of any command with --json that fails.",
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(
    name: Annotated[
        str | None,
        typer.Argument(help="A command, or recipe, study, trial, ...; without one: the list."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="It always prints JSON.")] = False,
) -> None:
    """Print a command or a file as a JSON schema."""
    import json

    typer.echo(json.dumps(schema_of(name), indent=1))


def schema_of(name: str | None) -> Schema:
    """The schema of a command or a value; without a name, what there is.

    Raises:
        BadInput: there is nothing of that name.
    """
    from finestep.errors import BadInput, did_you_mean

    commands = _commands()
    if name is None:
        values = {key: told for key, (_, _, told) in VALUES.items()}
        values["error"] = ERROR["description"]  # type: ignore[assignment]
        return {"commands": {key: _first_line(one.__doc__) for key, one in commands.items()}, "values": values}
    if name in commands:
        return _of_command(name, commands[name])
    if name in VALUES:
        module, kind, told = VALUES[name]
        found: Schema = getattr(import_module(module), kind).model_json_schema()
        return {"$schema": DIALECT, **found, "x-where": told}
    if name == "error":
        return {"$schema": DIALECT, **ERROR}
    known = [*commands, *VALUES, "error"]
    raise BadInput(
        f"there is no schema of that name{did_you_mean(name, known)}",
        value=name,
        next_step="known: " + ", ".join(known),
    )


def _commands() -> dict[str, Callable[..., object]]:
    """The functions behind the commands, by name: those of the program that is loaded, which this file is a part of."""
    app: typer.Typer = import_module("finestep.cli.main").app
    found = {str(one.name): one.callback for one in app.registered_commands if one.callback is not None}
    return dict(sorted(found.items()))


def _of_command(name: str, function: Callable[..., object]) -> Schema:
    hints = get_type_hints(function, include_extras=True)
    told, required = {}, []
    for one in inspect.signature(function).parameters.values():
        if one.annotation in ("typer.Context", typer.Context):
            continue
        info, kind = _info_and_kind(hints[one.name], one.default)
        default = info.default if isinstance(one.default, ParameterInfo) else one.default
        if default in (inspect.Parameter.empty, ...):
            required.append(one.name)
        told[one.name] = _of_parameter(one.name, info, kind, default)
    return {
        "$schema": DIALECT,
        "title": f"finestep {name}",
        "description": inspect.getdoc(function),
        "type": "object",
        "properties": told,
        "required": required,
        "additionalProperties": False,
    }


def _info_and_kind(hint: object, default: object) -> tuple[ParameterInfo, object]:
    """(what is said of a parameter, its type), from `Annotated[type, info]` or `name: type = info`."""
    if get_origin(hint) is Annotated:
        kind, *more = get_args(hint)
        return next(one for one in more if isinstance(one, ParameterInfo)), kind
    assert isinstance(default, ParameterInfo)
    return default, hint


def _of_parameter(name: str, info: ParameterInfo, kind: object, default: object) -> Schema:
    """One option or argument; `x-option` is how it is written, `x-position`: it stands without a name."""
    told = _kind(kind)
    items = told.get("items")
    place = items if isinstance(items, dict) else told
    for bound, key in (("min", "minimum"), ("max", "maximum")):
        if (value := getattr(info, bound, None)) is not None:
            place[key] = value
    told["description"] = info.help or ""
    if isinstance(default, str | int | float | bool):
        told["default"] = default
    if isinstance(info, ArgumentInfo):
        return {**told, "x-position": True}
    said = [
        one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)
    ]  # Annotated: the first is one too
    written = next((one for one in said if one.startswith("--")), None)
    return {**told, "x-option": (written or "--" + name.replace("_", "-")).partition("/")[0]}


def _kind(kind: object) -> Schema:
    """`float | None` as number, `list[str]` as an array of strings."""
    parts = (
        [one for one in get_args(kind) if one is not type(None)] if get_origin(kind) in (Union, UnionType) else [kind]
    )
    if get_origin(parts[0]) is list:
        return {"type": "array", "items": _kind(get_args(parts[0])[0])}
    return {"type": next((word for one, word in WORDS if parts[0] is one), "string")}


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if (text or "").strip() else ""
