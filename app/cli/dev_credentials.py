"""The account, the user and the token `millrace dev` makes at its first start and brings back at every other."""

from __future__ import annotations

import contextlib
from uuid import UUID

from app.cli.environment import opened
from app.cli.installation import Installation, InstallationError
from app.errors import NotAuthenticated
from app.settings import Settings
from tenants.auth import ADMIN, Caller, operator
from tenants.errors import AccountNotFound, AlreadyExists, UserNotFound
from tenants.ids import account_hex
from tenants.service import TenantService
from tenants.tokens import TokenGrant

NAME = "millrace dev"
USER, EMAIL = "dev", "dev@millrace.localhost"
"""Whom the token belongs to when nobody gave it to somebody else: clients ask for the user behind a token."""


async def first_account(settings: Settings, installation: Installation, wanted: UUID | None) -> UUID:
    """The wanted account, else the kept one, else a new one; it exists afterwards and is kept.

    Raises :class:`InstallationError` when it is disabled.
    """
    kept = installation.marker.account_id
    account_id = wanted or (UUID(hex=kept) if kept else None)
    async with opened(settings) as direct:
        tenants = direct.tenants
        await tenants.check_secret()
        if account_id is None:
            account_id = (await tenants.accounts.create(NAME)).account_id
        else:
            try:
                account = await tenants.accounts.get(account_id)
            except AccountNotFound:
                account = await tenants.accounts.create(NAME, account_id=account_id)
            if account.disabled_at is not None:
                raise InstallationError(
                    f"Account {account_hex(account_id)} is disabled: run `millrace account enable "
                    f"{account_hex(account_id)}`, or choose another --account-id."
                )
    installation.marker.account_id = account_hex(account_id)
    installation.save()
    return account_id


async def first_token(settings: Settings, installation: Installation, account_id: UUID, wanted: str | None) -> str:
    """The wanted token, else the kept one, else a new one; it works afterwards, with every scope, and is kept.

    Raises :class:`InstallationError` when the wanted token is another account's, and :class:`InvalidRequest` when it
    does not look like a token.
    """
    caller = operator(account_id)
    async with opened(settings) as direct:
        tenants = direct.tenants
        user_id = await _first_user(tenants, caller)
        grant = TokenGrant(name=NAME, scopes=[ADMIN], role=ADMIN, user_id=user_id)
        token = wanted or installation.token
        holder = await _holder(tenants, token, account_id) if token else None
        if token is None or holder is None:
            token = await _made(tenants, caller, grant, token, wanted is not None)
        elif holder.user_id is None and holder.token_id and user_id:
            await tenants.tokens.give(caller, holder.token_id, user_id)
    installation.keep_token(token)
    return token


async def _made(tenants: TenantService, caller: Caller, grant: TokenGrant, token: str | None, wanted: bool) -> str:
    """`token` made one of the account; when it cannot be, or there is none, a new one, unless it is `wanted`."""
    if token is not None:
        try:
            await tenants.tokens.adopt(caller, grant, token)
            return token
        except AlreadyExists:
            if wanted:
                raise InstallationError(
                    "This token cannot be used: it belongs to another account, or is disabled or expired."
                ) from None
    _, fresh = await tenants.tokens.create(caller, grant)
    return fresh


async def _first_user(tenants: TenantService, caller: Caller) -> UUID | None:
    """The installation's own user, made when missing; None when an operator disabled it."""
    for known_as in (EMAIL, USER):
        with contextlib.suppress(UserNotFound):
            user = await tenants.users.find(caller.account_id, known_as)
            return user.id if user.disabled_at is None else None
    return (await tenants.users.create(caller, USER, role=ADMIN, email=EMAIL)).id


async def _holder(tenants: TenantService, token: str, account_id: UUID) -> Caller | None:
    """Whom the token stands for, when it works and is the account's."""
    try:
        caller = await tenants.authenticate(token)
    except NotAuthenticated:
        return None
    return caller if caller.account_id == account_id else None
