"""The settings of a version: what stands beside its code in a request, checked against what the account may have."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from app.errors import InvalidRequest, Problem
from tenants.limits import Limits
from versions.durations import parse_duration
from versions.errors import DocumentInvalid
from versions.schedules import of_request
from versions.schemas import Retention, ScheduleRow, WorkflowBody
from versions.sources import Source


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Checked settings. `given` is what was said, as versions show it; the rest is what follows from it."""

    given: dict[str, Any]
    step_limit: int
    concurrency: int | None
    success_retention_ms: int | None
    error_retention_ms: int | None
    schedules: list[ScheduleRow]


def checked_settings(source: Source, body: WorkflowBody, limits: Limits, now: datetime) -> Settings:
    """The settings of `body`, which override the document's own. Raises :class:`InvalidRequest`."""
    given: dict[str, Any] = {}
    steps = _steps(body, limits)
    if steps is not None:
        given["limits"] = {"steps": steps}
    concurrency = _concurrency(body, limits)
    if concurrency is not None:
        given["concurrency"] = {"limit": concurrency}
    success, error = _retention(source, body.default_retention, limits)
    retention = {"success_retention": success, "error_retention": error}
    if kept := {key: value for key, value in retention.items() if value is not None}:
        given["default_retention"] = kept
    wanted = source.schedules
    if body.schedules is not None:
        wanted = of_request(body.schedules, now)
        if wanted and source.input_needed:
            rule = f"schedules start instances without input, which input_schema does not allow: {source.input_needed}"
            raise InvalidRequest(rule, pointer="/schedules")
        given["schedules"] = [row.cron for row in wanted]
    return Settings(
        given=given,
        step_limit=limits.steps if steps is None else steps,
        concurrency=concurrency,
        success_retention_ms=success,
        error_retention_ms=error,
        schedules=wanted,
    )


def _steps(body: WorkflowBody, limits: Limits) -> int | None:
    steps = body.limits.steps if body.limits else None
    if steps is not None and steps > limits.steps_max:
        raise InvalidRequest(f"limits.steps must be at most {limits.steps_max}", pointer="/limits/steps")
    return steps


def _concurrency(body: WorkflowBody, limits: Limits) -> int | None:
    limit = body.concurrency.limit if body.concurrency else None
    if limit is not None and limits.concurrency is not None and limit > limits.concurrency:
        rule = f"concurrency.limit must be at most the account's {limits.concurrency}"
        raise InvalidRequest(rule, pointer="/concurrency/limit")
    return limit


def _retention(source: Source, beside: Retention | None, limits: Limits) -> tuple[int | None, int | None]:
    """Success and error retention in milliseconds: those beside the definition, else the document's own."""
    own = source.retention_ms
    if own is not None and own > limits.retention_max_ms:
        rule = f"retention must be at most {limits.retention_max_ms} milliseconds"
        raise DocumentInvalid([Problem(rule, pointer="/definition/retention", kind="LIMIT_EXCEEDED")])
    beside = beside or Retention()
    success = retention_ms(beside.success_retention, "success_retention", limits)
    error = retention_ms(beside.error_retention, "error_retention", limits)
    return own if success is None else success, own if error is None else error


def retention_ms(value: Any, field: str, limits: Limits) -> int | None:
    """Milliseconds of a retention in a request, None when it says nothing. Raises :class:`InvalidRequest`."""
    if value is None:
        return None
    try:
        return parse_duration(value, maximum_ms=limits.retention_max_ms)
    except ValueError as error:
        pointer = f"/default_retention/{field}"
        raise InvalidRequest(f"default_retention.{field} {error}", pointer=pointer) from None
