"""Values that stand in the text of Python: what an argument will be, as far as it can be seen without running it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 8
MAX_TEXT = 1000
MAX_NUMBER = 2**53
FUNCTION = "[dynamic]"
"""Stands for a function."""
Lookup = Callable[[str], Any]


def text_of(node: ast.AST | None) -> str:
    """An expression's own text, on one line and cut short."""
    if node is None:
        return ""
    try:
        return _clean(ast.unparse(node))[:MAX_TEXT]
    except RecursionError:
        return "…"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def literal(node: ast.AST | None, lookup: Lookup, depth: int = 0) -> Any:
    """The value of an expression: a JSON value, :data:`FUNCTION`, or the expression's text when it is only computed.

    `lookup` finds what a name was given.
    """
    if node is None or depth > MAX_DEPTH:
        return None
    if isinstance(node, ast.Constant):
        return _constant(node)
    if isinstance(node, ast.JoinedStr):
        return template(node)
    if isinstance(node, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
        return FUNCTION
    if isinstance(node, ast.List | ast.Tuple):
        return [literal(item, lookup, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        return _dict(node, lookup, depth)
    if isinstance(node, ast.Name):
        found = lookup(node.id)
        if found is not None:
            return literal(found, lookup, depth + 1)
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return _computed(node, lookup, depth)
    return text_of(node)


def template(node: ast.JoinedStr) -> str:
    """An f-string as it is written, without its quotes."""
    parts = [
        str(part.value) if isinstance(part, ast.Constant) else "{" + text_of(getattr(part, "value", None)) + "}"
        for part in node.values
    ]
    return _clean("".join(parts))[:MAX_TEXT]


def _constant(node: ast.Constant) -> Any:
    value = node.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean(value)
    return value if isinstance(value, int | float) and abs(value) <= MAX_NUMBER else text_of(node)


def _dict(node: ast.Dict, lookup: Lookup, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        item = literal(value, lookup, depth + 1)
        if key is None:
            found |= item if isinstance(item, dict) else {}
        else:
            found[str(literal(key, lookup, depth + 1))] = item
    return found


def _computed(node: ast.BinOp | ast.UnaryOp, lookup: Lookup, depth: int) -> Any:
    """Products and sums of numbers, as in `60 * 1000`."""
    if isinstance(node, ast.UnaryOp):
        value = literal(node.operand, lookup, depth + 1)
        return -value if isinstance(node.op, ast.USub) and isinstance(value, int | float) else text_of(node)
    left, right = literal(node.left, lookup, depth + 1), literal(node.right, lookup, depth + 1)
    operation = _OPERATIONS.get(type(node.op))
    if operation is not None and isinstance(left, int | float) and isinstance(right, int | float):
        value = operation(left, right)
        if abs(value) <= MAX_NUMBER:
            return value
    return text_of(node)


_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
