"""Credentials of a request by the rules of each face: which count, in which order, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from litestar import Litestar, Request, Router, WebSocket, get, post, websocket
from litestar.types import ASGIApp

from app.authentication import (
    CALLER,
    CLOUDFLARE,
    GRAPHQL,
    JOBSPRINT,
    MEDUSA,
    ORCHESTRATION,
    WORKSPACES,
    Authenticate,
    CredentialRules,
    Credentials,
    authenticate_bearer,
    rate_of,
    secure_cookies,
)
from app.errors import InvalidRequest, NoRoute, NotAuthenticated
from app.refusals import Refusals
from tenants.errors import CrossSite
from tenants.sessions import COOKIE

HOUR = timedelta(hours=1)
PASSWORD = "correct horse"
ALL = (CLOUDFLARE, MEDUSA, JOBSPRINT, ORCHESTRATION, GRAPHQL, WORKSPACES)
WITH_COOKIE = (MEDUSA, GRAPHQL, WORKSPACES)


@pytest.fixture
async def ada(tenants, boss, clock):
    """Ada, logged in a second ago."""
    await tenants.users.create(boss, "ada", role="operator", password=PASSWORD)
    person = await tenants.logins.log_in("ada", PASSWORD)
    clock.advance(1)
    return person


@pytest.fixture
async def eve(tenants, stranger, clock):
    """Somebody of the other account, logged in."""
    await tenants.users.create(stranger, "eve", role="admin", password=PASSWORD)
    person = await tenants.logins.log_in("eve", PASSWORD)
    clock.advance(1)
    return person


@pytest.fixture
def jwt_of(tenants):
    return lambda person: tenants.logins.issue(person, HOUR)


@pytest.fixture
async def session(tenants, ada) -> str:
    return (await tenants.sessions.create(ada.caller))[0]


@pytest.fixture
def caller_by(tenants, settings):
    """`await caller_by(rules, {header: value}, …)`: the caller such a request has."""

    async def find(rules: CredentialRules, headers: dict[str, str], *, ticket: bool = False, **scope: Any):
        settings_ = dataclasses.replace(settings, **scope.pop("settings", {}))
        platform: Any = SimpleNamespace(tenants=tenants, settings=settings_)
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        whole = {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": raw, **scope}
        return await Credentials(platform, rules).caller(whole, accepts_ticket=ticket)

    return find


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def cookies(value: str) -> dict[str, str]:
    return {"cookie": f"theme=dark; {COOKIE}={value}"}


# ---- kinds


@pytest.mark.parametrize("rules", ALL)
async def test_tokens_and_jwts_are_accepted_in_every_face(caller_by, ada, jwt_of, make_token, rules):
    token = await make_token()
    coded = base64.b64encode(f"{token.text}:".encode()).decode()
    for header in (f"Bearer {token.text}", f"bearer  {token.text}", f"Basic {token.text}", f"Basic {coded}"):
        assert (await caller_by(rules, {"authorization": header})).token_id == token.id
    assert (await caller_by(rules, {"x-auth-key": token.text})).token_id == token.id
    assert (await caller_by(rules, bearer(jwt_of(ada)))).user_id == ada.user.id


@pytest.mark.parametrize("rules", ALL)
async def test_a_cookie_counts_where_browsers_call(caller_by, ada, session, rules):
    headers = cookies(session) | {"origin": "http://a.example", "host": "a.example"}
    if rules in WITH_COOKIE:
        assert (await caller_by(rules, headers)).user_id == ada.user.id
    else:
        with pytest.raises(NotAuthenticated):
            await caller_by(rules, headers)


@pytest.mark.parametrize("rules", ALL)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer x"},
        {"authorization": "Bearer a.b.c"},
        {"authorization": "Bearer sk_" + "x" * 50},
        {"authorization": "Basic ====="},
        {"authorization": "Basic " + base64.b64encode(b"ada:correct horse").decode()},
        {"authorization": "Digest x"},
        {"authorization": "Bearer \xff\xfe"},
        {"x-auth-key": "sk_nobody_has_this_token"},
        {"cookie": f"{COOKIE}="},
        {"cookie": f"{COOKIE}={'a' * 43}"},
        {"cookie": ";;=;\xff"},
    ],
)
async def test_whatever_is_no_credential_is_refused(caller_by, rules, headers):
    with pytest.raises(NotAuthenticated):
        await caller_by(rules, headers)


async def test_a_ticket_counts_on_its_routes_only(caller_by, tenants, ada, clock):
    async def query():
        return f"a=b&ticket={await tenants.tickets.issue(ada.caller, '/x')}".encode()

    assert (await caller_by(ORCHESTRATION, {}, ticket=True, query_string=await query())).user_id == ada.user.id
    for path, allowed in (("/x", False), ("/y", True)):
        with pytest.raises(NotAuthenticated):
            await caller_by(ORCHESTRATION, {}, ticket=allowed, path=path, query_string=await query())


# ---- several at once


async def test_the_order_of_each_face(caller_by, ada, session, jwt_of, make_token, tenants, boss):
    other = await tenants.users.create(boss, "bob", role="viewer", password=PASSWORD)
    bob = jwt_of(await tenants.logins.log_in("bob", PASSWORD))
    token = await make_token()
    assert (await caller_by(MEDUSA, cookies(session) | bearer(bob))).user_id == ada.user.id
    assert (await caller_by(WORKSPACES, cookies(session) | bearer(bob))).user_id == other.id
    for rules in WITH_COOKIE:
        assert (await caller_by(rules, cookies(session) | bearer(token.text))).token_id == token.id


async def test_a_stale_cookie_is_passed_over_and_a_bad_header_is_not(caller_by, ada, session, make_token, jwt_of):
    token = await make_token()
    stale = cookies("a" * 43)
    for rules in WITH_COOKIE:
        assert (await caller_by(rules, stale | bearer(token.text))).token_id == token.id
        with pytest.raises(NotAuthenticated):
            await caller_by(rules, cookies(session) | bearer("sk_" + "x" * 50))
    with pytest.raises(NotAuthenticated):
        await caller_by(WORKSPACES, cookies(session) | bearer(jwt_of(ada)[:-1]))
    assert (await caller_by(MEDUSA, cookies(session) | bearer(jwt_of(ada)[:-1]))).user_id == ada.user.id
    with pytest.raises(NotAuthenticated):
        await caller_by(CLOUDFLARE, bearer(token.text) | {"x-auth-key": "sk_nobody_has_this_token"})


async def test_credentials_of_two_accounts_are_a_contradiction(caller_by, session, eve, jwt_of, make_token, stranger):
    theirs = await make_token(caller=stranger)
    ours = await make_token()
    for rules in WITH_COOKIE:
        for header in (bearer(jwt_of(eve)), bearer(theirs.text)):
            with pytest.raises(InvalidRequest, match="two different accounts"):
                await caller_by(rules, cookies(session) | header)
    for rules in ALL:
        with pytest.raises(InvalidRequest, match="two different accounts"):
            await caller_by(rules, bearer(ours.text) | {"x-auth-key": theirs.text})


@pytest.mark.parametrize("rules", ALL)
async def test_a_token_in_a_query_is_refused_even_beside_a_good_one(caller_by, make_token, rules):
    token = await make_token()
    escaped = "%73k_" + token.text[3:]
    for query in (f"token={token.text}", f"a=b&{token.text}", f"x={escaped}", f"ticket={quote(token.text)}"):
        with pytest.raises(NotAuthenticated, match="must not be part of a URL"):
            await caller_by(rules, bearer(token.text), query_string=query.encode(), ticket=True)
    await caller_by(rules, bearer(token.text), query_string=b"name=sk_short&q=%20")


# ---- another account of the same person


async def test_x_account_id_picks_another_account_of_the_person(
    caller_by, tenants, boss, stranger, ada, session, jwt_of, make_token
):
    picked = {"x-account-id": stranger.account_id.hex}
    for headers in (bearer(jwt_of(ada)), bearer((await make_token(user_id=ada.user.id)).text)):
        with pytest.raises(NoRoute):
            await caller_by(JOBSPRINT, headers | picked)
    double = await tenants.users.create(stranger, "ada", role="viewer")
    await tenants.users.link(stranger, double.id, boss.account_id, ada.user.id)
    tenants.logins.forget()
    for rules in (MEDUSA, JOBSPRINT, ORCHESTRATION, GRAPHQL):
        caller = await caller_by(rules, bearer(jwt_of(ada)) | picked)
        assert (caller.account_id, caller.user_id, caller.role) == (stranger.account_id, double.id, "viewer")
    assert (await caller_by(MEDUSA, cookies(session) | picked)).account_id == stranger.account_id
    for rules in (CLOUDFLARE, WORKSPACES):
        assert (await caller_by(rules, bearer(jwt_of(ada)) | picked)).account_id == boss.account_id
    token = bearer((await make_token(user_id=ada.user.id)).text)
    assert (await caller_by(MEDUSA, token | {"x-account-id": boss.account_id.hex})).account_id == boss.account_id
    for headers in (token | picked, token | {"x-account-id": "x"}, bearer(jwt_of(ada)) | {"x-account-id": ""}):
        with pytest.raises(NoRoute):
            await caller_by(MEDUSA, headers)


# ---- cross-site requests


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, False),
        ({"content-type": "text/plain"}, False),
        ({"content-type": "application/x-www-form-urlencoded"}, False),
        ({"content-type": "text/plain; application/json"}, False),
        ({"content-type": "application/json; charset=utf-8"}, True),
        ({"x-requested-with": "XMLHttpRequest"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://api.example", "host": "api.example"}, True),
        ({"origin": "http://evil.example", "host": "api.example"}, False),
        ({"origin": "http://api.example.evil.example", "host": "api.example"}, False),
        ({"origin": "null", "host": "null"}, False),
        ({"origin": "https://app.example", "host": "api.example"}, True),
    ],
)
async def test_a_cookie_alone_changes_nothing(caller_by, session, ada, headers, passes):
    for rules in WITH_COOKIE:
        for method in ("POST", "DELETE"):
            call = caller_by(
                rules,
                cookies(session) | headers,
                method=method,
                settings={"cors_origins": ("https://app.example/",)},
            )
            if passes:
                assert (await call).user_id == ada.user.id
            else:
                with pytest.raises(CrossSite) as caught:
                    await call
                assert caught.value.status == 403


async def test_the_public_url_is_ours_whatever_the_host_says(caller_by, session):
    named = {"public_url": "https://api.example/"}
    headers = cookies(session) | {"host": "10.0.0.1"}
    await caller_by(WORKSPACES, headers | {"origin": "https://api.example"}, method="POST", settings=named)
    for origin in ("http://10.0.0.1", "http://api.example", "https://api.example:8443"):
        with pytest.raises(CrossSite):
            await caller_by(WORKSPACES, headers | {"origin": origin}, method="POST", settings=named)


async def test_reading_needs_no_proof_but_for_graphql_and_sockets(caller_by, session, ada):
    for rules in (MEDUSA, WORKSPACES):
        await caller_by(rules, cookies(session))
    with pytest.raises(CrossSite):
        await caller_by(GRAPHQL, cookies(session))
    await caller_by(GRAPHQL, cookies(session) | {"apollo-require-preflight": "1"})
    for headers in ({}, {"content-type": "application/json"}, {"origin": "http://evil.example", "host": "a"}):
        with pytest.raises(CrossSite):
            await caller_by(GRAPHQL, cookies(session) | headers, type="websocket")
    await caller_by(GRAPHQL, cookies(session) | {"origin": "http://a", "host": "a"}, type="websocket")


async def test_credentials_in_headers_need_no_proof(caller_by, session, ada, jwt_of, make_token):
    for headers in (bearer(jwt_of(ada)), bearer((await make_token()).text), cookies(session) | bearer(jwt_of(ada))):
        for rules in WITH_COOKIE:
            await caller_by(rules, headers, method="POST")


# ---- the middleware, over HTTP


@pytest.fixture
async def client(tenants, settings, clock):
    """Routes of a face with cookies, below `/f`, and of the Cloudflare face, below `/accounts`."""
    platform: Any = SimpleNamespace(tenants=tenants, settings=settings)

    def by(rules: CredentialRules):
        def made(app: ASGIApp) -> ASGIApp:
            return Authenticate(app, platform, rules)

        return made

    async def who(request: Request[Any, Any, Any]) -> dict[str, Any]:
        caller, rate = request.scope[CALLER], rate_of(request.scope)  # type: ignore[typeddict-item]
        return {"account": caller.account_id.hex, "user": caller.name, "remaining": rate.remaining if rate else None}

    @post("/login", authenticates_itself=True)
    async def login() -> str:
        return "open"

    face = Router("/f", route_handlers=[get("/who")(who), login], middleware=[by(WORKSPACES)])
    cloudflare = Router("/accounts", route_handlers=[get("/{account_id:str}")(who)], middleware=[by(CLOUDFLARE)])
    app = Litestar([face, cloudflare], exception_handlers=Refusals(clock.now).handlers(), openapi_config=None)
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://millrace.test") as client:
        yield client


async def test_a_person_reaches_their_accounts_by_path(client, tenants, boss, stranger, ada, jwt_of):
    ours, theirs = f"/accounts/{boss.account_id.hex}", f"/accounts/{stranger.account_id.hex}"
    headers = bearer(jwt_of(ada))
    assert (await client.get(ours, headers=headers)).json()["user"] == "ada"
    for path in (theirs, "/accounts/x", f"/accounts/{'f' * 32}"):
        assert (await client.get(path, headers=headers)).status_code == 404
    double = await tenants.users.create(stranger, "ada.l", role="viewer")
    await tenants.users.link(stranger, double.id, boss.account_id, ada.user.id)
    answer = await client.get(theirs, headers=headers)
    assert answer.json() == {"account": stranger.account_id.hex, "user": "ada.l", "remaining": None}


async def test_routes_that_authenticate_themselves_are_open_but_not_to_tokens_in_urls(client, make_token):
    assert (await client.post("/f/login")).status_code == 201
    assert (await client.get("/f/who")).status_code == 401
    assert (await client.post(f"/f/login?x={(await make_token()).text}")).status_code == 401


async def test_a_limit_is_shown_and_refuses_with_429(client, tenants, boss, make_token):
    headers = (await make_token()).headers
    assert (await client.get("/f/who", headers=headers)).json()["remaining"] is None
    await tenants.accounts.set_limits(boss, changes={"requests_per_minute": 2})
    answers = [await client.get("/f/who", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.json()["remaining"] for answer in answers[:2]] == [1, 0]
    assert int(answers[2].headers["retry-after"]) == 30
    other = await make_token()
    assert (await client.get("/f/who", headers=other.headers)).status_code == 200


async def test_an_upgrade_is_authenticated_like_a_request(tenants, settings, ada, make_token):
    platform: Any = SimpleNamespace(tenants=tenants, settings=settings)
    token = await make_token("executions:read")

    @websocket("/socket", accepts_ticket=True)
    async def socket(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(socket.scope[CALLER].name)  # type: ignore[typeddict-item]
        await socket.close()

    def authenticated(app: ASGIApp) -> ASGIApp:
        return Authenticate(app, platform, ORCHESTRATION)

    app = Litestar([Router("/", route_handlers=[socket], middleware=[authenticated])], openapi_config=None)

    async def upgrade(headers: dict[str, str], query: str = "") -> list[Any]:
        sent: list[Any] = []
        heard = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "path": "/socket", "raw_path": b"/socket", "query_string": query.encode()}
        scope |= {"headers": raw, "subprotocols": [], "scheme": "ws", "client": None, "server": None, "extensions": {}}

        async def receive() -> Any:
            return next(heard)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)  # type: ignore[arg-type]
        return [message.get("text") for message in sent if message["type"] != "websocket.accept"]

    ticket = await tenants.tickets.issue(ada.caller, "/socket")
    assert (await upgrade(token.headers))[0] == "t"
    assert (await upgrade({}, f"ticket={ticket}"))[0] == "ada"
    for headers, query in (({}, ""), ({}, f"ticket={ticket}"), (token.headers, f"x={token.text}")):
        assert await upgrade(headers, query) == [None]


async def test_credentials_in_messages(tenants, ada, jwt_of, make_token):
    token = await make_token()
    for text in (token.text, f"Bearer {token.text}", f" bearer {token.text} "):
        assert (await authenticate_bearer(tenants, text)).token_id == token.id
    assert (await authenticate_bearer(tenants, f"Bearer {jwt_of(ada)}")).user_id == ada.user.id
    for text in ("", "Bearer", "Bearer ", "Digest x", "x y z", "\x00"):
        with pytest.raises(NotAuthenticated):
            await authenticate_bearer(tenants, text)


def test_cookies_are_for_https_but_in_development(settings, tmp_path):
    assert secure_cookies(settings)
    assert not secure_cookies(dataclasses.replace(settings, data_dir=tmp_path))
