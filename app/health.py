"""`/healthz`: the process answers. `/readyz`: it can do its work, or 503 with every reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from app.composition import Platform
from app.errors import InvalidRequest
from app.migrations import pending
from app.schema_errors import SchemaUnusable

CHECK_SECONDS = 2.0
REMEMBERED_SECONDS = 0.25
"""Anybody may ask, so however often it is done, this is how often somebody looks."""
SCHEMA_REMEMBERED_SECONDS = 10.0
"""A schema that fits is asked about again after this long: a newer release may migrate the database at any time."""
OPTIONAL = ("redis",)
"""What a probe may leave out of account: without it everything works, slower."""


class Readiness(msgspec.Struct, omit_defaults=True):
    """Answer of `/readyz`: `ready`, `degraded` (without something the probe does not mind), `unavailable`; and why."""

    status: str
    reasons: list[str] = []


class ReadinessCheck:
    """Looks at everything the process needs. Cheap enough for a probe every second."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._schema_fits_until = 0.0
        self._looking: asyncio.Task[dict[str, str]] | None = None
        self._looked_at = 0.0

    async def look(self, exclude: str | None = None) -> Readiness:
        """How things are; `exclude` names something of :data:`OPTIONAL` whose absence the asker does not mind."""
        missing = await self._missing() if self._platform.state == "ready" else {}
        if self._platform.state != "ready":
            return Readiness("unavailable", [self._platform.state])
        reasons = [f"{what}: {reason}" for what, reason in missing.items()]
        if missing.keys() - {exclude}:
            return Readiness("unavailable", reasons)
        return Readiness("degraded", reasons) if reasons else Readiness("ready")

    async def _missing(self) -> dict[str, str]:
        """What is not as it should be, and why; one look for all who ask at the same time."""
        loop = asyncio.get_running_loop()
        looking = self._looking
        if looking is None or (looking.done() and loop.time() - self._looked_at > REMEMBERED_SECONDS):
            looking = self._looking = loop.create_task(self._look())
        return await asyncio.shield(looking)

    async def _look(self) -> dict[str, str]:
        checks = {"database": self._database, "schema": self._schema, "redis": self._redis}
        reasons = await asyncio.gather(*(_problem(check) for check in checks.values()))
        self._looked_at = asyncio.get_running_loop().time()
        return {what: reason for what, reason in zip(checks, reasons, strict=True) if reason}

    async def _database(self) -> str:
        await self._platform.db.now()
        return ""

    async def _redis(self) -> str:
        await self._platform.redis.ping()
        return ""

    async def _schema(self) -> str:
        now = asyncio.get_running_loop().time()
        if now < self._schema_fits_until:
            return ""
        try:
            missing = await pending(self._platform.settings.database_url)
        except SchemaUnusable as error:
            return str(error)
        if missing:
            return f"{len(missing)} migrations are missing, run `millrace migrate`"
        self._schema_fits_until = now + SCHEMA_REMEMBERED_SECONDS
        return ""


async def _problem(check: Callable[[], Awaitable[str]]) -> str:
    """What a check says; of an error only the kind, because anybody may read it."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except Exception as error:
        return type(error).__name__


@get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process runs and its event loop turns."""
    return {"status": "ok"}


@get("/readyz", include_in_schema=False)
async def readyz(request: Request[Any, Any, Any], readiness: NamedDependency[ReadinessCheck]) -> Response[Any]:
    """Whether this process should get traffic; with `?exclude=redis` also while Redis is away."""
    exclude = request.query_params.get("exclude")
    if exclude not in (None, *OPTIONAL):
        raise InvalidRequest(f"exclude must be {' or '.join(OPTIONAL)}")
    found = await readiness.look(exclude)
    if found.status == "unavailable":
        return Response(found, status_code=503, headers={"retry-after": "1"})
    return Response(found)


route_handlers = [healthz, readyz]
