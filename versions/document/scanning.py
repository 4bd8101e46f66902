"""Templates and conditions inside a document: their syntax, and which nodes they mention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from versions.document.reading import Path, Problems
from versions.expressions import ExpressionSyntaxError, compile_condition, compile_template

Mention = tuple[str, Path]
"""A node id named in an expression, and where."""


def check_templates(problems: Problems, value: Any, path: Path) -> list[Mention]:
    """Compile every text inside `value`; all that are wrong are noted, not only the first."""
    found = sum(text.count("{{") for text in _texts(value))
    return _compiled(problems, compile_template, value, path) if problems.spend_expressions(found, path) else []


def check_condition(problems: Problems, value: Any, path: Path) -> list[Mention]:
    """Compile a condition: a text, `{field, operator, value}`, or a tree of all, any and not."""
    if not problems.spend_expressions(sum(1 for _ in _texts(value)), path):
        return []
    return [*_compiled(problems, compile_condition, value, path), *_fields(value, path)]


def _compiled(problems: Problems, compiler: Callable[..., Any], value: Any, path: Path) -> list[Mention]:
    errors: list[ExpressionSyntaxError] = []
    compiled = compiler(value, errors)
    for error in errors:
        problems.add("INVALID_EXPRESSION", (*path, *error.path), f"is not valid: {error}")
    return [
        (step, (*path, *where))
        for where, expression in compiled.expressions
        for step in sorted(expression.steps)
        if step != "*"
    ]


def _fields(condition: Any, path: Path) -> Iterator[Mention]:
    """Nodes named by the `field`s of a condition, which are plain paths and no expressions."""
    if isinstance(condition, list):
        for position, inner in enumerate(condition):
            yield from _fields(inner, (*path, position))
    elif isinstance(condition, dict):
        field = condition.get("field")
        if isinstance(field, str) and field.startswith("steps."):
            yield field.split(".", 2)[1], (*path, "field")
        for name in ("all", "any", "not"):
            yield from _fields(condition.get(name), (*path, name))


def _texts(value: Any) -> Iterator[str]:
    """Every text inside `value`."""
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, dict):
            stack.extend(inner.values())
        elif isinstance(inner, list):
            stack.extend(inner)
