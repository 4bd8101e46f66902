"""Values that stand in the text: what a call's argument will be, as far as it can be seen without running anything."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from tree_sitter import Node

MAX_DEPTH = 8
FUNCTION = "[dynamic]"
"""Stands for a function."""


def text_of(node: Node | None) -> str:
    """A node's own text."""
    return "" if node is None or node.text is None else node.text.decode("utf-8", "surrogatepass")


def literal(node: Node | None, lookup: Callable[[str], Node | None], depth: int = 0) -> Any:
    """The value of an expression: a JSON value, :data:`FUNCTION`, or the expression's text when it is only computed.

    `lookup` finds what a name at the top of the module was given.
    """
    if node is None or depth > MAX_DEPTH:
        return None
    kind = node.type
    if kind in ("string", "number", "unary_expression"):
        return _primitive(node)
    if kind in ("true", "false"):
        return kind == "true"
    if kind in ("null", "undefined"):
        return None
    if kind == "template_string":
        return text_of(node)[1:-1]
    if kind in ("arrow_function", "function_expression", "function"):
        return FUNCTION
    if kind == "array":
        return [literal(child, lookup, depth + 1) for child in node.named_children]
    if kind == "object":
        return _object(node, lookup, depth)
    if kind in ("parenthesized_expression", "satisfies_expression", "as_expression"):
        return literal(node.named_children[0], lookup, depth)
    if kind == "identifier":
        found = lookup(text_of(node))
        if found is not None and found.type in ("string", "number", "object", "template_string", "unary_expression"):
            return literal(found, lookup, depth + 1)
    if kind == "binary_expression":
        return _computed(node, lookup, depth)
    return text_of(node)


def _object(node: Node, lookup: Callable[[str], Node | None], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in node.named_children:
        if child.type == "pair":
            key = child.child_by_field_name("key")
            name = _primitive(key) if key is not None and key.type == "string" else text_of(key)
            found[str(name)] = literal(child.child_by_field_name("value"), lookup, depth + 1)
        elif child.type == "shorthand_property_identifier":
            value = lookup(text_of(child))
            found[text_of(child)] = text_of(child) if value is None else literal(value, lookup, depth + 1)
        elif child.type == "spread_element":
            inner = literal(child.named_children[0], lookup, depth + 1)
            found |= inner if isinstance(inner, dict) else {}
        elif child.type == "method_definition":
            found[text_of(child.child_by_field_name("name"))] = FUNCTION
    return found


def _computed(node: Node, lookup: Callable[[str], Node | None], depth: int) -> Any:
    """Products and sums of numbers, as in `60 * 1000`."""
    left = literal(node.child_by_field_name("left"), lookup, depth + 1)
    right = literal(node.child_by_field_name("right"), lookup, depth + 1)
    operator = text_of(node.child_by_field_name("operator"))
    if isinstance(left, int | float) and isinstance(right, int | float) and operator in ("*", "+", "-"):
        return {"*": left * right, "+": left + right, "-": left - right}[operator]
    return text_of(node)


def _primitive(node: Node) -> Any:
    text = text_of(node)
    if node.type == "string":
        return _unescaped(text)
    try:
        return ast.literal_eval(text.replace("_", "")) if not text.endswith("n") else text
    except (ValueError, SyntaxError):
        return text


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text[1:-1]
    try:
        # In two halves of UTF-16, or alone: what JavaScript writes so is one character, or none.
        value = str(ast.literal_eval(text))
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    except (ValueError, SyntaxError):
        return text[1:-1]
