"""Query strings of this face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from litestar import Request

from app.errors import InvalidRequest
from app.faces.workspaces.views import STATUSES
from instances.listing import COUNTED_ROWS, date_in, single_values
from instances.search.query import By, Facet
from tenants.paging import whole_number

PAGE, PAGE_MAX = 20, 100
WAIT_MAX_S = 60
"""Seconds an execute waits at most for the end."""
_ORDERS = {"startedAt": By.STARTED, "completedAt": By.ENDED, "status": By.FACET}


@dataclass(frozen=True, slots=True)
class Window:
    """The rows of a page: `limit` of them from `offset` on."""

    limit: int
    offset: int

    def shown(self, total: int, *, more: bool) -> dict[str, Any]:
        """The page as answers have it."""
        return {"total": total, "offset": self.offset, "limit": self.limit, "hasMore": more}


def values(request: Request[Any, Any, Any], *known: str) -> dict[str, str]:
    """The parameters this route knows; others are ignored. Raises :class:`InvalidRequest` for one given twice."""
    return single_values(request.query_params.dict(), frozenset(known))


def window(query: dict[str, str]) -> Window:
    """Of `limit` and `offset`, or `page` (from 1) where no offset is given. Raises :class:`InvalidRequest`."""
    rows = number(query, "limit", PAGE, 1, PAGE_MAX)
    page = number(query, "page", 1, 1, COUNTED_ROWS // rows + 1)
    return Window(rows, number(query, "offset", (page - 1) * rows, 0, COUNTED_ROWS))


def number(query: dict[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    """The whole number in a parameter. Raises :class:`InvalidRequest`."""
    try:
        return whole_number(query, name, default=default, minimum=minimum, maximum=maximum)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, pointer=f"/{name}") from None


def choice(query: dict[str, str], name: str, among: Sequence[str]) -> str:
    """The parameter's value, the first of `among` unless given. Raises :class:`InvalidRequest`."""
    value = query.get(name, among[0])
    if value not in among:
        raise InvalidRequest(f"{name} must be one of {', '.join(among)}", pointer=f"/{name}")
    return value


def facets(query: dict[str, str]) -> frozenset[Facet] | None:
    """What the status asked for stands for; None: all. Raises :class:`InvalidRequest`."""
    return STATUSES[choice(query, "status", tuple(STATUSES))] if "status" in query else None


def started(query: dict[str, str]) -> tuple[datetime | None, datetime | None]:
    """From `from`, included, to `to`, not included. Raises :class:`InvalidRequest`."""
    since, until = _date(query, "from"), _date(query, "to")
    if since is not None and until is not None and since >= until:
        raise InvalidRequest("from must be before to", pointer="/from")
    return since, until


def _date(query: dict[str, str], name: str) -> datetime | None:
    if name not in query:
        return None
    try:
        return date_in(query[name].replace(" ", "+"), name)  # a `+` of an offset arrives as a space
    except InvalidRequest as error:
        raise InvalidRequest(error.message, pointer=f"/{name}") from None


def order(query: dict[str, str]) -> tuple[By, bool]:
    """What a list is ordered by, and whether the greatest comes first. Raises :class:`InvalidRequest`."""
    by = _ORDERS[choice(query, "sortBy", tuple(_ORDERS))]
    return by, choice(query, "sortOrder", ("desc", "asc")) == "desc"


def flag(query: dict[str, str], name: str) -> bool | None:
    """`true` or `false`; None when it is not given. Raises :class:`InvalidRequest`."""
    return choice(query, name, ("true", "false")) == "true" if name in query else None
