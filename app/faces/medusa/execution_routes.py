"""Executions: list and look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.faces.medusa import views
from app.faces.medusa.fields import Fields
from app.faces.medusa.filters import fields_query, list_query
from app.faces.medusa.finding import find_execution, find_transaction, find_workflow
from instances.parents import ParentStep
from instances.search.store import Row
from instances.service import InstanceService
from instances.store import STEPS
from tenants.auth import Caller
from versions.service import VersionService

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Instances = NamedDependency[InstanceService]
Versions = NamedDependency[VersionService]


@get("/workflows-executions")
async def list_executions(request: AnyRequest, caller: Who, instances: Instances) -> Response[dict[str, Any]]:
    """Executions by workflow, transaction and run, or in the order asked for."""
    asked = list_query(request.scope["query_string"])
    if views.needs_journal(asked.fields):
        page = await instances.reader.page(caller, asked.search, detail=STEPS)
        parents = await _parents(instances, caller, page.found.rows, asked.fields)
        told = [views.view(one, asked.fields, parents.get(one.row.facts.key)) for one in page.shown]
        found = page.found
    else:
        found = await instances.searcher.search(caller, asked.search)
        told = [views.plain_view(row, asked.fields) for row in found.rows]
    body = {
        "workflow_executions": told,
        "count": found.total,
        "offset": asked.search.offset,
        "limit": asked.search.limit,
    }
    return Response(body, headers={"x-count-capped": "true"} if found.capped else {})


@get("/workflows-executions/{id:str}")
async def get_execution(request: AnyRequest, id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """An execution by its id."""
    fields = fields_query(request.scope["query_string"])
    return await _shown(instances, caller, await find_execution(instances, caller, id), fields)


@get("/workflows-executions/{workflow_id:str}/{transaction_id:str}")
async def get_transaction(
    request: AnyRequest,
    workflow_id: FromPath[str],
    transaction_id: FromPath[str],
    caller: Who,
    instances: Instances,
    versions: Versions,
) -> dict[str, Any]:
    """The newest run of a transaction."""
    fields = fields_query(request.scope["query_string"])
    workflow = await find_workflow(versions, caller, workflow_id)
    return await _shown(instances, caller, await find_transaction(instances, caller, workflow, transaction_id), fields)


async def _shown(instances: InstanceService, caller: Caller, row: Row, fields: Fields) -> dict[str, Any]:
    if not views.needs_journal(fields):
        return {"workflow_execution": views.plain_view(row, fields)}
    parents = await _parents(instances, caller, [row], fields)
    shown = await instances.reader.of(caller, row)
    return {"workflow_execution": views.view(shown, fields, parents.get(row.facts.key))}


async def _parents(
    instances: InstanceService, caller: Caller, rows: Sequence[Row], fields: Fields
) -> dict[UUID, ParentStep]:
    """The steps that executions are children of, if any of that is wanted."""
    return await instances.reader.parents(caller, rows) if fields.has("execution") else {}


route_handlers = [list_executions, get_execution, get_transaction]
