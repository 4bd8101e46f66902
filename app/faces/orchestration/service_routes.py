"""The service itself: which versions there are, and whether it works. Without credentials."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.di import NamedDependency

from app import __version__
from app.errors import Unavailable
from app.faces.orchestration.negotiation import DEFAULT, SUPPORTED
from app.health import ReadinessCheck

_OPEN = {"authenticates_itself": True}


@get("/version", opt=_OPEN)
async def get_version() -> dict[str, Any]:
    """The release that answers, and the versions of this API it speaks."""
    return {"version": __version__, "defaultVersion": DEFAULT, "supportedVersions": list(SUPPORTED)}


@get("/health", opt=_OPEN)
async def get_health(readiness: NamedDependency[ReadinessCheck]) -> dict[str, str]:
    """`ok`, or 503."""
    found = await readiness.look("redis")
    if found.status == "unavailable":
        raise Unavailable(f"Not ready: {', '.join(found.reasons)}", retry_after=1)
    return {"status": "ok"}


route_handlers = [get_version, get_health]
