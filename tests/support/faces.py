"""Routes of one package over HTTP, behind the platform's own authentication, with the services a test gives them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.types import ASGIApp, ControllerRouterHandler, Middleware

from app.authentication import Authenticate, caller_of
from app.middleware.paths import PREFIX
from app.refusals import Refusals
from tenants.clock import ManualClock
from tenants.service import TenantService


def face(
    route_handlers: Sequence[ControllerRouterHandler],
    tenants: TenantService,
    *,
    middleware: Sequence[Middleware] = (),
    **services: Any,
) -> Litestar:
    """An application of these routes. Handlers ask for `tenants` and `services` by name."""
    platform: Any = SimpleNamespace(tenants=tenants)

    def authenticated(app: ASGIApp) -> ASGIApp:
        return Authenticate(app, platform)

    def provide(service: Any) -> Provide:
        return Provide(lambda: service, sync_to_thread=False)

    router = Router(
        PREFIX,
        route_handlers=route_handlers,
        middleware=[*middleware, authenticated],
        dependencies={
            "caller": Provide(caller_of, sync_to_thread=False),
            **{name: provide(service) for name, service in {"tenants": tenants, **services}.items()},
        },
    )
    return Litestar(
        [router],
        exception_handlers=Refusals(ManualClock().now).handlers(),
        openapi_config=None,
        request_max_body_size=None,
    )
