"""What Workers have besides code, of no use to workflows: answered as there is none of it, or refused with a reason."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import Controller, Request, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from tenants.auth import Caller
from tenants.bodies import check_depth, decode_body
from tenants.results import Envelope, ok
from versions.deployments.service import DeploymentService
from versions.errors import NotOffered

AnyRequest = Request[Any, Any, Any]
Deployments = NamedDependency[DeploymentService]
Who = NamedDependency[Caller]
Name = FromPath[str]

NO_TRIGGERS = (
    "workflows are not started by events of other products here: give `schedules` to a workflow, or create instances"
    " over the API"
)
NO_ASSETS = "scripts answer no requests here, so they have no static assets: deploy without `assets`"


class UsageModel(msgspec.Struct):
    """There is one: what is used is counted and not charged for."""

    usage_model: Literal["standard"]


class AccountDefaults(msgspec.Struct):
    """What new scripts of an account begin with."""

    default_usage_model: Literal["standard"] = "standard"
    green_compute: Literal[False] = False


class BesidesController(Controller):
    """Routes of an account's scripts."""

    path = "/accounts/{account_id:str}"

    @get("/workers/account-settings")
    async def defaults(self, caller: Who) -> Envelope:
        caller.require("scripts:read")
        return ok(AccountDefaults())

    @put("/workers/account-settings")
    async def put_defaults(self, request: AnyRequest, caller: Who) -> Envelope:
        caller.require("scripts:write")
        return ok(decode_body(await request.body(), AccountDefaults))

    @get("/workers/scripts/{script_name:str}/usage-model")
    async def usage_model(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        await deployments.exists(caller, script_name)
        return ok(UsageModel("standard"))

    @put("/workers/scripts/{script_name:str}/usage-model")
    async def put_usage_model(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        caller.require("scripts:write")
        body = decode_body(await request.body(), UsageModel)
        await deployments.exists(caller, script_name)
        return ok(body)

    @post("/workers/scripts/{script_name:str}/assets-upload-session", status_code=200)
    async def assets(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        caller.require("scripts:write")
        await deployments.exists(caller, script_name)
        raise NotOffered(NO_ASSETS)

    @get("/triggers/{script_name:str}")
    async def triggers(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        await deployments.exists(caller, script_name)
        return ok(_none(script_name))

    @put("/triggers/{script_name:str}")
    async def put_triggers(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        return await _refused_unless_empty(request, script_name, caller, deployments)

    @patch("/triggers/{script_name:str}")
    async def add_triggers(
        self, request: AnyRequest, script_name: Name, caller: Who, deployments: Deployments
    ) -> Envelope:
        return await _refused_unless_empty(request, script_name, caller, deployments)

    @delete("/triggers/{script_name:str}", status_code=200)
    async def delete_triggers(self, script_name: Name, caller: Who, deployments: Deployments) -> Envelope:
        caller.require("scripts:write")
        await deployments.exists(caller, script_name)
        return ok({"deleted": 0})


async def _refused_unless_empty(
    request: AnyRequest, script_name: str, caller: Caller, deployments: DeploymentService
) -> Envelope:
    caller.require("scripts:write")
    text = await request.body()
    check_depth(text)
    wanted = decode_body(text, list[dict[str, Any]])
    await deployments.exists(caller, script_name)
    if wanted:
        raise NotOffered(NO_TRIGGERS)
    return ok(_none(script_name))


def _none(script_name: str) -> dict[str, Any]:
    return {"script_name": script_name, "triggers": []}
