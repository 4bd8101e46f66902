"""Query strings of the faces whose parameters are given once, with one value each; refusals point at the parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from litestar import Request

from app.errors import InvalidRequest
from instances.listing import date_in, single_values
from tenants.paging import whole_number


def values(request: Request[Any, Any, Any], *known: str) -> dict[str, str]:
    """The parameters a route knows; others are ignored. Raises :class:`InvalidRequest` for one given twice."""
    params, found = request.query_params.dict(), dict[str, str]()
    for name in known:
        with _pointing_at(name):
            found |= single_values(params, frozenset({name}))
    return found


def choice(query: Mapping[str, str], name: str, among: Sequence[str]) -> str:
    """The parameter's value, the first of `among` unless given. Raises :class:`InvalidRequest`."""
    value = query.get(name, among[0])
    if value not in among:
        raise InvalidRequest(f"{name} must be one of {', '.join(among)}", pointer=f"/{name}")
    return value


def number(query: Mapping[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    """The whole number in a parameter. Raises :class:`InvalidRequest`."""
    with _pointing_at(name):
        return whole_number(query, name, default=default, minimum=minimum, maximum=maximum)


def moment(query: Mapping[str, str], name: str) -> datetime | None:
    """The date or time in a parameter; None when it is not given. Raises :class:`InvalidRequest`."""
    if name not in query:
        return None
    with _pointing_at(name):
        return date_in(query[name].replace(" ", "+"), name)  # a `+` of an offset arrives as a space


def require_order(since: datetime | None, until: datetime | None, names: tuple[str, str]) -> None:
    """Raises :class:`InvalidRequest` for a window that is empty; `names` are its parameters."""
    if since is not None and until is not None and since >= until:
        raise InvalidRequest(f"{names[0]} must be before {names[1]}", pointer=f"/{names[0]}")


@contextmanager
def _pointing_at(name: str) -> Iterator[None]:
    """What is refused within points at the parameter."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(error.message, pointer=f"/{name}") from None
