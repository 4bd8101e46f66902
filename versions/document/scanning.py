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
    found = 0
    for inner, _ in _walk(value, path):
        found += inner.count("{{") if isinstance(inner, str) else 0
    return _compiled(problems, compile_template, value, path) if problems.spend_expressions(found, path) else []


def check_condition(problems: Problems, value: Any, path: Path) -> list[Mention]:
    """Compile a condition: a text, `{field, operator, value}`, or a tree of all, any and not."""
    if not problems.spend_expressions(sum(isinstance(inner, str) for inner, _ in _walk(value, path)), path):
        return []
    return _compiled(problems, compile_condition, value, path) + _fields(value, path)


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


def _fields(condition: Any, path: Path) -> list[Mention]:
    """Nodes named by the `field`s of a condition, which are plain paths and no expressions."""
    mentions: list[Mention] = []
    for value, where in _walk(condition, path):
        field = value.get("field") if isinstance(value, dict) and where[-1:] != ("value",) else None
        if isinstance(field, str) and field.startswith("steps."):
            mentions.append((field.split(".")[1], (*where, "field")))
    return mentions


def _walk(value: Any, path: Path) -> Iterator[tuple[Any, Path]]:
    """`value` and everything inside it, each with its path."""
    stack: list[tuple[Any, Path]] = [(value, path)]
    while stack:
        inner, where = stack.pop()
        yield inner, where
        if isinstance(inner, dict):
            stack.extend((item, (*where, key)) for key, item in inner.items())
        elif isinstance(inner, list):
            stack.extend((item, (*where, position)) for position, item in enumerate(inner))
