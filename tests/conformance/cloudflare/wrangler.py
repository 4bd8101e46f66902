"""wrangler as a process, pointed at a running Millrace."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.support.api import Tenant

from .node_clients import NodeClients, Ran

AT_ONCE = 4


class Wrangler:
    """Runs commands. `await wrangler("list")` is `wrangler workflows list`; it must succeed."""

    def __init__(self, clients: NodeClients, folder: Path, environment: dict[str, str]) -> None:
        self._clients = clients
        self.folder = folder
        self._environment = environment
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, *arguments: str, typed: str | None = None) -> Ran:
        """`wrangler …` in its folder; `typed` is what it reads from a terminal that is none."""
        async with self._room:
            return await self._clients.run(
                "wrangler/bin/wrangler.js", *arguments, cwd=self.folder, environment=self._environment, typed=typed
            )

    async def done(self, *arguments: str, typed: str | None = None) -> str:
        """What `wrangler …` says; it must succeed."""
        ran = await self.run(*arguments, typed=typed)
        assert ran.code == 0, ran.out
        return ran.out

    async def fails(self, *arguments: str) -> str:
        """What `wrangler …` says; it must fail."""
        ran = await self.run(*arguments)
        assert ran.code == 1, ran.out
        return ran.out

    async def __call__(self, *arguments: str) -> str:
        ran = await self.run("workflows", *arguments)
        assert ran.code == 0, ran.out
        return ran.out

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self(*arguments, "--json"))

    async def refused(self, *arguments: str) -> str:
        ran = await self.run("workflows", *arguments)
        assert ran.code == 1, ran.out
        return ran.out


def wrangler_of(clients: NodeClients, base_url: str, tenant: Tenant, folder: Path) -> Wrangler:
    """A wrangler that works for `tenant` in `folder`."""
    return Wrangler(
        clients,
        folder,
        {
            "CLOUDFLARE_API_BASE_URL": f"{base_url}/client/v4",
            "CLOUDFLARE_API_TOKEN": tenant.token,
            "CLOUDFLARE_ACCOUNT_ID": tenant.hex,
            "WRANGLER_SEND_METRICS": "false",
            "WRANGLER_HIDE_BANNER": "true",  # and does not look for a newer release
            "WRANGLER_LOG_PATH": str(folder / "logs"),
            "CI": "1",
        },
    )
