"""The route of an instance's log, which is ours: as pages, or as a stream of what comes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.errors import InvalidRequest
from instances.errors import InstanceNotFound, TooManyStreams
from instances.event_stream import EventStream
from instances.listing import one_of, single_values
from instances.logs import LogPage
from instances.projections.log_lines import LEVELS
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.paging import whole_number
from tenants.results import Envelope, ok
from tenants.service import TenantService

LINES_PER_PAGE = 100
LINES_PER_PAGE_MAX = 1000
MAX_SEQ = 2**63 - 1

AnyRequest = Request[Any, Any, Any]
Instances = NamedDependency[InstanceService]
Tenants = NamedDependency[TenantService]


@get("/accounts/{account_id:str}/workflows/{workflow_name:str}/instances/{instance_id:str}/logs")
async def get_logs(
    request: AnyRequest,
    workflow_name: FromPath[str],
    instance_id: FromPath[str],
    caller: NamedDependency[Caller],
    instances: Instances,
    tenants: Tenants,
) -> Envelope | Response[Any]:
    """Log lines, oldest first; with `Accept: text/event-stream` also those to come, until the instance has ended."""
    query = single_values(request.query_params.dict(), frozenset({"level", "cursor", "per_page"}))
    level = one_of(query, "level", LEVELS)
    per_page = whole_number(query, "per_page", default=LINES_PER_PAGE, minimum=1, maximum=LINES_PER_PAGE_MAX)
    live = "text/event-stream" in request.headers.get("accept", "")
    last_seen = request.headers.get("last-event-id") if live else None
    after = _seq("cursor", query.get("cursor")) if last_seen is None else _seq("Last-Event-ID", last_seen)
    key = await instances.find(caller, workflow_name, instance_id)
    page = await instances.logs.page(caller.account_id, key, after=after, level=level, per_page=per_page)
    if page is None:
        raise InstanceNotFound()
    if not live:
        return _as_page(page, per_page)
    if last_seen is not None and page.status.finished and not page.lines:
        return Response(None, status_code=204)  # stops a browser from connecting again and again
    return await _as_stream(request, caller, instances, tenants, key, after, level)


def _seq(name: str, text: str | None) -> int:
    """The seq to go on after. Raises :class:`InvalidRequest`."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > MAX_SEQ:
        raise InvalidRequest(f"{name} must be the id of a log line")
    return int(text)


def _as_page(page: LogPage, per_page: int) -> Envelope:
    info: dict[str, Any] = {"count": len(page.lines), "per_page": per_page}
    if page.cursor is not None:
        info["cursor"] = str(page.cursor)
    return ok(page.lines, info=info)


async def _as_stream(
    request: AnyRequest,
    caller: Caller,
    instances: InstanceService,
    tenants: TenantService,
    key: UUID,
    after: int,
    level: str,
) -> EventStream:
    """Raises :class:`TooManyStreams`."""
    limit = (await tenants.limits(caller.account_id)).streams
    credential = caller.token_id or caller.user_id or caller.account_id
    instances.feed.require_slot(credential, limit)
    headers = dict(request.headers)

    async def frames() -> AsyncIterator[bytes]:
        try:
            with instances.feed.slot(credential, limit):
                stream = instances.logs.stream(
                    caller.account_id,
                    key,
                    after=after,
                    level=level,
                    still_allowed=lambda: tenants.authenticate_headers(headers),
                )
                async with contextlib.aclosing(stream):
                    async for frame in stream:
                        yield frame
        except TooManyStreams:
            return  # another took the last slot since it was looked at: this one ends, and its client will hear 429

    return EventStream(frames())
