"""What the parameters of this face stand for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.faces.query_strings import choice, moment, number, require_order
from app.faces.workspaces.views import STATUSES
from instances.listing import COUNTED_ROWS
from instances.search.query import By, Facet

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


def window(query: dict[str, str]) -> Window:
    """Of `limit` and `offset`, or `page` (from 1) where no offset is given. Raises :class:`InvalidRequest`."""
    rows = number(query, "limit", PAGE, 1, PAGE_MAX)
    page = number(query, "page", 1, 1, COUNTED_ROWS // rows + 1)
    return Window(rows, number(query, "offset", (page - 1) * rows, 0, COUNTED_ROWS))


def facets(query: dict[str, str]) -> frozenset[Facet] | None:
    """What the status asked for stands for; None: all. Raises :class:`InvalidRequest`."""
    return STATUSES[choice(query, "status", tuple(STATUSES))] if "status" in query else None


def started(query: dict[str, str]) -> tuple[datetime | None, datetime | None]:
    """From `from`, included, to `to`, not included. Raises :class:`InvalidRequest`."""
    since, until = moment(query, "from"), moment(query, "to")
    require_order(since, until, ("from", "to"))
    return since, until


def order(query: dict[str, str]) -> tuple[By, bool]:
    """What a list is ordered by, and whether the greatest comes first. Raises :class:`InvalidRequest`."""
    by = _ORDERS[choice(query, "sortBy", tuple(_ORDERS))]
    return by, choice(query, "sortOrder", ("desc", "asc")) == "desc"


def flag(query: dict[str, str], name: str) -> bool | None:
    """`true` or `false`; None when it is not given. Raises :class:`InvalidRequest`."""
    return choice(query, name, ("true", "false")) == "true" if name in query else None
