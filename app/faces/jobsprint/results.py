"""The envelope of every answer of this face: `{success, data, pagination?, meta}`, or `{success, error, meta}`."""

from __future__ import annotations

from typing import Any

import msgspec

from tenants.audit import origin
from tenants.clock import Clock, iso


class Pagination(msgspec.Struct, frozen=True, rename="camel"):
    """Where the pages beside this one begin. `has_more` speaks of the direction travelled."""

    next_cursor: str | None
    previous_cursor: str | None
    has_more: bool


def ok(clock: Clock, data: Any, pagination: Pagination | None = None) -> dict[str, Any]:
    """A success with `data`, JSON or what msgspec makes JSON of."""
    answer = {"success": True, "data": data}
    if pagination is not None:
        answer["pagination"] = pagination
    return {**answer, "meta": meta(iso(clock.now()))}


def meta(timestamp: str) -> dict[str, Any]:
    """What is said about the answer itself. `requestId` is the one of the header, with this API's prefix."""
    return {"requestId": f"req_{origin.get().request_id or ''}", "timestamp": timestamp}
