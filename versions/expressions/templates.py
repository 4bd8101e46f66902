"""Templates: JSON values whose strings may hold `{{ expression }}`.

A string that is exactly one `{{ }}` becomes the expression's value; in longer strings each becomes text. `\\{{` is a
literal `{{`. An expression ends at the first `}}` outside quotes and backticks. Object keys are never templated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from versions.expressions.errors import ExpressionSyntaxError
from versions.expressions.expression import Expression
from versions.expressions.values import Budget, measure, to_text

MAX_DEPTH = 100
"""Levels of a templated value."""

_OPEN, _CLOSE = "{{", "}}"
_OPENING = re.compile(r"\\?\{\{")
# Within an expression: where a quoted part begins, or the end.
_MARK = re.compile(r"""['"`]|\}\}""")
# The rest of a quoted part, in which a backslash hides the next character; one without an end is given up at once.
_QUOTED = {quote: re.compile(rf"(?:[^{quote}\\]|\\.)*+{quote}", re.DOTALL) for quote in "'\"`"}

Renderer = Callable[[Any, "_Spending"], Any]


class _Spending:
    """Budgets of one rendering: what its expressions may do, and how large their results may be in all."""

    __slots__ = ("evaluation", "result")

    def __init__(self, budget: Budget | None) -> None:
        self.evaluation = budget or Budget()
        self.result = Budget()


class Template:
    """A compiled value. `constant`: nothing in it is templated and rendering returns the value itself.

    `typed`: it is one text that is nothing but one expression, whose value it becomes. `expressions` are all the
    expressions in it with the path to the string each stands in.
    """

    __slots__ = ("_render", "constant", "expressions", "typed", "value")

    def __init__(
        self,
        value: Any,
        render: Renderer | None,
        expressions: list[tuple[tuple[str | int, ...], Expression]],
        *,
        typed: bool,
    ) -> None:
        self.value = value
        self._render = render
        self.constant = render is None
        self.typed = typed
        self.expressions = expressions

    def render(self, scope: Any, budget: Budget | None = None) -> Any:
        """The value with every expression evaluated in `scope`, all within one `budget`.

        Raises :class:`ExpressionError`, also when what the expressions gave passes 100,000 nodes or 1 MiB of text
        (measured by a walk, shared parts counted each time). The result may share parts with the template and the
        scope; callers don't change it.
        """
        if self._render is None:
            return self.value
        return self._render(scope, _Spending(budget))


def compile_template(value: Any, problems: list[ExpressionSyntaxError] | None = None) -> Template:
    """Compile a JSON value. Syntax errors are raised, or collected when a list is given for them."""
    compiler = _Compiler(problems)
    render = compiler.compile(value, ())
    return Template(value, render, compiler.expressions, typed=compiler.typed)


class _Compiler:
    def __init__(self, problems: list[ExpressionSyntaxError] | None) -> None:
        self.problems = problems
        self.expressions: list[tuple[tuple[str | int, ...], Expression]] = []
        self.typed = False
        """The whole value is one expression."""

    def compile(self, value: Any, path: tuple[str | int, ...]) -> Renderer | None:
        """Renderer of a value, None when it is constant."""
        if isinstance(value, str):
            if _OPEN not in value:
                return None
            try:
                return self._text(value, path)
            except ExpressionSyntaxError as error:
                return self._problem(error.below(*path))
        if isinstance(value, (dict, list)) and len(path) >= MAX_DEPTH:
            return self._problem(ExpressionSyntaxError("the value is nested too deeply", 0, path))
        if isinstance(value, dict):
            return _object({key: (self.compile(member, (*path, key)), member) for key, member in value.items()})
        if isinstance(value, list):
            return _list([(self.compile(item, (*path, index)), item) for index, item in enumerate(value)])
        return None

    def _problem(self, error: ExpressionSyntaxError) -> None:
        if self.problems is None:
            raise error
        self.problems.append(error)

    def _text(self, text: str, path: tuple[str | int, ...]) -> Renderer:
        parts = [part for part in _split(text) if part != ""]
        self.expressions.extend((path, part) for part in parts if isinstance(part, Expression))
        if len(parts) > 1:
            return _interpolated(parts)
        if not isinstance(parts[0], Expression):
            return _constant(parts[0])
        self.typed = not path
        return _typed(parts[0])


def _split(text: str) -> list[str | Expression]:
    """Literal text and expressions, alternating."""
    parts: list[str | Expression] = []
    literal: list[str] = []
    position = 0
    while opening := _OPENING.search(text, position):
        literal.append(text[position : opening.start()])
        if opening[0] != _OPEN:
            literal.append(_OPEN)
            position = opening.end()
            continue
        end = _end(text, opening.end())
        parts += ["".join(literal), _expression(text, opening.end(), end)]
        literal = []
        position = end + len(_CLOSE)
    literal.append(text[position:])
    parts.append("".join(literal))
    return parts


def _end(text: str, start: int) -> int:
    position = start
    while mark := _MARK.search(text, position):
        if mark[0] == _CLOSE:
            return mark.start()
        quoted = _QUOTED[mark[0]].match(text, mark.end())
        if quoted is None:
            raise ExpressionSyntaxError(f"the quote {mark[0]} is not closed", mark.start())
        position = quoted.end()
    raise ExpressionSyntaxError("{{ without }}", start - len(_OPEN))


def _expression(text: str, start: int, end: int) -> Expression:
    source = text[start:end]
    stripped = source.strip()
    lead = start + len(source) - len(source.lstrip())
    try:
        return Expression(stripped)
    except ExpressionSyntaxError as error:
        raise ExpressionSyntaxError(error.message, min(lead, end) + error.offset) from None


# --- renderers ---------------------------------------------------------------------------------------------------


def _constant(value: Any) -> Renderer:
    return lambda _scope, _spending: value


def _typed(expression: Expression) -> Renderer:
    evaluate = expression.evaluate

    def render(scope: Any, spending: _Spending) -> Any:
        value = evaluate(scope, spending.evaluation)
        measure(value, spending.result)
        return value

    return render


def _interpolated(parts: list[str | Expression]) -> Renderer:
    def render(scope: Any, spending: _Spending) -> str:
        made: list[str] = []
        for part in parts:
            if isinstance(part, str):
                spending.result.write(len(part))
                made.append(part)
            else:
                made.append(to_text(part.evaluate(scope, spending.evaluation), spending.result))
        return "".join(made)

    return render


def _object(members: dict[str, tuple[Renderer | None, Any]]) -> Renderer | None:
    if all(render is None for render, _ in members.values()):
        return None

    def render(scope: Any, spending: _Spending) -> dict[str, Any]:
        return {key: value if inner is None else inner(scope, spending) for key, (inner, value) in members.items()}

    return render


def _list(items: list[tuple[Renderer | None, Any]]) -> Renderer | None:
    if all(render is None for render, _ in items):
        return None

    def render(scope: Any, spending: _Spending) -> list[Any]:
        return [value if inner is None else inner(scope, spending) for inner, value in items]

    return render
