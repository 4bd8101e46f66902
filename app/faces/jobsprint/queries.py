"""Query strings of this face."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from litestar import Request

from app.errors import InvalidRequest
from app.faces.jobsprint.views import STATUSES
from instances.figures.windows import Granularity
from instances.listing import date_in, single_values
from instances.projections.log_lines import LEVELS
from instances.search.query import Facet
from tenants.paging import whole_number

PAGE, PAGE_MAX = 20, 100
LOG_PAGE, LOG_PAGE_MAX = 1000, 5000
_BARE_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def values(request: Request[Any, Any, Any], *known: str) -> dict[str, str]:
    """The parameters this route knows; others are ignored. Raises :class:`InvalidRequest` for one given twice."""
    return single_values(request.query_params.dict(), frozenset(known))


def limit(query: dict[str, str], default: int = PAGE, maximum: int = PAGE_MAX) -> int:
    """Rows of a page. Raises :class:`InvalidRequest`."""
    try:
        return whole_number(query, "limit", default=default, minimum=1, maximum=maximum)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, pointer="/limit") from None


def facets(query: dict[str, str]) -> frozenset[Facet] | None:
    """What the statuses asked for, separated by commas, stand for; None: all."""
    text = query.get("status")
    if text is None:
        return None
    found: set[Facet] = set()
    for status in text.split(","):
        if status not in STATUSES:
            raise InvalidRequest(f"status must be one of {', '.join(STATUSES)}", pointer="/status")
        found |= STATUSES[status]
    return frozenset(found)


def window(query: dict[str, str]) -> tuple[datetime | None, datetime | None]:
    """From `fromDate`, included, to `toDate`, not included; a bare date there includes that day."""
    since = _date(query, "fromDate")
    until = _date(query, "toDate")
    if until is not None and _BARE_DATE.fullmatch(query["toDate"]):
        until += timedelta(days=1)
    if since is not None and until is not None and since >= until:
        raise InvalidRequest("fromDate must be before toDate", pointer="/fromDate")
    return since, until


def _date(query: dict[str, str], name: str) -> datetime | None:
    if name not in query:
        return None
    try:
        return date_in(query[name].replace(" ", "+"), name)  # a `+` of an offset arrives as a space
    except InvalidRequest as error:
        raise InvalidRequest(error.message, pointer=f"/{name}") from None


def granularity(query: dict[str, str]) -> Granularity:
    """Length of the buckets of a time series."""
    return Granularity[choice(query, "granularity", ("day", "hour", "week")).upper()]


def level(query: dict[str, str]) -> str:
    """The lowest level of log lines wanted."""
    return choice(query, "level", LEVELS)


def choice(query: dict[str, str], name: str, among: Sequence[str]) -> str:
    """The parameter's value, the first of `among` unless given. Raises :class:`InvalidRequest`."""
    value = query.get(name, among[0])
    if value not in among:
        raise InvalidRequest(f"{name} must be one of {', '.join(among)}", pointer=f"/{name}")
    return value
