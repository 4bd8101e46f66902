"""Webhooks: endpoints and what was delivered to them."""

from __future__ import annotations

from typing import Any

import msgspec
import strawberry

from app.faces.orchestration.graphql.context import Asked, Context, page
from app.faces.orchestration.graphql.inputs import RegisterWebhookInput, TestWebhookInput, UpdateWebhookInput, said
from app.faces.orchestration.graphql.scalars import DateTime, DeliveryStatus, WebhookFormat
from app.faces.orchestration.graphql.types import Told
from jobs.webhooks.errors import DeliveryNotFound, WebhookNotFound
from jobs.webhooks.schemas import Delivery, Webhook
from jobs.webhooks.schemas import DeliveryStatus as Stored
from jobs.webhooks.service import Wanted
from tenants.clock import iso
from tenants.spellings import parse_no

_STORED = {
    DeliveryStatus.PENDING: Stored.PENDING,
    DeliveryStatus.DELIVERED: Stored.DELIVERED,
    DeliveryStatus.DEAD: Stored.DEAD,
}


@strawberry.type
class WebhookDelivery:
    id: strawberry.ID
    event: str
    status: DeliveryStatus
    attempts: int
    last_status_code: int | None
    last_error: str | None
    next_attempt_at: DateTime | None
    created_at: DateTime
    delivered_at: DateTime | None


@strawberry.type
class WebhookRegistration:
    id: strawberry.ID
    url: str
    events: list[str]
    secret: str | None = strawberry.field(
        description="Set only in the answer of registerWebhook, updateWebhook and rotateWebhookSecret; null in queries."
    )
    active: bool
    created_at: DateTime
    format: WebhookFormat = strawberry.field(description="Extension.")
    disabled_reason: str | None = strawberry.field(description="Extension: why the service switched it off, if it did.")

    @strawberry.field(description="Extension.")
    async def deliveries(
        root: Any,
        info: Asked,
        status: DeliveryStatus | None = strawberry.UNSET,
        limit: int | None = 10,
        offset: int | None = 0,
    ) -> list[WebhookDelivery]:
        rows, start = page(limit, offset)
        if status is DeliveryStatus.FAILED:
            return []  # one that failed is tried again, or given up
        found, _ = await info.context.platform.webhooks.deliveries(
            info.context.caller, root.of.no, status=_STORED[status] if status else None, limit=rows, offset=start
        )
        return [_told_delivery(one) for one in found]  # type: ignore[misc]


@strawberry.type
class WebhookTestResult:
    success: bool
    status_code: int | None
    message: str


def _told(webhook: Webhook) -> Any:
    """The source of a `WebhookRegistration`."""
    return Told(
        {
            "id": str(webhook.no),
            "url": webhook.url,
            "events": webhook.events,
            "secret": webhook.secret,
            "active": webhook.active,
            "createdAt": iso(webhook.created_at),
            "format": webhook.format.upper(),
            "disabledReason": webhook.disabled_reason,
        },
        webhook,
    )


def _told_delivery(delivery: Delivery) -> Any:
    """The source of a `WebhookDelivery`."""
    return {
        "id": str(delivery.no),
        "event": delivery.event,
        "status": delivery.status.name,
        "attempts": delivery.attempts,
        "lastStatusCode": delivery.last_status,
        "lastError": delivery.last_error,
        "nextAttemptAt": None if delivery.next_at is None else iso(delivery.next_at),
        "createdAt": iso(delivery.created_at),
        "deliveredAt": None if delivery.delivered_at is None else iso(delivery.delivered_at),
    }


def _no(id: str) -> int:
    no = parse_no(id)
    if no is None:
        raise WebhookNotFound()
    return no


def _wanted(input: RegisterWebhookInput | UpdateWebhookInput) -> Wanted:
    body = said(input)
    form = body.get("format")
    return Wanted(
        url=body.get("url"),
        events=body.get("events"),
        secret=body.get("secret") or None,
        format=None if form is None else form.lower(),
        active=body.get("active"),
    )


async def webhook_registration(context: Context, id: str) -> Any:
    """The endpoint of an id, None when there is none."""
    try:
        return _told(await context.platform.webhooks.get(context.caller, _no(id)))
    except WebhookNotFound:
        return None


async def webhook_registrations(context: Context) -> list[Any]:
    """All endpoints."""
    return [_told(one) for one in await context.platform.webhooks.all(context.caller)]


async def register_webhook(info: Asked, input: RegisterWebhookInput) -> WebhookRegistration:
    return _told(await info.context.platform.webhooks.create(info.context.caller, _wanted(input)))


async def update_webhook(info: Asked, id: strawberry.ID, input: UpdateWebhookInput) -> WebhookRegistration:
    return _told(await info.context.platform.webhooks.update(info.context.caller, _no(id), _wanted(input)))


async def delete_webhook(info: Asked, id: strawberry.ID) -> bool:
    await info.context.platform.webhooks.delete(info.context.caller, _no(id))
    return True


async def rotate_webhook_secret(info: Asked, id: strawberry.ID) -> WebhookRegistration:
    return _told(await info.context.platform.webhooks.rotate(info.context.caller, _no(id)))


async def test_webhook(info: Asked, input: TestWebhookInput) -> WebhookTestResult:
    payload = msgspec.Raw(msgspec.json.encode(input.payload))
    secret = input.secret or None
    done = await info.context.platform.webhooks.test(info.context.caller, input.url, input.event, payload, secret)
    return {"success": done.success, "statusCode": done.status, "message": done.message}  # type: ignore[return-value]


async def redeliver_webhook(info: Asked, delivery_id: strawberry.ID) -> WebhookDelivery:
    no = parse_no(delivery_id)
    if no is None:
        raise DeliveryNotFound()
    return _told_delivery(await info.context.platform.webhooks.redeliver(info.context.caller, no))
