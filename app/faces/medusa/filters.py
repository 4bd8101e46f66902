"""The query of the list of executions: filters, order and page, as a search."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.errors import InvalidRequest
from app.faces.medusa.fields import Fields, parse_fields
from app.faces.medusa.query_strings import Node, Problems, parse, problem
from app.faces.medusa.states import FACETS, STATES
from instances.listing import date_in
from instances.search.query import (
    PAGE_MAX,
    AnyOf,
    By,
    Compare,
    Every,
    Facet,
    Field,
    InFacets,
    Not,
    Op,
    Predicate,
    Search,
)
from tenants.spellings import WORKFLOW_EXECUTION, parse_key, parse_ulid, parse_uuid

LIMIT = 100
NESTED_MAX = 3
"""How deep `$and` and `$or` may be nested."""
LEAVES_MAX = 20
"""Comparisons inside `$and` and `$or`."""

FILTERS = ("id", "workflow_id", "transaction_id", "state", "created_at", "updated_at")
_PLAIN = ("limit", "offset", "order", "fields", "q", "with_deleted")
_ORDERS: Mapping[str, By] = {
    "id": By.CREATED,
    "workflow_id": By.HANDLE,
    "transaction_id": By.TRANSACTION_ID,
    "state": By.FACET,
    "created_at": By.CREATED,
    "updated_at": By.UPDATED,
}
OPERATORS = {
    "$eq": Op.EQ,
    "$ne": Op.NE,
    "$in": Op.IN,
    "$nin": Op.NOT_IN,
    "$like": Op.LIKE,
    "$ilike": Op.ILIKE,
    "$gt": Op.GT,
    "$gte": Op.GTE,
    "$lt": Op.LT,
    "$lte": Op.LTE,
    "$contains": Op.CONTAINS,
}
_EQUALITIES = frozenset({Op.EQ, Op.NE, Op.IN, Op.NOT_IN})
_LISTS = frozenset({Op.IN, Op.NOT_IN})
_TEXTUAL = frozenset({Op.LIKE, Op.ILIKE, Op.CONTAINS})
_RANKS: dict[Facet, int] = {facet: sorted(STATES).index(state) for state in STATES for facet in FACETS[state]}
"""States in the order of their names."""
_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,18})")
NEVER = AnyOf(())


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list was asked for."""

    search: Search
    fields: Fields


def list_query(query: bytes) -> ListQuery:
    """The query string of a list. Raises :class:`InvalidRequest`, naming the field and the rule."""
    root, problems = parse(query), Problems()
    limit = problems.of(_number, root, "limit", LIMIT)
    offset = problems.of(_offset, root)
    order = problems.of(_order, root)
    fields = problems.of(_text, root, "fields")
    sought = problems.of(_search_text, root)
    with_deleted = problems.of(_switch, root, "with_deleted")
    filters = problems.of(_Filter().of, root)
    problems.of(_require_known, root, (*_PLAIN, *FILTERS, "$and", "$or"))
    problems.check()
    by, descending = order or (By.TRANSACTION, False)
    picked = parse_fields(fields)
    wanted = Search(
        where=Every((*(filters or ()), *(sought or ()))),
        with_deleted=with_deleted is True,
        by=by,
        descending=descending,
        ranks=_RANKS,
        limit=min(max(LIMIT if limit is None else limit, 1), PAGE_MAX),
        offset=offset or 0,
        payloads=picked.has("context"),
    )
    return ListQuery(wanted, picked)


def fields_query(query: bytes) -> Fields:
    """The query string of a single execution: `fields`, and nothing else."""
    root = parse(query)
    _require_known(root, ("fields",))
    return parse_fields(_text(root, "fields"))


def _require_known(root: Node, known: tuple[str, ...]) -> None:
    unknown = [name for name in root.inside if name not in known]
    if unknown:
        raise problem("Unrecognized fields: " + ", ".join(f"'{name[:100]}'" for name in unknown[:20]))


# --- plain parameters --------------------------------------------------------------------------------------------


def _text(root: Node, name: str, expected: str = "string") -> str | None:
    node = root.inside.get(name)
    if node is None:
        return None
    if node.inside or len(node.texts) != 1:
        raise _wrong_type(expected, name, _kind(node))
    return node.texts[0]


def _number(root: Node, name: str, default: int) -> int:
    """A number, of which the beginning counts, as in JavaScript."""
    text = _text(root, name, "number")
    if text is None:
        return default
    match = _INTEGER.match(text)
    if match is None:
        raise _wrong_type("number", name, "NaN")
    return int(match[1])


def _offset(root: Node) -> int:
    offset = _number(root, "offset", 0)
    if offset < 0:
        raise problem("Value for field 'offset' too small, expected at least: '0'")
    return offset


def _switch(root: Node, name: str) -> bool:
    text = _text(root, name, "boolean")
    if text not in (None, "true", "false"):
        raise _wrong_type("boolean", name, "string")
    return text == "true"


def _order(root: Node) -> tuple[By, bool]:
    """By workflow, transaction and run when nothing else is said."""
    text = _text(root, "order")
    if not text:
        return By.TRANSACTION, False
    by = _ORDERS.get(text.removeprefix("-"))
    if by is None:
        raise problem(f"Expected: '{', '.join(_ORDERS)}' for field 'order', but got: '{text[:100]}'")
    return by, text.startswith("-")


def _search_text(root: Node) -> list[Predicate]:
    """`q`: in the transaction's id, the workflow's, or the state; or the run's id, whole."""
    text = _text(root, "q")
    if not text:
        return []
    parts: list[Predicate] = [
        Compare(Field.TRANSACTION_ID, Op.CONTAINS, text),
        Compare(Field.HANDLE, Op.CONTAINS, text),
    ]
    states = [state for state in STATES if text.lower() in state]
    if states:
        parts.append(_in_states(states))
    key = parse_ulid(text) or parse_key(text, WORKFLOW_EXECUTION)
    if key is not None:
        parts.append(Compare(Field.KEY, Op.EQ, key))
    return [AnyOf(tuple(parts))]


# --- filters -----------------------------------------------------------------------------------------------------


class _Filter:
    """Reads filter objects, and counts what is nested."""

    def __init__(self) -> None:
        self._leaves = 0

    def of(self, node: Node, depth: int = 0) -> list[Predicate]:
        """What a filter object asks, all of which must hold."""
        parts: list[Predicate] = []
        for name, value in node.inside.items():
            if name in FILTERS:
                found = _field(name, value)
                parts += found
                self._leaves += len(found) if depth else 0
            elif name in ("$and", "$or"):
                parts.append(self._combined(name, value, depth + 1))
            elif depth:
                raise problem(f"Unrecognized fields: '{name[:100]}'")
        if self._leaves > LEAVES_MAX:
            raise problem(f"A filter may make at most {LEAVES_MAX} comparisons in '$and' and '$or'")
        return parts

    def _combined(self, name: str, node: Node, depth: int) -> Predicate:
        if depth > NESTED_MAX:
            raise problem(f"'$and' and '$or' may be nested {NESTED_MAX} deep")
        if not node.is_list or node.texts:
            raise _wrong_type("array", name, _kind(node))
        parts = [Every(tuple(self._object(name, item, depth))) for item in node.items]
        return Every(tuple(parts)) if name == "$and" else AnyOf(tuple(parts))

    def _object(self, name: str, node: Node, depth: int) -> list[Predicate]:
        if node.texts or not node.inside:
            raise _wrong_type("object", name, _kind(node))
        return self.of(node, depth)


def _field(name: str, node: Node) -> list[Predicate]:
    """The comparisons of one field: a text, several, or an object of operators."""
    if node.inside and not node.is_list:
        if node.texts:
            raise _wrong_type("object", name, "array")
        return [_compared(name, operation, value) for operation, value in node.inside.items()]
    texts = _texts(name, node)
    if not node.is_list and len(texts) == 1:
        return [_comparison(name, Op.EQ, texts)]
    return [_comparison(name, Op.IN, texts)]


def _compared(name: str, operation: str, node: Node) -> Predicate:
    op = OPERATORS.get(operation)
    if op is None:
        raise problem(f"Unrecognized fields: '{name}.{operation[:100]}'")
    texts = _texts(f"{name}.{operation}", node)
    if op in _LISTS:
        return _comparison(name, op, texts if node.is_list or len(texts) > 1 else texts[0].split(","))
    if len(texts) != 1 or node.is_list:
        raise _wrong_type("string", f"{name}.{operation}", "array")
    return _comparison(name, op, texts)


def _texts(name: str, node: Node) -> list[str]:
    """The texts under a name; an array of one is split at commas."""
    if not node.inside:
        return node.texts
    if not node.is_list:
        raise _wrong_type("string", name, "object")
    texts = list(node.texts)
    for item in node.items:
        if item.inside:
            raise _wrong_type("string", name, "object")
        texts += item.texts
    return texts[0].split(",") if len(texts) == 1 else texts


def _comparison(name: str, op: Op, texts: list[str]) -> Predicate:
    try:
        return _COMPARED[name](name, op, texts)
    except InvalidRequest as error:
        raise error if error.problems else problem(f"Field '{name}': {error.message}") from None


def _of_id(name: str, op: Op, texts: list[str]) -> Predicate:
    if op in _TEXTUAL:
        raise _no_operator(name, op)
    keys = tuple(key for text in texts if (key := parse_key(text, WORKFLOW_EXECUTION)) is not None)
    if op not in _EQUALITIES:  # ids are in the order of their keys
        if not keys:
            raise problem(f"Expected: 'the id of an execution' for field '{name}', but got: '{texts[0][:100]}'")
        return Compare(Field.KEY, op, keys[0])
    found: Predicate = Compare(Field.KEY, Op.IN, keys) if keys else NEVER
    return Not(found) if op in (Op.NE, Op.NOT_IN) else found


def _of_workflow(name: str, op: Op, texts: list[str]) -> Predicate:
    """By name; whole ones may be given as the workflow's UUID, too."""
    named = _of_text(Field.HANDLE, op, texts)
    keys = tuple(key for text in texts if (key := parse_uuid(text)) is not None)
    if op not in _EQUALITIES or not keys:
        return named
    if op in (Op.NE, Op.NOT_IN):
        return Every((named, Not(Compare(Field.WORKFLOW, Op.IN, keys))))
    return AnyOf((named, Compare(Field.WORKFLOW, Op.IN, keys)))


def _of_transaction(name: str, op: Op, texts: list[str]) -> Predicate:
    return _of_text(Field.TRANSACTION_ID, op, texts)


def _of_text(field: Field, op: Op, texts: list[str]) -> Predicate:
    return Compare(field, op, tuple(texts) if op in _LISTS else texts[0])


def _of_state(name: str, op: Op, texts: list[str]) -> Predicate:
    """States are few: the comparison is made here, with each."""
    if op in _EQUALITIES and (unknown := next((text for text in texts if text not in STATES), None)) is not None:
        raise problem(f"Expected: '{', '.join(STATES)}' for field '{name}', but got: '{unknown[:100]}'")
    holds = _HOLDS[op]
    return _in_states([state for state in STATES if holds(state, texts)])


def _in_states(states: list[str]) -> Predicate:
    return InFacets(frozenset(facet for state in states for facet in FACETS[state]))


def _like(pattern: str, flags: int) -> Callable[[str], bool]:
    """A comparison with `%` and `_`, of which `\\` takes the special meaning."""
    pieces = re.findall(r"\\.|[\s\S]", pattern)
    special = {"%": ".*", "_": "."}
    text = "".join(special[piece] if piece in special else re.escape(piece[-1]) for piece in pieces)
    compiled = re.compile(text, flags | re.DOTALL)
    return lambda value: compiled.fullmatch(value) is not None


_HOLDS: Mapping[Op, Callable[[str, list[str]], bool]] = {
    Op.EQ: lambda state, texts: state in texts,
    Op.IN: lambda state, texts: state in texts,
    Op.NE: lambda state, texts: state not in texts,
    Op.NOT_IN: lambda state, texts: state not in texts,
    Op.LIKE: lambda state, texts: _like(texts[0], 0)(state),
    Op.ILIKE: lambda state, texts: _like(texts[0], re.IGNORECASE)(state),
    Op.CONTAINS: lambda state, texts: texts[0].lower() in state,
    Op.GT: lambda state, texts: operator.gt(state, texts[0]),
    Op.GTE: lambda state, texts: operator.ge(state, texts[0]),
    Op.LT: lambda state, texts: operator.lt(state, texts[0]),
    Op.LTE: lambda state, texts: operator.le(state, texts[0]),
}


def _of_time(name: str, op: Op, texts: list[str]) -> Predicate:
    field = Field.CREATED_AT if name == "created_at" else Field.UPDATED_AT
    if op in _TEXTUAL:
        raise _no_operator(name, op)
    moments = [_moment(name, text) for text in texts]
    if op in (Op.EQ, Op.IN):
        same: list[Predicate] = [Compare(field, Op.EQ, moment) for moment in moments]
        return same[0] if len(same) == 1 else AnyOf(tuple(same))
    if op in (Op.NE, Op.NOT_IN):
        return Not(AnyOf(tuple(Compare(field, Op.EQ, moment) for moment in moments)))
    return Compare(field, op, moments[0])


def _moment(name: str, text: str) -> datetime:
    try:
        return date_in(text.replace(" ", "+"), name)  # a `+` of an offset arrives as a space
    except InvalidRequest:
        raise problem(f"Expected type: 'date' for field '{name}', got: '{text[:100]}'") from None


_COMPARED: Mapping[str, Callable[[str, Op, list[str]], Predicate]] = {
    "id": _of_id,
    "workflow_id": _of_workflow,
    "transaction_id": _of_transaction,
    "state": _of_state,
    "created_at": _of_time,
    "updated_at": _of_time,
}


# --- refusals ----------------------------------------------------------------------------------------------------


def _wrong_type(expected: str, name: str, got: str) -> InvalidRequest:
    return problem(f"Expected type: '{expected}' for field '{name}', got: '{got}'")


def _no_operator(name: str, op: Op) -> InvalidRequest:
    spelled = next(text for text, one in OPERATORS.items() if one is op)
    return problem(f"Unrecognized fields: '{name}.{spelled}'")


def _kind(node: Node) -> str:
    if node.inside and not node.is_list:
        return "object"
    return "array" if node.inside or len(node.texts) != 1 else "string"
