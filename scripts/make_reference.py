"""Writes the reference pages of the site from the code: `python scripts/make_reference.py [FOLDER]`.

Commands come from the command line's own options, recipe fields from `Recipe`, the Python page from the docstrings of the public names.
Nothing heavy is imported, so torch is not needed. The pages are not kept in git: `make docs` writes them anew, and they cannot go stale.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import finestep
from finestep.cli.main import app
from finestep.cli.usual_options import usual_titles
from finestep.recipe import Recipe

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
WRITTEN = "<!-- written by scripts/make_reference.py -->"
BORROWED = {"contributing": "CONTRIBUTING.md", "architecture": "ARCHITECTURE.md", "changelog": "CHANGELOG.md"}
"""Pages of the site that lie at the top of the repository, where GitHub looks for them."""
SECTIONS = {"Args:": "Arguments", "Raises:": "Raises", "Returns:": "Returns", "Attributes:": "Attributes"}


def main() -> None:
    """Write all pages into the folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Name -> Markdown of every page."""
    own = {"commands": commands_page(), "recipe": recipe_page(), "python": python_page()}
    return own | {name: borrowed(file) for name, file in BORROWED.items()}


def commands_page() -> str:
    """Every command with every option, as `--help-all` has them."""
    group: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        WRITTEN,
        "",
        "An option in **bold** is one of the usual ones that `--help` shows. `--help-all` shows all of them.",
        "Exit codes are explained in [reliability](../reliability.md#exit-codes).",
        "",
    ]
    for name, command in group.commands.items():
        lines += [
            f"## finestep {name}",
            "",
            inspect.cleandoc(command.help or ""),
            "",
            *_option_table(name, command),
            "",
        ]
    return "\n".join(lines)


def _option_table(name: str, command: Any) -> Iterator[str]:
    usual = usual_titles(name)
    context = command.context_class(command, info_name=name)
    yield "| argument or option | what it does | default |"
    yield "|---|---|---|"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or parameter.name in ("help", "help_all"):
            continue
        is_argument = parameter.param_type_name == "argument"
        weight = "**" if is_argument or not usual or set(parameter.opts) & set(usual) else ""
        shown = parameter.name.upper() if is_argument else record[0].strip()
        text, default = _split_default(" ".join(record[1].split()))
        yield f"| {weight}`{shown}`{weight} | {_cell(text)} | {_cell(default)} |"


def _split_default(text: str) -> tuple[str, str]:
    """(help, default) of a help text that ends with its default in brackets.

    >>> _split_default("Passes over the data. [default: 1, for labels 3]")
    ('Passes over the data.', '1, for labels 3')
    """
    found = re.fullmatch(r"(.*?)\s*\[default: (.*?)\](.*)", text)
    return (f"{found[1]}{found[3]}", found[2]) if found else (text, "")


def recipe_page() -> str:
    """Every field of a recipe."""
    lines = [
        "# Recipe fields",
        WRITTEN,
        "",
        "A recipe is a YAML file with these fields. `finestep recommend --yaml FILE` writes one, and",
        "`--set group.field=value` sets any field on the command line. An empty default means that finestep decides.",
        "",
        *_field_table("", Recipe),
    ]
    groups = {name: field.annotation for name, field in Recipe.model_fields.items() if _is_group(field)}
    for name, group in groups.items():
        assert isinstance(group, type)
        lines += ["", f"## {name}", "", inspect.cleandoc(group.__doc__ or ""), "", *_field_table(f"{name}.", group)]
    return "\n".join([*lines, ""])


def _field_table(prefix: str, group: Any) -> Iterator[str]:
    yield "| field | meaning | values | default |"
    yield "|---|---|---|---|"
    for name, field in group.model_fields.items():
        if not _is_group(field):
            values = _cell(_values_of(field))
            yield f"| `{prefix}{name}` | {_cell(field.description or '')} | {values} | {_field_default(field)} |"


def _is_group(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _field_default(field: FieldInfo) -> str:
    return "" if field.default in (None, PydanticUndefined) else f"`{field.default}`"


def _values_of(field: FieldInfo) -> str:
    """What a field may be, in words: its choices, or its type and its bounds."""
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not NoneType]
    if get_origin(field.annotation) is Literal:
        return ", ".join(str(kind) for kind in kinds)
    words = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    kind = words.get(kinds[0], "list of names")
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = [f"{signs[sign]} {getattr(law, sign)}" for law in field.metadata for sign in signs if hasattr(law, sign)]
    return ", ".join([kind, *bounds])


def python_page() -> str:
    """The public names with their signatures and docstrings, read from the source without importing it."""
    lines = [
        "# Python API",
        WRITTEN,
        "",
        "These are the public names; everything else may change. [Guide](../python.md).",
        "",
    ]
    for name in sorted(finestep._WHERE, key=str.lower):
        lines += [f"## finestep.{name}", "", *_described(name, finestep._WHERE[name]), ""]
    return "\n".join(lines)


def _described(name: str, module: str) -> Iterator[str]:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)
    yield from ("```python", _signature(node), "```", "", *_as_markdown(ast.get_docstring(node) or ""))
    if isinstance(node, ast.ClassDef):
        yield from _members(node)


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        maker = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        return f"class {node.name}{_arguments(maker, skip_self=True) if maker else ''}"
    return f"{node.name}{_arguments(node)}{f' -> {ast.unparse(node.returns)}' if node.returns else ''}"


def _arguments(node: ast.FunctionDef, *, skip_self: bool = False) -> str:
    text = re.sub(r"(: [^=,]+(?:\[[^=]*?\])?[^=,]*)=", r"\1 = ", ast.unparse(node.args))
    text = re.sub(r"^(self|cls)(, )?", "", text) if skip_self else text
    if len(text) < 80:
        return f"({text})"
    parts = re.split(r", (?=[*\w]+(?:: |, |$)|\*)", text)
    return "(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def _members(node: ast.ClassDef) -> Iterator[str]:
    """Public fields and methods with a docstring of their own, as a table."""
    rows = []
    for member, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(member, ast.FunctionDef) and not member.name.startswith(("_", "on_")):
            is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in member.decorator_list)
            shown = member.name if is_property else member.name + "()"
            rows.append((shown, (ast.get_docstring(member) or "").partition("\n\n")[0]))
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            rows.append((member.target.id, _field_words(member, after)))
    rows = [(shown, text) for shown, text in rows if text and not shown.startswith("_")]
    if rows:
        yield from ("", "| member | what it is |", "|---|---|")
        yield from (f"| `{shown}` | {_cell(' '.join(text.split()))} |" for shown, text in rows)


def _field_words(member: ast.AnnAssign, after: ast.stmt | None) -> str:
    """The `description=` of a field, or the text below it."""
    for keyword in member.value.keywords if isinstance(member.value, ast.Call) else ():
        if keyword.arg == "description" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    is_text = (
        isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    )
    return after.value.value if is_text else ""  # type: ignore[union-attr, return-value]


def _as_markdown(docstring: str) -> Iterator[str]:
    """Paragraphs as they are, `Args:` and its kin as lists, examples and indented lines as code."""
    for block in docstring.split("\n\n"):
        head, _, rest = block.partition("\n")
        if head in SECTIONS:
            yield from (f"**{SECTIONS[head]}**", "", *_entries(inspect.cleandoc(rest)), "")
        elif block.startswith((">>>", "    ")) or " = " in head:
            yield from ("```python", inspect.cleandoc(block.replace("  # doctest: +SKIP", "")), "```", "")
        else:
            yield from (block, "")


def _entries(text: str) -> Iterator[str]:
    """`name: words` entries whose words may go on in deeper lines."""
    for entry in re.split(r"\n(?=\S)", text):
        name, colon, words = entry.partition(":")
        yield f"* `{name}`: {' '.join(words.split())}" if colon else f"* {' '.join(entry.split())}"


def borrowed(file: str) -> str:
    """A page from the top of the repository, with its links as they are from here."""
    text = (ROOT / file).read_text(encoding="utf-8")
    text = re.sub(r"\]\((?:docs/)([^)#]+)", r"](../\1", text)
    for name, other in BORROWED.items():
        text = text.replace(f"]({other}", f"]({name}.md")
    return text.replace("](README.md", "](../index.md")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
