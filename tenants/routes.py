"""Identity in the Cloudflare face: who the credential is, its account, and the account's API tokens.

Whoever authenticates the request has made sure that the account in the path is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Controller, Request, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from app.errors import InvalidRequest, NoRoute
from tenants import limits
from tenants.auth import Caller
from tenants.authentication import status_of
from tenants.bodies import decode_body, utc
from tenants.clock import Clock, iso
from tenants.errors import NoUserDetails, TokenNotFound
from tenants.ids import account_hex, parse_account_id
from tenants.paging import Page, page_of
from tenants.policies import ACCOUNT_RESOURCE, PERMISSION_GROUPS, scopes_of, shown_policies, stored_policies
from tenants.results import Envelope, listed, ok
from tenants.schemas import AccountRow, TokenBody, TokenRow
from tenants.service import TenantService
from tenants.store.tokens import Credential
from tenants.tokens import TokenGrant
from tenants.workspaces import uuid_of

AnyRequest = Request[Any, Any, Any]
Tenants = NamedDependency[TenantService]
Time = NamedDependency[Clock]
Who = NamedDependency[Caller]

AUTHENTICATES_ITSELF = {"authenticates_itself": True}
"""On routes that answer for credentials others refuse: whoever authenticates requests lets these through."""


class IdentityController(Controller):
    """What clients ask first: is this credential good, whose is it, which accounts does it reach."""

    @get("/user/tokens/verify", opt=AUTHENTICATES_ITSELF)
    async def verify_user_token(self, request: AnyRequest, tenants: Tenants, clock: Time) -> Envelope:
        return _verified(await tenants.inspect(request.headers), clock.now())

    @get("/user")
    async def user(self, caller: Who, tenants: Tenants) -> Envelope:
        if caller.user_id is None:
            raise NoUserDetails("Unauthorized to access requested resource: this token belongs to no user")
        user = await tenants.users.by_id(caller.account_id, caller.user_id)
        if user.email is None:
            raise NoUserDetails("Unauthorized to access requested resource: the user has no e-mail address")
        shown = {"id": user.id.hex, "email": user.email, "first_name": user.name, "last_name": None}
        created = {"created_on": iso(user.created_at), "modified_on": iso(user.modified_at)}
        return ok(shown | {"suspended": False} | created)

    @get("/accounts")
    async def accounts(self, request: AnyRequest, caller: Who, tenants: Tenants) -> Envelope:
        query = request.query_params
        page = _page(query)
        _choice(query, "direction", ("asc", "desc"))
        account = await tenants.accounts.get(caller.account_id)
        found = [_account(account)] if query.get("name") in (None, account.name) else []
        return _listed(found, page)

    @get("/accounts/{account_id:str}")
    async def account(self, caller: Who, tenants: Tenants) -> Envelope:
        return ok(_account(await tenants.accounts.get(caller.account_id)))

    @get("/memberships")
    async def memberships(self, request: AnyRequest, caller: Who, tenants: Tenants) -> Envelope:
        query = request.query_params
        page = _page(query)
        _choice(query, "direction", ("asc", "desc"))
        _choice(query, "order", ("id", "account.name", "status"))
        status = _choice(query, "status", ("accepted", "pending", "rejected"))
        account = await tenants.accounts.get(caller.account_id)
        membership = {
            "id": (caller.user_id or caller.token_id or caller.account_id).hex,
            "status": "accepted",
            "account": _account(account),
            "roles": [caller.role],
            "api_access_enabled": True,
        }
        named = all(query.get(key) in (None, account.name) for key in ("name", "account.name"))
        return _listed([membership] if named and status in (None, "accepted") else [], page)


class TokenController(Controller):
    """The account's API tokens. A token's text is in the answers to create and roll, and nowhere else."""

    path = "/accounts/{account_id:str}/tokens"

    @get("/verify", opt=AUTHENTICATES_ITSELF)
    async def verify_account_token(
        self, request: AnyRequest, account_id: FromPath[str], tenants: Tenants, clock: Time
    ) -> Envelope:
        credential = await tenants.inspect(request.headers)
        if parse_account_id(account_id) != credential.account_id:
            raise NoRoute()
        return _verified(credential, clock.now())

    @get("/permission_groups")
    async def permission_groups(self, request: AnyRequest, caller: Who) -> Envelope:
        caller.require("tokens:read")
        query = request.query_params
        found = [
            {"id": group.id, "name": group.name, "scopes": [ACCOUNT_RESOURCE], "grants": list(group.scopes)}
            for group in PERMISSION_GROUPS
            if query.get("name") in (None, group.name) and query.get("scope") in (None, ACCOUNT_RESOURCE)
        ]
        return ok(found)

    @get("/")
    async def tokens(self, request: AnyRequest, caller: Who, tenants: Tenants, clock: Time) -> Envelope:
        caller.require("tokens:read")
        query = request.query_params
        page = _page(query)
        rows, total = await tenants.tokens.page(
            caller,
            limit=page.size,
            offset=page.offset,
            ascending=_choice(query, "direction", ("asc", "desc")) == "asc",
            include_expired=_choice(query, "include_expired", ("true", "false")) == "true",
        )
        return listed([_token(row, clock.now()) for row in rows], page, total)

    @post("/", status_code=200)
    async def create_token(self, request: AnyRequest, caller: Who, tenants: Tenants, clock: Time) -> Envelope:
        caller.require("tokens:write")
        grant = _grant(decode_body(await request.body(), TokenBody), caller)
        row, text = await tenants.tokens.create(caller, grant)
        return ok(_token(row, clock.now()) | {"value": text})

    @get("/{token_id:str}")
    async def token(self, token_id: FromPath[str], caller: Who, tenants: Tenants, clock: Time) -> Envelope:
        caller.require("tokens:read")
        return ok(_token(await tenants.tokens.get(caller, _token_id(token_id)), clock.now()))

    @put("/{token_id:str}")
    async def update_token(
        self, request: AnyRequest, token_id: FromPath[str], caller: Who, tenants: Tenants, clock: Time
    ) -> Envelope:
        caller.require("tokens:write")
        grant = _grant(decode_body(await request.body(), TokenBody), caller)
        return ok(_token(await tenants.tokens.replace(caller, _token_id(token_id), grant), clock.now()))

    @delete("/{token_id:str}", status_code=200)
    async def delete_token(self, token_id: FromPath[str], caller: Who, tenants: Tenants) -> Envelope:
        caller.require("tokens:write")
        found = _token_id(token_id)
        await tenants.tokens.revoke(caller, found)
        return ok({"id": found.hex})

    @put("/{token_id:str}/value")
    async def roll_token(self, token_id: FromPath[str], caller: Who, tenants: Tenants) -> Envelope:
        caller.require("tokens:write")
        return ok(await tenants.tokens.roll(caller, _token_id(token_id)))


route_handlers: list[ControllerRouterHandler] = [IdentityController, TokenController]


def _page(query: Mapping[str, str]) -> Page:
    return page_of(
        query,
        default=limits.ACCOUNT_ROWS_PER_PAGE,
        minimum=limits.ACCOUNT_ROWS_PER_PAGE_MIN,
        maximum=limits.ACCOUNT_ROWS_PER_PAGE_MAX,
    )


def _choice(query: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    value = query.get(name)
    if value is not None and value not in choices:
        raise InvalidRequest(f"{name} must be one of {', '.join(choices)}")
    return value


def _listed(rows: list[Any], page: Page) -> Envelope:
    """The asked page of a list that is all in memory."""
    return listed(rows[page.offset : page.offset + page.size], page, len(rows))


def _token_id(text: str) -> UUID:
    found = uuid_of(text)
    if found is None:
        raise TokenNotFound("there is no such token in this account")
    return found


def _grant(body: TokenBody, caller: Caller) -> TokenGrant:
    expires_at = utc(body.expires_on, "expires_on")
    if body.status not in (None, "active", "disabled"):
        raise InvalidRequest('status must be "active" or "disabled"; a token expires by expires_on', pointer="/status")
    return TokenGrant(
        name=body.name,
        scopes=scopes_of(body.policies, body.condition, caller.account_id),
        policies=stored_policies(body.policies),
        not_before=utc(body.not_before, "not_before"),
        expires_at=expires_at,
        disabled=body.status == "disabled",
    )


def _verified(credential: Credential, now: datetime) -> Envelope:
    status = status_of(credential, now)
    result = {"id": credential.id.hex, "status": status}
    result |= _times(expires_on=credential.expires_at, not_before=credential.not_before)
    return ok(result, messages=[{"code": 10000, "message": f"This API Token is {_VERDICT[status]}"}])


_VERDICT = {"active": "valid and active", "disabled": "disabled", "expired": "expired"}


def _account(row: AccountRow) -> dict[str, Any]:
    return {
        "id": account_hex(row.account_id),
        "name": row.name,
        "type": "standard",
        "settings": {"enforce_twofactor": False},
        "created_on": iso(row.created_at),
    }


def _token(row: TokenRow, now: datetime) -> dict[str, Any]:
    return {
        "id": row.id.hex,
        "name": row.name,
        "status": row.status(now),
        "issued_on": iso(row.created_at),
        "modified_on": iso(row.modified_at),
        **_times(last_used_on=row.last_used_at, expires_on=row.expires_at, not_before=row.not_before),
        "policies": shown_policies(row.policies, row.scopes, row.id, row.account_id),
    }


def _times(**moments: datetime | None) -> dict[str, str]:
    """Timestamps by field; fields without one are left out, as clients expect."""
    return {field: iso(moment) for field, moment in moments.items() if moment is not None}
