"""Scalars and enums. Resolvers give values as answers have them: times as text, JSON as it is stored."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, NewType

import strawberry
from graphql import value_from_ast_untyped
from strawberry.types.scalar import ScalarDefinition

from app.errors import InvalidRequest
from instances.listing import date_in

DateTime = NewType("DateTime", object)
JSON = NewType("JSON", object)


def as_it_is(value: Any) -> Any:
    return value


def _moment(value: Any) -> datetime:
    """A time in UTC. Raises :class:`InvalidRequest` for what is no RFC 3339 timestamp or date."""
    if not isinstance(value, str):
        raise InvalidRequest("DateTime must be a text: an RFC 3339 time, like 2026-01-31T12:00:00Z")
    return date_in(value, "DateTime")


SCALARS: dict[object, ScalarDefinition] = {
    DateTime: strawberry.scalar(
        name="DateTime",
        description="RFC 3339 timestamp in UTC with milliseconds.",
        serialize=as_it_is,
        parse_value=_moment,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value.",
        serialize=as_it_is,
        parse_value=as_it_is,
        parse_literal=value_from_ast_untyped,
    ),
}


@strawberry.enum(description="Status of a workflow execution or of a task execution.")
class ExecutionStatus(Enum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@strawberry.enum
class LogLevel(Enum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


@strawberry.enum
class DeliveryStatus(Enum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    DEAD = "DEAD"


@strawberry.enum
class WebhookFormat(Enum):
    STANDARD = "STANDARD"
    CLASSIC = "CLASSIC"
