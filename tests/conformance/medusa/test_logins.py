"""Who may call the Medusa face, and how people log in."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tenants.auth import operator
from tenants.schemas import UserRow
from tests.conformance.conftest import client

from .conftest import BASE, Medusa
from .test_executions import ONE

PASSWORD = "correct horse battery"
LOGIN = "/auth/user/emailpass"


@pytest.fixture
async def ada(medusa: Medusa) -> UserRow:
    """A person of the tenant's account."""
    tenant = medusa.face.tenant
    users = medusa.face.server.platform.tenants.users
    email = f"ada-{tenant.hex}@example.org"
    return await users.create(operator(tenant.id), "ada", role="operator", email=email, password=PASSWORD)


@pytest.fixture
async def nobody(medusa: Medusa) -> AsyncIterator[httpx.AsyncClient]:
    async with client(medusa.face.server, None) as http:
        yield http


async def log_in(http: httpx.AsyncClient, user: UserRow) -> str:
    answer = await http.post(LOGIN, json={"email": user.email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return answer.json()["token"]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("form", ["Bearer {raw}", "Basic {raw}", "Basic {pair}"])
async def test_api_tokens(medusa: Medusa, nobody: httpx.AsyncClient, form: str) -> None:
    """As Bearer, as Basic with the token itself, and with `token:` in base64."""
    raw = medusa.face.tenant.token
    pair = base64.b64encode(f"{raw}:".encode()).decode()
    answer = await nobody.get(BASE, headers={"authorization": form.format(raw=raw, pair=pair)})
    assert answer.status_code == 200


@pytest.mark.parametrize("value", ["1e999", '"\\ud800"', '"\\u0000"', "null", "[]", '{"a": 1}'])
async def test_logins_that_are_none(nobody: httpx.AsyncClient, value: str) -> None:
    body = f'{{"email": {value}, "password": {value}}}'
    answer = await nobody.post(LOGIN, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (401, "unauthorized")


@pytest.mark.parametrize("header", [None, "Bearer x", "Basic x", "Basic c2tfeDo=", "Bearer sk_" + "a" * 40])
async def test_credentials_that_are_none(nobody: httpx.AsyncClient, header: str | None) -> None:
    answer = await nobody.get(BASE, headers={} if header is None else {"authorization": header})
    assert (answer.status_code, answer.json()) == (401, {"type": "unauthorized", "message": "Unauthorized"})


async def test_a_jwt_for_a_password(medusa: Medusa, nobody: httpx.AsyncClient, ada: UserRow) -> None:
    await medusa.face.deploy("flow", ONE)
    headers = bearer(await log_in(nobody, ada))
    assert (await nobody.post(f"{BASE}/flow/run", json={}, headers=headers)).status_code == 200
    listed = await nobody.get(BASE, headers=headers)
    assert listed.json()["count"] == 1
    me = await nobody.get("/admin/users/me", headers=headers)
    told = me.json()["user"]
    assert (told["id"], told["email"], told["first_name"]) == (ada.id.hex, ada.email, "ada")


@pytest.mark.parametrize(
    "body", [{"password": "wrong"}, {"email": 1}, {"password": ["x"]}, {"email": "x@example.org"}, {"email": None}]
)
async def test_wrong_passwords(nobody: httpx.AsyncClient, ada: UserRow, body: dict[str, Any]) -> None:
    answer = await nobody.post(LOGIN, json={"email": ada.email, "password": PASSWORD} | body)
    assert (answer.status_code, answer.json()) == (
        401,
        {"type": "unauthorized", "message": "Invalid email or password"},
    )


async def test_too_many_logins(nobody: httpx.AsyncClient, ada: UserRow) -> None:
    for _ in range(10):
        await nobody.post(LOGIN, json={"email": ada.email, "password": "no"})
    answer = await nobody.post(LOGIN, json={"email": ada.email, "password": PASSWORD})
    assert (answer.status_code, answer.json()["type"]) == (429, "too_many_requests")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_session(medusa: Medusa, nobody: httpx.AsyncClient, ada: UserRow) -> None:
    """Opened with a JWT, used as a cookie, ended with everything that came of it."""
    token = await log_in(nobody, ada)
    opened = await nobody.post("/auth/session", headers=bearer(token))
    assert opened.status_code == 200
    assert opened.json()["user"] == {
        "actor_id": ada.id.hex,
        "actor_type": "user",
        "auth_identity_id": ada.person_id.hex,
        "auth_provider": "emailpass",
        "app_metadata": {"user_id": ada.id.hex, "account_id": medusa.face.tenant.hex},
        "user_metadata": {},
    }
    cookie = opened.headers["set-cookie"]
    assert all(part in cookie for part in ("connect.sid=", "HttpOnly", "Path=/", "SameSite=Lax", "Secure"))
    session = {"cookie": cookie.partition(";")[0]}
    assert (await nobody.get(BASE, headers=session)).status_code == 200
    refreshed = await nobody.post("/auth/token/refresh", headers=session | {"content-type": "application/json"})
    assert (await nobody.get("/admin/users/me", headers=bearer(refreshed.json()["token"]))).status_code == 200
    ended = await nobody.delete("/auth/session", headers=session | {"x-requested-with": "fetch"})
    assert (ended.status_code, ended.json()) == (200, {"success": True})
    assert "Max-Age=0" in ended.headers["set-cookie"]
    nobody.cookies.clear()
    assert (await nobody.get(BASE, headers=session)).status_code == 401
    assert (await nobody.get(BASE, headers=bearer(refreshed.json()["token"]))).status_code == 401
    assert (await nobody.get(BASE, headers=bearer(token))).status_code == 200  # another login


async def test_a_session_is_good_on_our_own_pages_only(medusa: Medusa, nobody: httpx.AsyncClient, ada: UserRow) -> None:
    """A form of another site could send the cookie: it changes nothing."""
    await medusa.face.deploy("flow", ONE)
    opened = await nobody.post("/auth/session", headers=bearer(await log_in(nobody, ada)))
    nobody.cookies.clear()
    session = {"cookie": opened.headers["set-cookie"].partition(";")[0]}
    foreign = await nobody.post(f"{BASE}/flow/run", headers=session | {"origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["type"]) == (403, "forbidden")
    assert (await nobody.delete("/auth/session", headers=session)).status_code == 403
    assert (await nobody.post(f"{BASE}/flow/run", json={}, headers=session)).status_code == 200


async def test_what_each_login_route_takes(medusa: Medusa, nobody: httpx.AsyncClient, ada: UserRow) -> None:
    """A session is for a JWT, its end for a session; API tokens are nobody."""
    jwt, key = bearer(await log_in(nobody, ada)), medusa.face.tenant.headers
    for method, path, headers in (
        ("POST", "/auth/session", {}),
        ("POST", "/auth/session", key),
        ("DELETE", "/auth/session", jwt),
        ("DELETE", "/auth/session", {"cookie": "connect.sid=" + "a" * 43}),
        ("POST", "/auth/token/refresh", {}),
        ("POST", "/auth/token/refresh", key),
        ("GET", "/admin/users/me", {}),
        ("GET", "/admin/users/me", key),
    ):
        answer = await nobody.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["message"]) == (401, "Unauthorized"), (method, path)
    again = await nobody.post("/auth/token/refresh", headers=jwt)
    assert (await nobody.get("/admin/users/me", headers=bearer(again.json()["token"]))).status_code == 200


async def test_a_person_of_several_accounts(medusa: Medusa, nobody: httpx.AsyncClient, ada: UserRow) -> None:
    """Says which is meant; an account the person has no part in does not exist."""
    jwt = bearer(await log_in(nobody, ada))
    own = await nobody.get(BASE, headers=jwt | {"x-account-id": medusa.face.tenant.hex})
    assert own.status_code == 200
    other = await nobody.get(BASE, headers=jwt | {"x-account-id": "0" * 32})
    assert (other.status_code, other.json()["type"]) == (404, "not_found")
