"""Workflows and versions in the Cloudflare face.

Whoever authenticates the request has made sure that the account in the path is the caller's.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, patch, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from app.errors import NoRoute, Problem
from tenants.accounts import AccountSettings
from tenants.auth import Caller
from tenants.bodies import decode_body, invalid_field
from tenants.clock import iso
from tenants.limits import ROWS_PER_PAGE, ROWS_PER_PAGE_MAX, WORKFLOWS_PER_PAGE
from tenants.paging import page_of
from tenants.results import Envelope, listed, ok
from tenants.service import TenantService
from tenants.workspaces import uuid_of
from versions.deployments.routes import route_handlers as script_routes
from versions.schemas import (
    STATUS_NAMES,
    ConcurrencyLimit,
    DeletedWorkflow,
    DeployedWorkflow,
    SettingsBody,
    ShownDag,
    ShownGraph,
    ShownRetention,
    ShownSchedule,
    ShownSettings,
    ShownVersion,
    ShownWorkflow,
    StepLimit,
    VersionListed,
    WorkflowBody,
    WorkflowListed,
    WorkflowRow,
)
from versions.service import VersionService, check_handle
from versions.settings import retention_ms
from versions.yaml_body import decode_yaml

AnyRequest = Request[Any, Any, Any]
Tenants = NamedDependency[TenantService]
Versions = NamedDependency[VersionService]
Who = NamedDependency[Caller]

WORKFLOW = "/{workflow_name:str}"
VERSIONS = WORKFLOW + "/versions"
VERSION = VERSIONS + "/{version_id:str}"

WARNING_CODE = 10471
"""Code of a `messages` entry about a definition that is accepted, but looks like a mistake."""
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


class WorkflowController(Controller):
    """Workflows and their versions."""

    path = "/accounts/{account_id:str}/workflows"

    @get("/")
    async def workflows(self, request: AnyRequest, caller: Who, versions: Versions) -> Envelope:
        query = request.query_params
        page = page_of(query, default=WORKFLOWS_PER_PAGE, maximum=ROWS_PER_PAGE_MAX)
        rows, total = await versions.page(caller, page, query.get("search"))
        return listed([_workflow(row) for row in rows], page, total)

    @get("/settings")
    async def settings(self, caller: Who, tenants: Tenants) -> Envelope:
        caller.require("workflows:read")
        return _settings(await tenants.accounts.settings(caller.account_id))

    @patch("/settings")
    async def change_settings(self, request: AnyRequest, caller: Who, tenants: Tenants) -> Envelope:
        caller.require("workflows:write")
        body = decode_body(await request.body(), SettingsBody)
        limits = await tenants.limits(caller.account_id)
        wanted = msgspec.structs.asdict(body.default_retention) if body.default_retention else {}
        changes = {
            f"{field}_ms": retention_ms(value, field, limits)
            for field, value in wanted.items()
            if value is not msgspec.UNSET
        }
        return _settings(await tenants.accounts.set_retention(caller, **changes))

    @put("/settings")
    async def refuse_reserved_name(self, caller: Who) -> Envelope:
        """A workflow cannot be called `settings`; without this route a PUT of one would be a 405."""
        check_handle("settings")
        raise NoRoute

    @get(WORKFLOW)
    async def workflow(self, workflow_name: FromPath[str], caller: Who, versions: Versions) -> Envelope:
        return ok(_workflow(await versions.describe(caller, workflow_name)))

    @put(WORKFLOW)
    async def put_workflow(
        self, request: AnyRequest, workflow_name: FromPath[str], caller: Who, versions: Versions
    ) -> Envelope:
        # In a thread: a megabyte of YAML takes a second.
        body = await asyncio.to_thread(_workflow_body, await request.body(), request.content_type[0])
        deployed = await versions.put(caller, workflow_name, body)
        newest, ending = await versions.activity(deployed.workflow)
        row = deployed.workflow
        assert row.current_version is not None
        result = DeployedWorkflow(
            **_workflow_head(row, newest),
            version_id=row.current_version,
            is_deleted=0,
            terminator_running=int(ending),
        )
        return ok(result, messages=[_warning(problem) for problem in deployed.warnings])

    @delete(WORKFLOW, status_code=200)
    async def delete_workflow(self, workflow_name: FromPath[str], caller: Who, versions: Versions) -> Envelope:
        await versions.delete(caller, workflow_name)
        return ok(DeletedWorkflow())

    @get(VERSIONS)
    async def list_versions(
        self, request: AnyRequest, workflow_name: FromPath[str], caller: Who, versions: Versions
    ) -> Envelope:
        page = page_of(request.query_params, default=ROWS_PER_PAGE, maximum=ROWS_PER_PAGE_MAX)
        rows, total = await versions.versions(caller, workflow_name, page)
        return listed([_version(row) for row in rows], page, total)

    @get(VERSION)
    async def version(
        self, workflow_name: FromPath[str], version_id: FromPath[str], caller: Who, versions: Versions
    ) -> Envelope:
        return ok(_version(await versions.version(caller, workflow_name, _version_id(version_id))))

    @get(VERSION + "/dag")
    async def dag(
        self, workflow_name: FromPath[str], version_id: FromPath[str], caller: Who, versions: Versions
    ) -> Envelope:
        row, graph = await versions.graph(caller, workflow_name, _version_id(version_id))
        return ok(ShownDag(**_version_head(row), dag=_raw(graph)))

    @get(VERSION + "/graph")
    async def graph(
        self, workflow_name: FromPath[str], version_id: FromPath[str], caller: Who, versions: Versions
    ) -> Envelope:
        row, graph = await versions.graph(caller, workflow_name, _version_id(version_id))
        return ok(ShownGraph(**_version_head(row), graph=_raw(graph), dag=_raw(graph)))


route_handlers: list[ControllerRouterHandler] = [WorkflowController, *script_routes]


def _workflow_body(body: bytes, content_type: str) -> WorkflowBody:
    if content_type not in _YAML:
        return decode_body(body, WorkflowBody)
    value = decode_yaml(body)
    try:
        return msgspec.convert({} if value is None else value, WorkflowBody)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None


def _settings(settings: AccountSettings) -> Envelope:
    return ok(ShownSettings(ShownRetention(settings.success_retention_ms, settings.error_retention_ms)))


def _workflow_head(row: WorkflowRow, triggered_at: datetime | None) -> dict[str, Any]:
    return {
        "id": row.workflow_key,
        "name": row.handle,
        "class_name": row.class_name,
        "script_name": row.script_name,
        "created_on": iso(row.created_at),
        "modified_on": iso(row.modified_at),
        "triggered_on": None if triggered_at is None else iso(triggered_at),
    }


def _workflow(workflow: WorkflowListed) -> ShownWorkflow:
    return ShownWorkflow(
        **_workflow_head(workflow.row, workflow.triggered_at),
        instances={name: workflow.counts.get(number, 0) for number, name in enumerate(STATUS_NAMES)},
        schedules=[ShownSchedule(cron, iso(firing)) for cron, firing in workflow.schedules],
        script_deleted=workflow.script_deleted,
    )


def _version_head(row: VersionListed) -> dict[str, Any]:
    created = iso(row.created_at)
    return {
        "id": row.version_key,
        "class_name": row.class_name,
        "created_on": created,
        "modified_on": created,
        "workflow_id": row.workflow_key,
    }


def _version(row: VersionListed) -> ShownVersion:
    settings = msgspec.json.decode(row.settings)
    retention = ShownRetention(row.success_retention_ms, row.error_retention_ms)
    return ShownVersion(
        **_version_head(row),
        has_dag=row.has_graph,
        language=row.language,
        limits=StepLimit(**settings["limits"]) if "limits" in settings else None,
        concurrency=ConcurrencyLimit(**settings["concurrency"]) if "concurrency" in settings else None,
        default_retention=retention if retention != ShownRetention() else None,
    )


def _version_id(text: str) -> UUID:
    found = uuid_of(text)
    if found is None:
        raise NoRoute()
    return found


def _raw(graph: str | None) -> msgspec.Raw | None:
    return None if graph is None else msgspec.Raw(graph.encode())


def _warning(problem: Problem) -> dict[str, Any]:
    return {"code": WARNING_CODE, "message": problem.message, "source": {"pointer": problem.pointer}}
