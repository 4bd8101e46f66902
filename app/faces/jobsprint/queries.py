"""What the parameters of this face stand for."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from app.errors import InvalidRequest
from app.faces.jobsprint.views import STATUSES
from app.faces.query_strings import choice, moment, number, require_order
from instances.figures.windows import Granularity
from instances.projections.log_lines import LEVELS
from instances.search.query import Facet

PAGE, PAGE_MAX = 20, 100
LOG_PAGE, LOG_PAGE_MAX = 1000, 5000
_BARE_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def limit(query: dict[str, str], default: int = PAGE, maximum: int = PAGE_MAX) -> int:
    """Rows of a page. Raises :class:`InvalidRequest`."""
    return number(query, "limit", default, 1, maximum)


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
    since, until = moment(query, "fromDate"), moment(query, "toDate")
    if until is not None and _BARE_DATE.fullmatch(query["toDate"]):
        until += timedelta(days=1)
    require_order(since, until, ("fromDate", "toDate"))
    return since, until


def granularity(query: dict[str, str]) -> Granularity:
    """Length of the buckets of a time series."""
    return Granularity[choice(query, "granularity", ("day", "hour", "week")).upper()]


def level(query: dict[str, str]) -> str:
    """The lowest level of log lines wanted."""
    return choice(query, "level", LEVELS)
