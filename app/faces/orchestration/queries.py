"""What the parameters of this face stand for, and the headers that tell of pages and places: bodies are bare."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from litestar import Request

from app.errors import InvalidRequest
from app.faces.orchestration import negotiation
from app.faces.orchestration.views import STATUSES, TASK_STATUSES
from app.faces.query_strings import choice
from instances.listing import COUNTED_ROWS
from instances.projections.execution_steps import Forward
from instances.search.query import Facet

PAGE, PAGE_MAX = 10, 100
LOG_PAGE, LOG_PAGE_MAX = 100, 1000
_DIGITS = re.compile(r"[0-9]{1,100}", re.ASCII)
_MOST = (1 << 63) - 1
"""What is above counts as this."""

AnyRequest = Request[Any, Any, Any]


def limit(query: dict[str, str], default: int = PAGE, maximum: int = PAGE_MAX) -> int:
    """Rows of a page; what is above `maximum` is taken for that. Raises :class:`InvalidRequest`."""
    return min(_whole(query, "limit", default, 1), maximum)


def offset(query: dict[str, str]) -> int:
    """Rows before the page. Raises :class:`InvalidRequest`."""
    found = _whole(query, "offset", 0, 0)
    if found > COUNTED_ROWS:
        raise InvalidRequest(f"offset must be at most {COUNTED_ROWS}", pointer="/offset")
    return found


def number(query: dict[str, str], name: str) -> int:
    """A whole number of at least 0, which is the default. Raises :class:`InvalidRequest`."""
    return _whole(query, name, 0, 0)


def _whole(query: dict[str, str], name: str, default: int, least: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or int(text) < least:
        raise InvalidRequest(f"{name} must be a whole number of at least {least}", pointer=f"/{name}")
    return min(int(text), _MOST)


def facets(query: dict[str, str]) -> frozenset[Facet] | None:
    """What the status of executions asked for stands for; None: all. Raises :class:`InvalidRequest`."""
    return None if "status" not in query else STATUSES[_status(query)]


def states(query: dict[str, str]) -> frozenset[Forward] | None:
    """The same of tasks."""
    return None if "status" not in query else TASK_STATUSES[_status(query)]


def _status(query: dict[str, str]) -> str:
    return choice(query, "status", tuple(STATUSES))


# --- pages -------------------------------------------------------------------------------------------------------


def page_headers(request: AnyRequest, rows: int, start: int, total: int, *, capped: bool = False) -> dict[str, str]:
    """`X-Total-Count`, and `Link` (RFC 8288) to the pages around the one of `rows` that begins at `start`."""
    places = {
        "first": 0,
        "prev": max(0, start - rows),
        "next": start + rows,
        "last": max(0, (total - 1) // rows * rows),
    }
    if start == 0:
        del places["prev"]
    if start + rows >= total:
        del places["next"]
    links = (f'<{_url(request, offset=place, limit=rows)}>; rel="{relation}"' for relation, place in places.items())
    headers = {"x-total-count": str(total), "link": ", ".join(links)}
    return headers | ({"x-count-capped": "true"} if capped else {})


def next_header(request: AnyRequest, **parameters: int) -> dict[str, str]:
    """`Link` to the next page, which differs by `parameters`."""
    return {"link": f'<{_url(request, **parameters)}>; rel="next"'}


def location(request: AnyRequest, place: str) -> dict[str, str]:
    """`Location` of what was made at `place`, below the version the request was made in."""
    named = negotiation.version_in(request.scope["path"])
    return {"location": f"/api/{place}" if named is None else f"/api/{named}/{place}"}


def _url(request: AnyRequest, **parameters: int) -> str:
    """The request's own URL, relative to the host, with these parameters."""
    given = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in given if name not in parameters]
    return f"{quote(request.scope['path'])}?{urlencode([*kept, *parameters.items()])}"
