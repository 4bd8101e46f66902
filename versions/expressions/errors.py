"""What can go wrong with an expression: its text, found when a document is written, or its evaluation."""

from __future__ import annotations


class ExpressionSyntaxError(ValueError):
    """The text is not an expression, template or condition.

    `offset` counts characters from the start of the offending string; `path` leads from the compiled value to that
    string (object keys and array positions).
    """

    def __init__(self, message: str, offset: int = 0, path: tuple[str | int, ...] = ()) -> None:
        self.message = message
        self.offset = offset
        self.path = path
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} (at character {self.offset})"

    def below(self, *parents: str | int) -> ExpressionSyntaxError:
        """The same error, seen from a value `parents` further out."""
        return ExpressionSyntaxError(self.message, self.offset, (*parents, *self.path))


class ExpressionError(Exception):
    """An evaluation failed: wrong types, or the budget is used up. Fails the step with `EXPRESSION_ERROR`."""


class BudgetExceeded(ExpressionError):
    """The evaluation visited, made or wrote more than it may."""
