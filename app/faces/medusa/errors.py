"""Errors as this face shows them: `{code?, type, message}`, of which Medusa's clients read the message."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from app.errors import InvalidRequest, MethodNotAllowed, MillraceError, NotAllowed
from app.faces.face import Answer
from instances.errors import (
    InstanceExists,
    InstanceNotFound,
    StepAnswered,
    StepNotFound,
    StepNotWaiting,
    WrongPhase,
)
from tenants.errors import AlreadyExists, WrongLogin
from versions.errors import WorkflowInactive, WorkflowNotFound

UNKNOWN = "An unknown error occurred."
PROBLEMS_TOLD = 3

TYPES = {
    "invalid_data": 400,
    "not_allowed": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "duplicate_error": 422,
    "too_many_requests": 429,
    "unknown_error": 500,
    "database_error": 500,
    "unexpected_state": 500,
    "invalid_argument": 500,
}
"""Types of errors, each with its status."""
_CODES = {
    "conflict": "invalid_state_error",
    "duplicate_error": "invalid_request_error",
    "unknown_error": "unknown_error",
    "database_error": "api_error",
}
_OF_STATUS = {
    400: "invalid_data",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "not_allowed",
    409: "conflict",
    413: "invalid_data",
    415: "invalid_data",
    422: "duplicate_error",
    429: "too_many_requests",
    500: "unknown_error",
    503: "unexpected_state",
}
_OF_CLASS: dict[type[MillraceError], str] = {
    StepNotWaiting: "not_allowed",
    WrongPhase: "not_allowed",
    WorkflowInactive: "not_allowed",
    InstanceExists: "duplicate_error",
    AlreadyExists: "duplicate_error",
}
"""Errors whose status is another one here."""
_WORDS: dict[type[MillraceError], str] = {
    WorkflowInactive: "The workflow is not active.",
    WorkflowNotFound: "Workflow was not found.",
    InstanceNotFound: "WorkflowExecution was not found.",
    StepNotFound: "Step was not found.",
    StepAnswered: "The step was changed at the same time by another request.",
    WrongPhase: "Incorrect action type.",
    WrongLogin: "Invalid email or password",
}


class NotFound(MillraceError):
    """404; the message says what was not found."""

    code, key, status = 7003, "", 404


class Refused(InvalidRequest):
    """400 `not_allowed`: the request is well formed, but not possible."""


def workflow_not_found(id: str) -> NotFound:
    return NotFound(f'Workflow with id "{id}" not found.')


def transaction_not_found(id: str) -> NotFound:
    return NotFound(f"Transaction {id} could not be found.")


def execution_not_found(id: str) -> NotFound:
    return NotFound(f"WorkflowExecution with id: {id} was not found")


def step_not_found(id: str) -> NotFound:
    return NotFound(f'Step with id "{id}" not found.')


def body_of(type: str, message: str) -> dict[str, str]:
    """An error's body."""
    code = _CODES.get(type)
    return ({} if code is None else {"code": code}) | {"type": type, "message": message}


def refuse(error: MillraceError, scope: Any, now: datetime) -> Answer:
    """The answer to a request of this face that failed with `error`."""
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    kind = _OF_CLASS.get(type(error))
    if isinstance(error, Refused):
        kind = "not_allowed"
    status = error.status if kind is None else TYPES[kind]
    if status not in _OF_STATUS:
        status = 400 if status < 500 else 500
    kind = kind or _OF_STATUS[status]
    return Answer(status, msgspec.json.encode(body_of(kind, _words(error, status, kind))), headers)


def _words(error: MillraceError, status: int, kind: str) -> str:
    told = _WORDS.get(type(error))
    if told is not None:
        return told
    if status == 500:
        return UNKNOWN
    if status == 401:
        return "Unauthorized"
    if kind == "invalid_data" and isinstance(error, InvalidRequest):
        told = [problem.message for problem in error.problems] or [error.message]
        return f"Invalid request: {'; '.join(told[:PROBLEMS_TOLD])}"
    if isinstance(error, NotAllowed) and error.required:
        return f"Forbidden: the credential lacks the scope {' or '.join(error.required)}"
    return error.message.removeprefix("Authentication error: ")
