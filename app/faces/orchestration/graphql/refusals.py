"""Errors as GraphQL shows them: `{errors: [{message, extensions: {code, requestId, …}}]}`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import structlog
from graphql import GraphQLError

from app.errors import InvalidRequest, MethodNotAllowed, MillraceError
from app.faces.face import Answer
from app.faces.orchestration import refusals
from app.failures import log_failure, understand
from tenants.audit import origin

RESPONSE_JSON = "application/graphql-response+json"
JSON = "application/json"
UNAUTHENTICATED, BAD_INPUT, TIMEOUT = "UNAUTHENTICATED", "BAD_USER_INPUT", "TIMEOUT"
_CODES = {
    401: UNAUTHENTICATED,
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    429: "RATE_LIMITED",
}
_SUGGESTION = re.compile(r" Did you mean .*\?$", re.DOTALL)

log = structlog.get_logger(__name__)


class OperationTimeout(MillraceError):
    """The operation took too long."""

    code, key, status, retry = 10459, "", 503, False


def refuse(error: MillraceError, scope: Any, _now: datetime) -> Answer:
    """The answer to a request that failed with `error` before anything was executed."""
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    media_type, status = media_type_for(scope), error.status
    if status == 401:
        headers["www-authenticate"] = "Bearer"
        if media_type == JSON and scope["method"] in ("GET", "POST"):
            status = 200
    body = msgspec.json.encode({"errors": [_dressed(error, scope)]})
    return Answer(status, body, headers, media_type)


def media_type_for(scope: Any) -> str:
    """What to answer in: plain JSON unless the request prefers the media type of GraphQL."""
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1").lower()
    best, wanted = 0.0, JSON
    for part in accept.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind in (RESPONSE_JSON, JSON) and (quality := _quality(parameters)) > best:
            best, wanted = quality, kind
    return wanted


def _quality(parameters: list[str]) -> float:
    given = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    try:
        return float(given)
    except ValueError:
        return 1.0


def dressed_all(errors: Iterable[GraphQLError], scope: Any, default: str, *, suggest: bool = True) -> list[Any]:
    """Errors of an operation as answers have them. `default`: the code of those that name none themselves."""
    return [_formatted(error, scope, default, suggest) for error in errors]


def _formatted(error: GraphQLError, scope: Any, default: str, suggest: bool) -> dict[str, Any]:
    told: dict[str, Any] = {}
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if cause is None or isinstance(cause, GraphQLError):
        message = error.message if suggest else _SUGGESTION.sub("", error.message)
        code = (error.extensions or {}).get("code", default)
        told = {"message": message, "extensions": {"code": code, "requestId": request_id()}}
    else:
        understood = OperationTimeout("The operation took too long") if isinstance(cause, TimeoutError) else None
        understood = understood or understand(cause)
        log_failure(cause, understood)
        told = _dressed(understood, scope)
    if error.locations:
        told["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error.path:
        told["path"] = error.path
    return told


def dressed(error: Exception, scope: Any) -> dict[str, Any]:
    """An error that came instead of an answer; what the caller must not see is logged."""
    understood = understand(error)
    log_failure(error, understood)
    return _dressed(understood, scope)


def _dressed(error: MillraceError, scope: Any) -> dict[str, Any]:
    extensions: dict[str, Any] = {"code": code_of(error), "requestId": request_id()}
    if isinstance(error, InvalidRequest) and (problems := refusals.problems_of(error)):
        extensions["errors"] = problems
    if error.status == 429 and error.retry_after is not None:
        extensions["retryAfter"] = max(1, math.ceil(error.retry_after))
    words = error.message if isinstance(error, OperationTimeout) else refusals.words_of(error, scope)
    return {"message": words, "extensions": extensions}


def code_of(error: MillraceError) -> str:
    """The code of `extensions`."""
    if isinstance(error, OperationTimeout):
        return TIMEOUT
    return _CODES.get(error.status, BAD_INPUT if error.status < 500 else "INTERNAL_SERVER_ERROR")


def request_id() -> str | None:
    """The id of the request under way."""
    found = origin.get()
    return None if found is None else found.request_id
