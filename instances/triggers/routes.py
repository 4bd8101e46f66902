"""Routes of triggers: the URLs of a workflow's webhooks, what arrives at them, and events that start workflows."""

from __future__ import annotations

from typing import Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.errors import InvalidRequest
from app.settings import Settings
from instances.payloads import json_value
from instances.service import InstanceService
from instances.triggers.service import Fired
from tenants.auth import Caller
from tenants.bodies import check_depth
from tenants.results import Envelope, ok

IDS = ("idempotency-key", "webhook-id")
"""Headers that say which delivery it is; the latter is Standard Webhooks'."""

Instances = NamedDependency[InstanceService]


@get("/accounts/{account_id:str}/workflows/{workflow_name:str}/hooks")
async def list_hooks(
    request: Request[Any, Any, Any],
    workflow_name: FromPath[str],
    caller: NamedDependency[Caller],
    instances: Instances,
    settings: NamedDependency[Settings],
) -> Envelope:
    """The webhooks that start a workflow, with their URLs."""
    base = settings.address(request.scope)
    hooks = await instances.triggers.hooks(caller, workflow_name)
    return ok([{"name": hook.name, "url": f"{base}/hooks/{hook.token}"} for hook in hooks])


@post("/accounts/{account_id:str}/events/{event_name:str}", status_code=200)
async def publish_event(
    request: Request[Any, Any, Any], event_name: FromPath[str], caller: NamedDependency[Caller], instances: Instances
) -> Envelope:
    """Start the workflows that have a trigger of an event; the body is their input."""
    payload = json_value(await request.body())
    return ok([_told(each) for each in await instances.triggers.publish(caller, event_name, payload, _id_of(request))])


@post("/hooks/{token:str}", status_code=200)
async def receive_hook(request: Request[Any, Any, Any], token: FromPath[str], instances: Instances) -> Envelope:
    """Start the workflow of a webhook; the body is its input. No credentials but the URL."""
    body = await request.body()
    check_depth(body)  # whatever the sender calls it
    return ok(_told(await instances.triggers.receive(token, json_value(body), _id_of(request))))


def _id_of(request: Request[Any, Any, Any]) -> str | None:
    given = {text for name in IDS if (text := request.headers.get(name)) is not None}
    if len(given) > 1:
        raise InvalidRequest(f"the headers {' and '.join(IDS)} must not differ")
    return given.pop() if given else None


def _told(fired: Fired) -> dict[str, Any]:
    return {"workflow": fired.workflow, "instance_id": fired.instance_id, "refused": fired.refused}


route_handlers = [list_hooks, publish_event]
"""Of an account. `receive_hook` stands alone: nobody is authenticated there."""
