"""YAML, JSON, TOML and INI texts as plain values; tags that build objects are refused, and nothing is run."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Callable

from finestep.errors import BadInput


def json_tree(text: str, place: str) -> object:
    """The values of a JSON text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput("the file is not valid JSON", value=str(error)[:100], place=place) from None


def toml_tree(text: str, place: str) -> object:
    """The values of a TOML text."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput("the file is not valid TOML", value=str(error)[:100], place=place) from None


def ini_tree(text: str, place: str) -> object:
    """The values of an INI text, by section."""
    reader = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        reader.read_string(text)
    except configparser.Error as error:
        raise BadInput("the file is not a valid INI file", value=str(error).split("\n")[0][:100], place=place) from None
    return {section: dict(reader[section]) for section in reader.sections()}


def yaml_tree(text: str, place: str) -> object:
    """The first mapping of a YAML text, with rates like 1e-5 as the text that PyYAML makes of them."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    reader.allow_duplicate_keys = True
    try:
        documents = list(reader.load_all(text))
    except (YAMLError, ValueError, RecursionError, TypeError) as error:
        raise BadInput("the file is not valid YAML", value=_first_line(error), place=place) from None
    tree = next((document for document in documents if isinstance(document, dict)), documents[0] if documents else None)
    return _texts(tree, text) if isinstance(tree, dict) else tree


def _first_line(error: Exception) -> str:
    line = getattr(getattr(error, "problem_mark", None), "line", None)
    where = f" (line {line + 1})" if line is not None else ""
    return str(error).split("\n")[0][:100] + where


def _texts(tree: dict[str, object], text: str) -> dict[str, object]:
    """Put back as text what YAML 1.1 readers (PyYAML) take for text: a rate without a point, like 1e-5."""
    for key, value in tree.items():
        if isinstance(value, dict):
            tree[key] = _texts(value, text)
        elif isinstance(value, float) and (
            found := re.search(rf"^\s*{re.escape(str(key))}:\s*(\d+[eE][-+]?\d+)\s*(#.*)?$", text, re.M)
        ):
            tree[key] = found[1]
    return tree


BY_SUFFIX: dict[str, Callable[[str, str], object]] = {
    ".json": json_tree,
    ".toml": toml_tree,
    ".ini": ini_tree,
    ".cfg": ini_tree,
    ".yaml": yaml_tree,
    ".yml": yaml_tree,
}
