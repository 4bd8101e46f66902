"""Templates and conditions inside a document: their syntax, and which nodes they mention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from versions.document.reading import Path, Problems
from versions.expressions import ExpressionSyntaxError, compile_condition, compile_template

Mention = tuple[str, Path]
"""A node id named in an expression, and where."""


def check_templates(problems: Problems, value: Any, path: Path) -> list[Mention]:
    """Compile every text inside `value`; all that are wrong are noted, not only the first."""
    return _compiled(problems, compile_template, value, path)


def check_condition(problems: Problems, value: Any, path: Path) -> list[Mention]:
    """Compile a condition: a text, `{field, operator, value}`, or a tree of all, any and not."""
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
    stack: list[tuple[Any, Path]] = [(condition, path)]
    while stack:
        value, where = stack.pop()
        if isinstance(value, list):
            stack.extend((item, (*where, position)) for position, item in enumerate(value))
        elif isinstance(value, dict):
            stack.extend((value[key], (*where, key)) for key in ("all", "any", "not") if key in value)
            field = value.get("field")
            if isinstance(field, str) and field.startswith("steps."):
                mentions.append((field.split(".")[1], (*where, "field")))
    return mentions
