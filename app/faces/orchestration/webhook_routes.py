"""Webhooks: endpoints that are told what happens, what was sent to them, and a way to try one."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.errors import InvalidRequest
from app.faces import query_strings
from app.faces.orchestration import queries
from jobs.webhooks.errors import DeliveryNotFound, WebhookNotFound
from jobs.webhooks.schemas import Attempt, Delivery, DeliveryStatus, Webhook
from jobs.webhooks.service import COUNTED, READ, WRITE, Wanted, WebhookService
from tenants.auth import Caller
from tenants.bodies import check_depth, decode_body
from tenants.clock import iso
from tenants.spellings import parse_no

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Webhooks = NamedDependency[WebhookService]


class WebhookBody(msgspec.Struct, frozen=True):
    """Of `POST` and `PUT`: null is as good as left out. The service checks what is in it."""

    url: Any = None
    events: Any = None
    secret: Any = None
    format: Any = None
    active: Any = None

    def wanted(self) -> Wanted:
        """As the service takes it."""
        return Wanted(url=self.url, events=self.events, secret=self.secret, format=self.format, active=self.active)


class TestBody(msgspec.Struct, frozen=True):
    """Of `POST /webhooks/test`. The payload is sent as it is written."""

    url: Any = None
    event: Any = None
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    secret: Any = None


def registration(hook: Webhook) -> dict[str, Any]:
    """An endpoint; its secret is null but in answers that may show it."""
    return {
        "id": str(hook.no),
        "url": hook.url,
        "events": hook.events,
        "secret": hook.secret,
        "hasSecret": True,
        "format": hook.format,
        "active": hook.active,
        "disabledReason": hook.disabled_reason,
        "createdAt": iso(hook.created_at),
    }


def delivery(one: Delivery) -> dict[str, Any]:
    """An event on its way, with its last attempts, the newest last."""
    return {
        "id": str(one.no),
        "webhookId": str(one.webhook_no),
        "event": one.event,
        "eventId": one.event_id,
        "status": one.status.name,
        "attempts": one.attempts,
        "lastStatusCode": one.last_status,
        "lastError": one.last_error,
        "nextAttemptAt": None if one.next_at is None else iso(one.next_at),
        "createdAt": iso(one.created_at),
        "deliveredAt": None if one.delivered_at is None else iso(one.delivered_at),
        "log": [_attempt(attempt) for attempt in one.log],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": iso(attempt.at),
        "durationMs": attempt.duration_ms,
        "statusCode": attempt.status,
        "error": attempt.error,
        "response": attempt.answer,
    }


def _number(id: str) -> int:
    """The number of an endpoint. Raises :class:`WebhookNotFound`."""
    no = parse_no(id)
    if no is None:
        raise WebhookNotFound()
    return no


@get("/webhooks")
async def list_webhooks(caller: Who, webhooks: Webhooks) -> list[dict[str, Any]]:
    """All endpoints, the oldest first, without their secrets."""
    return [registration(hook) for hook in await webhooks.all(caller)]


@post("/webhooks", status_code=201)
async def create_webhook(
    request: AnyRequest, body: RawBody, caller: Who, webhooks: Webhooks
) -> Response[dict[str, Any]]:
    """A new endpoint; the answer is the one that shows its secret."""
    caller.require(WRITE)
    told = registration(await webhooks.create(caller, decode_body(body, WebhookBody).wanted()))
    return Response(told, status_code=201, headers=queries.location(request, f"webhooks/{told['id']}"))


@get("/webhooks/{id:str}")
async def get_webhook(id: FromPath[str], caller: Who, webhooks: Webhooks) -> dict[str, Any]:
    """One endpoint, without its secret."""
    caller.require(READ)
    return registration(await webhooks.get(caller, _number(id)))


@put("/webhooks/{id:str}", status_code=200)
async def update_webhook(id: FromPath[str], body: RawBody, caller: Who, webhooks: Webhooks) -> dict[str, Any]:
    """Change what the body names. The answer shows the secret, unless the operator says otherwise."""
    caller.require(WRITE)
    return registration(await webhooks.update(caller, _number(id), decode_body(body, WebhookBody).wanted()))


@delete("/webhooks/{id:str}", status_code=204)
async def delete_webhook(id: FromPath[str], caller: Who, webhooks: Webhooks) -> None:
    """Remove an endpoint; nothing more is sent to it."""
    caller.require(WRITE)
    await webhooks.delete(caller, _number(id))


@post("/webhooks/test", status_code=200)
async def test_webhook(body: RawBody, caller: Who, webhooks: Webhooks) -> dict[str, Any]:
    """Send one request now, and say what came of it."""
    caller.require(WRITE)
    said = decode_body(body, TestBody)
    check_depth(body)
    for field in ("url", "event"):
        if getattr(said, field) is None:
            raise InvalidRequest(f"{field} is required", pointer=f"/{field}")
    if isinstance(said.payload, msgspec.UnsetType):
        raise InvalidRequest("payload is required", pointer="/payload")
    outcome = await webhooks.test(caller, said.url, said.event, said.payload, said.secret)
    return {"success": outcome.success, "statusCode": outcome.status, "message": outcome.message}


@get("/webhooks/{id:str}/deliveries")
async def list_deliveries(
    request: AnyRequest, id: FromPath[str], caller: Who, webhooks: Webhooks
) -> Response[list[dict[str, Any]]]:
    """What was and will be sent to an endpoint, the newest first."""
    caller.require(READ)
    query = query_strings.values(request, "status", "limit", "offset")
    rows, start = queries.limit(query), queries.offset(query)
    status = None
    if "status" in query:
        status = DeliveryStatus[query_strings.choice(query, "status", tuple(one.name for one in DeliveryStatus))]
    found, total = await webhooks.deliveries(caller, _number(id), status=status, limit=rows, offset=start)
    headers = queries.page_headers(request, rows, start, min(total, COUNTED), capped=total > COUNTED)
    return Response([delivery(one) for one in found], headers=headers)


@post("/webhooks/{id:str}/deliveries/{deliveryId:str}/redeliver", status_code=200)
async def redeliver(id: FromPath[str], deliveryId: FromPath[str], caller: Who, webhooks: Webhooks) -> dict[str, Any]:
    """Send an event again, under the same id."""
    caller.require(WRITE)
    number = parse_no(deliveryId)
    if number is None:
        raise DeliveryNotFound()
    return delivery(await webhooks.redeliver(caller, number, webhook_no=_number(id)))


route_handlers = [
    list_webhooks,
    create_webhook,
    test_webhook,
    get_webhook,
    update_webhook,
    delete_webhook,
    list_deliveries,
    redeliver,
]
