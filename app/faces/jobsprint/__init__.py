"""JobSprint's API: executions of workflows made of nodes and connections, in an envelope, read by cursors."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from litestar import Router
from litestar.di import Provide
from litestar.types import ASGIApp

from app.authentication import JOBSPRINT, Authenticate, caller_of, rate_of
from app.composition import Platform
from app.faces.bodies import require_json
from app.faces.face import Face
from app.faces.jobsprint.errors import refuse
from app.faces.jobsprint.routes import route_handlers
from instances.search.cursors import Cursors


def _routers(platform: Platform) -> list[Router]:
    def authenticated(app: ASGIApp) -> ASGIApp:
        return Authenticate(app, platform, JOBSPRINT)

    def cursors() -> Cursors:
        return Cursors(platform.tenants.keys)

    return [
        Router(
            path="/v1",
            route_handlers=route_handlers,
            middleware=[authenticated],
            before_request=require_json,
            dependencies={
                "caller": Provide(caller_of, sync_to_thread=False),
                "cursors": Provide(cursors, sync_to_thread=False),
            },
        )
    ]


def _headers(scope: Any, now: datetime) -> dict[str, str]:
    """How the credential stands with its limit; the reset is a time, in epoch seconds."""
    rate = rate_of(scope)
    if rate is None:
        return {}
    return {
        "x-ratelimit-limit": str(rate.limit),
        "x-ratelimit-remaining": str(rate.remaining),
        "x-ratelimit-reset": str(math.ceil((now + timedelta(seconds=rate.reset_after)).timestamp())),
    }


FACE = Face("jobsprint", ("/v1",), refuse, _routers, _headers)
