"""Following an execution by server-sent events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.faces import query_strings
from app.faces.streams import last_event_id, open_stream
from app.faces.workspaces import stream
from app.faces.workspaces.access import WorkspaceAccess
from app.faces.workspaces.errors import told
from app.faces.workspaces.execution_routes import READ, execution_key
from app.failures import log_failure, understand
from instances.search.executions import Shown
from instances.service import InstanceService
from tenants.clock import Clock
from tenants.service import TenantService


@get("/workflows/executions/{execution_id:str}/stream", status_code=200, opt={"accepts_ticket": True})
async def stream_execution(
    request: Request[Any, Any, Any],
    execution_id: FromPath[str],
    access: NamedDependency[WorkspaceAccess],
    instances: NamedDependency[InstanceService],
    tenants: NamedDependency[TenantService],
    clock: NamedDependency[Clock],
) -> Response[Any]:
    """Steps and progress of an execution as they come, until its end; 204 for who has seen that already."""
    entered = await access.enter(READ)
    key = execution_key(execution_id)

    def read() -> Any:
        return instances.reader.one(entered.caller, key)

    first: Shown = await stream.consistent(read)
    query = query_strings.values(request, "steps")
    all_steps = "steps" in query and query_strings.choice(query, "steps", ("all",)) == "all"
    last = last_event_id(request)
    if stream.is_over(first, last):
        return Response(None, status_code=204)

    source = stream.events(
        first,
        last,
        read,
        lambda after: instances.follow.instance(entered.caller, key, after),
        all_steps=all_steps,
        now=clock.now,
    )

    async def events() -> AsyncGenerator[bytes]:
        try:
            async with contextlib.aclosing(source):
                async for piece in source:
                    yield piece
        except Exception as error:
            understood = understand(error)
            log_failure(error, understood)
            _, code, message = told(understood)
            yield stream.failed(message, code)

    return await open_stream(
        events,
        caller=entered.caller,
        tenants=tenants,
        feed=instances.feed,
        still_allowed=lambda: tenants.recheck(entered.caller),
        heartbeat=lambda: stream.heartbeat(clock.now()),
        refused=lambda error: stream.failed(*reversed(told(error)[1:])),
    )


route_handlers = [stream_execution]
