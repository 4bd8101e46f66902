"""Logging in: a JWT for a password, a session for a JWT; and who is logged in."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import RawBody

from app.authentication import secure_cookies
from app.errors import NotAuthenticated
from app.faces.medusa.bodies import text_fields
from app.settings import Settings
from tenants import claims
from tenants.auth import Caller
from tenants.clock import iso
from tenants.errors import WrongLogin
from tenants.logins import Person
from tenants.service import TenantService
from tenants.sessions import cookie, cookie_in

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Tenants = NamedDependency[TenantService]


@post("/user/emailpass", status_code=200, opt={"authenticates_itself": True})
async def log_in(request: AnyRequest, body: RawBody, tenants: Tenants) -> dict[str, str]:
    """A JWT for an e-mail address (or user name) and password."""
    given = text_fields(body, "email", "password")
    email, password = given.get("email"), given.get("password")
    if not isinstance(email, str) or not isinstance(password, str):
        raise WrongLogin()
    address = request.client.host if request.client is not None else ""
    return _token(tenants, await tenants.logins.log_in(email, password, address=address))


@post("/token/refresh", status_code=200, opt={"credential": "login"})
async def refresh(caller: Who, tenants: Tenants) -> dict[str, str]:
    """The next JWT of a login or session."""
    return _token(tenants, await _person(tenants, caller))


@post("/session", status_code=200, opt={"credential": "jwt"})
async def open_session(caller: Who, tenants: Tenants, settings: NamedDependency[Settings]) -> Response[dict[str, Any]]:
    """A session for a JWT, as a cookie."""
    person = await _person(tenants, caller)
    value, _ = await tenants.sessions.create(caller)
    set_cookie = {"set-cookie": cookie(value, secure=secure_cookies(settings))}
    return Response({"user": claims.medusa(person)}, headers=set_cookie)


@delete("/session", status_code=200, opt={"credential": "session"})
async def end_session(
    request: AnyRequest, caller: Who, tenants: Tenants, settings: NamedDependency[Settings]
) -> Response[dict[str, bool]]:
    """End the session, with the JWTs that were made with it."""
    await tenants.sessions.end(cookie_in(";".join(request.headers.getall("cookie", []))))
    return Response({"success": True}, headers={"set-cookie": cookie("", secure=secure_cookies(settings))})


@get("/users/me")
async def get_me(caller: Who, tenants: Tenants) -> dict[str, Any]:
    """Who is logged in. People have one name here, which is shown as the first."""
    user = (await _person(tenants, caller)).user
    return {
        "user": {
            "id": user.id.hex,
            "email": user.email or user.name,
            "first_name": user.name,
            "last_name": None,
            "created_at": iso(user.created_at),
            "updated_at": iso(user.modified_at),
        }
    }


async def _person(tenants: TenantService, caller: Caller) -> Person:
    """Raises :class:`NotAuthenticated` for API tokens, which are nobody."""
    if caller.token_id is not None or caller.user_id is None:
        raise NotAuthenticated()
    return await tenants.logins.person(caller)


def _token(tenants: TenantService, person: Person) -> dict[str, str]:
    return {"token": tenants.logins.issue(person, claims.MEDUSA_LIFETIME, claims.medusa(person))}


auth_handlers = [log_in, refresh, open_session, end_session]
admin_handlers = [get_me]
