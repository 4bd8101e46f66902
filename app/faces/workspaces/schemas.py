"""Request bodies of this face. Fields it does not know are ignored, except inside a definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request

from app.errors import InvalidRequest, UnsupportedMediaType
from instances.payloads import EMPTY, decode
from tenants.bodies import decode_body
from versions.definitions.schemas import Profile
from versions.schemas import STATUSES

WORKFLOW_STATUSES = tuple(status.upper() for status in STATUSES)


class _ExecuteBody(msgspec.Struct, frozen=True, rename="camel"):
    trigger_data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    variables: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    dry_run: bool = False


_EXECUTE = msgspec.json.Decoder(_ExecuteBody)


@dataclass(frozen=True, slots=True)
class Asked:
    """Of `POST …/execute`. `trigger_data` is JSON text, as it was sent."""

    trigger_data: str
    variables: dict[str, Any] | None
    dry_run: bool


def execute_body(body: bytes) -> Asked:
    """Raises :class:`InvalidRequest`."""
    decoded = decode(body, _EXECUTE)
    given = decoded.value
    text, variables = EMPTY, None
    if not isinstance(given.trigger_data, msgspec.UnsetType):
        text = decoded.text(given.trigger_data)
        if not text.startswith("{"):
            raise InvalidRequest("triggerData must be an object", pointer="/triggerData")
    if not isinstance(given.variables, msgspec.UnsetType):
        variables = given.variables
        if not decoded.as_sent(msgspec.json.encode(variables).decode()):
            raise InvalidRequest("variables must not hold half a surrogate pair", pointer="/variables")
    return Asked(text, variables, given.dry_run)


class _ProfileBody(msgspec.Struct, frozen=True):
    status: str | msgspec.UnsetType = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


def workflow_body(body: bytes) -> tuple[dict[str, Any], Profile]:
    """What a body says of the definition, and what of the workflow. Raises :class:`InvalidRequest`."""
    said = decode_body(body, dict[str, Any])
    given = decode_body(body, _ProfileBody)
    if not isinstance(given.status, msgspec.UnsetType) and given.status not in WORKFLOW_STATUSES:
        raise InvalidRequest(f"status must be one of {', '.join(WORKFLOW_STATUSES)}", pointer="/status")
    profile = Profile(
        status=None if isinstance(given.status, msgspec.UnsetType) else given.status.lower(),
        tags=None if isinstance(given.tags, msgspec.UnsetType) else given.tags,
        metadata=None if isinstance(given.metadata, msgspec.UnsetType) else given.metadata,
    )
    return said, profile


class ReadBody(msgspec.Struct, frozen=True):
    """Of `PATCH …/notifications/{id}`."""

    read: bool = True


class TaskBody(msgspec.Struct, frozen=True):
    """Of `PATCH …/tasks/{id}`."""

    status: str


def require_json(request: Request[Any, Any, Any], body: bytes) -> None:
    """Raise :class:`UnsupportedMediaType` for a body that says it is something else than JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType("Request bodies must be application/json")
