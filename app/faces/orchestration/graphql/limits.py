"""What an operation may cost, decided before any of it is executed.

A field costs 1 and what is below it; a list of objects costs what one of them costs, times its `limit`, or times
`UNPAGED` where it has none. Fields of introspection cost nothing and have no depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLList,
    GraphQLObjectType,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    Visitor,
    get_named_type,
    get_nullable_type,
    visit,
)

from app.faces.orchestration.graphql.api import SCHEMA
from app.faces.orchestration.graphql.context import PAGE_MAX

TOKENS_MAX = 2_000
DEPTH_MAX = 8
ROOT_FIELDS_MAX = 15
ALIASES_MAX = 30
COMPLEXITY_MAX = 1_000
UNPAGED = 20
TOO_DEEP, TOO_COMPLEX = "QUERY_TOO_DEEP", "QUERY_TOO_COMPLEX"


def refused(message: str, code: str) -> GraphQLError:
    """An error that has its code already."""
    return GraphQLError(message, extensions={"code": code})


def check_size(document: DocumentNode) -> None:
    """Before validation, which takes time with the square of what is selected. Raises :class:`GraphQLError`."""
    counted = _Counter()
    visit(document, counted)
    if counted.aliases > ALIASES_MAX:
        raise refused(f"The document has {counted.aliases} aliases; at most {ALIASES_MAX} are allowed.", TOO_COMPLEX)
    if counted.widest > COMPLEXITY_MAX // 5:
        raise refused(f"A selection may have at most {COMPLEXITY_MAX // 5} fields.", TOO_COMPLEX)


class _Counter(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.aliases = 0
        self.widest = 0

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        self.aliases += node.alias is not None

    def enter_selection_set(self, node: SelectionSetNode, *_: Any) -> None:
        self.widest = max(self.widest, len(node.selections))


def check_cost(document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> None:
    """Of a valid document's operation. Raises :class:`GraphQLError`."""
    measure = _Measure(document, operation, variables)
    root = SCHEMA.get_root_type(operation.operation)
    assert root is not None
    fields = sum(1 for _ in measure.fields(operation.selection_set, root))
    if fields > ROOT_FIELDS_MAX:
        raise refused(f"The operation has {fields} root fields; at most {ROOT_FIELDS_MAX} are allowed.", TOO_COMPLEX)
    depth, cost = measure.of(operation.selection_set, root)
    if depth > DEPTH_MAX:
        raise refused(f"The operation is {depth} levels deep; at most {DEPTH_MAX} are allowed.", TOO_DEEP)
    if cost > COMPLEXITY_MAX:
        raise refused(f"The operation's complexity is {cost}; at most {COMPLEXITY_MAX} is allowed.", TOO_COMPLEX)


class _Measure:
    """Depth and cost of selections. Each is measured once, however often fragments repeat it."""

    def __init__(
        self, document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]
    ) -> None:
        self._fragments = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        defaults = {
            one.variable.name.value: int(one.default_value.value)
            for one in operation.variable_definitions or ()
            if isinstance(one.default_value, IntValueNode)
        }
        self._variables = {**defaults, **variables}
        self._known: dict[int, tuple[int, int]] = {}

    def fields(self, selections: SelectionSetNode, parent: GraphQLObjectType) -> Iterator[FieldNode]:
        """The fields of a selection, those of its fragments included."""
        for one in selections.selections:
            if isinstance(one, FieldNode):
                yield one
            elif isinstance(one, InlineFragmentNode):
                yield from self.fields(one.selection_set, parent)
            elif isinstance(one, FragmentSpreadNode):
                yield from self.fields(self._fragments[one.name.value].selection_set, parent)

    def of(self, selections: SelectionSetNode, parent: GraphQLObjectType) -> tuple[int, int]:
        """Depth and cost."""
        known = self._known.get(id(selections))
        if known is None:
            depth = cost = 0
            for one in selections.selections:
                below, costs = self._one(one, parent)
                depth, cost = max(depth, below), cost + costs
            known = self._known[id(selections)] = depth, cost
        return known

    def _one(self, selection: Any, parent: GraphQLObjectType) -> tuple[int, int]:
        if isinstance(selection, InlineFragmentNode):
            return self.of(selection.selection_set, parent)
        if isinstance(selection, FragmentSpreadNode):
            return self.of(self._fragments[selection.name.value].selection_set, parent)
        if selection.name.value.startswith("__"):
            return 0, 0
        field = parent.fields[selection.name.value]
        if selection.selection_set is None:
            return 1, 1
        named = get_named_type(field.type)
        assert isinstance(named, GraphQLObjectType)
        depth, cost = self.of(selection.selection_set, named)
        if isinstance(get_nullable_type(field.type), GraphQLList):
            return depth + 1, max(1, cost * self._rows(selection, "limit" in field.args))
        return depth + 1, cost + 1

    def _rows(self, field: FieldNode, paged: bool) -> int:
        """How many objects a list may have."""
        if not paged:
            return UNPAGED
        given = next((argument.value for argument in field.arguments or () if argument.name.value == "limit"), None)
        rows: Any = 10
        if isinstance(given, IntValueNode):
            rows = int(given.value)
        elif isinstance(given, VariableNode):
            rows = self._variables.get(given.name.value, rows)
        # Whatever is no number of rows is refused when the field is executed.
        return rows if isinstance(rows, int) and 1 <= rows <= PAGE_MAX else 10
