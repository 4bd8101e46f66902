"""Errors as the Cloudflare face shows them: one envelope for everything that can go wrong with a request.

Whatever reaches :func:`failure_of` (a platform error, Litestar's own refusals, a lost database, a bug) becomes one
:class:`Failure`. wrangler decides by the first error's `code`, the SDKs by the HTTP status and `x-should-retry`, and
people read `message`; so all three are always there. `messages` holds plain strings in failures, unlike in successes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import asyncpg
import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import (
    HTTPException,
    LitestarException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.types import ExceptionHandlersMap
from redis.exceptions import RedisError

from app.errors import InvalidRequest, MillraceError, NoRoute, PayloadTooLarge, Problem, TooManyRequests, Unavailable

logger = structlog.get_logger(__name__)

INTERNAL_CODE = 10001
INTERNAL_MESSAGE = "workflows.api.error.internal_server"
METHOD_CODE = 7001
MEDIA_TYPE_CODE = 10470

# A dependency that is away, as opposed to a bug: connection refused or lost, pool closed, statement timed out.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    RedisError,
)


class ErrorSource(msgspec.Struct, frozen=True):
    """Where in the request the fault is: a JSON pointer into what the caller sent."""

    pointer: str


class ErrorEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One element of `errors`."""

    code: int
    message: str
    source: ErrorSource | None = None
    meta: dict[str, str] | None = None


class FailureBody(msgspec.Struct, frozen=True):
    """The failing form of the envelope."""

    success: bool
    errors: tuple[ErrorEntry, ...]
    messages: tuple[str, ...] = ()
    result: None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A request's failure, ready to send in any shape."""

    status: int
    errors: tuple[ErrorEntry, ...]
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The Cloudflare envelope, as JSON."""
        return msgspec.json.encode(FailureBody(success=False, errors=self.errors))


def failure_of(error: Exception) -> Failure:
    """What to tell the caller about `error`. Never raises, and never shows the inside of a bug."""
    if isinstance(error, MillraceError):
        return _of_millrace(error)
    if isinstance(error, HTTPException):
        return _of_litestar(error)
    if _is_away(error):
        return _of_millrace(Unavailable("A service this needs is not available. Try again.", retry_after=1))
    return Failure(500, (ErrorEntry(INTERNAL_CODE, INTERNAL_MESSAGE),))


def handle_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar exception handler of the Cloudflare face and of every path no face owns."""
    failure = failure_of(error)
    log_failure(error, failure)
    if failure.status == 503 and (request.method == "GET" or "idempotency-key" in request.headers):
        failure.headers["x-should-retry"] = "true"  # repeating it cannot do anything twice
    return Response(failure.body, status_code=failure.status, headers=failure.headers, media_type=MediaType.JSON)


def log_failure(error: Exception, failure: Failure) -> None:
    """Keep what the caller does not get to see. Caller's mistakes are in the access log and need nothing more."""
    if failure.status < 500:
        return
    if _is_away(error):
        logger.warning("dependency unavailable", error=type(error).__name__, detail=str(error))
    elif not isinstance(error, MillraceError):
        logger.error("request failed", exc_info=error)


def _is_away(error: Exception) -> bool:
    # A value the driver cannot send is an InterfaceError, too: our bug, which trying again does not mend.
    return isinstance(error, _AWAY) and not isinstance(error, ValueError)


def _of_millrace(error: MillraceError) -> Failure:
    problems = error.problems or (Problem(error.message, error.pointer),)
    return Failure(error.status, tuple(_entry(problem, error.code) for problem in problems), _headers(error))


def _entry(problem: Problem, default_code: int) -> ErrorEntry:
    return ErrorEntry(
        code=problem.code or default_code,
        message=problem.message,
        source=ErrorSource(problem.pointer) if problem.pointer is not None else None,
        meta={"kind": problem.kind} if problem.kind else None,
    )


def _headers(error: MillraceError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retry is not None:
        headers["x-should-retry"] = "true" if error.retry else "false"
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    return headers


def _of_litestar(error: HTTPException) -> Failure:
    if isinstance(error, NotFoundException):
        return _of_millrace(NoRoute())
    if isinstance(error, MethodNotAllowedException):
        return _of_method(error)
    if isinstance(error, ValidationException):
        return _of_millrace(InvalidRequest("The request is not valid.", problems=_validation_problems(error)))
    status, detail = error.status_code, error.detail
    if status == 413:
        return _of_millrace(PayloadTooLarge("The request body is too large."))
    if status == 415:
        return Failure(415, (ErrorEntry(MEDIA_TYPE_CODE, detail or "Unsupported media type"),))
    if status == 429:
        return _of_millrace(TooManyRequests(detail))
    if 400 <= status < 500:
        return Failure(status, (ErrorEntry(InvalidRequest.code, _plain(detail)),))
    return Failure(500, (ErrorEntry(INTERNAL_CODE, INTERNAL_MESSAGE),))


def _of_method(error: MethodNotAllowedException) -> Failure:
    given = {name.lower(): value for name, value in (error.headers or {}).items()}
    methods = {method.strip() for method in given.get("allow", "").split(",") if method.strip()}
    if "GET" in methods:
        methods.add("HEAD")
    entry = ErrorEntry(METHOD_CODE, "This method is not available for that URI.")
    return Failure(405, (entry,), {"allow": ", ".join(sorted(methods))})


def _validation_problems(error: ValidationException) -> list[Problem]:
    """Litestar lists `{message, key, source}`: a parameter is named, a body is pointed into."""
    extra: Any = error.extra
    if not isinstance(extra, list):
        return [Problem(_plain(error.detail))]
    problems: list[Problem] = []
    for item in extra:
        message, key, source = item.get("message", ""), item.get("key"), item.get("source")
        if source == "body":
            problems.append(Problem(f"{key}: {message}" if key else message, _pointer(key)))
        else:
            problems.append(Problem(f"{source or 'query'} parameter {key}: {message}" if key else message))
    return problems or [Problem(_plain(error.detail))]


def _pointer(key: Any) -> str | None:
    return "/" + str(key).replace(".", "/") if key else None


def _plain(detail: str) -> str:
    """Litestar's detail without the internals some of them carry."""
    return detail.splitlines()[0][:500] if detail else "The request is not valid."


ERROR_HANDLERS: ExceptionHandlersMap = {
    MillraceError: handle_error,
    HTTPException: handle_error,
    LitestarException: handle_error,
    Exception: handle_error,
}
