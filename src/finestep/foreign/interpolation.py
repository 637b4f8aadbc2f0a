"""`${...}` of OmegaConf and Hydra configs, resolved against the file itself; the environment and other files are not read.

Known are `${a.b}`, `${.sibling}`, `${list[0]}`, `${oc.env:NAME,default}`, `${oc.select:key,default}`, `${oc.decode:text}` and sums in
`${eval:...}`, also inside one another. Whatever needs more is left out and named.
"""

from __future__ import annotations

import re

from finestep.foreign.arithmetic import arithmetic

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_MOST_ROUNDS = 32
_MISSING = object()


def resolved(tree: dict[str, object]) -> tuple[dict[str, object], tuple[str, ...]]:
    """(the tree with every `${...}` replaced, what could not be replaced).

    >>> resolved({"lr": 1e-4, "optimizer": {"lr": "${lr}"}})[0]["optimizer"]["lr"]
    0.0001
    """
    unknown: list[str] = []
    out = {key: _walk(value, tree, (str(key),), unknown) for key, value in tree.items()}
    return out, tuple(dict.fromkeys(unknown))


def _walk(node: object, root: dict[str, object], path: tuple[str, ...], unknown: list[str]) -> object:
    if isinstance(node, dict):
        return {key: _walk(value, root, (*path, str(key)), unknown) for key, value in node.items()}
    if isinstance(node, list):
        return [_walk(value, root, (*path, str(index)), unknown) for index, value in enumerate(node)]
    if not isinstance(node, str) or "${" not in node:
        return node
    value = _text(node, root, path, 0)
    if value is _MISSING:
        unknown.append(f"{'.'.join(path)}: {node}")
        return None
    return value


def _text(text: str, root: dict[str, object], path: tuple[str, ...], depth: int) -> object:
    """A text with its interpolations put in; one that is nothing else keeps the type of its value."""
    for _ in range(_MOST_ROUNDS):
        found = _INNERMOST.search(text)
        if found is None:
            return _MISSING if "${" in text else text
        value = _one(found[1].strip(), root, path, depth)
        if value is _MISSING:
            return _MISSING
        if found[0] == text.strip():
            return value
        text = text[: found.start()] + str(value) + text[found.end() :]
    return _MISSING


def _one(inner: str, root: dict[str, object], path: tuple[str, ...], depth: int) -> object:
    if depth > _MOST_ROUNDS:
        return _MISSING
    name, colon, rest = inner.partition(":")
    if not colon:
        return _node(inner, root, path, depth)
    first, comma, default = rest.partition(",")
    if name == "oc.select":
        value = _node(first.strip(), root, path, depth)
        return value if value is not _MISSING else _plain(default) if comma else _MISSING
    if name in ("oc.env", "env"):
        return _plain(default) if comma else _MISSING
    if name == "oc.decode":
        return _plain(rest)
    if name == "eval":
        value = arithmetic(rest.strip().strip("'\""))
        return _MISSING if value is None else value
    return _MISSING


def _node(key: str, root: dict[str, object], path: tuple[str, ...], depth: int) -> object:
    """The value under a dotted key; leading dots count from the place of the interpolation, as in OmegaConf."""
    dots = len(key) - len(key.lstrip("."))
    steps = [step for step in re.split(r"[.\[\]]+", key[dots:]) if step]
    if not steps:
        return _MISSING
    full = (*path[: max(0, len(path) - dots)], *steps) if dots else tuple(steps)
    node: object = root
    for step in full:
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            return _MISSING
    if isinstance(node, str) and "${" in node:
        return _text(node, root, full, depth + 1)
    return node


def _plain(text: str) -> object:
    """A default as a number where it is one."""
    text = text.strip().strip("'\"")
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return {"true": True, "false": False, "null": None, "none": None}.get(text.lower(), text)
