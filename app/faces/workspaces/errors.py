"""Errors as this face shows them: `{error: CODE, message, …}`; `error` is the code, not an object."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from app.errors import InvalidRequest, MethodNotAllowed, MillraceError, NotAllowed, TooManyRequests
from app.faces.face import Answer
from instances.errors import InstanceNotFound, NotificationNotFound, TaskNotFound
from tenants.errors import IdempotencyInFlight, IdempotencyKeyReused, NotAMember, WorkspaceNotFound
from versions.errors import ChangedMeanwhile, DocumentInvalid, OtherForm, WorkflowInactive, WorkflowNotFound

_CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMITED",
    503: "SERVICE_UNAVAILABLE",
}
_NOT_FOUND: tuple[tuple[type[MillraceError], str, str], ...] = (
    (WorkspaceNotFound, "WORKSPACE_NOT_FOUND", "Workspace not found or access denied"),
    (WorkflowNotFound, "WORKFLOW_NOT_FOUND", "Workflow not found"),
    (InstanceNotFound, "WORKFLOW_EXECUTION_NOT_FOUND", "Workflow execution not found"),
    (TaskNotFound, "TASK_NOT_FOUND", "Task not found"),
    (NotificationNotFound, "NOTIFICATION_NOT_FOUND", "Notification not found"),
)
_WORDS = {
    401: "Authentication required",
    405: "This method is not available here",
    500: "Something went wrong on our side",
}
_CYCLE = "CYCLE"


class CannotCancelExecution(MillraceError):
    """400: the execution is finished. `status` is this face's word for how."""

    code, key, status = 10489, "", 400

    def __init__(self, status: str) -> None:
        super().__init__(f"Cannot cancel execution with status: {status}")


def refuse(error: MillraceError, _scope: Any, _now: datetime) -> Answer:
    """The answer to a request of this face that failed with `error`."""
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    status, code, message = told(error)
    body = {"error": code, "message": message, **_extra(error, code)}
    return Answer(status, msgspec.json.encode(body), headers)


def told(error: MillraceError) -> tuple[int, str, str]:
    """Status, code and message of an error."""
    for kind, code, message in _NOT_FOUND:
        if isinstance(error, kind):
            return 404, code, message
    match error:
        case WorkflowInactive():
            return 400, "WORKFLOW_INACTIVE", "The workflow is not active"
        case CannotCancelExecution():
            return 400, "WORKFLOW_EXECUTION_FAILED", error.message
        case DocumentInvalid():
            circular = any(problem.kind == _CYCLE for problem in error.problems)
            code = "WORKFLOW_CIRCULAR_DEPENDENCY" if circular else "WORKFLOW_VALIDATION_FAILED"
            return 400, code, error.message
        case IdempotencyKeyReused() | IdempotencyInFlight():
            return 409, "VALIDATION_ERROR", error.message
        case ChangedMeanwhile():
            return 409, "CONFLICT", "Others kept changing the workflow; try again"
        case OtherForm():
            return 409, "CONFLICT", error.message
    status = error.status if error.status in _CODES or error.status >= 500 else 400
    return status, _CODES.get(status, "INTERNAL_ERROR"), _words(error, status)


def _words(error: MillraceError, status: int) -> str:
    if status in _WORDS:
        return _WORDS[status]
    if isinstance(error, NotAMember):
        return "You are not a member of this workspace"
    if isinstance(error, NotAllowed) and error.required:
        return f"The credential lacks the scope {' or '.join(error.required)}"
    return error.message.removeprefix("Authentication error: ")


def _extra(error: MillraceError, code: str) -> dict[str, Any]:
    match error:
        case NotAllowed() if error.required:
            return {"requiredScope": error.required[0]}
        case TooManyRequests() if error.retry_after is not None:
            return {"retryAfter": max(1, math.ceil(error.retry_after))}
        case DocumentInvalid():
            return {"errors": _fields(error)}
        case InvalidRequest() if code == "VALIDATION_ERROR":
            return {"errors": _fields(error)}
    return {}


def _fields(error: InvalidRequest) -> dict[str, list[str]]:
    """Every problem by the field it is in, in dots; `request` when none is named."""
    found: dict[str, list[str]] = {}
    for pointer, message in [(one.pointer, one.message) for one in error.problems] or [(error.pointer, error.message)]:
        field = (pointer or "").lstrip("/").replace("/", ".") or "request"
        found.setdefault(field, []).append(message)
    return found
