"""`/healthz`: the process answers. `/readyz`: it can do its work, or 503 with every reason why not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from app.composition import Platform
from app.migrations import SchemaTooNew, pending

CHECK_SECONDS = 2.0
SCHEMA_REMEMBERED_SECONDS = 10.0
"""A schema that fits is asked about again after this long: a newer release may migrate the database at any time."""


class Readiness(msgspec.Struct, omit_defaults=True):
    """Answer of `/readyz`: `ready`, `degraded` (works, but slower) or `unavailable`, and why."""

    status: str
    reasons: list[str] = []


class ReadinessCheck:
    """Looks at everything the process needs. Cheap enough for a probe every second."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._schema_fits_until = 0.0

    async def look(self) -> Readiness:
        """How things are. Only what keeps requests from being answered makes it `unavailable`.

        Redis is a doorbell: without it work is found within a second, so its absence must not take every process out
        of a load balancer.
        """
        if self._platform.state != "ready":
            return Readiness("unavailable", [self._platform.state])
        database, schema, redis = await asyncio.gather(self._database(), self._schema(), self._redis())
        if reasons := [reason for reason in (database, schema) if reason]:
            return Readiness("unavailable", reasons)
        return Readiness("degraded", [redis]) if redis else Readiness("ready")

    async def _database(self) -> str | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._platform.db.now()
        except Exception as error:
            return f"database: {type(error).__name__}"
        return None

    async def _redis(self) -> str | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._platform.redis.ping()
        except Exception as error:
            return f"redis: {type(error).__name__}"
        return None

    async def _schema(self) -> str | None:
        now = asyncio.get_running_loop().time()
        if now < self._schema_fits_until:
            return None
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                missing = await pending(self._platform.settings.database_url)
        except SchemaTooNew as error:
            return f"schema: {error}"
        except Exception as error:
            return f"schema: {type(error).__name__}"
        if missing:
            return f"schema: {len(missing)} migrations are missing, run `millrace migrate`"
        self._schema_fits_until = now + SCHEMA_REMEMBERED_SECONDS
        return None


@get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process runs and its event loop turns."""
    return {"status": "ok"}


@get("/readyz", include_in_schema=False)
async def readyz(readiness: NamedDependency[ReadinessCheck]) -> Response[Any]:
    """Whether this process should get traffic."""
    found = await readiness.look()
    if found.status == "unavailable":
        return Response(found, status_code=503, headers={"retry-after": "1"})
    return Response(found)


route_handlers = [healthz, readyz]
