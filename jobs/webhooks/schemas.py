"""Endpoints and deliveries as the service hands them out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

import msgspec

FORMATS = ("standard", "classic")


class DeliveryStatus(IntEnum):
    """How far a delivery is; the number is what the database stores."""

    PENDING = 0
    DELIVERED = 1
    DEAD = 2
    """Given up; it can be delivered again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An endpoint. `secret` is None but in answers that may show it."""

    no: int
    url: str
    events: list[str]
    format: str
    active: bool
    disabled_reason: str | None
    created_at: datetime
    secret: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedWebhook:
    """An endpoint as it is stored."""

    account_id: UUID
    no: int
    id: UUID
    workspace_id: UUID | None
    url: str
    events: list[str]
    format: str
    secret: bytes
    active: bool
    disabled_reason: str | None
    created_at: datetime


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt: `status` of the answer, None when there was none; `answer`: the beginning of its body."""

    at: datetime
    duration_ms: int
    status: int | None = None
    error: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event on its way to an endpoint, or there. `log` has the last attempts, the newest last."""

    no: int
    webhook_no: int
    event: str
    event_id: str
    status: DeliveryStatus
    attempts: int
    last_status: int | None
    last_error: str | None
    next_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None
    log: list[Attempt]


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """What came of a test: `status` of the answer, None when there was none."""

    success: bool
    status: int | None
    message: str
