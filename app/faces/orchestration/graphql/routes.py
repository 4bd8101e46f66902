"""The one route of this face, for requests and for WebSockets."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, WebSocket, get, post, websocket
from litestar.params import RawBody

from app.composition import Platform
from app.faces.orchestration.graphql.http import Endpoint
from app.faces.orchestration.graphql.sockets import Sockets

PATH = "/graphql"
PREFIXES = (PATH,)
"""Paths that are this face's."""


def routers(platform: Platform) -> list[Router]:
    """Everything this face serves. Whoever asks is found by the route itself: part of it is for everybody."""
    # Handlers in a function, because Litestar copies what it is given, and the platform must not be copied.
    endpoint, sockets = Endpoint(platform), Sockets(platform)
    platform.on_drain.append(sockets.end_all)

    @get("/", opt={"authenticates_itself": True})
    async def ask(request: Request[Any, Any, Any]) -> Response[Any]:
        return await endpoint.get(request)

    @post("/", status_code=200, opt={"authenticates_itself": True})
    async def operate(request: Request[Any, Any, Any], body: RawBody) -> Response[Any]:
        return await endpoint.post(request, body)

    @websocket("/", opt={"authenticates_itself": True})
    async def connect(socket: WebSocket[Any, Any, Any]) -> None:
        await sockets.serve(socket)

    return [Router(path=PATH, route_handlers=[ask, operate, connect])]
