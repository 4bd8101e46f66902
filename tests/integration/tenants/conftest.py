"""Accounts with services around them."""

from __future__ import annotations

import dataclasses
from uuid import UUID

import pytest

from tenants.auth import Caller, operator
from tenants.service import TenantService
from tenants.tokens import TokenGrant


@pytest.fixture
async def boss(tenants: TenantService) -> Caller:
    """The operator, in an account of his own making."""
    account = await tenants.accounts.create("ours")
    return operator(account.account_id)


@pytest.fixture
async def stranger(tenants: TenantService) -> Caller:
    """The operator in another account."""
    account = await tenants.accounts.create("theirs")
    return operator(account.account_id)


@dataclasses.dataclass(frozen=True)
class Given:
    """A token as a test gets it."""

    id: UUID
    text: str
    account_id: UUID

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.text}"}


@pytest.fixture
def make_token(tenants: TenantService, boss: Caller):
    """`await make_token("scope", …, caller=…, **grant)`; all scopes when none is named."""

    async def make(*scopes: str, caller: Caller = boss, **grant) -> Given:
        row, text = await tenants.tokens.create(caller, TokenGrant(name="t", scopes=list(scopes) or ["admin"], **grant))
        return Given(row.id, text, caller.account_id)

    return make
