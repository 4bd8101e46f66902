"""Who is calling the Cloudflare face, decided before the request's body is read.

A middleware rather than a dependency or a guard: Litestar reads the body before dependencies, and copies the handler
for every guard.
"""

from __future__ import annotations

from typing import Any

import structlog
from litestar import Request
from litestar.types import ASGIApp, Receive, Scope, Send

from app.composition import Platform
from tenants.auth import Caller

CALLER = "caller"
_CREDENTIALS = (b"authorization", b"x-auth-key")


class Authenticate:
    """Puts the :class:`Caller` into `scope[CALLER]`; handlers get it as the dependency `caller`.

    Raises :class:`app.errors.NotAuthenticated` without an accepted credential, and then :class:`app.errors.NoRoute`
    when the path names an account that is not the caller's. Routes with the option `authenticates_itself` (token
    verification answers for tokens that are no longer accepted) are let through without a caller.
    """

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app = app
        self._platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "OPTIONS" or scope["route_handler"].opt.get("authenticates_itself"):
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in reversed(list(scope["headers"]))
            if name in _CREDENTIALS
        }
        caller = await self._platform.tenants.authenticate_headers(headers)
        scope[CALLER] = caller  # type: ignore[typeddict-unknown-key]
        account_id = scope["path_params"].get("account_id")
        if account_id is not None:
            caller.owns(account_id)
        structlog.contextvars.bind_contextvars(account=caller.account_id.hex)
        await self._app(scope, receive, send)


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The dependency `caller`."""
    return request.scope[CALLER]  # type: ignore[typeddict-item]
