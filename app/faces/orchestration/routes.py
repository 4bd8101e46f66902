"""The routes of this face: the same ones below `/api`, `/api/v1` and `/api/v2`."""

from __future__ import annotations

from litestar import Router
from litestar.di import Provide
from litestar.types import ASGIApp

from app.authentication import ORCHESTRATION, Authenticate, caller_of
from app.composition import Platform
from app.faces.orchestration import (
    execution_routes,
    login_routes,
    service_routes,
    task_routes,
    webhook_routes,
    workflow_routes,
)
from app.faces.orchestration.negotiation import SUPPORTED, Negotiate

PREFIXES = ("/api",)
"""Paths that are this face's."""

route_handlers = [
    *login_routes.route_handlers,
    *workflow_routes.route_handlers,
    *execution_routes.route_handlers,
    *task_routes.route_handlers,
    *webhook_routes.route_handlers,
    *service_routes.route_handlers,
]


def routers(platform: Platform) -> list[Router]:
    """Everything this face serves."""
    return [_versioned(platform, prefix) for prefix in ("/api", *(f"/api/{version}" for version in SUPPORTED))]


def _versioned(platform: Platform, prefix: str) -> Router:
    def authenticated(app: ASGIApp) -> ASGIApp:
        return Authenticate(app, platform, ORCHESTRATION)

    return Router(
        path=prefix,
        route_handlers=route_handlers,
        middleware=[Negotiate, authenticated],
        dependencies={"caller": Provide(caller_of, sync_to_thread=False)},
    )
