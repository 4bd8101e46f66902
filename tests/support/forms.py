"""Bodies of native forms compiled without a service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from versions.document import Document, decode_document
from versions.errors import DocumentInvalid
from versions.forms import FORMS
from versions.sources import Source, native_source

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def compiled(dialect: str, body: dict[str, Any], *, handlers: tuple[str, ...] = (), untyped: Any = "noop") -> Source:
    """The source of a valid body."""
    return native_source(FORMS[dialect], body, "handle", NOW, known_handlers=handlers, check_url=None, untyped=untyped)


def document_of(dialect: str, body: dict[str, Any], **installation: Any) -> Document:
    return decode_document(compiled(dialect, body, **installation).source)


def shown(dialect: str, source: Source) -> dict[str, Any]:
    """The version as this form shows it, whichever form it was written in."""
    original = msgspec.json.decode(source.original or "null") if source.dialect == dialect else None
    return FORMS[dialect].show(decode_document(source.source), original)


def problems(dialect: str, body: dict[str, Any], **installation: Any) -> list[tuple[str, str, str]]:
    """What is wrong with a body: (kind, pointer, message) each."""
    try:
        compiled(dialect, body, **installation)
    except DocumentInvalid as error:
        return [(each.kind or "", each.pointer or "", each.message) for each in error.problems]
    return []
