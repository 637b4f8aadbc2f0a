"""The sizes of the house: short functions, small classes, few `Any`, no import cycles. A number here may fall, and never rises."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "finestep"
TORCH_ROOMS = {"train", "probes", "saved", "worker.py"}
MOST_LINES, MOST_FIELDS, MOST_METHODS = 45, 15, 20
MOST_ANY, MOST_ANY_IN_TORCH_ROOMS = 9, 0
"""The plan asks for 60 in all. What is left are four names of Ray's, which has no types for its actors, the state of the live page,
and the state of the live monitor."""


@functools.cache
def _trees() -> list[tuple[str, ast.Module]]:
    return [
        (path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(SOURCE.rglob("*.py"))
        if "shipped" not in path.parts
    ]


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a body without its docstring; a list of options is its signature, and does not count."""
    body = function.body
    has_docstring = ast.get_docstring(function) is not None
    first = body[1] if has_docstring and len(body) > 1 else body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def _fields(node: ast.ClassDef) -> set[str]:
    """Names that are declared in the class, or set on `self` in one of its methods."""
    found = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}
    for inner in ast.walk(node):
        targets = (
            inner.targets
            if isinstance(inner, ast.Assign)
            else [inner.target]
            if isinstance(inner, ast.AnnAssign)
            else []
        )
        for attribute in (part for target in targets for part in ast.walk(target) if isinstance(part, ast.Attribute)):
            if isinstance(attribute.value, ast.Name) and attribute.value.id == "self":
                found.add(attribute.attr)
    return found


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{name}:{node.name}"
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node) > MOST_LINES
    }
    assert not long, f"split them: {sorted(long)}"


def _classes() -> Iterator[tuple[str, int, int]]:
    """(name, fields, methods) of every class."""
    for name, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body)
                yield f"{name}:{node.name}", len(_fields(node)), methods


def test_no_class_does_several_jobs():
    large = {name for name, fields, methods in _classes() if fields > MOST_FIELDS or methods > MOST_METHODS}
    assert not large, f"give each job its file, and fields that belong together a part: {sorted(large)}"


def test_any_is_an_exception():
    counts = {True: 0, False: 0}
    for name, tree in _trees():
        number = sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))
        counts[name.partition("/")[0] in TORCH_ROOMS] += number
    assert counts[False] <= MOST_ANY, f"{counts[False]} `Any` outside the rooms of torch"
    assert counts[True] <= MOST_ANY_IN_TORCH_ROOMS, f"{counts[True]} `Any` in the rooms of torch"


def test_modules_do_not_import_each_other_in_a_circle():
    """Also inside functions: an import that has to wait for its turn is a circle that is hidden."""

    trees = dict(_trees())
    edges = {name: _imported(tree, set(trees)) - {name} for name, tree in trees.items()}
    done: set[str] = set()
    while ready := {name for name, needs in edges.items() if name not in done and needs <= done}:
        done |= ready
    circle = sorted(edges.keys() - done)
    assert not circle, f"in a circle, or above one: {circle}"


def _imported(tree: ast.Module, names: set[str]) -> set[str]:
    """Files of finestep that a module imports when it runs; imports for the type checker alone do not count."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only:
            base = node.module.split(".")[1:] if node.module.startswith("finestep") else None
            if base is not None:
                places = ["/".join(base), *("/".join([*base, alias.name]) for alias in node.names)]
                found |= {f"{place}.py" for place in places} & names
    return found
