"""Identity and token routes, over HTTP and with Cloudflare's own SDK."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import cloudflare
import httpx
import pytest
from litestar import Litestar

from tenants.clock import iso
from tenants.routes import route_handlers
from tenants.service import TenantService
from tests.support.faces import face

BASE = "/client/v4"
WRITE = "e086da7e2179491d91ee5f35b3ca210a"
TOKENS_WRITE = "5bc3f8b21c554832afc660159ab75fa4"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def app(tenants: TenantService, clock) -> Litestar:
    return face(route_handlers, tenants, clock=clock)


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    # Litestar's own test client runs the application in a loop of its own, where our pool is a stranger.
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver.local") as client:
        yield client


@pytest.fixture
async def call(client, make_token):
    """`await call("GET", path, …)` with a token of every scope (or `token=`): status, result, whole envelope."""
    everything = await make_token()

    async def call(method: str, path: str, token=everything, **options) -> tuple[int, Any, dict[str, Any]]:
        headers = options.pop("headers", token.headers if token else {})
        answer = await client.request(method, BASE + path, headers=headers, **options)
        body = answer.json()
        assert set(body) - {"result_info"} == {"success", "errors", "messages", "result"}
        assert body["success"] == (answer.status_code < 400)
        assert (body["result"] is None) == bool(body["errors"])
        return answer.status_code, body["result"], body

    return call


def policy(account_id, *groups: str, **changes) -> dict[str, Any]:
    return {
        "effect": "allow",
        "permission_groups": [{"id": group} for group in groups or (WRITE,)],
        "resources": {f"com.cloudflare.api.account.{account_id.hex}": "*"},
    } | changes


@pytest.fixture
def body(boss):
    """A token's body."""
    return lambda **changes: {"name": "ci", "policies": [policy(boss.account_id)]} | changes


# ---- identity


async def test_verify_says_what_a_token_is(call, make_token, tenants, boss, clock):
    soon = clock.now() + timedelta(hours=1)
    token = await make_token("workflows:read", expires_at=soon, not_before=clock.now())
    for path in ("/user/tokens/verify", f"/accounts/{boss.account_id.hex}/tokens/verify"):
        status, result, envelope = await call("GET", path, token)
        assert (status, result) == (
            200,
            {"id": token.id.hex, "status": "active", "expires_on": iso(soon), "not_before": iso(clock.now())},
        )
        assert envelope["messages"] == [{"code": 10000, "message": "This API Token is valid and active"}]
    clock.advance(3600)
    assert (await call("GET", "/user/tokens/verify", token))[1]["status"] == "expired"
    assert (await call("GET", "/user", token))[0] == 401


async def test_verify_of_what_is_no_token_is_401_10000(call, make_token, stranger):
    theirs = await make_token(caller=stranger)
    for headers in ({}, {"authorization": "Bearer sk_unknown_but_long_enough"}, {"authorization": "Basic x"}):
        status, _, envelope = await call("GET", "/user/tokens/verify", headers=headers)
        assert (status, envelope["errors"][0]["code"]) == (401, 10000)
    status, _, envelope = await call("GET", f"/accounts/{stranger.account_id.hex}/tokens/verify", theirs)
    assert status == 200


@pytest.mark.parametrize(
    "path",
    ["", "/tokens", "/tokens/verify", "/tokens/permission_groups", "/tokens/" + "0" * 32],
)
async def test_another_account_is_404_7003(call, stranger, path):
    for account_id in (stranger.account_id.hex, "0" * 32, "x", stranger.account_id.hex.upper()):
        status, _, envelope = await call("GET", f"/accounts/{account_id}{path}")
        assert (status, envelope["errors"][0]["code"]) == (404, 7003)


async def test_the_key_pair_is_accepted_in_place_of_a_bearer_token(call, make_token):
    token = await make_token()
    headers = {"x-auth-email": "whoever@example.org", "x-auth-key": token.text}
    assert (await call("GET", "/user/tokens/verify", headers=headers))[1]["id"] == token.id.hex
    assert (await call("GET", "/accounts", headers=headers))[0] == 200


async def test_the_user_of_a_token(call, make_token, tenants, boss):
    status, _, envelope = await call("GET", "/user")
    assert (status, envelope["errors"][0]["code"]) == (403, 9109)
    ada = await tenants.users.create(boss, "Ada", role="admin", email="ada@example.org")
    bob = await tenants.users.create(boss, "Bob", role="admin")
    _, result, _ = await call("GET", "/user", await make_token("workflows:read", user_id=ada.id))
    assert (result["id"], result["email"], result["first_name"]) == (ada.id.hex, "ada@example.org", "Ada")
    _, _, envelope = await call("GET", "/user", await make_token(user_id=bob.id))
    assert envelope["errors"][0]["code"] == 9109


async def test_accounts_and_memberships_agree(call, make_token, boss, clock):
    token = await make_token("workflows:read")
    _, [account], envelope = await call("GET", "/accounts", token)
    assert account["id"] == boss.account_id.hex
    assert (account["name"], account["type"], account["created_on"]) == ("ours", "standard", iso(clock.now()))
    assert envelope["result_info"] == {"page": 1, "per_page": 20, "count": 1, "total_count": 1, "total_pages": 1}
    assert (await call("GET", f"/accounts/{account['id']}", token))[1] == account
    _, [membership], envelope = await call("GET", "/memberships?page=1", token)
    assert (membership["account"], membership["status"], membership["roles"]) == (account, "accepted", ["viewer"])
    assert envelope["result_info"]["total_count"] == 1


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("/accounts?page=2", 0),
        ("/accounts?page=2.0&per_page=5", 0),
        ("/accounts?name=ours&per_page=50&direction=desc", 1),
        ("/accounts?name=theirs", 0),
        ("/memberships?status=accepted&account.name=ours&order=account.name&direction=asc", 1),
        ("/memberships?status=pending", 0),
        ("/memberships?name=theirs", 0),
        ("/memberships?account.name=theirs", 0),
        ("/memberships?page=3", 0),
    ],
)
async def test_lists_of_accounts_are_filtered_and_end(call, path, count):
    status, result, envelope = await call("GET", path)
    assert (status, len(result), envelope["result_info"]["count"]) == (200, count, count)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=x", "page"),
        ("per_page=4", "per_page"),
        ("per_page=51", "per_page"),
        ("direction=up", "direction"),
    ],
)
async def test_a_bad_query_is_400_by_name(call, boss, query, field):
    for path in ("/accounts", "/memberships", f"/accounts/{boss.account_id.hex}/tokens"):
        status, _, envelope = await call("GET", f"{path}?{query}")
        assert status == 400
        assert envelope["errors"][0]["message"].startswith(f"{field} must be")


# ---- tokens


async def test_the_life_of_a_token(call, client, boss, body, clock):
    tokens = f"/accounts/{boss.account_id.hex}/tokens"
    _, made, _ = await call("POST", tokens, json=body(expires_on="2026-02-01T02:00:00+02:00"))
    text = made.pop("value")
    assert re.fullmatch(r"sk_[0-9A-Za-z]{37,77}", text)
    assert made == {
        "id": made["id"],
        "name": "ci",
        "status": "active",
        "issued_on": iso(clock.now()),
        "modified_on": iso(clock.now()),
        "expires_on": "2026-02-01T00:00:00.000Z",
        "policies": made["policies"],
    }
    assert re.fullmatch("[0-9a-f]{32}", made["id"])
    assert made["policies"][0]["permission_groups"] == [{"id": WRITE, "name": "Workers Scripts Write"}]
    assert (await call("GET", f"{tokens}/{made['id']}"))[1] == made
    assert made in (await call("GET", tokens))[1]

    headers = {"authorization": f"Bearer {text}"}
    assert (await call("GET", "/user/tokens/verify", headers=headers))[1]["id"] == made["id"]
    status, _, envelope = await call("GET", tokens, headers=headers)
    assert (status, envelope["errors"][0]["code"]) == (403, 10000)
    assert "tokens:read" in envelope["errors"][0]["message"]

    status, fresh, _ = await call("PUT", f"{tokens}/{made['id']}/value", json={})
    assert status == 200
    assert fresh != text
    assert (await call("GET", "/user/tokens/verify", headers=headers))[0] == 401
    headers = {"authorization": f"Bearer {fresh}"}
    assert (await call("GET", "/user/tokens/verify", headers=headers))[0] == 200

    sent_back = {**made, "name": "renamed", "status": "disabled", "condition": {}}
    _, changed, _ = await call("PUT", f"{tokens}/{made['id']}", json=sent_back)
    assert (changed["name"], changed["status"], changed["policies"]) == ("renamed", "disabled", made["policies"])
    assert (await call("GET", "/user/tokens/verify", headers=headers))[1]["status"] == "disabled"
    assert (await call("GET", "/accounts", headers=headers))[0] == 401

    assert (await call("DELETE", f"{tokens}/{made['id']}"))[1] == {"id": made["id"]}
    for method in ("GET", "DELETE"):
        status, _, envelope = await call(method, f"{tokens}/{made['id']}")
        assert (status, envelope["errors"][0]["code"]) == (404, 7003)
    assert (await call("GET", "/user/tokens/verify", headers=headers))[0] == 401


async def test_a_token_made_from_scopes_can_be_sent_back(call, make_token, boss):
    token = await make_token("executions:write", "tokens:read")
    path = f"/accounts/{boss.account_id.hex}/tokens/{token.id.hex}"
    _, shown, _ = await call("GET", path)
    status, again, _ = await call("PUT", path, json=shown)
    assert (status, again["policies"]) == (200, shown["policies"])


@pytest.mark.parametrize(
    ("changes", "message", "pointer"),
    [
        ({"name": 1}, "name: expected `str`", "/name"),
        ({"name": ""}, "name must be", None),
        ({"name": "a\x00"}, "name must be", None),
        ({"policies": []}, "policies: there must be 1 to 100", "/policies"),
        ({"policies": {}}, "policies: expected `array`", "/policies"),
        ({"condition": {"request_ip": {"in": ["10.0.0.0/8"]}}}, "condition.request_ip: conditions", "/condition"),
        ({"expires_on": "tomorrow"}, "expires_on: invalid RFC3339", "/expires_on"),
        ({"expires_on": "0001-01-01T00:00:00+05:00"}, "expires_on: this time is out of range", "/expires_on"),
        ({"expires_on": "2025-12-31T00:00:00Z"}, "expires_on must be in the future", None),
        ({"status": "expired"}, 'status must be "active" or "disabled"', "/status"),
    ],
)
async def test_a_bad_token_body_is_400_by_field(call, boss, body, changes, message, pointer):
    status, _, envelope = await call("POST", f"/accounts/{boss.account_id.hex}/tokens", json=body(**changes))
    [error] = envelope["errors"]
    assert (status, error["code"]) == (400, 10002)
    assert error["message"].startswith(message)
    assert (error.get("source") or {}).get("pointer") == pointer


async def test_a_policy_that_cannot_be_enforced_is_400_by_name(call, boss, stranger, body):
    path = f"/accounts/{boss.account_id.hex}/tokens"
    for changes, named in (
        ({"effect": "deny"}, "policies[1].effect"),
        ({"resources": {f"com.cloudflare.api.account.{stranger.account_id.hex}": "*"}}, stranger.account_id.hex),
        ({"resources": {"com.cloudflare.api.account.*": "*"}}, "com.cloudflare.api.account.*"),
        ({"permission_groups": [{"id": "f" * 32}]}, "f" * 32),
        ({"until": "tomorrow"}, "until"),
    ):
        policies = [policy(boss.account_id), policy(boss.account_id, **changes)]
        status, _, envelope = await call("POST", path, json=body(policies=policies))
        assert (status, named in envelope["errors"][0]["message"]) == (400, True)
    assert len((await call("GET", path))[1]) == 1


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b'"x"', b"[" * 100_000], ids=["cut", "array", "bytes", "text", "deep"]
)
async def test_a_body_that_is_no_object_is_400(call, boss, content):
    status, _, envelope = await call("POST", f"/accounts/{boss.account_id.hex}/tokens", content=content)
    assert (status, envelope["errors"][0]["code"]) == (400, 10002)


@pytest.mark.parametrize("token_id", ["x", "0" * 31, "0" * 32, "verify2", "%00", "ü"])
async def test_an_unknown_or_malformed_token_id_is_404(call, boss, body, token_id):
    path = f"/accounts/{boss.account_id.hex}/tokens/{token_id}"
    for method, options in (("GET", {}), ("DELETE", {}), ("PUT", {"json": body()})):
        status, _, envelope = await call(method, path, **options)
        assert (status, envelope["errors"][0]["code"]) == (404, 7003)


async def test_reading_and_writing_tokens_need_their_scopes(call, make_token, boss, body):
    path = f"/accounts/{boss.account_id.hex}/tokens"
    reader, outsider = await make_token("tokens:read"), await make_token("workflows:write")
    for one in (path, f"{path}/permission_groups", f"{path}/{reader.id.hex}"):
        assert (await call("GET", one, reader))[0] == 200
        assert (await call("GET", one, outsider))[0] == 403
    for method, one in (("POST", path), ("PUT", f"{path}/{reader.id.hex}"), ("DELETE", f"{path}/{reader.id.hex}")):
        status, _, envelope = await call(method, one, reader, json=body() if method != "DELETE" else None)
        assert (status, envelope["errors"][0]["code"]) == (403, 10000)
    status, _, _ = await call("PUT", f"{path}/{reader.id.hex}/value", reader)
    assert status == 403


async def test_pages_of_tokens(call, make_token, boss, clock):
    path = f"/accounts/{boss.account_id.hex}/tokens"
    for _ in range(6):
        clock.advance(1)
        await make_token("workflows:read", expires_at=clock.now() + timedelta(days=1))
    _, first, envelope = await call("GET", f"{path}?per_page=5")
    assert envelope["result_info"] == {"page": 1, "per_page": 5, "count": 5, "total_count": 7, "total_pages": 2}
    issued = [token["issued_on"] for token in first]
    assert issued == sorted(issued, reverse=True)
    assert len((await call("GET", f"{path}?per_page=5&page=2"))[1]) == 2
    assert (await call("GET", f"{path}?per_page=5&page=3"))[1] == []
    _, oldest_first, _ = await call("GET", f"{path}?direction=asc")
    assert oldest_first[-1] == first[0]
    clock.advance(86400)
    assert len((await call("GET", path))[1]) == 1
    assert len((await call("GET", f"{path}?include_expired=true"))[1]) == 7
    assert (await call("GET", f"{path}?include_expired=maybe"))[0] == 400


# ---- Cloudflare's SDK


@pytest.fixture
async def sdk(app, make_token) -> AsyncIterator[cloudflare.AsyncCloudflare]:
    token = await make_token()
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with cloudflare.AsyncCloudflare(
        api_token=token.text,
        base_url=f"http://testserver.local{BASE}",
        http_client=httpx.AsyncClient(transport=transport),
        max_retries=0,
    ) as client:
        yield client


async def test_the_sdk_manages_tokens(sdk, boss, app):
    account_id = boss.account_id.hex
    groups = await sdk.accounts.tokens.permission_groups.list(account_id=account_id)
    by_name = {group.name: group.id for group in groups.result}
    assert by_name["Workers Scripts Write"] == WRITE
    wanted: Any = policy(boss.account_id, by_name["Workers Scripts Write"])
    named = await sdk.accounts.tokens.permission_groups.list(account_id=account_id, name="Account API Tokens Write")
    assert [group.id for group in named.result] == [TOKENS_WRITE]

    made = await sdk.accounts.tokens.create(account_id=account_id, name="ci", policies=[wanted])
    assert (made.status, made.name) == ("active", "ci")
    assert made.issued_on.tzinfo is not None
    shown = await sdk.accounts.tokens.get(made.id, account_id=account_id)
    assert shown.policies[0].permission_groups[0].id == WRITE
    updated = await sdk.accounts.tokens.update(
        made.id, account_id=account_id, name="cd", policies=[wanted], status="disabled"
    )
    assert (updated.name, updated.status) == ("cd", "disabled")
    fresh = await sdk.accounts.tokens.value.update(made.id, account_id=account_id)
    assert fresh.startswith("sk_")
    listed = [token.id async for token in sdk.accounts.tokens.list(account_id=account_id)]
    assert sorted(listed) == sorted({*listed})
    assert made.id in listed
    deleted = await sdk.accounts.tokens.delete(made.id, account_id=account_id)
    assert deleted.id == made.id
    with pytest.raises(cloudflare.NotFoundError) as caught:
        await sdk.accounts.tokens.get(made.id, account_id=account_id)
    assert caught.value.errors[0].code == 7003


async def test_the_sdk_finds_out_who_it_is(sdk, boss):
    verified = await sdk.user.tokens.verify()
    assert verified.status == "active"
    assert (await sdk.accounts.tokens.verify(account_id=boss.account_id.hex)).id == verified.id
    assert [account.id async for account in sdk.accounts.list()] == [boss.account_id.hex]
    assert (await sdk.accounts.get(account_id=boss.account_id.hex)).name == "ours"
    assert [each.account.id async for each in sdk.memberships.list()] == [boss.account_id.hex]
    with pytest.raises(cloudflare.PermissionDeniedError) as caught:
        await sdk.user.get()
    assert caught.value.errors[0].code == 9109


async def test_the_sdk_sees_errors_by_status(sdk, boss, stranger, app):
    with pytest.raises(cloudflare.NotFoundError):
        await sdk.accounts.get(account_id=stranger.account_id.hex)
    with pytest.raises(cloudflare.BadRequestError):
        await sdk.accounts.tokens.create(
            account_id=boss.account_id.hex, name="x", policies=[policy(boss.account_id, effect="deny")]
        )
    with pytest.raises(cloudflare.AuthenticationError):
        await sdk.with_options(api_token="sk_unknown_but_long_enough").user.tokens.verify()
    email_and_key = sdk.with_options(api_token=None, api_email="a@b", api_key=sdk.api_token)
    assert (await email_and_key.user.tokens.verify()).status == "active"
