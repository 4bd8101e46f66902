"""Medusa's admin API for workflow executions: executions by transactions, steps as a tree, streams of what happens."""

from __future__ import annotations

from typing import Any

from litestar import Router
from litestar.di import Provide
from litestar.types import ASGIApp, Receive, Scope, Send

from app.authentication import MEDUSA, Authenticate, CredentialRules, caller_of
from app.composition import Platform
from app.faces.bodies import require_json
from app.faces.face import Face
from app.faces.medusa import command_routes, execution_routes, login_routes, stream_routes
from app.faces.medusa.errors import refuse

_ACCEPTED = {
    "any": MEDUSA,
    "jwt": CredentialRules(order=("jwt",), account_header=True),
    "session": CredentialRules(order=("cookie",)),
    "login": CredentialRules(order=("cookie", "jwt"), account_header=True),
}
"""Credentials that routes accept, by their option `credential`."""


def _routers(platform: Platform) -> list[Router]:
    def authenticated(app: ASGIApp) -> ASGIApp:
        by = {name: Authenticate(app, platform, rules) for name, rules in _ACCEPTED.items()}

        async def authenticate(scope: Scope, receive: Receive, send: Send) -> None:
            await by[scope["route_handler"].opt.get("credential", "any")](scope, receive, send)

        return authenticate

    def router(path: str, handlers: list[Any]) -> Router:
        return Router(
            path=path,
            route_handlers=handlers,
            middleware=[authenticated],
            before_request=require_json,
            dependencies={"caller": Provide(caller_of, sync_to_thread=False)},
        )

    admin = [
        *execution_routes.route_handlers,
        *command_routes.route_handlers,
        *stream_routes.route_handlers,
        *login_routes.admin_handlers,
    ]
    return [router("/admin", admin), router("/auth", login_routes.auth_handlers)]


FACE = Face("medusa", ("/admin", "/auth"), refuse, _routers)
