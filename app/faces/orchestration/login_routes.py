"""Logging in, and tickets for streams, which cannot send a header."""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import RawBody

from app.faces.orchestration.schemas import LoginBody, TicketBody
from tenants import claims, tickets
from tenants.auth import Caller
from tenants.bodies import decode_body
from tenants.service import TenantService

Tenants = NamedDependency[TenantService]


@post("/auth/login", status_code=200, opt={"authenticates_itself": True})
async def log_in(request: Request[Any, Any, Any], body: RawBody, tenants: Tenants) -> dict[str, Any]:
    """A token for a user name (or e-mail address) and password."""
    asked = decode_body(body, LoginBody)
    address = request.client.host if request.client is not None else ""
    person = await tenants.logins.log_in(asked.username, asked.password, account=asked.account, address=address)
    lifetime = claims.ORCHESTRATION_LIFETIME
    token = tenants.logins.issue(person, lifetime, claims.orchestration(person))
    return {"token": token, "tokenType": "Bearer", "expiresIn": int(lifetime.total_seconds())}


@post("/auth/stream-ticket", status_code=200)
async def issue_ticket(body: RawBody, caller: NamedDependency[Caller], tenants: Tenants) -> dict[str, Any]:
    """A ticket that opens one stream, once."""
    ticket = await tenants.tickets.issue(caller, decode_body(body, TicketBody).path)
    return {"ticket": ticket, "expiresIn": int(tickets.LIFETIME.total_seconds())}


route_handlers = [log_in, issue_ticket]
