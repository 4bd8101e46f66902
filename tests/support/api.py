"""The whole application inside the test's process: a platform on the test's database, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from app.composition import Platform
from app.main import create_app
from app.settings import Settings
from tenants.auth import operator
from tenants.ids import account_hex
from tenants.schemas import WorkspaceRow
from tenants.tokens import TokenGrant
from tests.support import openapi


@dataclass(frozen=True)
class Tenant:
    """An account and a token of it."""

    id: UUID
    token: str

    @property
    def hex(self) -> str:
        return account_hex(self.id)

    @property
    def path(self) -> str:
        """Where the account's objects are."""
        return f"/client/v4/accounts/{self.hex}"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


async def new_tenant(
    platform: Platform, scopes: Sequence[str] = ("admin",), *, of: UUID | None = None, workspace: UUID | None = None
) -> Tenant:
    """A token with `scopes`, in a new account or in account `of`, there perhaps restricted to a workspace."""
    account_id = of or (await platform.tenants.accounts.create("test")).account_id
    grant = TokenGrant(name="test", scopes=list(scopes), workspace_id=workspace)
    _, token = await platform.tenants.tokens.create(operator(account_id), grant)
    return Tenant(account_id, token)


async def new_workspace(platform: Platform, of: UUID) -> WorkspaceRow:
    """One more workspace of account `of`."""
    return await platform.tenants.workspaces.create(operator(of), f"team-{platform.ids.uuid7().hex}")


async def outsider(platform: Platform, of: UUID) -> Tenant:
    """Somebody of the account `of` who may do everything in a workspace where nothing is, and is nobody elsewhere."""
    return await new_tenant(platform, of=of, workspace=(await new_workspace(platform, of)).id)


@asynccontextmanager
async def client_of(
    settings: Settings, platform: Platform, tenant: Tenant | None = None, *, checked: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the application, as `tenant`. `checked`: every answer is held to the contract."""
    transport = httpx.ASGITransport(create_app(settings, platform=platform), client=("192.0.2.7", 4711))
    hooks: dict[str, list[Any]] = {"response": [_held_to_the_contract]} if checked else {}
    async with httpx.AsyncClient(
        transport=transport,
        base_url=f"http://millrace.test{tenant.path if tenant else ''}",
        headers=tenant.headers if tenant else {},
        event_hooks=hooks,
    ) as client:
        yield client


async def _held_to_the_contract(response: httpx.Response) -> None:
    if response.request.method != "OPTIONS" and not response.headers.get("content-type", "").startswith("text/event"):
        await response.aread()
        openapi.check(response)
