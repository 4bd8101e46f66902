"""Account, user and token of `millrace dev`, from start to start."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from app.cli.dev_credentials import EMAIL, USER, first_account, first_token
from app.cli.environment import Direct, opened
from app.cli.installation import Installation, InstallationError
from app.settings import Settings
from tenants.auth import ADMIN, Caller, operator
from tenants.errors import AlreadyExists
from tenants.tokens import TokenGrant


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setattr("app.cli.installation.SYSTEM_DIRECTORY", tmp_path / "system")
    return Installation.open(tmp_path / "data", create=True)


@pytest.fixture
async def account_id(settings: Settings, installation: Installation) -> UUID:
    return await first_account(settings, installation, None)


async def caller_of(settings: Settings, token: str) -> tuple[Caller, list[str]]:
    """Whom the token stands for, and the users of the account by name."""
    async with opened(settings) as direct:
        caller = await direct.tenants.authenticate(token)
        return caller, [user.name for user in await direct.tenants.users.all(caller.account_id)]


async def test_every_start_finds_the_same(settings: Settings, installation: Installation, account_id: UUID) -> None:
    token = await first_token(settings, installation, account_id, None)
    caller, users = await caller_of(settings, token)
    assert users == [USER]
    async with opened(settings) as direct:
        user = await direct.tenants.users.by_id(account_id, caller.user_id or account_id)
        assert (user.email, user.role, user.password_hash) == (EMAIL, ADMIN, None)

    assert await first_account(settings, installation, None) == account_id
    assert await first_token(settings, installation, account_id, None) == token
    assert await caller_of(settings, token) == (caller, users)


async def test_a_token_of_nobody_gets_the_user(
    settings: Settings, installation: Installation, account_id: UUID
) -> None:
    """As a data folder has it that was made before there was a user."""
    async with opened(settings) as direct:
        grant = TokenGrant(name="old", scopes=[ADMIN])
        _, token = await direct.tenants.tokens.create(operator(account_id), grant)
    installation.keep_token(token)
    assert await first_token(settings, installation, account_id, None) == token
    caller, users = await caller_of(settings, token)
    assert caller.user_id is not None
    assert users == [USER]


async def test_a_token_of_somebody_stays_theirs(
    settings: Settings, installation: Installation, account_id: UUID
) -> None:
    async with opened(settings) as direct:
        ada = await direct.tenants.users.create(operator(account_id), "ada", role=ADMIN)
        grant = TokenGrant(name="hers", scopes=[ADMIN], user_id=ada.id)
        _, token = await direct.tenants.tokens.create(operator(account_id), grant)
    assert await first_token(settings, installation, account_id, token) == token
    assert (await caller_of(settings, token))[0].user_id == ada.id


async def test_a_user_of_that_name_is_taken(settings: Settings, installation: Installation, account_id: UUID) -> None:
    async with opened(settings) as direct:
        theirs = await direct.tenants.users.create(operator(account_id), USER, role=ADMIN, email="me@example.org")
    token = await first_token(settings, installation, account_id, None)
    assert (await caller_of(settings, token))[0].user_id == theirs.id


async def test_with_a_disabled_user_there_still_is_a_token(
    settings: Settings, installation: Installation, account_id: UUID
) -> None:
    first = await first_token(settings, installation, account_id, None)
    caller, _ = await caller_of(settings, first)
    assert caller.user_id is not None
    async with opened(settings) as direct:
        await direct.tenants.users.disable(operator(account_id), caller.user_id)
    second = await first_token(settings, installation, account_id, None)
    assert second != first
    assert (await caller_of(settings, second))[0].user_id is None
    with pytest.raises(InstallationError, match="cannot be used"):
        await first_token(settings, installation, account_id, first)


async def test_a_disabled_account_is_left_as_it_is(
    settings: Settings, installation: Installation, account_id: UUID
) -> None:
    async with opened(settings) as direct:
        await direct.tenants.accounts.disable(operator(account_id))
    with pytest.raises(InstallationError, match=f"is disabled: run `millrace account enable {account_id.hex}`"):
        await first_account(settings, installation, None)
    other = UUID(int=1)
    assert await first_account(settings, installation, other) == other


async def test_another_accounts_token_is_not_taken(
    settings: Settings, installation: Installation, account_id: UUID
) -> None:
    async def theirs(direct: Direct) -> str:
        account = await direct.tenants.accounts.create("other")
        grant = TokenGrant(name="t", scopes=[ADMIN])
        return (await direct.tenants.tokens.create(operator(account.account_id), grant))[1]

    async with opened(settings) as direct:
        token = await theirs(direct)
        with pytest.raises(AlreadyExists):
            await direct.tenants.tokens.adopt(operator(account_id), TokenGrant(name="t", scopes=[ADMIN]), token)
    with pytest.raises(InstallationError, match="cannot be used"):
        await first_token(settings, installation, account_id, token)
