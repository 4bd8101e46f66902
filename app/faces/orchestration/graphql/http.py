"""One operation per request: by POST or GET, its answer as JSON or, where that is asked for, as a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import structlog
from graphql import OperationType
from litestar import Request, Response

from app.authentication import CALLER, GRAPHQL, IN_QUERY, Credentials, count
from app.composition import Platform
from app.errors import InvalidRequest, MethodNotAllowed, NoRoute, NotAuthenticated, UnsupportedMediaType
from app.faces.orchestration.graphql.operations import Asked, Operation, Operations, Refused
from app.faces.orchestration.graphql.page import PAGE, PAGE_HEADERS
from app.faces.orchestration.graphql.refusals import RESPONSE_JSON, dressed, media_type_for
from app.faces.streams import frame, open_stream
from app.failures import understand
from tenants.auth import Caller

AnyRequest = Request[Any, Any, Any]
_MEMBERS = frozenset({"query", "variables", "operationName", "extensions"})
_NO_STREAM = "Subscriptions need a WebSocket, or Accept: text/event-stream"
COMPLETE = frame("complete", b"")


class Endpoint:
    """`/graphql` by plain HTTP."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._credentials = Credentials(platform, GRAPHQL)
        self._operations = Operations(platform)

    async def get(self, request: AnyRequest) -> Response[Any]:
        """A query in the URL; a browser that brings none gets the page to write one on."""
        given = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if "query" not in given and "text/html" in _accepted(request):
            if not self._platform.settings.graphiql:
                raise NoRoute()
            return Response(PAGE, media_type="text/html", headers=PAGE_HEADERS)
        for name in ("variables", "extensions"):
            if name in given:
                given[name] = _decoded(given[name].encode(), name) if given[name] else None  # type: ignore[assignment]
        return await self._answer(request, asked_in(given))

    async def post(self, request: AnyRequest, body: bytes) -> Response[Any]:
        """An operation in the body."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise UnsupportedMediaType("Request bodies must be application/json")
        given = _decoded(body, "The request body")
        if isinstance(given, list):
            raise InvalidRequest("Batches of operations are not supported: send one operation per request")
        if not isinstance(given, dict):
            raise InvalidRequest("The request body must be a JSON object")
        if unknown := given.keys() - _MEMBERS:
            name = min(unknown)
            raise InvalidRequest(f"{name} is not a member of a GraphQL request", pointer=f"/{name}")
        return await self._answer(request, asked_in(given))

    async def _answer(self, request: AnyRequest, asked: Asked) -> Response[Any]:
        scope: Any = request.scope
        streamed = "text/event-stream" in _accepted(request)
        caller = await self._caller(scope, streamed)
        try:
            operation = self._operations.prepare(asked, caller, scope)
            if request.method == "GET" and not _by_get(operation, streamed):
                raise MethodNotAllowed(("POST",))
            if operation.kind is OperationType.SUBSCRIPTION and not streamed:
                raise InvalidRequest(_NO_STREAM)
            if not streamed:
                return _respond(scope, await self._operations.run(operation, caller, scope), 200)
        except Refused as refused:
            if not streamed:
                return _respond(scope, refused.body, 400 if media_type_for(scope) == RESPONSE_JSON else 200)
            operation, refusal = None, refused
        else:
            refusal = None
        if caller is None:
            raise NotAuthenticated()
        return await self._stream(scope, caller, operation, refusal)

    async def _stream(
        self, scope: Any, caller: Caller, operation: Operation | None, refusal: Refused | None
    ) -> Response[Any]:
        async def events() -> AsyncGenerator[bytes]:
            if operation is None:
                yield _next(refusal.body if refusal else {})
            else:
                async for answer in answers(self._operations, operation, caller, scope):
                    yield _next(answer)
            yield COMPLETE

        return await open_stream(
            events,
            caller=caller,
            tenants=self._platform.tenants,
            feed=self._platform.instances.feed,
            still_allowed=lambda: self._platform.tenants.recheck(caller),
        )

    async def _caller(self, scope: Any, streamed: bool) -> Caller | None:
        """Who asks; None when nobody was recognised. Raises what :meth:`Credentials.caller` does besides."""
        try:
            caller = await self._credentials.caller(scope, accepts_ticket=streamed)
        except NotAuthenticated as error:
            if error.message == IN_QUERY:
                raise
            return None
        structlog.contextvars.bind_contextvars(account=caller.account_id.hex)
        scope[CALLER] = caller
        await count(self._platform.tenants, caller, scope)
        return caller


async def answers(
    operations: Operations, operation: Operation, caller: Caller, scope: Any
) -> AsyncGenerator[dict[str, Any]]:
    """Everything an operation answers: one thing, or what a subscription tells."""
    try:
        if operation.kind is not OperationType.SUBSCRIPTION:
            yield await operations.run(operation, caller, scope)
            return
        messages = await operations.follow(operation, caller, scope)
    except Refused as refused:
        yield refused.body
        return
    except Exception as error:
        if understand(error).status < 500:
            raise
        yield {"errors": [dressed(error, scope)]}
        return
    try:
        async for message in messages:
            yield message
    finally:
        await messages.aclose()


def asked_in(given: dict[str, Any]) -> Asked:
    """The request in a body, a query string or a message. Raises :class:`InvalidRequest`."""
    query, name = given.get("query"), given.get("operationName")
    if not isinstance(query, str) or not query.strip():
        raise InvalidRequest("query must be a text: the GraphQL document", pointer="/query")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest("operationName must be a text", pointer="/operationName")
    for member in ("variables", "extensions"):
        if not isinstance(given.get(member), dict | None):
            raise InvalidRequest(f"{member} must be an object", pointer=f"/{member}")
    return Asked(query, given.get("variables") or {}, name or None)


def _decoded(text: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(f"{what} must be JSON") from None


def _by_get(operation: Operation, streamed: bool) -> bool:
    return operation.kind is OperationType.QUERY or (streamed and operation.kind is OperationType.SUBSCRIPTION)


def _accepted(request: AnyRequest) -> str:
    return request.headers.get("accept", "").lower()


def _next(answer: dict[str, Any]) -> bytes:
    return frame("next", msgspec.json.encode(answer))


def _respond(scope: Any, body: dict[str, Any], status: int) -> Response[Any]:
    return Response(msgspec.json.encode(body), status_code=status, media_type=media_type_for(scope))
