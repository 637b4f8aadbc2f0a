"""Sums and products that stand in shell scripts and configs, computed without running anything."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
LARGEST_POWER = 64


def arithmetic(text: str) -> float | None:
    """The value of an expression of numbers; None for anything else.

    >>> arithmetic("4 * 8 // 2")
    16
    """
    try:
        return compute(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def compute(node: ast.expr) -> float | None:
    """The value of a parsed expression of numbers; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = compute(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = compute(node.left), compute(node.right)
        if left is None or right is None:
            return None
        return combine(node.op, left, right)
    return None


def combine(op: ast.operator, left: float, right: float) -> float | None:
    """Two numbers under an operator; None where the result would be absurdly large or does not exist."""
    if type(op) not in _BINARY or (isinstance(op, ast.Pow) and abs(right) > LARGEST_POWER):
        return None
    try:
        value = _BINARY[type(op)](left, right)
    except (ZeroDivisionError, OverflowError):
        return None
    return value if isinstance(value, int | float) else None
