"""What an API face is to the rest of the application: paths it owns, its routes, and how it says no.

A face translates requests and shapes; it owns no table, keeps no state and takes no decision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from litestar import Router

from app.errors import MillraceError

if TYPE_CHECKING:
    from app.composition import Platform


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, ready to send. Header names are lower case."""

    status: int
    body: bytes
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    media_type: str = "application/json"


Refusal = Callable[[MillraceError, Any, datetime], Answer]
"""How a face answers a request that failed: the error, the ASGI scope (routed or not, with or without a caller), the
time.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Face:
    """One API face. It owns the paths that are one of `prefixes`, or continue one with `/`."""

    name: str
    prefixes: tuple[str, ...]
    refuse: Refusal
    routers: Callable[[Platform], list[Router]]
    headers: Callable[[Any, datetime], dict[str, str]] = lambda _scope, _now: {}
    """Headers of every answer, refusals included: made of the ASGI scope as the request left it, and the time."""

    def owns(self, path: str) -> bool:
        """Whether a canonical path is this face's, existing or not."""
        return any(path == prefix or path.startswith(prefix + "/") for prefix in self.prefixes)
