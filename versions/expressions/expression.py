"""One compiled expression: JMESPath within a budget."""

from __future__ import annotations

from typing import Any

from versions.expressions.compiler import compile_tree, plain_path
from versions.expressions.errors import ExpressionError, ExpressionSyntaxError
from versions.expressions.syntax import parse, references
from versions.expressions.values import Budget, Lazy


class Expression:
    """Compiled once, evaluated many times; holds no state of an evaluation.

    `names` are the names it reads from the scope's root, `steps` the `<id>` of every `steps.<id>` among them (`*` for
    all of them).
    """

    __slots__ = ("_path", "_run", "names", "steps", "text")

    def __init__(self, text: str) -> None:
        tree = parse(text)
        self.text = text
        self._path = plain_path(tree)
        try:
            self._run = compile_tree(tree)
        except ExpressionSyntaxError as error:
            raise ExpressionSyntaxError(error.message, _guess_offset(text, error.message)) from None
        self.names, self.steps = references(tree)

    def evaluate(self, scope: Any, budget: Budget | None = None) -> Any:
        """Value of the expression in `scope` (a :class:`Lazy` or JSON value). Missing paths are None.

        Raises :class:`ExpressionError` for every failure. The result may share parts with the scope and is not
        measured: see :func:`versions.expressions.values.measure` before serialising it.
        """
        path = self._path
        if path is not None:
            value = scope
            for name in path:
                if type(value) is dict:
                    value = value.get(name)
                elif isinstance(value, Lazy):
                    value = value.field(name, budget)
                else:
                    return None
            return value.whole(budget) if isinstance(value, Lazy) else value
        budget = budget or Budget()
        try:
            result = self._run(scope, budget)
        except ExpressionError:
            raise
        except Exception as error:
            raise ExpressionError(f"the expression failed: {error}") from error
        budget.visit(0)
        return result


def _guess_offset(text: str, message: str) -> int:
    """Where the function the compiler complains about stands; the tree has no positions."""
    name, parenthesis, _ = message.removeprefix("unknown function ").partition("(")
    return max(text.find(f"{name}("), 0) if parenthesis else 0


def compile_expression(text: str) -> Expression:
    """Raises :class:`ExpressionSyntaxError` with the offset of the mistake."""
    return Expression(text)
