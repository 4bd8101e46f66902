"""Executions: start, list, look at, steer, repeat and hide them; how far they are, and their logs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces import query_strings
from app.faces.once import once, response
from app.faces.orchestration import executions, queries, views
from app.faces.orchestration.schemas import RetryBody, StartBody, initial_context
from instances.creation import Wanted
from instances.errors import InstanceNotFound
from instances.lifecycle import TriggerSource
from instances.projections.log_lines import LEVELS
from instances.search.executions import Shown
from instances.search.query import InFacets, Search, every
from instances.service import InstanceService
from instances.store import STEPS
from tenants.auth import Caller
from tenants.bodies import decode_body
from tenants.clock import Clock
from tenants.idempotency import Answer, Claim
from tenants.service import TenantService
from versions.errors import WorkflowNotFound
from versions.service import VersionService

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Instances = NamedDependency[InstanceService]
Versions = NamedDependency[VersionService]
Tenants = NamedDependency[TenantService]
Now = NamedDependency[Clock]


# --- reading -----------------------------------------------------------------------------------------------------


@get("/executions")
async def list_executions(
    request: AnyRequest, caller: Who, instances: Instances, versions: Versions
) -> Response[list[dict[str, Any]]]:
    """Executions, the newest first."""
    caller.require("executions:read")
    query = query_strings.values(request, "status", "workflowDefinitionId", "limit", "offset")
    rows, start = queries.limit(query), queries.offset(query)
    facets = queries.facets(query)
    workflows: list[UUID] | None = None
    if "workflowDefinitionId" in query:
        try:
            found = await versions.definitions.get(caller, query["workflowDefinitionId"], decimal=True)
            workflows = [found.workflow.workflow_key]
        except WorkflowNotFound:
            workflows = []
    where = every(None if facets is None else InFacets(facets))
    search = Search(where=where, workflows=workflows, limit=rows, offset=start)
    page = await instances.reader.page(caller, search, detail=STEPS)
    headers = queries.page_headers(request, rows, start, page.found.total or 0, capped=page.found.capped)
    return Response([views.execution(one) for one in page.shown], headers=headers)


@get("/executions/{id:str}")
async def get_execution(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """An execution with all its tasks and its context."""
    return views.execution(await executions.find(instances, caller, id))


@get("/executions/{id:str}/progress")
async def get_progress(
    id: FromPath[str], caller: Who, instances: Instances, versions: Versions, clock: Now
) -> dict[str, Any]:
    """How far an execution is, what holds it up, and when it will be through."""
    shown = await executions.find(instances, caller, id)
    figures = await versions.definitions.node_figures(caller.account_id, shown.row.facts.workflow_key)
    means = {task: figure.mean_ms for task, figure in figures.items()}
    return views.progress(shown, means, clock.now())


@get("/executions/{executionId:str}/tasks")
async def list_tasks(
    request: AnyRequest, executionId: FromPath[str], caller: Who, instances: Instances
) -> Response[list[dict[str, Any]]]:
    """Tasks of an execution, in the order of the definition."""
    query = query_strings.values(request, "status", "limit", "offset")
    rows, start = queries.limit(query), queries.offset(query)
    states = queries.states(query)
    shown = await executions.find(instances, caller, executionId)
    steps = [step for step in views.tasks_of(shown.execution) if states is None or step.state in states]
    told = [views.task(shown, step) for step in steps[start : start + rows]]
    return Response(told, headers=queries.page_headers(request, rows, start, len(steps)))


@get("/executions/{id:str}/logs")
async def get_logs(
    request: AnyRequest, id: FromPath[str], caller: Who, instances: Instances
) -> Response[list[dict[str, Any]]]:
    """Lines of an execution's log, the oldest first, after the line `after`."""
    query = query_strings.values(request, "level", "limit", "after")
    level = query_strings.choice(query, "level", LEVELS)
    rows = queries.limit(query, queries.LOG_PAGE, queries.LOG_PAGE_MAX)
    after = queries.number(query, "after")
    shown = await executions.find(instances, caller, id)
    page = await instances.logs.page(caller.account_id, shown.row.facts.key, after=after, level=level, per_page=rows)
    if page is None:
        raise InstanceNotFound()
    headers = {} if page.cursor is None else queries.next_header(request, after=page.cursor, limit=rows)
    return Response([views.log_line(shown, line) for line in page.lines], headers=headers)


# --- making ------------------------------------------------------------------------------------------------------


@post("/executions", status_code=201)
async def start_execution(
    request: AnyRequest, body: RawBody, caller: Who, instances: Instances, versions: Versions, tenants: Tenants
) -> Response[bytes]:
    """Start an execution."""
    caller.require("executions:write")
    asked = decode_body(body, StartBody)
    context = initial_context(asked.initial_context)
    found = await versions.definitions.get(caller, str(asked.workflow_definition_id), decimal=True)
    wanted = Wanted(input=context, trigger_source=TriggerSource.API, face=executions.FACE)

    async def work(claim: Claim) -> Answer:
        made = await instances.create(caller, found.workflow.handle, wanted, claim.id)
        return _answer(await instances.reader.one(caller, made.key))

    return await _once(request, tenants, caller, "POST /api/executions", body, work)


@post("/executions/{id:str}/retry", status_code=201)
async def retry_execution(
    request: AnyRequest, id: FromPath[str], body: RawBody, caller: Who, instances: Instances, tenants: Tenants
) -> Response[bytes]:
    """Repeat a failed or cancelled execution as a new one, from the task that failed or from `fromTask`."""
    caller.require("executions:write")
    first = decode_body(body, RetryBody).from_task
    shown = await executions.find(instances, caller, id)
    key = shown.row.facts.key

    async def work(claim: Claim) -> Answer:
        made = await executions.retry(instances, caller, key, first, claim.id())
        return _answer(await instances.reader.one(caller, made))

    return await _once(request, tenants, caller, f"POST /api/executions/{key}/retry", body, work)


def _answer(shown: Shown) -> Answer:
    return Answer(201, msgspec.json.encode(views.created(shown)).decode())


async def _once(
    request: AnyRequest,
    tenants: TenantService,
    caller: Caller,
    operation: str,
    body: bytes,
    work: Callable[[Claim], Awaitable[Answer]],
) -> Response[bytes]:
    """Do `work`; under an `Idempotency-Key` once, and answer repeats with the first answer."""
    answer = await once(request, tenants, caller, operation, body, work)
    return response(answer, queries.location(request, f"executions/{msgspec.json.decode(answer.body)['id']}"))


# --- steering ----------------------------------------------------------------------------------------------------


@post("/executions/{id:str}/cancel", status_code=200)
async def cancel_execution(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """Stop an execution."""
    caller.require("executions:write")
    key = await executions.find_key(instances, caller, id)
    await executions.cancel(instances, caller, key)
    return views.execution(await instances.reader.one(caller, key))


@post("/executions/{id:str}/pause", status_code=200)
async def pause_execution(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """Hold an execution; tasks under way finish first."""
    caller.require("executions:write")
    key = await executions.find_key(instances, caller, id)
    await executions.pause(instances, caller, key)
    return views.execution(await instances.reader.one(caller, key))


@post("/executions/{id:str}/resume", status_code=200)
async def resume_execution(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """Let a paused execution go on."""
    caller.require("executions:write")
    key = await executions.find_key(instances, caller, id)
    await executions.resume(instances, caller, key)
    return views.execution(await instances.reader.one(caller, key))


@delete("/executions/{id:str}", status_code=204)
async def delete_execution(id: FromPath[str], caller: Who, instances: Instances) -> None:
    """Hide a finished execution."""
    caller.require("executions:delete")
    key = await executions.find_key(instances, caller, id)
    await executions.delete(instances, caller, key)


route_handlers = [
    list_executions,
    get_execution,
    get_progress,
    list_tasks,
    get_logs,
    start_execution,
    retry_execution,
    cancel_execution,
    pause_execution,
    resume_execution,
    delete_execution,
]
