"""Workflows of this face: a trigger, and actions one after the other."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces import query_strings
from app.faces.workspaces import queries, views
from app.faces.workspaces.access import WorkspaceAccess
from app.faces.workspaces.schemas import WORKFLOW_STATUSES, require_json, workflow_body
from versions.definitions.service import COUNTED
from versions.service import VersionService

WRITE, DELETE = "workflows:write", "workflows:delete"

AnyRequest = Request[Any, Any, Any]
Access = NamedDependency[WorkspaceAccess]
Versions = NamedDependency[VersionService]


@get("/workflows")
async def list_workflows(request: AnyRequest, access: Access, versions: Versions) -> Response[dict[str, Any]]:
    """Workflows of the workspace, the newest first."""
    entered = await access.enter()
    query = query_strings.values(request, "limit", "offset", "page", "status", "search")
    window = queries.window(query)
    statuses = [query_strings.choice(query, "status", WORKFLOW_STATUSES).lower()] if "status" in query else None
    found, total = await versions.definitions.page(
        entered.caller,
        limit=window.limit,
        offset=window.offset,
        workspace_id=entered.workspace.id,
        statuses=statuses,
        search=query.get("search") or None,
    )
    answer = {
        "workflows": [views.workflow(one, entered.caller) for one in found],
        "pagination": window.shown(min(total, COUNTED), more=total > window.offset + len(found)),
    }
    return Response(answer, headers={"x-count-capped": "true"} if total > COUNTED else {})


@post("/workflows", status_code=200)
async def create_workflow(request: AnyRequest, body: RawBody, access: Access, versions: Versions) -> dict[str, Any]:
    """A new workflow in the workspace, active unless its `status` says otherwise."""
    entered = await access.enter_as_member(WRITE)
    require_json(request, body)
    said, profile = workflow_body(body)
    made = await versions.definitions.create(
        entered.caller, views.DIALECT, said, workspace_id=entered.workspace.id, profile=profile
    )
    return {"workflow": views.workflow(made.definition, entered.caller)}


@get("/workflows/{workflow_id:str}")
async def get_workflow(workflow_id: FromPath[str], access: Access, versions: Versions) -> dict[str, Any]:
    """A workflow with its actions, and how often it ran."""
    entered = await access.enter()
    found = await versions.definitions.get(entered.caller, workflow_id, counted=True)
    return {"workflow": views.workflow(found, entered.caller)}


@patch("/workflows/{workflow_id:str}", status_code=200)
async def update_workflow(
    request: AnyRequest, workflow_id: FromPath[str], body: RawBody, access: Access, versions: Versions
) -> dict[str, Any]:
    """Change what the body names. Running executions keep their version."""
    entered = await access.enter_as_member(WRITE)
    await versions.definitions.get(entered.caller, workflow_id)
    require_json(request, body)
    said, profile = workflow_body(body)
    done = await versions.definitions.update(entered.caller, views.DIALECT, workflow_id, said, profile=profile)
    return {"workflow": views.workflow(done.definition, entered.caller)}


@delete("/workflows/{workflow_id:str}", status_code=200)
async def delete_workflow(workflow_id: FromPath[str], access: Access, versions: Versions) -> dict[str, Any]:
    """Retire a workflow: nothing starts it any more, running executions finish and stay readable."""
    entered = await access.enter_as_member(WRITE, DELETE)
    found = await versions.definitions.get(entered.caller, workflow_id)
    await versions.definitions.delete(entered.caller, workflow_id)
    return {"success": True, "workflow": {**views.workflow(found, entered.caller), "status": "ARCHIVED"}}


route_handlers = [list_workflows, create_workflow, get_workflow, update_workflow, delete_workflow]
