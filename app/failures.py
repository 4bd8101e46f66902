"""Whatever goes wrong with a request becomes one :class:`~app.errors.MillraceError`, which every face can dress.

A platform error is one already; Litestar's own refusals, a lost database and bugs are turned into one here, before a
face decides on shape and wording. Nothing shows the inside of a bug.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import structlog
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException
from redis.exceptions import RedisError

from app.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    MillraceError,
    NoRoute,
    PayloadTooLarge,
    Problem,
    TooManyRequests,
    Unavailable,
    UnsupportedMediaType,
)

logger = structlog.get_logger(__name__)

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


def understand(error: Exception) -> MillraceError:
    """What to tell the caller about `error`. Never raises."""
    if isinstance(error, MillraceError):
        return error
    if isinstance(error, HTTPException):
        return _of_litestar(error)
    if isinstance(error, asyncpg.CharacterNotInRepertoireError):
        return InvalidRequest("A text of the request holds U+0000, which cannot be stored.")  # wherever it came from
    if is_away(error):
        return Unavailable("A service this needs is not available. Try again.", retry_after=1)
    return InternalError()


def log_failure(error: Exception, understood: MillraceError) -> None:
    """Keep what the caller does not get to see. Caller's mistakes are in the access log and need nothing more."""
    if understood.status < 500:
        return
    if is_away(error):
        logger.warning("dependency unavailable", error=type(error).__name__, detail=str(error))
    elif understood is not error:
        logger.error("request failed", exc_info=error)


def is_away(error: Exception) -> bool:
    """Whether a service this process needs is not there, as opposed to a bug."""
    # A value the driver cannot send is an InterfaceError, too: our bug, which trying again does not mend.
    return isinstance(error, _AWAY) and not isinstance(error, ValueError)


def _of_litestar(error: HTTPException) -> MillraceError:
    if isinstance(error, NotFoundException):
        return NoRoute()
    if isinstance(error, MethodNotAllowedException):
        return MethodNotAllowed(_allowed(error))
    if isinstance(error, ValidationException):
        return InvalidRequest("The request is not valid.", problems=_validation_problems(error))
    status, detail = error.status_code, error.detail
    if status == 413:
        return PayloadTooLarge("The request body is too large.")
    if status == 415:
        return UnsupportedMediaType(detail)
    if status == 429:
        return TooManyRequests(detail)
    if 400 <= status < 500:
        refused = InvalidRequest(_plain(detail))
        refused.status = status
        return refused
    return InternalError()


def _allowed(error: MethodNotAllowedException) -> tuple[str, ...]:
    given = {name.lower(): value for name, value in (error.headers or {}).items()}
    methods = {method.strip() for method in given.get("allow", "").split(",") if method.strip()}
    methods.discard("websocket")  # Litestar's name for a handler of WebSockets on the same path
    if "GET" in methods:
        methods.add("HEAD")
    return tuple(sorted(methods))


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
