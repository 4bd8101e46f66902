"""Errors as this face shows them: `{success: false, error: {code, message, details}, meta}`."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from app.errors import InvalidRequest, MethodNotAllowed, MillraceError, NotAllowed, TooManyRequests
from app.faces.face import Answer
from app.faces.jobsprint.results import meta
from tenants.clock import iso

_CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMIT_EXCEEDED",
    503: "SERVICE_UNAVAILABLE",
}
_SCOPES = {
    "executions:read": "read:executions",
    "executions:write": "execute:workflows",
    "executions:delete": "write:workflows",
    "workflows:read": "read:workflows",
    "workflows:write": "write:workflows",
    "workflows:delete": "write:workflows",
}
"""What this API calls our scopes."""
_WORDS = {
    401: "Authentication required, or the credential is not accepted",
    405: "This method is not available here",
    500: "Something went wrong on our side",
}


class NotFound(MillraceError):
    """404 that says what was not found."""

    status = 404

    def __init__(self, resource: str, id: str) -> None:
        self.resource, self.id = resource, id
        super().__init__(f"{resource.capitalize()} not found")


class Conflict(MillraceError):
    """409: the execution's or workflow's `status` forbids it."""

    status = 409

    def __init__(self, message: str, status: str) -> None:
        self.state = status
        super().__init__(message)


def refuse(error: MillraceError, scope: Any, now: datetime) -> Answer:
    """The answer to a request of this face that failed with `error`."""
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if error.retry_after is not None:
        headers["retry-after"] = str(_seconds(error))
    status = error.status if error.status in _CODES or error.status >= 500 else 400
    told = {
        "code": _CODES.get(status, "INTERNAL_ERROR"),
        "message": _words(error, status),
        "details": _details(error),
    }
    body = {"success": False, "error": told, "meta": meta(iso(now))}
    return Answer(status, msgspec.json.encode(body), headers)


def _words(error: MillraceError, status: int) -> str:
    if status in _WORDS:
        return _WORDS[status]
    if isinstance(error, NotAllowed) and error.required:
        return f"The credential lacks the scope {' or '.join(map(scope_name, error.required))}"
    return error.message.removeprefix("Authentication error: ")


def _details(error: MillraceError) -> dict[str, Any]:
    match error:
        case NotFound():
            return {"resource": error.resource, "id": error.id}
        case Conflict():
            return {"status": error.state}
        case NotAllowed() if error.required:
            return {"requiredScope": scope_name(error.required[0])}
        case MethodNotAllowed():
            return {"allowed": list(error.allowed)}
        case TooManyRequests() if error.retry_after is not None:
            return {"retryAfter": _seconds(error)}
        case InvalidRequest():
            return {"errors": _fields(error)}
    return {}


def _fields(error: InvalidRequest) -> list[dict[str, str]]:
    """Each problem with the field it is in, in dots; the whole request when none is named."""
    if error.problems:
        return [
            {"field": dotted(problem.pointer), "message": problem.message}
            | ({"code": problem.kind} if problem.kind else {})
            for problem in error.problems
        ]
    return [{"field": dotted(error.pointer), "message": error.message}]


def dotted(pointer: str | None) -> str:
    """A JSON pointer as this API names fields: `settings.timeout`."""
    return (pointer or "").lstrip("/").replace("/", ".")


def scope_name(scope: str) -> str:
    """What this API calls one of our scopes."""
    return _SCOPES.get(scope, "admin:all")


def _seconds(error: MillraceError) -> int:
    return max(1, math.ceil(error.retry_after or 0))
