"""Logging in: an access token, and a refresh token that gives the next pair."""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import RawBody

from app.faces.jobsprint.results import ok
from app.faces.jobsprint.schemas import LoginBody, RefreshBody
from tenants import claims
from tenants.bodies import decode_body
from tenants.clock import Clock
from tenants.logins import Person
from tenants.service import TenantService

Tenants = NamedDependency[TenantService]
Now = NamedDependency[Clock]


@post("/auth/login", status_code=200, opt={"authenticates_itself": True})
async def log_in(request: Request[Any, Any, Any], body: RawBody, tenants: Tenants, clock: Now) -> dict[str, Any]:
    """Tokens for an e-mail address (or user name) and password."""
    asked = decode_body(body, LoginBody)
    address = request.client.host if request.client is not None else ""
    person = await tenants.logins.log_in(asked.email, asked.password, account=asked.account, address=address)
    return ok(clock, _pair(tenants, person))


@post("/auth/refresh", status_code=200, opt={"authenticates_itself": True})
async def refresh(body: RawBody, tenants: Tenants, clock: Now) -> dict[str, Any]:
    """The next pair of tokens; each refresh token is good once."""
    person = await tenants.logins.refresh(decode_body(body, RefreshBody).refresh_token)
    return ok(clock, _pair(tenants, person))


def _pair(tenants: TenantService, person: Person) -> dict[str, Any]:
    user = person.user
    access = tenants.logins.issue(person, claims.JOBSPRINT_LIFETIME, claims.jobsprint(person))
    return {
        "user": {"id": user.id.hex, "email": user.email, "name": user.name, "role": user.role},
        "tokens": {
            "accessToken": access,
            "refreshToken": tenants.logins.issue_refresh(person),
            "expiresIn": int(claims.JOBSPRINT_LIFETIME.total_seconds()),
        },
    }


route_handlers = [log_in, refresh]
