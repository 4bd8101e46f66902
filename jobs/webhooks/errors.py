"""Errors that callers cause with endpoints."""

from __future__ import annotations

from app.errors import MillraceError, NoRoute


class WebhookNotFound(NoRoute):
    """404: no such endpoint."""

    def __init__(self) -> None:
        super().__init__("Webhook registration not found")


class DeliveryNotFound(NoRoute):
    """404: the endpoint has no such delivery."""

    def __init__(self) -> None:
        super().__init__("Webhook delivery not found")


class WebhookInactive(MillraceError):
    """409: nothing is sent to an endpoint that is switched off."""

    code, key, status, retry = 10471, "webhook.inactive", 409, False
