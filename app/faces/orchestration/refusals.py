"""Errors as this face shows them: `{message, code, …}`; of invalid requests also `errors: [{path, code, message}]`."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from app.authentication import IN_QUERY
from app.errors import InvalidRequest, MethodNotAllowed, MillraceError, NoRoute, NotAllowed, NotAuthenticated
from app.faces.face import Answer
from app.faces.orchestration import negotiation
from app.faces.orchestration.errors import NotAcceptable, UnsupportedVersion
from instances.errors import InstanceNotFound, RolledBack, StepNotFound
from tenants.auth import credentials_in
from tenants.errors import IdempotencyKeyReused, WrongLogin
from versions.errors import DocumentInvalid, VersionNotFound, WorkflowInactive, WorkflowNotFound

_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMITED",
    503: "UNAVAILABLE",
}
_OWN_CODES: dict[type[MillraceError], str] = {
    DocumentInvalid: "INVALID_DEFINITION",
    RolledBack: "EXECUTION_ROLLED_BACK",
    IdempotencyKeyReused: "IDEMPOTENCY_KEY_REUSED",
}
_OWN_WORDS: dict[type[MillraceError], str] = {
    WrongLogin: "Invalid credentials",
    WorkflowNotFound: "Workflow definition not found",
    VersionNotFound: "Workflow definition version not found",
    InstanceNotFound: "Workflow execution not found",
    StepNotFound: "Task execution not found",
    NoRoute: "Not found",
    WorkflowInactive: "The workflow definition is not active",
    MethodNotAllowed: "Method not allowed",
}
_PLAIN_WORDS = {
    400: "The request is not valid",
    409: "The state of the object does not allow this",
    413: "The payload is too large",
    429: "Too many requests, try again later",
    503: "Not available, try again",
}
"""Of errors that only have a name."""
_NAME = "workflows.api.error."
INVALID_FIELD = "INVALID_FIELD"


def refuse(error: MillraceError, scope: Any, _now: datetime) -> Answer:
    """The answer to a request of this face that failed with `error`."""
    version = negotiation.version_in(scope["path"])
    if isinstance(error, NoRoute) and version is not None and version not in negotiation.SUPPORTED:
        error = UnsupportedVersion(version)
    status = error.status if error.status in _CODES or error.status >= 500 else 400
    body: dict[str, Any] = {"message": words_of(error, scope), "code": code_of(error)}
    headers: dict[str, str] = {}
    if isinstance(error, InvalidRequest) and (problems := problems_of(error)):
        body["errors"] = problems
    if isinstance(error, (UnsupportedVersion, NotAcceptable)):
        body["supportedVersions"] = list(negotiation.SUPPORTED)
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        if status == 429:
            body["retryAfter"] = max(1, math.ceil(error.retry_after / 60))
    media_type = negotiation.chosen_for(scope).media_type
    return Answer(status, msgspec.json.encode(body), headers, media_type)


def code_of(error: MillraceError) -> str:
    """The error's symbolic code."""
    own = next((code for kind, code in _OWN_CODES.items() if isinstance(error, kind)), None)
    return own or _CODES.get(error.status, "INTERNAL" if error.status >= 500 else _CODES[400])


def words_of(error: MillraceError, scope: Any) -> str:
    """The error's message. `scope` tells whether there was a credential at all."""
    if type(error) in _OWN_WORDS:
        return _OWN_WORDS[type(error)]
    if error.status >= 500 and error.status != 503:
        return "Internal server error"
    if isinstance(error, NotAuthenticated) and error.message != IN_QUERY:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        return "Invalid or expired token" if credentials_in(headers) else "Authentication required"
    if isinstance(error, NotAllowed) and error.required:
        return "Insufficient permissions"
    if error.message.startswith(_NAME):
        return _PLAIN_WORDS.get(error.status, error.message.removeprefix(_NAME))
    return error.message.removeprefix("Authentication error: ")


def problems_of(error: InvalidRequest) -> list[dict[str, str]]:
    """Each problem of a request that has a place in it: `{path, code, message}`, the path a JSON pointer."""
    if error.problems:
        return [
            {"path": one.pointer or "", "code": one.kind or INVALID_FIELD, "message": one.message}
            for one in error.problems
        ]
    return [] if error.pointer is None else [{"path": error.pointer, "code": INVALID_FIELD, "message": error.message}]
