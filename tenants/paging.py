"""Pages by number: the `page` and `per_page` of a query string, and the `result_info` that answers them.

Clients ask for page after page until one is empty, so a page past the end is an empty success; numbers outside the
bounds are refused, never clamped.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from app.errors import InvalidRequest

# SDKs declare page numbers as floats, so `2.0` is a way to say 2. Ten digits keep the offset inside a bigint.
_NUMBER = re.compile(r"([0-9]{1,10})(?:\.0+)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: `number` counts from 1, `size` rows each."""

    number: int
    size: int

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.number - 1) * self.size

    def info(self, count: int, total: int) -> dict[str, Any]:
        """`result_info` for a page that holds `count` of `total` rows."""
        return {
            "page": self.number,
            "per_page": self.size,
            "count": count,
            "total_count": total,
            "total_pages": math.ceil(total / self.size),
        }


def page_of(query: Mapping[str, str], *, default: int, maximum: int, minimum: int = 1) -> Page:
    """The page asked for; `default`, `minimum` and `maximum` bound `per_page`. Raises :class:`InvalidRequest`."""
    return Page(
        whole_number(query, "page", default=1, minimum=1, maximum=None),
        whole_number(query, "per_page", default=default, minimum=minimum, maximum=maximum),
    )


def whole_number(query: Mapping[str, str], name: str, *, default: int, minimum: int, maximum: int | None) -> int:
    """The whole number in query parameter `name`. Raises :class:`InvalidRequest` naming it and its bounds."""
    text = query.get(name)
    if text is None:
        return default
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) if match else -1
    if number < minimum or (maximum is not None and number > maximum):
        rule = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise InvalidRequest(f"{name} must be a whole number {rule}")
    return number
