"""Workflows, versions and scripts in the Cloudflare face."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, patch, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from app.errors import NoRoute, Problem
from tenants.auth import Caller
from tenants.bodies import decode_body, invalid_field
from tenants.clock import iso
from tenants.limits import ROWS_PER_PAGE, ROWS_PER_PAGE_MAX, WORKFLOWS_PER_PAGE
from tenants.paging import page_of
from tenants.results import Envelope, ok
from tenants.service import TenantService
from tenants.workspaces import uuid_of
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
    ShownScript,
    ShownSettings,
    ShownVersion,
    ShownWorkflow,
    StepLimit,
    UploadedScript,
    VersionListed,
    WorkflowBody,
    WorkflowListed,
)
from versions.script_views import script_content, shown_script, tagged, uploaded_script
from versions.service import VersionService, check_handle
from versions.settings import retention_ms
from versions.yaml_body import decode_yaml

AnyRequest = Request[Any, Any, Any]
Versions = NamedDependency[VersionService]

WARNING_CODE = 10471
"""Code of a `messages` entry about a definition that is accepted, but looks like a mistake."""
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


class WorkflowController(Controller):
    """Workflows and their versions."""

    path = "/accounts/{account_id:str}/workflows"

    @get("/")
    async def workflows(
        self, request: AnyRequest, account_id: FromPath[str], caller: NamedDependency[Caller], versions: Versions
    ) -> Envelope:
        caller.owns(account_id)
        query = request.query_params
        page = page_of(query, default=WORKFLOWS_PER_PAGE, maximum=ROWS_PER_PAGE_MAX)
        rows, total = await versions.page(caller, page, query.get("search"))
        return ok([_workflow(row) for row in rows], info=page.info(len(rows), total))

    @get("/settings")
    async def settings(
        self, account_id: FromPath[str], caller: NamedDependency[Caller], tenants: NamedDependency[TenantService]
    ) -> Envelope:
        caller.owns(account_id)
        caller.require("workflows:read")
        found = await tenants.accounts.settings(caller.account_id)
        return ok(ShownSettings(ShownRetention(found.success_retention_ms, found.error_retention_ms)))

    @patch("/settings")
    async def change_settings(
        self,
        request: AnyRequest,
        account_id: FromPath[str],
        caller: NamedDependency[Caller],
        tenants: NamedDependency[TenantService],
    ) -> Envelope:
        caller.owns(account_id)
        caller.require("workflows:write")
        body = decode_body(await request.body(), SettingsBody)
        limits = await tenants.limits(caller.account_id)
        changes = (
            {
                f"{field}_ms": retention_ms(value, field, limits)
                for field, value in msgspec.structs.asdict(body.default_retention).items()
                if value is not msgspec.UNSET
            }
            if body.default_retention
            else {}
        )
        found = await tenants.accounts.set_retention(caller, **changes)
        return ok(ShownSettings(ShownRetention(found.success_retention_ms, found.error_retention_ms)))

    @put("/settings")
    async def refuse_reserved_name(self, account_id: FromPath[str], caller: NamedDependency[Caller]) -> Envelope:
        """A workflow cannot be called `settings`; without this route a PUT of one would be a 405."""
        caller.owns(account_id)
        check_handle("settings")
        raise NoRoute

    @get("/{workflow_name:str}")
    async def workflow(
        self,
        account_id: FromPath[str],
        workflow_name: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        return ok(_workflow(await versions.describe(caller, workflow_name)))

    @put("/{workflow_name:str}")
    async def put_workflow(
        self,
        request: AnyRequest,
        account_id: FromPath[str],
        workflow_name: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        body = _workflow_body(await request.body(), request.content_type[0])
        deployed = await versions.put(caller, workflow_name, body)
        newest, ending = await versions.activity(deployed.workflow)
        row = deployed.workflow
        assert row.current_version is not None
        result = DeployedWorkflow(
            id=row.workflow_key,
            name=row.handle,
            class_name=row.class_name,
            script_name=row.script_name,
            created_on=iso(row.created_at),
            modified_on=iso(row.modified_at),
            triggered_on=None if newest is None else iso(newest),
            version_id=row.current_version,
            is_deleted=0,
            terminator_running=int(ending),
        )
        return ok(result, messages=[_warning(problem) for problem in deployed.warnings])

    @delete("/{workflow_name:str}", status_code=200)
    async def delete_workflow(
        self,
        account_id: FromPath[str],
        workflow_name: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        await versions.delete(caller, workflow_name)
        return ok(DeletedWorkflow())

    @get("/{workflow_name:str}/versions")
    async def list_versions(
        self,
        request: AnyRequest,
        account_id: FromPath[str],
        workflow_name: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        page = page_of(request.query_params, default=ROWS_PER_PAGE, maximum=ROWS_PER_PAGE_MAX)
        rows, total = await versions.versions(caller, workflow_name, page)
        return ok([_version(row) for row in rows], info=page.info(len(rows), total))

    @get("/{workflow_name:str}/versions/{version_id:str}")
    async def version(
        self,
        account_id: FromPath[str],
        workflow_name: FromPath[str],
        version_id: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        return ok(_version(await versions.version(caller, workflow_name, _version_id(version_id))))

    @get("/{workflow_name:str}/versions/{version_id:str}/dag")
    async def dag(
        self,
        account_id: FromPath[str],
        workflow_name: FromPath[str],
        version_id: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        row, graph = await versions.graph(caller, workflow_name, _version_id(version_id))
        return ok(ShownDag(**_version_head(row), dag=_raw(graph)))

    @get("/{workflow_name:str}/versions/{version_id:str}/graph")
    async def graph(
        self,
        account_id: FromPath[str],
        workflow_name: FromPath[str],
        version_id: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        row, graph = await versions.graph(caller, workflow_name, _version_id(version_id))
        return ok(ShownGraph(**_version_head(row), graph=_raw(graph), dag=_raw(graph)))


class ScriptController(Controller):
    """Uploaded scripts."""

    path = "/accounts/{account_id:str}/workers/scripts"

    @get("/")
    async def scripts(
        self, request: AnyRequest, account_id: FromPath[str], caller: NamedDependency[Caller], versions: Versions
    ) -> Envelope:
        caller.owns(account_id)
        found: list[ShownScript] = [shown_script(row) for row in await versions.scripts.all(caller)]
        return ok(tagged(found, request.query_params.get("tags")))

    @get("/{script_name:str}")
    async def script(
        self,
        account_id: FromPath[str],
        script_name: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Response[bytes]:
        caller.owns(account_id)
        row = await versions.scripts.get(caller, script_name)
        content, media_type = script_content(row, await versions.scripts.modules(caller.account_id, row.id))
        return Response(
            content, media_type=media_type, headers={"etag": f'"{row.etag}"', "x-content-type-options": "nosniff"}
        )

    @put("/{script_name:str}")
    async def upload_script(
        self,
        request: AnyRequest,
        account_id: FromPath[str],
        script_name: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        row, unresolved = await versions.scripts.upload(
            caller,
            script_name,
            await request.body(),
            request.headers.get("content-type", ""),
            strict=request.query_params.get("bindings_inherit") == "strict",
            source="wrangler" if request.headers.get("user-agent", "").startswith("wrangler/") else "api",
        )
        messages = [
            {"code": WARNING_CODE, "message": f"inherit binding {name!r} names nothing the script had before"}
            for name in unresolved
        ]
        result: UploadedScript = uploaded_script(row)
        return ok(result, messages=messages)

    @delete("/{script_name:str}", status_code=200)
    async def delete_script(
        self,
        account_id: FromPath[str],
        script_name: FromPath[str],
        caller: NamedDependency[Caller],
        versions: Versions,
    ) -> Envelope:
        caller.owns(account_id)
        await versions.scripts.delete(caller, script_name)
        return ok(None)


route_handlers: list[ControllerRouterHandler] = [WorkflowController, ScriptController]


def _workflow_body(body: bytes, content_type: str) -> WorkflowBody:
    if content_type not in _YAML:
        return decode_body(body, WorkflowBody)
    value = decode_yaml(body)
    try:
        return msgspec.convert({} if value is None else value, WorkflowBody)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None


def _workflow(listed: WorkflowListed) -> ShownWorkflow:
    row = listed.row
    return ShownWorkflow(
        id=row.workflow_key,
        name=row.handle,
        class_name=row.class_name,
        script_name=row.script_name,
        created_on=iso(row.created_at),
        modified_on=iso(row.modified_at),
        triggered_on=None if listed.triggered_at is None else iso(listed.triggered_at),
        instances={name: listed.counts.get(number, 0) for number, name in enumerate(STATUS_NAMES)},
        schedules=[ShownSchedule(cron, iso(firing)) for cron, firing in listed.schedules],
        script_deleted=listed.script_deleted,
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
