"""Expressions, templates and conditions of the definition document.

JMESPath's language, our own evaluator: a tenant's expression runs in a worker it shares with others, so every
evaluation pays from a budget. Compile once, evaluate often:

compile_expression(text).evaluate(scope)      a JSON value
compile_template(value).render(scope)         the value with every `{{ }}` replaced
compile_condition(value).holds(scope)         true or false

`scope` is a JSON object or a :class:`Lazy`. Syntax errors are :class:`ExpressionSyntaxError`, all others
:class:`ExpressionError`.
"""

from versions.expressions.conditions import (
    OPERATORS,
    Comparison,
    Condition,
    compile_condition,
    compile_field,
    timestamp,
)
from versions.expressions.errors import BudgetExceeded, ExpressionError, ExpressionSyntaxError
from versions.expressions.expression import Expression, compile_expression
from versions.expressions.templates import Template, compile_template
from versions.expressions.values import Budget, Lazy, decode_json, encode_json, measure, truthy

__all__ = [
    "OPERATORS",
    "Budget",
    "BudgetExceeded",
    "Comparison",
    "Condition",
    "Expression",
    "ExpressionError",
    "ExpressionSyntaxError",
    "Lazy",
    "Template",
    "compile_condition",
    "compile_expression",
    "compile_field",
    "compile_template",
    "decode_json",
    "encode_json",
    "measure",
    "timestamp",
    "truthy",
]
