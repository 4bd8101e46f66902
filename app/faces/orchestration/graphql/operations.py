"""From the text of an operation to its answer: parsed, bounded, validated, and only then executed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    Visitor,
    execute,
    get_operation_ast,
    parse,
    subscribe,
    validate,
    visit,
)

from app.composition import Platform
from app.errors import NotAuthenticated
from app.faces.orchestration.graphql.api import SCHEMA
from app.faces.orchestration.graphql.context import Context
from app.faces.orchestration.graphql.limits import TOKENS_MAX, TOO_COMPLEX, TOO_DEEP, check_cost, check_size, refused
from app.faces.orchestration.graphql.refusals import BAD_INPUT, dressed, dressed_all, request_id
from tenants.auth import Caller

DEADLINE = 30.0
"""Seconds an operation may take; a subscription, until its first message."""
INTERNAL = "INTERNAL_SERVER_ERROR"
_UNPARSED, _INVALID = "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"
_UNRESOLVED = "OPERATION_RESOLUTION_FAILURE"
_INTROSPECTION = frozenset({"__schema", "__type"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an operation."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None


class Refused(Exception):
    """Nothing was executed; `errors` say why, as answers have them."""

    def __init__(self, errors: list[Any]) -> None:
        super().__init__()
        self.errors = errors

    @property
    def body(self) -> dict[str, Any]:
        return {"errors": self.errors}


@dataclass(frozen=True, slots=True)
class Operation:
    """One that may be executed."""

    asked: Asked
    document: DocumentNode
    node: OperationDefinitionNode

    @property
    def kind(self) -> OperationType:
        return self.node.operation


class Operations:
    """Prepares and runs operations for one platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def prepare(self, asked: Asked, caller: Caller | None, scope: Any) -> Operation:
        """The operation asked for. Raises :class:`Refused`; :class:`NotAuthenticated` when nobody asks for more than
        anybody may know.
        """
        introspection = self._platform.settings.graphql_introspection
        suggest = introspection != "off"
        try:
            document = _parsed(asked.query)
            if caller is None and not _is_public(document, introspection == "public"):
                raise NotAuthenticated()
            check_size(document)
            if not suggest:
                visit(document, _NoIntrospection())
        except GraphQLError as error:
            raise Refused(dressed_all([error], scope, _UNPARSED, suggest=suggest)) from None
        try:
            return Operation(asked, document, _checked(document, asked, scope, suggest=suggest))
        except RecursionError:
            error = refused("The operation is nested too deeply.", TOO_DEEP)
            raise Refused(dressed_all([error], scope, _INVALID)) from None

    async def run(self, operation: Operation, caller: Caller | None, scope: Any) -> dict[str, Any]:
        """The answer to a query or mutation. Raises :class:`Refused` for variables that do not fit."""
        context = Context(self._platform, caller, request_id() or "")
        try:
            async with asyncio.timeout(DEADLINE):
                result = execute(SCHEMA, operation.document, context_value=context, **_variables(operation))
                if not isinstance(result, ExecutionResult):
                    result = await result
        except TimeoutError as error:
            return {"data": None, "errors": dressed_all([GraphQLError("", original_error=error)], scope, INTERNAL)}
        return _answer(result, scope)

    async def follow(self, operation: Operation, caller: Caller | None, scope: Any) -> AsyncGenerator[dict[str, Any]]:
        """The messages of a subscription, which has begun. Raises :class:`Refused` when it cannot begin."""
        context = Context(self._platform, caller, request_id() or "")
        try:
            async with asyncio.timeout(DEADLINE):
                results: Any = subscribe(SCHEMA, operation.document, context_value=context, **_variables(operation))
                if not isinstance(results, ExecutionResult) and not hasattr(results, "__aiter__"):
                    results = await results
        except TimeoutError as error:
            raise Refused(dressed_all([GraphQLError("", original_error=error)], scope, INTERNAL)) from None
        if isinstance(results, ExecutionResult):
            raise Refused(_answer(results, scope)["errors"])
        return self._messages(results, scope)

    async def _messages(self, results: Any, scope: Any) -> AsyncGenerator[dict[str, Any]]:
        try:
            async for result in results:
                yield _answer(result, scope)
        except Exception as error:
            yield {"errors": [dressed(error, scope)]}
        finally:
            await results.aclose()


def _checked(document: DocumentNode, asked: Asked, scope: Any, *, suggest: bool) -> OperationDefinitionNode:
    """The operation of a document that is valid, if it does not cost too much. Raises :class:`Refused`."""
    if problems := validate(SCHEMA, document, max_errors=50):
        raise Refused(dressed_all(problems, scope, _INVALID, suggest=suggest))
    node = get_operation_ast(document, asked.operation_name)
    try:
        if node is None:
            raise refused(_unresolved(asked), _UNRESOLVED)
        check_cost(document, node, asked.variables)
    except GraphQLError as error:
        raise Refused(dressed_all([error], scope, _INVALID)) from None
    return node


def _parsed(query: str) -> DocumentNode:
    try:
        return parse(query, max_tokens=TOKENS_MAX)
    except GraphQLSyntaxError as error:
        if f"more than {TOKENS_MAX} tokens" in error.message:
            raise refused(f"The document has more than {TOKENS_MAX} tokens.", TOO_COMPLEX) from None
        raise
    except RecursionError:
        raise refused("The document is nested too deeply.", TOO_COMPLEX) from None


def _variables(operation: Operation) -> dict[str, Any]:
    return {"variable_values": operation.asked.variables, "operation_name": operation.asked.operation_name}


def _answer(result: ExecutionResult, scope: Any) -> dict[str, Any]:
    """Raises :class:`Refused` when variables or arguments kept it from being executed."""
    errors = result.errors or []
    if result.data is None and errors and all(error.path is None for error in errors):
        raise Refused(dressed_all(errors, scope, BAD_INPUT))
    answer: dict[str, Any] = {"data": result.data}
    if errors:
        answer["errors"] = dressed_all(errors, scope, INTERNAL)
    return answer


def _is_public(document: DocumentNode, introspection: bool) -> bool:
    """Whether all it asks for is `__typename` of the root, and with `introspection` the schema."""
    allowed = {"__typename", *(_INTROSPECTION if introspection else ())}
    return all(
        isinstance(part, FieldNode) and part.name.value in allowed
        for one in document.definitions
        if isinstance(one, OperationDefinitionNode)
        for part in one.selection_set.selections
    )


class _NoIntrospection(Visitor):
    def enter_field(self, node: FieldNode, *_: Any) -> None:
        if node.name.value in _INTROSPECTION:
            raise refused("Introspection is switched off.", _INVALID)


def _unresolved(asked: Asked) -> str:
    if asked.operation_name:
        return f'The document has no operation named "{asked.operation_name}".'
    return "The document has several operations: operationName must say which one to execute."
