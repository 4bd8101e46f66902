"""The workspaces API: workflows of actions that run one after the other, their executions, tasks and notifications."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import Router
from litestar.di import Provide
from litestar.types import ASGIApp

from app.authentication import WORKSPACES, Authenticate, caller_of
from app.composition import Platform
from app.faces.face import Face
from app.faces.rates import seconds_to_go
from app.faces.workspaces.access import access
from app.faces.workspaces.errors import refuse
from app.faces.workspaces.routes import route_handlers


def _routers(platform: Platform) -> list[Router]:
    def authenticated(app: ASGIApp) -> ASGIApp:
        return Authenticate(app, platform, WORKSPACES)

    return [
        Router(
            path="/api/workspaces/{slug:str}",
            route_handlers=route_handlers,
            middleware=[authenticated],
            dependencies={
                "caller": Provide(caller_of, sync_to_thread=False),
                "access": Provide(access, sync_to_thread=False),
                "inboxes": Provide(lambda: platform.inboxes, sync_to_thread=False),
            },
        )
    ]


def _headers(scope: Any, _now: datetime) -> dict[str, str]:
    return seconds_to_go(scope)


FACE = Face("workspaces", ("/api/workspaces",), refuse, _routers, _headers)
