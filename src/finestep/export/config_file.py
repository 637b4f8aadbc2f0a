"""Reading somebody's YAML or JSON config as plain values; tags and huge files are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from finestep.errors import BadInput

MAX_BYTES = 256 * 1024


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a .yaml, .yml or .json file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput("a config must be at most 256 KiB", place=str(path))
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput("no such config", value=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "a config must be a readable UTF-8 text file", value=type(error).__name__, place=str(path)
        ) from None
    is_json = path.suffix.lower() == ".json"
    tree = _json(text, path) if is_json else _yaml(text, path)
    if not isinstance(tree, dict):
        raise BadInput("a config must be a mapping of names to values", value=type(tree).__name__, place=str(path))
    return tree if is_json else _texts(tree, text)


def _texts(tree: dict[str, Any], text: str) -> dict[str, Any]:
    """Put back as text what YAML 1.1 readers (PyYAML) take for text: a rate without a point, like 1e-5."""
    for key, value in tree.items():
        if isinstance(value, dict):
            tree[key] = _texts(value, text)
        elif isinstance(value, float) and (
            found := re.search(rf"^\s*{re.escape(str(key))}:\s*(\d+[eE][-+]?\d+)\s*(#.*)?$", text, re.M)
        ):
            tree[key] = found[1]
    return tree


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput("the file is not valid JSON", value=str(error)[:100], place=str(path)) from None


def _yaml(text: str, path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    try:
        return reader.load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInput("the file is not valid YAML", value=str(error).split("\n")[0][:100], place=str(path)) from None
