"""Recipes as YAML files, both ways; every complaint names the file, the line and the allowed range.

It never accepts a key that it does not know, and reads no anchors, tags or files over 256 KiB.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from finestep.disk import refuse_special
from finestep.errors import BadInput, did_you_mean, first_complaint
from finestep.recipe import Recipe
from finestep.store.records import write_whole
from finestep.yaml_text import Noted, yaml_text

if TYPE_CHECKING:
    from ruamel.yaml import YAML

MAX_BYTES = 256 * 1024
MAX_DEPTH = 4


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; errors carry `file:line`."""
    return parse_recipe(_read_text(path), place=str(path))


def fields_in(path: Path) -> set[str]:
    """Dotted names of the fields that a recipe file gives a value, `null` aside."""
    tree = _load_yaml(_read_text(path), place=str(path)) or {}
    found: set[str] = set()
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        leaves = value if isinstance(value, Mapping) else {"": value}
        found |= {f"{name}.{leaf}" if leaf else str(name) for leaf, one in leaves.items() if one is not None}
    return found


def parse_recipe(text: str, *, place: str) -> Recipe:
    """Read a recipe from YAML text; `place` is what errors call it."""
    tree = _load_yaml(text, place=place)
    if tree is None:
        tree = {}
    if not isinstance(tree, Mapping):
        raise BadInput("a recipe must be a mapping of names to values", value=type(tree).__name__, place=place)
    return recipe_from_mapping(tree, place=place)


def recipe_from_mapping(tree: Mapping[str, object], *, place: str, start: Recipe | None = None) -> Recipe:
    """Check names and values against the fields of `Recipe`; `start` fills what `tree` leaves out."""
    _refuse_unknown(tree, Recipe, place=place, prefix="")
    try:
        values = {str(key): _plain(value) for key, value in tree.items()}
        return start.changed(**values) if start else Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, tree, place) from None


def apply_settings(recipe: Recipe, settings: list[str]) -> Recipe:
    """Apply `group.field=value` settings as given on the command line, all at once: their order does not count."""
    whole: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise BadInput(
                "`--set` takes group.field=value", value=setting, next_step="e.g. --set schedule.name=cosine"
            )
        first, *inner = name.strip().split(".")
        value = _load_yaml(text, place=f"--set {name}")
        for part in reversed(inner):
            value = {part: value}
        whole = _joined(whole, {first: value})
    place = " ".join(f"--set {setting}" for setting in settings)
    return recipe_from_mapping(whole, place=place, start=recipe) if whole else recipe


def _joined(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, object]:
    """Both trees; where both say something, the second counts."""
    both = {**first, **second}
    for name, value in second.items():
        before = first.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            both[name] = _joined(before, value)
    return both


def named_fields(settings: list[str]) -> set[str]:
    """Dotted names of the fields, or groups, that `group.field=value` settings name."""
    return {setting.partition("=")[0].strip() for setting in settings}


def recipe_yaml(recipe: Recipe, *, comments: Mapping[str, str] | None = None, header: str = "") -> str:
    """The recipe as YAML; floats read `1.0e-05`, which every YAML reader takes for a number.

    Args:
        comments: text behind a value, by dotted field name.
        header: comment lines for the top of the file.
    """
    return yaml_text(_tree(recipe, comments or {}, prefix=""), header=header.splitlines())


def write_recipe(path: Path, recipe: Recipe, *, comments: Mapping[str, str] | None = None, header: str = "") -> None:
    """Write a recipe so that the file is either old or new, never half."""
    write_whole(path, recipe_yaml(recipe, comments=comments, header=header))


def _tree(group: BaseModel, comments: Mapping[str, str], *, prefix: str) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name in type(group).model_fields:
        value, dotted = getattr(group, name), f"{prefix}{name}"
        entry = _tree(value, comments, prefix=f"{dotted}.") if isinstance(value, BaseModel) else value
        tree[name] = Noted(entry, comments[dotted]) if dotted in comments else entry
    return tree


def _read_text(path: Path) -> str:
    refuse_special(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadInput("a recipe file must be at most 256 KiB", value=f"{size:,} bytes", place=str(path))
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput("no such recipe file", value=str(path), next_step="`finestep tune` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "a recipe must be a readable UTF-8 text file", value=type(error).__name__, place=str(path)
        ) from None


def _load_yaml(text: str, *, place: str) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = YAML(typ="rt", pure=True)
    reader.version = (1, 2)
    try:
        _refuse_tricks(reader, text, place=place)
        return reader.load(io.StringIO(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"the file is not valid YAML ({error.problem})", place=f"{place}:{line}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInput("the file is not valid YAML", value=str(error).split("\n")[0][:120], place=place) from None


def _refuse_tricks(reader: YAML, text: str, *, place: str) -> None:
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

    depth = 0
    for event in reader.parse(io.StringIO(text)):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        tricky = isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor)
        if tricky or getattr(event, "tag", None) or depth > MAX_DEPTH:
            line = event.start_mark.line + 1
            raise BadInput("a recipe has no anchors, aliases, tags or deep nesting", place=f"{place}:{line}")


def _plain(node: object) -> object:
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _refuse_unknown(tree: Mapping[str, object], model: type[BaseModel], *, place: str, prefix: str) -> None:
    for key, value in tree.items():
        field = model.model_fields.get(str(key))
        if field is None:
            where = _group_that_has(str(key))
            hint = f" (it belongs under `{where}:`)" if where else did_you_mean(str(key), model.model_fields)
            raise BadInput(
                f"unknown name `{prefix}{key}`{hint}",
                place=_line(tree, key, place),
                next_step="known here: " + ", ".join(model.model_fields),
            )
        group = _group_of(field)
        if group and isinstance(value, Mapping):
            _refuse_unknown(value, group, place=place, prefix=f"{prefix}{key}.")


def _group_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _group_that_has(name: str) -> str | None:
    for group_name, field in Recipe.model_fields.items():
        group = _group_of(field)
        if group and name in group.model_fields:
            return group_name
    return None


def _line(tree: object, key: object, place: str) -> str:
    marks = getattr(tree, "lc", None)
    position = (marks.data or {}).get(key) if marks is not None else None
    return f"{place}:{position[0] + 1}" if position else place


def _explain(error: ValidationError, tree: Mapping[str, object], place: str) -> BadInput:
    name, law, value = first_complaint(error)
    if not name:
        return BadInput(law, place=place)
    names = name.split(".")
    node: object = tree
    for part in names[:-1]:
        node = node.get(part, node) if isinstance(node, Mapping) else node
    where = _line(node, names[-1], place)
    return BadInput(f"`{name}`: {law}", value=value, place=where, next_step=_allowed(names))


def _allowed(names: list[str]) -> str | None:
    model: type[BaseModel] = Recipe
    field: FieldInfo | None = None
    for name in names:
        field = model.model_fields.get(name)
        if field is None:
            return None
        model = _group_of(field) or model
    return f"it means: {field.description}" if field and field.description else None
