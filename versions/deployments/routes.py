"""Scripts in the Cloudflare face: uploads, versions, deployments, secrets and settings.

What a deployment tool asks for on its way is answered with what there is: scripts run workflows and answer no HTTP
requests, so the account's subdomain leads nowhere and no script is ever enabled on it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from app.errors import InvalidRequest
from tenants.auth import Caller
from tenants.bodies import check_depth, decode_body
from tenants.clock import iso
from tenants.limits import ROWS_PER_PAGE_MAX
from tenants.paging import page_of
from tenants.results import Envelope, ok
from tenants.workspaces import uuid_of
from versions.deployments import views
from versions.deployments.besides import BesidesController
from versions.deployments.schemas import (
    AccountSubdomainBody,
    CronBody,
    DeploymentBody,
    SecretBody,
    SecretsBody,
    SecretText,
    SettingsPatch,
    SubdomainBody,
    UploadRow,
    VersionPatch,
    VersionSettings,
)
from versions.deployments.service import DeploymentService
from versions.errors import (
    NoTail,
    NoWorkerSchedules,
    ScriptVersionNotFound,
    SecretNotFound,
)
from versions.schemas import ShownScript, UploadedScript
from versions.script_views import script_content, shown_script, tagged, uploaded_script
from versions.service import VersionService
from versions.uploads import read_field

AnyRequest = Request[Any, Any, Any]
Deployments = NamedDependency[DeploymentService]
Versions = NamedDependency[VersionService]
Who = NamedDependency[Caller]
Name = FromPath[str]

SCRIPT = "/{script_name:str}"
VERSIONS_PER_PAGE = 10
WARNING_CODE = 10471
"""Code of a `messages` entry about what is accepted, but does less than was asked for."""


class ScriptController(Controller):
    """Uploaded scripts."""

    path = "/accounts/{account_id:str}/workers/scripts"

    @get("/")
    async def scripts(self, request: AnyRequest, caller: Who, versions: Versions) -> Envelope:
        found: list[ShownScript] = [shown_script(row) for row in await versions.scripts.all(caller)]
        return ok(tagged(found, request.query_params.get("tags")))

    @get([SCRIPT, SCRIPT + "/content/v2"])
    async def script(self, script_name: Name, caller: Who, versions: Versions) -> Response[bytes]:
        row = await versions.scripts.get(caller, script_name)
        content, media_type = script_content(row, await versions.scripts.modules(caller.account_id, row.id))
        return Response(
            content, media_type=media_type, headers={"etag": f'"{row.etag}"', "x-content-type-options": "nosniff"}
        )

    @put(SCRIPT)
    async def upload_script(self, request: AnyRequest, script_name: Name, caller: Who, versions: Versions) -> Envelope:
        row, unresolved = await versions.scripts.upload(
            caller, script_name, await request.body(), _content_type(request), strict=_strict(request),
            source=_source(request),
        )  # fmt: skip
        result: UploadedScript = uploaded_script(row)
        return ok(result, messages=_unresolved(unresolved))

    @put(SCRIPT + "/content")
    async def replace_code(self, request: AnyRequest, script_name: Name, caller: Who, versions: Versions) -> Envelope:
        body, kind = await request.body(), _content_type(request)
        row = await versions.scripts.replace_code(caller, script_name, body, kind, _source(request))
        result: ShownScript = shown_script(row)
        return ok(result)

    @delete(SCRIPT, status_code=200)
    async def delete_script(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        await deployments.delete(caller, script_name, force=_forced(request))
        return ok(None)

    # --- versions and deployments ------------------------------------------------------------------------------

    @get(SCRIPT + "/versions")
    async def script_versions(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        page = page_of(request.query_params, default=VERSIONS_PER_PAGE, maximum=ROWS_PER_PAGE_MAX)
        rows, total = await deployments.versions(caller, script_name, page)
        return ok({"items": [views.listed_version(row) for row in rows]}, info=page.info(len(rows), total))

    @post(SCRIPT + "/versions", status_code=200)
    async def upload_version(
        self, request: AnyRequest, script_name: Name, caller: Who, versions: Versions, deployments: Deployments
    ) -> Envelope:
        row, unresolved = await versions.scripts.upload(
            caller, script_name, await request.body(), _content_type(request), strict=_strict(request),
            source=_source(request), deploy=False,
        )  # fmt: skip
        made = await deployments.version(caller, script_name, row.id)
        return ok(views.shown_version(made), messages=_unresolved(unresolved))

    @get(SCRIPT + "/versions/{version_id:str}")
    async def script_version(
        self, script_name: Name, version_id: FromPath[str], caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:read")
        return ok(views.shown_version(await deployments.version(caller, script_name, _id(version_id, "version"))))

    @get(SCRIPT + "/deployments")
    async def list_deployments(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        rows = await deployments.deployments(caller, script_name)
        return ok({"deployments": [views.shown_deployment(row) for row in rows]})

    @post(SCRIPT + "/deployments", status_code=200)
    async def deploy(self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        caller.require("scripts:write")
        body = decode_body(await request.body(), DeploymentBody)
        return ok(views.shown_deployment(await deployments.deploy(caller, script_name, body, _source(request))))

    @get(SCRIPT + "/deployments/{deployment_id:str}")
    async def deployment(
        self, script_name: Name, deployment_id: FromPath[str], caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:read")
        found = await deployments.deployment(caller, script_name, _id(deployment_id, "deployment"))
        return ok(views.shown_deployment(found))

    @delete(SCRIPT + "/deployments/{deployment_id:str}", status_code=200)
    async def delete_deployment(
        self, script_name: Name, deployment_id: FromPath[str], caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        await deployments.delete_deployment(caller, script_name, _id(deployment_id, "deployment"))
        return ok(None)

    # --- secrets -----------------------------------------------------------------------------------------------

    @get(SCRIPT + "/secrets")
    async def secrets(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        return ok(views.shown_secrets(await deployments.deployed(caller, script_name)))

    @put(SCRIPT + "/secrets")
    async def put_secret(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        body = decode_body(await request.body(), SecretBody)
        change = {body.name: SecretText(body.text, body.type)}
        made = await deployments.change_secrets(caller, script_name, change, _source(request))
        return ok(_secret(made, body.name))

    @patch(SCRIPT + "/secrets-bulk")
    async def change_secrets(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        body = decode_body(await request.body(), SecretsBody)
        made = await deployments.change_secrets(caller, script_name, body.secrets, _source(request))
        return ok(views.shown_secrets(made))

    @get(SCRIPT + "/secrets/{secret_name:str}")
    async def secret(
        self, script_name: Name, secret_name: FromPath[str], caller: Who, deployments: Deployments
    ) -> Envelope:
        return ok(_secret(await deployments.deployed(caller, script_name), secret_name))

    @delete(SCRIPT + "/secrets/{secret_name:str}", status_code=200)
    async def delete_secret(
        self, request: AnyRequest, script_name: Name, secret_name: FromPath[str], caller: Who, deployments: Deployments
    ) -> Envelope:
        await deployments.change_secrets(caller, script_name, {secret_name: None}, _source(request))
        return ok(None)

    # --- settings ----------------------------------------------------------------------------------------------

    @get(SCRIPT + "/settings")
    async def version_settings(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        row = await deployments.deployed(caller, script_name)
        return ok(views.version_settings(row, await deployments.settings(caller, script_name)))

    @patch(SCRIPT + "/settings")
    async def change_version_settings(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        body = await request.body()
        if not _content_type(request).startswith("application/json"):
            body = read_field(body, _content_type(request), "settings")
        check_depth(body)
        changes, settings = decode_body(body, VersionSettings), decode_body(body, SettingsPatch)
        row = await deployments.change_version(caller, script_name, changes, _source(request))
        return ok(views.version_settings(row, await deployments.change_settings(caller, script_name, settings)))

    @get(SCRIPT + "/script-settings")
    async def script_settings(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        return ok(views.shown_settings(await deployments.settings(caller, script_name)))

    @patch(SCRIPT + "/script-settings")
    async def change_script_settings(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        text = await request.body()
        check_depth(text)
        body = decode_body(text, SettingsPatch)
        return ok(views.shown_settings(await deployments.change_settings(caller, script_name, body)))

    # --- what Workers have besides -----------------------------------------------------------------------------

    @get(SCRIPT + "/schedules")
    async def schedules(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        await deployments.exists(caller, script_name)
        return ok({"schedules": []})

    @put(SCRIPT + "/schedules")
    async def put_schedules(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        body = decode_body(await request.body() or b"[]", list[CronBody])
        await deployments.exists(caller, script_name)
        if body:
            raise NoWorkerSchedules()
        return ok({"schedules": []})

    @get(SCRIPT + "/subdomain")
    async def script_subdomain(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        await deployments.exists(caller, script_name)
        return ok(_not_served())

    @post(SCRIPT + "/subdomain", status_code=200)
    async def change_script_subdomain(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        body = decode_body(await request.body(), SubdomainBody)
        await deployments.exists(caller, script_name)
        wanted = body.enabled or bool(body.previews_enabled)
        return ok(_not_served(), messages=[{"code": WARNING_CODE, "message": views.NOT_SERVED}] if wanted else [])

    @delete(SCRIPT + "/subdomain", status_code=200)
    async def delete_script_subdomain(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        caller.require("scripts:write")
        await deployments.exists(caller, script_name)
        return ok(_not_served())

    @get(SCRIPT + "/references")
    async def references(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        """What else would break without the script: none of what Workers refer to each other with exists here."""
        used = await deployments.references(caller, script_name)
        return ok(
            {
                "services": {"incoming": [], "outgoing": [], "pages_function": False},
                "durable_objects": [],
                "dispatch_outbounds": [],
                "workflows": [{"name": name} for name in used],
            }
        )

    @get(SCRIPT + "/tails")
    async def tails(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        await deployments.exists(caller, script_name)
        return ok([])

    @post(SCRIPT + "/tails", status_code=200)
    async def tail(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        caller.require("scripts:write")
        await deployments.exists(caller, script_name)
        raise NoTail()


class ServiceController(Controller):
    """Scripts under the other names clients know them by, and what an account has for them."""

    path = "/accounts/{account_id:str}/workers"

    @get("/services/{script_name:str}")
    async def service(self, script_name: Name, caller: Who, versions: Versions, deployments: Deployments) -> Envelope:
        row, settings = await deployments.deployed(caller, script_name), await deployments.settings(caller, script_name)
        return ok(views.shown_service(row, await _first(versions, caller, script_name), settings))

    @delete("/services/{script_name:str}", status_code=200)
    async def delete_service(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        await deployments.delete(caller, script_name, force=_forced(request))
        return ok(None)

    @get("/workers/{script_name:str}")
    async def worker(self, script_name: Name, caller: Who, versions: Versions, deployments: Deployments) -> Envelope:
        row, settings = await deployments.deployed(caller, script_name), await deployments.settings(caller, script_name)
        return ok(views.shown_worker(row, await _first(versions, caller, script_name), settings))

    @patch("/workers/{script_name:str}/versions/latest")
    async def patch_newest_version(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        body = decode_body(await request.body(), VersionPatch)
        made = await deployments.add_secrets(caller, script_name, body.env, _source(request), body.annotations)
        return ok(views.shown_version(made))

    @get("/subdomain")
    async def account_subdomain(self, caller: Who) -> Envelope:
        caller.require("scripts:read")
        return ok({"subdomain": views.subdomain(caller.account_id)})

    @put("/subdomain")
    async def put_account_subdomain(self, request: AnyRequest, caller: Who) -> Envelope:
        caller.require("scripts:write")
        wanted, fixed = (
            decode_body(await request.body(), AccountSubdomainBody).subdomain,
            views.subdomain(caller.account_id),
        )
        if wanted != fixed:
            raise InvalidRequest(f"the account's subdomain is {fixed} and cannot be changed", pointer="/subdomain")
        return ok({"subdomain": fixed})

    @get("/tails/by-consumer/{script_name:str}")
    async def tail_producers(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        await deployments.exists(caller, script_name)
        return ok([])

    @get("/durable_objects/namespaces")
    async def durable_objects(self, caller: Who) -> Envelope:
        caller.require("scripts:read")
        return ok([], info=_none())


@get("/accounts/{account_id:str}/storage/kv/namespaces")
async def kv_namespaces(caller: Who) -> Envelope:
    """There are none: clients look for those that belonged to a script they deleted."""
    caller.require("scripts:read")
    return ok([], info=_none())


route_handlers: list[ControllerRouterHandler] = [
    ScriptController,
    ServiceController,
    BesidesController,
    kv_namespaces,
]


def _none() -> dict[str, int]:
    return {"page": 1, "per_page": ROWS_PER_PAGE_MAX, "count": 0, "total_count": 0, "total_pages": 0}


def _not_served() -> dict[str, bool]:
    return {"enabled": False, "previews_enabled": False}


async def _first(versions: VersionService, caller: Caller, script_name: str) -> str:
    """When a script was uploaded first."""
    return iso((await versions.scripts.get(caller, script_name)).first_created_at)


def _source(request: AnyRequest) -> str:
    return "wrangler" if request.headers.get("user-agent", "").startswith("wrangler/") else "api"


def _content_type(request: AnyRequest) -> str:
    return request.headers.get("content-type", "")


def _strict(request: AnyRequest) -> bool:
    return request.query_params.get("bindings_inherit") == "strict"


def _forced(request: AnyRequest) -> bool:
    return request.query_params.get("force") == "true"


def _unresolved(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"code": WARNING_CODE, "message": f"inherit binding {name!r} names nothing the script had before"}
        for name in names
    ]


def _id(text: str, noun: str) -> UUID:
    found = uuid_of(text)
    if found is None:
        raise ScriptVersionNotFound(f"This Worker has no such {noun}.")
    return found


def _secret(row: UploadRow, name: str) -> dict[str, str]:
    for secret in views.shown_secrets(row):
        if secret["name"] == name:
            return secret
    raise SecretNotFound(f"the script has no secret {name!r}")
