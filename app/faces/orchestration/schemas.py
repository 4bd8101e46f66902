"""Request bodies of this face. Fields it does not know are ignored, except inside a definition."""

from __future__ import annotations

from typing import Any

import msgspec

from app.errors import InvalidRequest
from tenants.bodies import check_depth

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CONTEXT_RULE = "initialContext must be an object, or a text that holds one as JSON"


class LoginBody(msgspec.Struct, frozen=True):
    """Of `POST /api/auth/login`; `account` (id or name) picks among several."""

    username: str
    password: str
    account: str | None = None


class TicketBody(msgspec.Struct, frozen=True):
    """Of `POST /api/auth/stream-ticket`: the path the ticket opens."""

    path: str = "/graphql"


class StartBody(msgspec.Struct, frozen=True, rename="camel"):
    """Of `POST /api/executions`. The context is kept as it was written."""

    workflow_definition_id: str | int
    initial_context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class RetryBody(msgspec.Struct, frozen=True, rename="camel"):
    """Of `POST /api/executions/{id}/retry`: the task to run from, the failed one unless named."""

    from_task: str | None = None


class CompleteBody(msgspec.Struct, frozen=True):
    """Of `POST /api/tasks/{id}/complete`."""

    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class FailBody(msgspec.Struct, frozen=True):
    """Of `POST /api/tasks/{id}/fail`: a message, or an object with `message`, `name`, `code` and `permanent`."""

    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def raw_text(value: msgspec.Raw | msgspec.UnsetType) -> str | None:
    """A member of a body as JSON text; None when it was left out."""
    return None if isinstance(value, msgspec.UnsetType) else bytes(value).decode()


def initial_context(value: msgspec.Raw | msgspec.UnsetType) -> str:
    """The context an execution begins with, as JSON text of an object. Raises :class:`InvalidRequest`."""
    text = raw_text(value)
    if text is None or text == "null":
        return "{}"
    return context_in(msgspec.json.decode(text)) if text.startswith('"') else _object(text)


def context_in(text: Any) -> str:
    """The same of a text that holds it. Raises :class:`InvalidRequest`."""
    if not isinstance(text, str):
        raise InvalidRequest(_CONTEXT_RULE, pointer="/initialContext")
    return _object(text)


def _object(text: str) -> str:
    try:
        encoded = text.encode()
        check_depth(encoded)
        _members.decode(encoded)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise InvalidRequest(_CONTEXT_RULE, pointer="/initialContext") from None
    return text
