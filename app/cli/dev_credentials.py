"""The account and the token `millrace dev` makes at its first start and brings back at every other."""

from __future__ import annotations

from uuid import UUID

from app.cli.environment import opened
from app.cli.installation import Installation, InstallationError
from app.errors import NotAuthenticated
from app.settings import Settings
from tenants.auth import ADMIN, operator
from tenants.errors import AccountNotFound, AlreadyExists
from tenants.ids import account_hex
from tenants.service import TenantService
from tenants.tokens import TokenGrant

NAME = "millrace dev"


async def first_account(settings: Settings, installation: Installation, wanted: UUID | None) -> UUID:
    """The wanted account, else the kept one, else a new one; it exists afterwards and is kept."""
    kept = installation.marker.account_id
    account_id = wanted or (UUID(hex=kept) if kept else None)
    async with opened(settings) as direct:
        tenants = direct.tenants
        await tenants.check_secret()
        if account_id is None:
            account_id = (await tenants.accounts.create(NAME)).account_id
        else:
            try:
                await tenants.accounts.get(account_id)
            except AccountNotFound:
                await tenants.accounts.create(NAME, account_id=account_id)
    installation.marker.account_id = account_hex(account_id)
    installation.save()
    return account_id


async def first_token(settings: Settings, installation: Installation, account_id: UUID, wanted: str | None) -> str:
    """The wanted token, else the kept one, else a new one; it works afterwards, with every scope, and is kept.

    Raises :class:`InstallationError` when the wanted token is another account's, and :class:`InvalidRequest` when it
    does not look like a token.
    """
    caller = operator(account_id)
    grant = TokenGrant(name=NAME, scopes=[ADMIN], role=ADMIN)
    async with opened(settings) as direct:
        tenants = direct.tenants
        token = wanted or installation.token
        if token is not None and not await _works(tenants, token, account_id):
            try:
                await tenants.tokens.adopt(caller, grant, token)
            except AlreadyExists:
                if wanted:
                    raise InstallationError(
                        "This token cannot be used: it belongs to another account, or is disabled or expired."
                    ) from None
                token = None
        if token is None:
            _, token = await tenants.tokens.create(caller, grant)
    installation.keep_token(token)
    return token


async def _works(tenants: TenantService, token: str, account_id: UUID) -> bool:
    try:
        caller = await tenants.authenticate(token)
    except NotAuthenticated:
        return False
    return caller.account_id == account_id
