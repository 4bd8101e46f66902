"""Workflow definitions: tasks and synchronisation points, in versions that never change."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces import query_strings
from app.faces.orchestration import queries, views
from instances.listing import COUNTED_ROWS
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.bodies import decode_body
from versions.definitions.schemas import Definition
from versions.service import VersionService

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Versions = NamedDependency[VersionService]
Instances = NamedDependency[InstanceService]


async def view(instances: InstanceService, caller: Caller, found: Definition) -> dict[str, Any]:
    """A definition; that of a script has the steps it is known to have as tasks, to callers who may see executions."""
    steps = []
    if not found.is_document and caller.allows("executions:read"):
        steps = await instances.reader.known_steps(caller, found.workflow.workflow_key)
    return views.definition(found, caller, steps)


@get("/workflows")
async def list_workflows(
    request: AnyRequest, caller: Who, versions: Versions, instances: Instances
) -> Response[list[dict[str, Any]]]:
    """Definitions, the newest first."""
    query = query_strings.values(request, "limit", "offset")
    rows, start = queries.limit(query), queries.offset(query)
    found, total = await versions.definitions.page(caller, limit=rows, offset=start)
    capped = total > COUNTED_ROWS
    headers = queries.page_headers(request, rows, start, min(total, COUNTED_ROWS), capped=capped)
    return Response([await view(instances, caller, one) for one in found], headers=headers)


@get("/workflows/{id:str}")
async def get_workflow(
    request: AnyRequest, id: FromPath[str], caller: Who, versions: Versions, instances: Instances
) -> dict[str, Any]:
    """A definition, in its current version or in the one asked for."""
    query = query_strings.values(request, "version")
    if "version" in query:
        found = await versions.definitions.version(caller, id, query["version"], decimal=True)
    else:
        found = await versions.definitions.get(caller, id, decimal=True)
    return await view(instances, caller, found)


@post("/workflows", status_code=201)
async def create_workflow(
    request: AnyRequest, body: RawBody, caller: Who, versions: Versions
) -> Response[dict[str, Any]]:
    """A new definition, in version 1.0.0."""
    caller.require("workflows:write")
    made = await versions.definitions.create(caller, views.DIALECT, decode_body(body, dict[str, Any]))
    told = views.definition(made.definition, caller)
    return Response(told, status_code=201, headers=queries.location(request, f"workflows/{told['id']}"))


@put("/workflows/{id:str}", status_code=200)
async def update_workflow(
    id: FromPath[str], body: RawBody, caller: Who, versions: Versions, instances: Instances
) -> dict[str, Any]:
    """Change what the body names. What comes to something else makes the next version."""
    caller.require("workflows:write")
    said = decode_body(body, dict[str, Any])
    done = await versions.definitions.update(caller, views.DIALECT, id, said, decimal=True)
    return await view(instances, caller, done.definition)


@delete("/workflows/{id:str}", status_code=204)
async def delete_workflow(id: FromPath[str], caller: Who, versions: Versions) -> None:
    """Retire a definition; executions of it finish, and stay readable."""
    caller.require("workflows:delete")
    await versions.definitions.delete(caller, id, decimal=True)


route_handlers = [list_workflows, get_workflow, create_workflow, update_workflow, delete_workflow]
