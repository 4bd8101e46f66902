"""Conditions: the one grammar of `when`, condition nodes, `match`, retry and trigger conditions.

A string is an expression judged by JMESPath truth; an object is `{field, operator, value}`, `{all: [...]}`,
`{any: [...]}` or `{not: ...}`. There is no operator for regular expressions: a pattern of a tenant's can stall a shared
worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from versions.expressions.errors import ExpressionSyntaxError
from versions.expressions.expression import Expression
from versions.expressions.functions import contains_element, contains_text
from versions.expressions.templates import Template, compile_template
from versions.expressions.values import NUMBERS, Budget, Lazy, equal, kind, truthy

MAX_NESTING = 8
MAX_FIELD = 1_024
"""Characters of a field."""

Warn = Callable[[str], None]
Check = Callable[["_Judging"], bool]


class _Judging:
    """One evaluation of a condition: its scope, its budget, and where complaints go."""

    __slots__ = ("budget", "scope", "warn")

    def __init__(self, scope: Any, warn: Warn | None, budget: Budget | None) -> None:
        self.scope = scope
        self.budget = budget or Budget()
        self.warn = warn


class Condition:
    """A compiled condition. `expressions`: the expressions in it, with the path to each."""

    __slots__ = ("_check", "expressions")

    def __init__(self, check: Check, expressions: list[tuple[tuple[str | int, ...], Expression]]) -> None:
        self._check = check
        self.expressions = expressions

    def holds(self, scope: Any, warn: Warn | None = None, budget: Budget | None = None) -> bool:
        """Whether the condition is true in `scope`, all of it within one `budget`.

        Values of types an operator does not compare make it false, and `warn` is told in a sentence. Raises
        :class:`~versions.expressions.errors.ExpressionError`.
        """
        return self._check(_Judging(scope, warn, budget))


def compile_condition(value: Any, problems: list[ExpressionSyntaxError] | None = None) -> Condition:
    """Compile a condition. Errors are raised, or collected when a list is given for them."""
    found: list[ExpressionSyntaxError] = [] if problems is None else problems
    compiler = _Compiler(found)
    check = compiler.compile(value, (), 1)
    if problems is None and found:
        raise found[0]
    return Condition(check, compiler.expressions)


class Comparison:
    """One `{field, operator, value}`; also what a condition node reports on."""

    __slots__ = ("field", "operator", "read", "test", "value")

    def __init__(self, field: Any, operator: Any, value: Any) -> None:
        """Raises :class:`ExpressionSyntaxError`; its path names the offending member."""
        if operator is None:
            raise ExpressionSyntaxError("operator is required", 0, ("operator",))
        if not isinstance(operator, str) or operator not in _TESTS:
            known = ", ".join(sorted(_TESTS))
            raise ExpressionSyntaxError(f"unknown operator {operator!r}; known are {known}", 0, ("operator",))
        self.read = compile_field(field)
        self.field = field
        self.operator = operator
        self.test = _TESTS[operator]
        try:
            self.value: Template = compile_template(value)
        except ExpressionSyntaxError as error:
            raise error.below("value") from None
        if operator in ("in", "not_in") and self.value.constant and not isinstance(value, list):
            needed = "value is required: " if value is None else ""
            raise ExpressionSyntaxError(f"{needed}{operator} needs an array to look in", 0, ("value",))

    def judge(self, scope: Any, warn: Warn | None = None, budget: Budget | None = None) -> tuple[bool, Any, Any]:
        """Verdict, the field's value, and the value it was compared with."""
        budget = budget or Budget()
        actual, wanted = self.read(scope, budget), self.value.render(scope, budget)
        mismatches: list[str] = []
        verdict = self.test(actual, wanted, mismatches.append, budget)
        if mismatches and warn is not None:
            warn(f"{self.field} {self.operator}: {mismatches[0]}")
        return verdict, actual, wanted


class _Compiler:
    def __init__(self, problems: list[ExpressionSyntaxError]) -> None:
        self.problems = problems
        self.expressions: list[tuple[tuple[str | int, ...], Expression]] = []

    def compile(self, value: Any, path: tuple[str | int, ...], depth: int) -> Check:
        try:
            return self._compile(value, path, depth)
        except ExpressionSyntaxError as error:
            self.problems.append(error.below(*path))
            return _never

    def _compile(self, value: Any, path: tuple[str | int, ...], depth: int) -> Check:
        if depth > MAX_NESTING:
            raise ExpressionSyntaxError(f"conditions are nested at most {MAX_NESTING} deep")
        if isinstance(value, str):
            expression = Expression(value)
            self.expressions.append((path, expression))
            return lambda judging: truthy(expression.evaluate(judging.scope, judging.budget))
        if not isinstance(value, dict):
            raise ExpressionSyntaxError("a condition is a string or an object")
        if "field" in value or "operator" in value:
            return self._comparison(value, path)
        if len(value) == 1 and (name := next(iter(value))) in ("all", "any", "not"):
            return self._combined(name, value[name], path, depth)
        raise ExpressionSyntaxError("a condition has field and operator, or one of all, any and not")

    def _comparison(self, value: dict[str, Any], path: tuple[str | int, ...]) -> Check:
        unknown = sorted(value.keys() - {"field", "operator", "value"})
        if unknown:
            raise ExpressionSyntaxError(f"unknown key {unknown[0]!r} in a condition", 0, (unknown[0],))
        comparison = Comparison(value.get("field"), value.get("operator"), value.get("value"))
        self.expressions.extend(((*path, "value", *inner), e) for inner, e in comparison.value.expressions)
        return lambda judging: comparison.judge(judging.scope, judging.warn, judging.budget)[0]

    def _combined(self, name: str, inner: Any, path: tuple[str | int, ...], depth: int) -> Check:
        if name == "not":
            check = self.compile(inner, (*path, "not"), depth + 1)
            return lambda judging: not check(judging)
        if not isinstance(inner, list):
            raise ExpressionSyntaxError(f"{name} is an array of conditions", 0, (name,))
        checks = [self.compile(each, (*path, name, index), depth + 1) for index, each in enumerate(inner)]
        combine = all if name == "all" else any
        return lambda judging: combine(check(judging) for check in checks)


def _never(_judging: _Judging) -> bool:
    return False


# --- fields ------------------------------------------------------------------------------------------------------

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def compile_field(field: Any) -> Callable[[Any, Budget], Any]:
    """Reader of a dotted path without braces: `trigger.items.0.sku`. Missing is None.

    Raises :class:`ExpressionSyntaxError`.
    """
    if field is None:
        raise ExpressionSyntaxError("field is required", 0, ("field",))
    if not isinstance(field, str) or not field or len(field) > MAX_FIELD:
        raise ExpressionSyntaxError(f"a field is a dotted path of 1 to {MAX_FIELD} characters", 0, ("field",))
    if "{{" in field or "}}" in field:
        raise ExpressionSyntaxError("a field is a path without braces", 0, ("field",))
    names = field.split(".")
    if "" in names:
        raise ExpressionSyntaxError("a field has a name between its dots", field.find("..") + 1, ("field",))
    steps = [(name, int(name) if _INDEX.fullmatch(name) else None) for name in names]

    def read(value: Any, budget: Budget) -> Any:
        for name, index in steps:
            if type(value) is dict:
                value = value.get(name)
            elif type(value) is list:
                value = value[index] if index is not None and index < len(value) else None
            elif isinstance(value, Lazy):
                value = value.field(name, budget)
            else:
                return None
        return value.whole(budget) if isinstance(value, Lazy) else value

    return read


# --- operators ---------------------------------------------------------------------------------------------------

Test = Callable[[Any, Any, Warn, Budget], bool]


def _equals(actual: Any, wanted: Any, _mismatch: Warn, budget: Budget) -> bool:
    return equal(actual, wanted, budget)


def _ordering(order: Callable[[Any, Any], bool]) -> Test:
    def test(actual: Any, wanted: Any, mismatch: Warn, _budget: Budget) -> bool:
        if type(actual) in NUMBERS and type(wanted) in NUMBERS:
            return order(actual, wanted)
        first, second = timestamp(actual), timestamp(wanted)
        if first is not None and second is not None:
            return order(first, second)
        mismatch(f"{kind(actual)} and {kind(wanted)} are neither two numbers nor two timestamps")
        return False

    return test


_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def timestamp(value: Any) -> datetime | None:
    """The moment an RFC 3339 text names (offset required, leap seconds and finer than microseconds cut), or None."""
    if type(value) is not str or len(value) > 40:
        return None
    match = _TIMESTAMP.fullmatch(value)
    if match is None:
        return None
    day, time, fraction, offset = match.groups()
    offset = "+00:00" if offset in "Zz" else offset
    time = time if not time.endswith(":60") else f"{time[:-2]}59"
    try:
        return datetime.fromisoformat(f"{day}T{time}.{(fraction or '')[:6]:0<6}{offset}")
    except ValueError:
        return None


def _contains(actual: Any, wanted: Any, mismatch: Warn, budget: Budget) -> bool:
    if type(actual) is list:
        return contains_element(budget, actual, wanted)
    if type(actual) in (str, dict) and type(wanted) is str:
        return contains_text(budget, actual, wanted) if type(actual) is str else wanted in actual
    mismatch(f"{kind(actual)} cannot contain {kind(wanted)}")
    return False


def _in(actual: Any, wanted: Any, mismatch: Warn, budget: Budget) -> bool:
    if type(wanted) is list:
        return contains_element(budget, wanted, actual)
    mismatch(f"{kind(wanted)} is not an array")
    return False


def _exists(actual: Any, _wanted: Any, _mismatch: Warn, _budget: Budget) -> bool:
    return actual is not None


def _is_empty(actual: Any, _wanted: Any, _mismatch: Warn, _budget: Budget) -> bool:
    return actual is None or (type(actual) in (str, list, dict) and not actual)


def _affix(look: Callable[[str, str], bool]) -> Test:
    def test(actual: Any, wanted: Any, mismatch: Warn, _budget: Budget) -> bool:
        if type(actual) is str and type(wanted) is str:
            return look(actual, wanted)
        mismatch(f"{kind(actual)} and {kind(wanted)} are not both strings")
        return False

    return test


def _negated(test: Test) -> Test:
    return lambda actual, wanted, mismatch, budget: not test(actual, wanted, mismatch, budget)


_greater, _greater_or_equal = _ordering(lambda a, b: a > b), _ordering(lambda a, b: a >= b)
_less, _less_or_equal = _ordering(lambda a, b: a < b), _ordering(lambda a, b: a <= b)

_TESTS: dict[str, Test] = {
    "equals": _equals,
    "eq": _equals,
    "not_equals": _negated(_equals),
    "ne": _negated(_equals),
    "neq": _negated(_equals),
    "greater_than": _greater,
    "gt": _greater,
    "greater_than_or_equal": _greater_or_equal,
    "gte": _greater_or_equal,
    "less_than": _less,
    "lt": _less,
    "less_than_or_equal": _less_or_equal,
    "lte": _less_or_equal,
    "contains": _contains,
    "not_contains": _negated(_contains),
    "in": _in,
    "not_in": _negated(_in),
    "exists": _exists,
    "not_exists": _negated(_exists),
    "is_empty": _is_empty,
    "is_not_empty": _negated(_is_empty),
    "starts_with": _affix(str.startswith),
    "ends_with": _affix(str.endswith),
}
OPERATORS = frozenset(_TESTS)
