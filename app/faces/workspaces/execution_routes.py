"""Executions: start, look at, cancel, list.

Checks come in one order everywhere: access, workflow, execution, body.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces import query_strings
from app.faces.once import once, response
from app.faces.workspaces import queries, views
from app.faces.workspaces.access import WorkspaceAccess
from app.faces.workspaces.errors import CannotCancelExecution
from app.faces.workspaces.schemas import execute_body, require_json
from instances.creation import Wanted
from instances.errors import CannotCancel, InstanceNotFound
from instances.executions.waiting import Until
from instances.lifecycle import TriggerSource
from instances.search.executions import Shown
from instances.search.query import Field, InFacets, Search, between, every
from instances.service import InstanceService
from tenants.clock import Clock
from tenants.idempotency import Answer, Claim
from tenants.service import TenantService
from tenants.spellings import EXECUTION, parse_key
from tenants.workspaces import Entered
from versions.definitions.schemas import Definition
from versions.errors import WorkflowInactive
from versions.schemas import ACTIVE
from versions.service import VersionService

READ, WRITE = "executions:read", "executions:write"
CANCELLED = "Execution cancelled successfully"
NEVER_RUN = "No executions found for this workflow"

AnyRequest = Request[Any, Any, Any]
Access = NamedDependency[WorkspaceAccess]
Instances = NamedDependency[InstanceService]
Versions = NamedDependency[VersionService]
Tenants = NamedDependency[TenantService]
Now = NamedDependency[Clock]


def execution_key(text: str) -> UUID:
    """The key an id in a path names. Raises :class:`InstanceNotFound`."""
    key = parse_key(text, EXECUTION)
    if key is None:
        raise InstanceNotFound()
    return key


async def find(instances: InstanceService, entered: Entered, id: str) -> Shown:
    """The execution of an id in a path. Raises :class:`InstanceNotFound`, also when it is of another workspace."""
    return await instances.reader.one(entered.caller, execution_key(id))


# --- one execution -----------------------------------------------------------------------------------------------


@post("/workflows/{workflow_id:str}/execute", status_code=200)
async def execute(
    request: AnyRequest,
    workflow_id: FromPath[str],
    body: RawBody,
    access: Access,
    instances: Instances,
    versions: Versions,
    tenants: Tenants,
) -> Response[bytes]:
    """Start an execution, and with `wait` hold the answer until its end."""
    entered = await access.enter_as_member(WRITE)
    found = await versions.definitions.get(entered.caller, workflow_id)
    if found.workflow.status != ACTIVE:
        raise WorkflowInactive()
    seconds = query_strings.number(query_strings.values(request, "wait"), "wait", 0, 0, queries.WAIT_MAX_S)
    require_json(request, body)
    asked = execute_body(body)
    wanted = Wanted(
        input=asked.trigger_data,
        trigger_source=TriggerSource.MANUAL,
        face="004",
        variables=asked.variables,
        dry_run=asked.dry_run,
    )

    async def work(claim: Claim) -> Answer:
        made = await instances.create(entered.caller, found.workflow.handle, wanted, claim.id)
        if seconds:
            await instances.executions.wait(entered.caller, made.key, Until.END, seconds)
        shown = await instances.reader.one(entered.caller, made.key)
        told = {"execution": views.detail(shown, entered.workspace.id)}
        return Answer(200, msgspec.json.encode(told).decode())

    operation = f"POST /api/workspaces/{entered.workspace.id}/workflows/{found.workflow.handle}/execute"
    return response(await once(request, tenants, entered.caller, operation, body, work))


@get("/workflows/executions/{execution_id:str}")
async def get_execution(
    execution_id: FromPath[str], access: Access, instances: Instances, versions: Versions, clock: Now
) -> dict[str, Any]:
    """An execution with its steps and its workflow, how far it is, and how long it took."""
    entered = await access.enter(READ)
    shown = await find(instances, entered, execution_id)
    version = shown.row.facts.version_key
    definitions = await versions.definitions.of_versions(entered.caller, [version])
    if version not in definitions:
        raise InstanceNotFound()  # it was deleted in between, with its workflow
    workflow = views.of_workflow(definitions[version], entered.caller)
    return {
        "execution": {**views.detail(shown, entered.workspace.id), "workflow": workflow},
        "progress": views.progress(shown.execution.progress),
        "timing": views.timing(shown.execution, clock.now()),
    }


@post("/workflows/executions/{execution_id:str}", status_code=200)
async def cancel_by_post(execution_id: FromPath[str], access: Access, instances: Instances) -> dict[str, Any]:
    """Cancel an execution; a body is ignored."""
    return await _cancel("POST", execution_id, access, instances)


@delete("/workflows/executions/{execution_id:str}", status_code=200)
async def cancel_by_delete(execution_id: FromPath[str], access: Access, instances: Instances) -> dict[str, Any]:
    """Cancel an execution; this face deletes none."""
    return await _cancel("DELETE", execution_id, access, instances)


async def _cancel(method: str, id: str, access: WorkspaceAccess, instances: InstanceService) -> dict[str, Any]:
    entered = await access.enter_as_member(WRITE)
    key = execution_key(id)
    try:
        await instances.executions.cancel(entered.caller, key, via=method)
    except CannotCancel:
        row = await instances.searcher.one(entered.caller, key)
        raise CannotCancelExecution(views.status_of(row.facet)) from None
    shown = await instances.reader.one(entered.caller, key)
    return {"success": True, "execution": views.detail(shown, entered.workspace.id), "message": CANCELLED}


# --- executions of a workflow ------------------------------------------------------------------------------------


@get("/workflows/{workflow_id:str}/execute")
async def get_newest(
    workflow_id: FromPath[str], access: Access, instances: Instances, versions: Versions
) -> dict[str, Any]:
    """The newest execution of a workflow."""
    entered = await access.enter(READ)
    found = await versions.definitions.get(entered.caller, workflow_id)
    asked = Search(workflows=[found.workflow.workflow_key], limit=1, counted=False)
    page = await instances.reader.page(entered.caller, asked)
    if not page.shown:
        return {"execution": None, "message": NEVER_RUN}
    [shown] = page.shown
    return {
        "execution": views.detail(shown, entered.workspace.id),
        "progress": views.progress(shown.execution.progress),
    }


@get("/workflows/{workflow_id:str}/executions")
async def list_executions(
    request: AnyRequest, workflow_id: FromPath[str], access: Access, instances: Instances, versions: Versions
) -> Response[dict[str, Any]]:
    """Executions of a workflow, and numbers of all of them."""
    entered = await access.enter(READ)
    found = await versions.definitions.get(entered.caller, workflow_id)
    answer, headers = await _page(request, entered, found, instances)
    since, until = queries.started(query_strings.values(request, "from", "to"))
    numbers = await instances.figures.statistics(
        entered.caller, since=since, until=until, workflows=[found.workflow.workflow_key]
    )
    return Response({**answer, "statistics": views.statistics(numbers)}, headers=headers)


@get("/workflows/{workflow_id:str}/history")
async def get_history(
    request: AnyRequest, workflow_id: FromPath[str], access: Access, instances: Instances, versions: Versions
) -> Response[dict[str, Any]]:
    """Executions of a workflow; with `executionId` that one, with its steps and what came of them."""
    entered = await access.enter(READ)
    found = await versions.definitions.get(entered.caller, workflow_id)
    id = query_strings.values(request, "executionId").get("executionId")
    if id is None:
        answer, headers = await _page(request, entered, found, instances)
        return Response(answer, headers=headers)
    shown = await find(instances, entered, id)
    if shown.row.facts.workflow_key != found.workflow.workflow_key:
        raise InstanceNotFound()
    told = views.detail(shown, entered.workspace.id)
    return Response({"execution": {**told, "executionSummary": views.summary(shown.execution.progress)}})


async def _page(
    request: AnyRequest, entered: Entered, found: Definition, instances: InstanceService
) -> tuple[dict[str, Any], dict[str, str]]:
    query = query_strings.values(request, "status", "from", "to", "limit", "offset", "page", "sortBy", "sortOrder")
    window = queries.window(query)
    facets = queries.facets(query)
    by, descending = queries.order(query)
    asked = Search(
        where=every(
            InFacets(facets) if facets is not None else None, between(Field.STARTED_AT, *queries.started(query))
        ),
        workflows=[found.workflow.workflow_key],
        by=by,
        descending=descending,
        ranks=views.RANKS,
        limit=window.limit,
        offset=window.offset,
    )
    page = await instances.searcher.search(entered.caller, asked)
    answer = {
        "executions": [views.listed(row, entered.workspace.id) for row in page.rows],
        "pagination": window.shown(page.total or 0, more=page.more),
    }
    return answer, {"x-count-capped": "true"} if page.capped else {}


route_handlers = [execute, get_execution, cancel_by_post, cancel_by_delete, get_newest, list_executions, get_history]
