"""JMESPath's builtin functions with their type rules. Each pays the budget before it allocates or scans."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from versions.expressions.errors import ExpressionError
from versions.expressions.values import NUMBERS, Budget, equal, json_text, kind

Reference = Callable[[Any, Budget], Any]
"""A compiled `&expression`."""

ANY = frozenset[str]()
ARRAY, OBJECT = frozenset({"array"}), frozenset({"object"})
STRING, NUMBER = frozenset({"string"}), frozenset({"number"})
STRING_OR_ARRAY = STRING | ARRAY
SIZED = STRING | ARRAY | OBJECT
NUMBERS_ARRAY, STRINGS_ARRAY = frozenset({"array of number"}), frozenset({"array of string"})
SORTABLE = NUMBERS_ARRAY | STRINGS_ARRAY
EXPRESSION = frozenset({"expression"})


@dataclass(frozen=True, slots=True)
class Function:
    """A builtin: its parameters' types (the last one repeats when `variadic`) and what it does."""

    name: str
    parameters: tuple[frozenset[str], ...]
    variadic: bool
    call: Callable[..., Any]

    def arity_problem(self, count: int) -> str | None:
        """Why `count` arguments do not fit, or None."""
        wanted = len(self.parameters)
        if count == wanted or (self.variadic and count >= wanted):
            return None
        least = "at least " if self.variadic else ""
        return f"{self.name}() takes {least}{wanted} argument{'' if wanted == 1 else 's'}, not {count}"

    def takes_expression(self, position: int) -> bool:
        return position < len(self.parameters) and self.parameters[position] is EXPRESSION

    def check(self, arguments: list[Any], budget: Budget) -> None:
        """Raise when an argument has a type the function does not take."""
        for position, allowed in enumerate(self.parameters):
            if allowed and allowed is not EXPRESSION:
                self._check_one(arguments[position], allowed, budget)

    def _check_one(self, argument: Any, allowed: frozenset[str], budget: Budget) -> None:
        actual = kind(argument)
        if actual in allowed:
            return
        if actual == "array" and (allowed & SORTABLE):
            budget.visit(len(argument))
            kinds = {kind(element) for element in argument}
            if not kinds or (len(kinds) == 1 and f"array of {next(iter(kinds))}" in allowed):
                return
            actual = f"array of {' and '.join(sorted(kinds))}"
        raise ExpressionError(f"{self.name}() takes {' or '.join(sorted(allowed))}, not {actual}")


FUNCTIONS: dict[str, Function] = {}


def _builtin(name: str, *parameters: frozenset[str], variadic: bool = False) -> Callable[[Any], Any]:
    def register(call: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS[name] = Function(name, parameters, variadic, call)
        return call

    return register


# --- numbers -----------------------------------------------------------------------------------------------------


@_builtin("abs", NUMBER)
def _abs(_budget: Budget, number: float) -> float:
    return abs(number)


@_builtin("ceil", NUMBER)
def _ceil(_budget: Budget, number: float) -> int:
    return math.ceil(number)


@_builtin("floor", NUMBER)
def _floor(_budget: Budget, number: float) -> int:
    return math.floor(number)


@_builtin("sum", NUMBERS_ARRAY)
def _sum(_budget: Budget, numbers: list[float]) -> float:
    return sum(numbers)


@_builtin("avg", NUMBERS_ARRAY)
def _avg(_budget: Budget, numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


_JSON_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@_builtin("to_number", ANY)
def _to_number(budget: Budget, value: Any) -> float | None:
    """The number a string spells as JSON does; null for anything else that is not a number."""
    if type(value) in NUMBERS:
        return value
    if type(value) is not str:
        return None
    budget.scan(len(value))
    match = _JSON_NUMBER.fullmatch(value)
    if match is None:
        return None
    if match[1] is None and match[2] is None and len(value) <= 4_000:
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


# --- strings -----------------------------------------------------------------------------------------------------


@_builtin("starts_with", STRING, STRING)
def _starts_with(budget: Budget, subject: str, prefix: str) -> bool:
    budget.scan(len(prefix))
    return subject.startswith(prefix)


@_builtin("ends_with", STRING, STRING)
def _ends_with(budget: Budget, subject: str, suffix: str) -> bool:
    budget.scan(len(suffix))
    return subject.endswith(suffix)


@_builtin("join", STRING, STRINGS_ARRAY)
def _join(budget: Budget, separator: str, parts: list[str]) -> str:
    budget.visit(len(parts))
    budget.write(sum(map(len, parts)) + len(separator) * max(len(parts) - 1, 0))
    return separator.join(parts)


@_builtin("to_string", ANY)
def _to_string(budget: Budget, value: Any) -> str:
    return value if type(value) is str else json_text(value, budget)


def contains_text(budget: Budget, subject: str, part: str) -> bool:
    """Whether `part` occurs in `subject`. The price follows the worst case of the search, not the usual one."""
    budget.scan(len(subject) * (1 + min(len(part), 112) // 16))
    return part in subject


@_builtin("contains", STRING_OR_ARRAY, ANY)
def _contains(budget: Budget, subject: str | list[Any], search: Any) -> bool:
    if type(subject) is str:
        return type(search) is str and contains_text(budget, subject, search)
    return contains_element(budget, subject, search)


def contains_element(budget: Budget, elements: Any, search: Any) -> bool:
    for element in elements:
        budget.visit()
        if equal(element, search, budget):
            return True
    return False


@_builtin("length", SIZED)
def _length(_budget: Budget, subject: str | list[Any] | dict[str, Any]) -> int:
    return len(subject)


@_builtin("reverse", STRING_OR_ARRAY)
def _reverse(budget: Budget, subject: str | list[Any]) -> str | list[Any]:
    if type(subject) is str:
        budget.write(len(subject))
    else:
        budget.make(len(subject))
    return subject[::-1]


# --- arrays ------------------------------------------------------------------------------------------------------


def _pay_sort(budget: Budget, keys: list[Any]) -> None:
    rounds = max(len(keys).bit_length(), 1)
    budget.visit(len(keys) * rounds)
    if keys and type(keys[0]) is str:
        budget.scan(sum(map(len, keys)) * rounds)


@_builtin("sort", SORTABLE)
def _sort(budget: Budget, elements: list[Any]) -> list[Any]:
    budget.make(len(elements))
    _pay_sort(budget, elements)
    return sorted(elements)


@_builtin("max", SORTABLE)
def _max(budget: Budget, elements: list[Any]) -> Any:
    return _extreme(budget, elements, max)


@_builtin("min", SORTABLE)
def _min(budget: Budget, elements: list[Any]) -> Any:
    return _extreme(budget, elements, min)


def _extreme(budget: Budget, elements: list[Any], pick: Callable[..., Any]) -> Any:
    if elements and type(elements[0]) is str:
        budget.scan(sum(map(len, elements)))
    return pick(elements, default=None)


def _keys_of(name: str, budget: Budget, elements: list[Any], reference: Reference) -> list[Any]:
    """What `reference` makes of each element: all numbers or all strings."""
    keys: list[Any] = []
    for element in elements:
        budget.visit()
        keys.append(reference(element, budget))
    kinds = {kind(key) for key in keys}
    if len(kinds) > 1 or not kinds <= {"number", "string"}:
        raise ExpressionError(
            f"{name}() needs all numbers or all strings to compare, not {' and '.join(sorted(kinds))}"
        )
    return keys


@_builtin("sort_by", ARRAY, EXPRESSION)
def _sort_by(budget: Budget, elements: list[Any], reference: Reference) -> list[Any]:
    budget.make(2 * len(elements))
    keys = _keys_of("sort_by", budget, elements, reference)
    _pay_sort(budget, keys)
    return [elements[index] for index in sorted(range(len(elements)), key=keys.__getitem__)]


@_builtin("max_by", ARRAY, EXPRESSION)
def _max_by(budget: Budget, elements: list[Any], reference: Reference) -> Any:
    return _extreme_by("max_by", budget, elements, reference, max)


@_builtin("min_by", ARRAY, EXPRESSION)
def _min_by(budget: Budget, elements: list[Any], reference: Reference) -> Any:
    return _extreme_by("min_by", budget, elements, reference, min)


def _extreme_by(name: str, budget: Budget, elements: list[Any], reference: Reference, pick: Callable[..., Any]) -> Any:
    if not elements:
        return None
    budget.make(len(elements))
    keys = _keys_of(name, budget, elements, reference)
    if type(keys[0]) is str:
        budget.scan(sum(map(len, keys)))
    return elements[pick(range(len(elements)), key=keys.__getitem__)]


@_builtin("map", EXPRESSION, ARRAY)
def _map(budget: Budget, reference: Reference, elements: list[Any]) -> list[Any]:
    budget.make(len(elements))
    made: list[Any] = []
    for element in elements:
        budget.visit()
        made.append(reference(element, budget))
    return made


# --- objects -----------------------------------------------------------------------------------------------------


@_builtin("keys", OBJECT)
def _keys(budget: Budget, subject: dict[str, Any]) -> list[str]:
    budget.make(len(subject))
    return list(subject)


@_builtin("values", OBJECT)
def _values(budget: Budget, subject: dict[str, Any]) -> list[Any]:
    budget.make(len(subject))
    return list(subject.values())


@_builtin("merge", OBJECT, variadic=True)
def _merge(budget: Budget, *objects: dict[str, Any]) -> dict[str, Any]:
    budget.make(sum(map(len, objects)))
    merged: dict[str, Any] = {}
    for position, part in enumerate(objects):
        if type(part) is not dict:
            raise ExpressionError(f"merge() takes object, not {kind(part)} (argument {position + 1})")
        merged.update(part)
    return merged


# --- anything ----------------------------------------------------------------------------------------------------


@_builtin("type", ANY)
def _type(_budget: Budget, value: Any) -> str:
    return kind(value)


@_builtin("to_array", ANY)
def _to_array(budget: Budget, value: Any) -> list[Any]:
    if type(value) is list:
        return value
    budget.make(1)
    return [value]


@_builtin("not_null", ANY, variadic=True)
def _not_null(_budget: Budget, *values: Any) -> Any:
    for value in values:
        if value is not None:
            return value
    return None
