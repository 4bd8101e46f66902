"""Workflows of this face: nodes and connections."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Request, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.errors import InvalidRequest
from app.faces import query_strings
from app.faces.jobsprint import queries
from app.faces.jobsprint.errors import Conflict, NotFound, dotted
from app.faces.jobsprint.results import Pagination, ok
from app.faces.jobsprint.schemas import DuplicateBody
from instances.search.cursors import Cursors
from tenants.auth import Caller
from tenants.bodies import decode_body
from tenants.clock import Clock, iso
from tenants.spellings import WORKFLOW, spell
from versions.definitions.schemas import Definition, Profile
from versions.errors import ChangedMeanwhile, OtherForm, WorkflowNotFound
from versions.service import VersionService

DIALECT = "001"
STATUSES = ("draft", "active", "inactive")

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Versions = NamedDependency[VersionService]
Now = NamedDependency[Clock]


async def find(versions: VersionService, caller: Caller, id: str) -> Definition:
    """The workflow an id in a path names: `wf_…`, UUID or handle. Raises :class:`NotFound`."""
    try:
        return await versions.definitions.get(caller, id, counted=True)
    except WorkflowNotFound:
        raise NotFound("workflow", id) from None


def view(found: Definition, caller: Caller) -> dict[str, Any]:
    """A workflow as this face shows it."""
    workflow, body = found.workflow, found.shown(DIALECT, caller)
    return {
        "id": spell(WORKFLOW, workflow.workflow_key),
        "name": workflow.display_name,
        "description": body["description"],
        "status": "inactive" if workflow.status == "archived" else workflow.status,
        "version": found.no,
        "definition": body["definition"],
        "settings": body["settings"],
        "triggers": body["triggers"],
        "createdAt": iso(workflow.created_at),
        "updatedAt": iso(workflow.modified_at),
        "lastExecutionAt": None if found.last_execution_at is None else iso(found.last_execution_at),
        "executionCount": found.executions or 0,
    }


def _body(body: RawBody) -> tuple[dict[str, Any], Profile]:
    """What a body says of the definition, and what of the workflow."""
    said = decode_body(body, dict[str, Any])
    status = said.get("status")
    if status is not None and status not in STATUSES:
        raise InvalidRequest(f"status must be one of {', '.join(STATUSES)}", pointer="/status")
    return said, Profile(status=status)


@get("/workflows")
async def list_workflows(
    request: AnyRequest, caller: Who, versions: Versions, cursors: NamedDependency[Cursors], clock: Now
) -> dict[str, Any]:
    """Workflows, the newest first."""
    query = query_strings.values(request, "limit", "after", "status", "search")
    rows = queries.limit(query)
    status = query_strings.choice(query, "status", STATUSES) if "status" in query else None
    of = caller.account_id.bytes + f"workflows\0{status}\0{query.get('search')}".encode()
    offset = cursors.read(query["after"], of, "after").int if "after" in query else 0
    found, _ = await versions.definitions.page(
        caller,
        limit=rows + 1,
        offset=offset,
        statuses=None if status is None else [status],
        search=query.get("search") or None,
        counted=True,
    )
    more = len(found) > rows
    following = cursors.write(UUID(int=offset + rows), of) if more else None
    pagination = Pagination(next_cursor=following, previous_cursor=None, has_more=more)
    return ok(clock, [view(one, caller) for one in found[:rows]], pagination)


@post("/workflows", status_code=200)
async def create_workflow(body: RawBody, caller: Who, versions: Versions, clock: Now) -> dict[str, Any]:
    """A new workflow, active unless its `status` says otherwise."""
    caller.require("workflows:write")
    said, profile = _body(body)
    made = await versions.definitions.create(caller, DIALECT, said, profile=profile)
    return ok(clock, view(made.definition, caller))


@post("/workflows/validate", status_code=200)
async def validate_workflow(body: RawBody, caller: Who, versions: Versions, clock: Now) -> dict[str, Any]:
    """What is wrong with a workflow, without storing it."""
    verdict = await versions.definitions.validate(caller, DIALECT, decode_body(body, dict[str, Any]))
    told = {
        "valid": not verdict.problems,
        "warnings": [{"type": one.kind or "WARNING", "message": one.message} for one in verdict.warnings],
        "errors": [
            {"type": one.kind or "INVALID_FIELD", "field": dotted(one.pointer), "message": one.message}
            for one in verdict.problems
        ],
    }
    return ok(clock, told)


@get("/workflows/{workflow_id:str}")
async def get_workflow(workflow_id: FromPath[str], caller: Who, versions: Versions, clock: Now) -> dict[str, Any]:
    """A workflow with its definition."""
    return ok(clock, view(await find(versions, caller, workflow_id), caller))


@put("/workflows/{workflow_id:str}")
async def update_workflow(
    workflow_id: FromPath[str], body: RawBody, caller: Who, versions: Versions, clock: Now
) -> dict[str, Any]:
    """Change what the body names. Running executions keep their version."""
    caller.require("workflows:write")
    said, profile = _body(body)
    current = await find(versions, caller, workflow_id)
    try:
        done = await versions.definitions.update(caller, DIALECT, workflow_id, said, profile=profile)
    except WorkflowNotFound:
        raise NotFound("workflow", workflow_id) from None
    except (OtherForm, ChangedMeanwhile) as error:
        raise Conflict(error.message, current.workflow.status) from None
    return ok(clock, view(done.definition, caller))


@delete("/workflows/{workflow_id:str}", status_code=200)
async def delete_workflow(workflow_id: FromPath[str], caller: Who, versions: Versions, clock: Now) -> dict[str, Any]:
    """Retire a workflow: nothing starts it any more, running executions finish and stay readable."""
    caller.require("workflows:write", "workflows:delete")
    found = await find(versions, caller, workflow_id)
    try:
        await versions.definitions.delete(caller, workflow_id)
    except WorkflowNotFound:
        raise NotFound("workflow", workflow_id) from None
    return ok(clock, {"id": spell(WORKFLOW, found.workflow.workflow_key), "deleted": True})


@post("/workflows/{workflow_id:str}/activate", status_code=200)
async def activate_workflow(workflow_id: FromPath[str], caller: Who, versions: Versions, clock: Now) -> dict[str, Any]:
    """Let the workflow be executed, by callers and by its schedules."""
    return await _set_status(versions, caller, workflow_id, "active", clock)


@post("/workflows/{workflow_id:str}/deactivate", status_code=200)
async def deactivate_workflow(
    workflow_id: FromPath[str], caller: Who, versions: Versions, clock: Now
) -> dict[str, Any]:
    """Let nothing execute the workflow; running executions go on."""
    return await _set_status(versions, caller, workflow_id, "inactive", clock)


async def _set_status(versions: VersionService, caller: Caller, id: str, status: str, clock: Clock) -> dict[str, Any]:
    try:
        await versions.definitions.set_status(caller, id, status)
    except WorkflowNotFound:
        raise NotFound("workflow", id) from None
    except ChangedMeanwhile as error:
        raise Conflict(error.message, "changing") from None
    return ok(clock, view(await find(versions, caller, id), caller))


@post("/workflows/{workflow_id:str}/duplicate", status_code=200)
async def duplicate_workflow(
    workflow_id: FromPath[str], body: RawBody, caller: Who, versions: Versions, clock: Now
) -> dict[str, Any]:
    """A copy of the workflow, a draft, under a `name` of the body or `… (copy)`."""
    caller.require("workflows:write")
    name = decode_body(body, DuplicateBody).name
    try:
        made = await versions.definitions.duplicate(caller, workflow_id, name=name)
    except WorkflowNotFound:
        raise NotFound("workflow", workflow_id) from None
    return ok(clock, view(made.definition, caller))


route_handlers = [
    list_workflows,
    create_workflow,
    validate_workflow,
    get_workflow,
    update_workflow,
    delete_workflow,
    activate_workflow,
    deactivate_workflow,
    duplicate_workflow,
]
