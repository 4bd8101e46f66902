"""JMESPath's tree to nested Python closures.

A closure takes a value and the budget, pays for its visit, and returns a value. Loops check the budget at every round;
between two rounds at most as many nodes are visited as the expression has, so leaves only subtract.

The scope's root and its `steps` are :class:`~versions.expressions.values.Lazy`. Which closures may meet one is known
here: everything that does more with a value than ask for a member gets it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from versions.expressions.errors import ExpressionError, ExpressionSyntaxError
from versions.expressions.functions import FUNCTIONS
from versions.expressions.syntax import Tree, bound, chain
from versions.expressions.values import NUMBERS, Budget, Lazy, equal, kind, truthy

Closure = Callable[[Any, Budget], Any]


def compile_tree(tree: Tree) -> Closure:
    """The closure of a whole expression; it may be given a :class:`Lazy` and never returns one."""
    return _solid(tree, True)


def plain_path(tree: Tree) -> tuple[str, ...] | None:
    """Member names when the expression is nothing but a path from the root (`trigger.a.b`), else None."""
    if tree["type"] == "field":
        return (tree["value"],)
    if tree["type"] == "subexpression" and all(child["type"] == "field" for child in tree["children"]):
        return tuple(child["value"] for child in tree["children"])
    return None


def _solid(node: Tree, lazy: bool) -> Closure:
    """Closure of `node` whose result is never lazy; `lazy`: its input may be."""
    run, may_be_lazy = _compile(node, lazy)
    if not may_be_lazy:
        return run

    def whole(value: Any, budget: Budget) -> Any:
        result = run(value, budget)
        return result.whole(budget) if isinstance(result, Lazy) else result

    return whole


def _compile(node: Tree, lazy: bool) -> tuple[Closure, bool]:
    """Closure of `node`, and whether its result may be lazy."""
    node = bound(node)
    path = plain_path(node)
    if path is not None:
        return _path(path) if lazy else _solid_path(path), lazy
    match node["type"]:
        case "current" | "identity":
            return _identity, lazy
        case "subexpression" | "pipe" | "index_expression":
            return _sequence(node, lazy)
        case "projection":
            return _projection(node, lazy), False
        case "value_projection":
            return _value_projection(node, lazy), False
        case "filter_projection":
            return _filter_projection(node, lazy), False
        case "flatten":
            return _flatten(node, lazy), False
        case "index":
            return _index(node["value"]), False
        case "slice":
            return _slice(*node["children"]), False
        case "literal":
            return _literal(node["value"]), False
        case "comparator":
            return _comparator(node, lazy), False
        case "or_expression":
            return _either(node, lazy, stop_at=True), False
        case "and_expression":
            return _either(node, lazy, stop_at=False), False
        case "not_expression":
            return _not(node, lazy), False
        case "multi_select_list":
            return _multi_select_list(node, lazy), False
        case "multi_select_dict":
            return _multi_select_dict(node, lazy), False
        case "function_expression":
            return _function(node, lazy), False
    raise ExpressionSyntaxError("&expression is only allowed as an argument of a function that takes one")


# --- leaves ------------------------------------------------------------------------------------------------------


def _identity(value: Any, budget: Budget) -> Any:
    budget.nodes -= 1
    return value


def _literal(literal: Any) -> Closure:
    def run(_value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        return literal

    return run


def _path(names: tuple[str, ...]) -> Closure:
    price = len(names)

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= price
        for name in names:
            if type(value) is dict:
                value = value.get(name)
            elif isinstance(value, Lazy):
                value = value.field(name, budget)
            else:
                return None
        return value

    return run


def _solid_path(names: tuple[str, ...]) -> Closure:
    price = len(names)

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= price
        for name in names:
            if type(value) is not dict:
                return None
            value = value.get(name)
        return value

    return run


def _index(position: int) -> Closure:
    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        if type(value) is not list or not -len(value) <= position < len(value):
            return None
        return value[position]

    return run


def _slice(start: int | None, stop: int | None, step: int | None) -> Closure:
    if step == 0:
        raise ExpressionSyntaxError("the step of a slice must not be 0")
    span = slice(start, stop, step)

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        if type(value) is not list:
            return None
        budget.make(len(range(*span.indices(len(value)))))
        return value[span]

    return run


# --- sequences and projections -----------------------------------------------------------------------------------


def _sequence(node: Tree, lazy: bool) -> tuple[Closure, bool]:
    """`a.b`, `a[0]`, `a | b`: each part sees the result of the one before."""
    parts: list[Closure] = []
    for child in chain(node) if node["type"] == "pipe" else node["children"]:
        part, lazy = _compile(child, lazy)
        parts.append(part)
    if len(parts) == 2:
        first, second = parts
        return (lambda value, budget: second(first(value, budget), budget)), lazy

    def run(value: Any, budget: Budget) -> Any:
        for part in parts:
            value = part(value, budget)
        return value

    return run, lazy


def _projection(node: Tree, lazy: bool) -> Closure:
    base, each = _solid(node["children"][0], lazy), _solid(node["children"][1], False)

    def run(value: Any, budget: Budget) -> Any:
        elements = base(value, budget)
        if type(elements) is not list:
            return None
        return _project(elements, each, budget)

    return run


def _value_projection(node: Tree, lazy: bool) -> Closure:
    base, each = _solid(node["children"][0], lazy), _solid(node["children"][1], False)

    def run(value: Any, budget: Budget) -> Any:
        members = base(value, budget)
        if type(members) is not dict:
            return None
        return _project(members.values(), each, budget)

    return run


def _project(elements: Any, each: Closure, budget: Budget) -> list[Any]:
    made: list[Any] = []
    for element in elements:
        budget.visit()
        result = each(element, budget)
        if result is not None:
            made.append(result)
    budget.make(len(made))
    return made


def _filter_projection(node: Tree, lazy: bool) -> Closure:
    base = _solid(node["children"][0], lazy)
    each, condition = _solid(node["children"][1], False), _solid(node["children"][2], False)

    def run(value: Any, budget: Budget) -> Any:
        elements = base(value, budget)
        if type(elements) is not list:
            return None
        made: list[Any] = []
        for element in elements:
            budget.visit()
            if truthy(condition(element, budget)):
                result = each(element, budget)
                if result is not None:
                    made.append(result)
        budget.make(len(made))
        return made

    return run


def _flatten(node: Tree, lazy: bool) -> Closure:
    base = _solid(node["children"][0], lazy)

    def run(value: Any, budget: Budget) -> Any:
        elements = base(value, budget)
        if type(elements) is not list:
            return None
        budget.visit(len(elements) + 1)
        budget.make(sum(len(element) if type(element) is list else 1 for element in elements))
        made: list[Any] = []
        for element in elements:
            if type(element) is list:
                made.extend(element)
            else:
                made.append(element)
        return made

    return run


# --- operators ---------------------------------------------------------------------------------------------------


def _comparator(node: Tree, lazy: bool) -> Closure:
    left, right = (_solid(child, lazy) for child in node["children"])
    operator = node["value"]
    if operator in ("eq", "ne"):
        wanted = operator == "eq"

        def compare(value: Any, budget: Budget) -> Any:
            budget.nodes -= 1
            return equal(left(value, budget), right(value, budget), budget) is wanted

        return compare
    order = _ORDER[operator]

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        a, b = left(value, budget), right(value, budget)
        if type(a) in NUMBERS and type(b) in NUMBERS:
            return order(a, b)
        if type(a) is str and type(b) is str:
            budget.scan(min(len(a), len(b)))
            return order(a, b)
        if kind(a) in _ORDERED and kind(b) in _ORDERED:
            raise ExpressionError(f"cannot compare {kind(a)} with {kind(b)}")
        return None

    return run


_ORDERED = ("number", "string")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
}


def _either(node: Tree, lazy: bool, *, stop_at: bool) -> Closure:
    """`||` stops at the first true operand, `&&` at the first false one; both give an operand's value."""
    operands = [_solid(child, lazy) for child in chain(node)]
    *firsts, last = operands

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        for operand in firsts:
            result = operand(value, budget)
            if truthy(result) is stop_at:
                return result
        return last(value, budget)

    return run


def _not(node: Tree, lazy: bool) -> Closure:
    operand = _solid(node["children"][0], lazy)

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        return not truthy(operand(value, budget))

    return run


def _multi_select_list(node: Tree, lazy: bool) -> Closure:
    parts = [_solid(child, lazy) for child in node["children"]]

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        if value is None:
            return None
        budget.make(len(parts))
        return [part(value, budget) for part in parts]

    return run


def _multi_select_dict(node: Tree, lazy: bool) -> Closure:
    parts = [(child["value"], _solid(child["children"][0], lazy)) for child in node["children"]]

    def run(value: Any, budget: Budget) -> Any:
        budget.nodes -= 1
        if value is None:
            return None
        budget.make(len(parts))
        return {name: part(value, budget) for name, part in parts}

    return run


def _function(node: Tree, lazy: bool) -> Closure:
    name, children = node["value"], node["children"]
    function = FUNCTIONS.get(name)
    if function is None:
        raise ExpressionSyntaxError(f"unknown function {name}()")
    problem = function.arity_problem(len(children))
    if problem is not None:
        raise ExpressionSyntaxError(problem)
    arguments = [_argument(function.takes_expression(i), name, child, lazy) for i, child in enumerate(children)]
    call, check = function.call, function.check

    def run(value: Any, budget: Budget) -> Any:
        budget.visit()
        values = [argument(value, budget) for argument in arguments]
        check(values, budget)
        return call(budget, *values)

    return run


def _argument(takes_expression: bool, function: str, node: Tree, lazy: bool) -> Closure:
    if not takes_expression:
        return _solid(node, lazy)
    if node["type"] != "expref":
        raise ExpressionSyntaxError(f"{function}() takes an &expression here")
    reference = _solid(node["children"][0], False)
    return lambda _value, _budget: reference
