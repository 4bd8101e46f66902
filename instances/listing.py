"""Lists of instances: what a query string may ask for, cursors, and date bounds turned into key bounds.

Instances are listed newest first by key. A key is a UUIDv7 made when the instance was asked for, and the time in it is
the creation time that lists show: so their order is that of the times shown, and a range of dates is a range of keys.
(The row is written a little later, much later when the database was away meanwhile; its own time is when it queued.)
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.errors import InvalidRequest
from instances.lifecycle import BY_WIRE, Status
from tenants.limits import ROWS_PER_PAGE, ROWS_PER_PAGE_MAX
from tenants.paging import Page, whole_number

REACHABLE_ROWS = 10_000
"""Rows that `page` reaches; cursors reach all."""
COUNTED_ROWS = 100_000
"""Rows `total_count` counts to."""

FIRST_KEY = UUID(int=0)
LAST_KEY = UUID(int=(1 << 128) - 1)

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII)
_FIRST_MOMENT, _LAST_MOMENT = datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
"""All instances are of times between them."""
_CURSOR = struct.Struct(">BI16s")
_CURSOR_TEXT = re.compile(r"[A-Za-z0-9_-]{28}")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a list goes on: after `key`. Carries the count made for the first page, so later ones need none."""

    key: UUID
    ascending: bool
    total: int

    def __str__(self) -> str:
        packed = _CURSOR.pack(self.ascending, self.total, self.key.bytes)
        return base64.urlsafe_b64encode(packed).decode()

    @staticmethod
    def parse(text: str) -> Cursor:
        """Raises :class:`InvalidRequest` for anything no list has given out."""
        try:
            ascending, total, key = _CURSOR.unpack(
                base64.urlsafe_b64decode(text) if _CURSOR_TEXT.fullmatch(text) else b""
            )
        except (binascii.Error, struct.error):
            ascending, total, key = 2, 0, b""
        if ascending > 1 or total > COUNTED_ROWS:
            raise InvalidRequest("cursor must be one that a list has returned")
        return Cursor(UUID(bytes=key), bool(ascending), total)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A list of instances, checked. `page` is None when the list is read by cursors."""

    per_page: int = ROWS_PER_PAGE
    page: Page | None = None
    cursor: Cursor | None = None
    ascending: bool = False
    status: Status | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def offset(self) -> int:
        return self.page.offset if self.page is not None else 0

    def key_range(self) -> tuple[UUID, UUID]:
        """Lowest and highest key the list may show, both included."""
        low, high = self.count_range()
        if self.cursor is not None:
            if self.ascending:
                low = UUID(int=min(max(low.int, self.cursor.key.int + 1), LAST_KEY.int))
            else:
                high = UUID(int=max(min(high.int, self.cursor.key.int - 1), 0))
        return low, high

    def count_range(self) -> tuple[UUID, UUID]:
        """The same, for all pages together."""
        low = FIRST_KEY if self.since is None else UUID(int=-((_EPOCH - self.since) // _MILLISECOND) << 80)
        high = LAST_KEY if self.until is None else UUID(int=((self.until - _EPOCH) // _MILLISECOND + 1 << 80) - 1)
        return low, high


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def creation_time(key: UUID) -> datetime:
    """When the instance of this key was asked for, to the millisecond."""
    return _EPOCH + (key.int >> 80) * _MILLISECOND


def single_values(params: Mapping[str, Sequence[str]], known: frozenset[str]) -> dict[str, str]:
    """The `known` parameters of a query string. Raises :class:`InvalidRequest` for one given twice, or with a NUL."""
    for name in known:
        if len(params.get(name, ())) > 1:
            raise InvalidRequest(f"{name} may be given once")
        if any("\x00" in value for value in params.get(name, ())):
            raise InvalidRequest(f"{name} must not contain NUL characters")
    return {name: params[name][0] for name in known if params.get(name)}


def one_of(query: Mapping[str, str], name: str, values: Sequence[str]) -> str:
    """The parameter's value, the first of `values` unless given. Raises :class:`InvalidRequest`."""
    value = query.get(name, values[0])
    if value not in values:
        raise InvalidRequest(f"{name} must be {', '.join(values[:-1])} or {values[-1]}")
    return value


def list_query(params: Mapping[str, Sequence[str]]) -> ListQuery:
    """The list a query string asks for. Raises :class:`InvalidRequest` naming the parameter and its rule."""
    query = single_values(params, _PARAMETERS)
    if "page" in query and query.get("cursor"):
        raise InvalidRequest("page and cursor exclude each other")
    per_page = whole_number(query, "per_page", default=ROWS_PER_PAGE, minimum=1, maximum=ROWS_PER_PAGE_MAX)
    page = Page(whole_number(query, "page", default=1, minimum=1, maximum=None), per_page) if "page" in query else None
    cursor = Cursor.parse(query["cursor"]) if query.get("cursor") else None
    return ListQuery(
        per_page=per_page,
        page=page,
        cursor=cursor,
        ascending=_direction(query.get("direction"), cursor),
        status=_status(query.get("status")),
        since=date_in(query["date_start"], "date_start") if "date_start" in query else None,
        until=date_in(query["date_end"], "date_end") if "date_end" in query else None,
    )


_PARAMETERS = frozenset({"page", "per_page", "cursor", "direction", "status", "date_start", "date_end"})


def date_in(text: str, field: str) -> datetime:
    """A date or time of a query: RFC 3339, any offset; without one it is UTC. Raises :class:`InvalidRequest`.

    Some clients say "since ever" by the first moment of year 1: what is out of reach counts as the nearest within.
    """
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise InvalidRequest(f"{field} must be an RFC 3339 time, like 2026-01-31T12:00:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(moment, _FIRST_MOMENT), _LAST_MOMENT).astimezone(UTC)


def _direction(text: str | None, cursor: Cursor | None) -> bool:
    if text is None:
        return cursor.ascending if cursor is not None else False
    if text not in ("asc", "desc"):
        raise InvalidRequest("direction must be asc or desc")
    if cursor is not None and cursor.ascending != (text == "asc"):
        raise InvalidRequest("direction must be the one the cursor was made with")
    return text == "asc"


def _status(text: str | None) -> Status | None:
    if text is None:
        return None
    if text not in BY_WIRE:
        raise InvalidRequest(f"status must be one of {', '.join(BY_WIRE)}")
    return BY_WIRE[text]
