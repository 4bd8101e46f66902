"""Pages of other origins in a real browser: what one may do whose origin is allowed, and what all others may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from app.embedded.valkey import EmbeddedValkey
from tenants.auth import operator
from tests.conformance.conftest import Face, client
from tests.conformance.medusa.conftest import BASE
from tests.conformance.workspaces.support import HERE, WAITS, at_event, make, start
from tests.support.api import new_tenant
from tests.support.databases import Databases
from tests.support.live import live_for_tests

from .chromium import chromium as installed_chromium
from .pages import Pages

pytestmark = [pytest.mark.npm, pytest.mark.timeout(400)]

PASSWORD = "correct horse battery"
ORDER: list[dict[str, Any]] = [
    {"id": "reserve", "type": "noop"},
    {"id": "ship", "type": "external", "depends_on": ["reserve"]},
]
READABLE = "string"
"""Of a header that the page may read."""
REFUSED = "TypeError"
"""What `fetch` says when the browser keeps an answer from a page."""


@dataclass(frozen=True)
class Seen:
    """What the page of an allowed origin tells, and then, in the same browser, that of another one."""

    friend: dict[str, Any]
    stranger: dict[str, Any]
    cookies: str
    """What the browser sent to the server of the second page."""
    transactions: list[str]


@pytest.fixture(scope="module")
async def seen(
    databases: Databases,
    valkey: EmbeddedValkey,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Seen:
    chromium = installed_chromium(request.config.cache.mkdir("npm"))  # type: ignore[union-attr]
    async with (
        Pages().served() as friend,
        Pages().served() as stranger,
        live_for_tests(databases, valkey, cors_origins=(friend.origin,)) as server,
    ):
        tenant = await new_tenant(server.platform)
        async with client(server, tenant) as http, client(server, tenant, tenant.path) as cloud:
            face = Face(http, cloud, tenant, server)
            given = await prepare(face)
            friend.given = {**given, "name": "friend", "next": stranger.origin}
            ticket = await http.post("/api/auth/stream-ticket", json={"path": given["stream"]})
            stranger.given = {**given, "name": "stranger", "ticket": ticket.json()["ticket"]}
            async with chromium.opened(friend.origin, tmp_path_factory.mktemp("chromium")) as browser:
                by_friend, by_stranger = await browser.until(friend.told), await browser.until(stranger.told)
            listed = (await http.get(BASE)).json()["workflow_executions"]
            transactions = [one["transaction_id"] for one in listed if one["workflow_id"] == "order"]
            return Seen(by_friend, by_stranger, stranger.cookies, transactions)


async def prepare(face: Face) -> dict[str, str]:
    """A person who may run workflows, and an execution that waits for an event: what pages are given of them."""
    tenant, users = face.tenant, face.server.platform.tenants.users
    email = f"ada-{tenant.hex}@example.org"
    await users.create(operator(tenant.id), "ada", role="operator", email=email, password=PASSWORD)
    await face.deploy("order", ORDER)
    execution = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, execution)
    [instance] = (await face.cloud.get("/workflows/flow/instances")).json()["result"]
    return {
        "api": face.server.base_url,
        "email": email,
        "password": PASSWORD,
        "token": tenant.token,
        "stream": f"{HERE}/workflows/executions/{execution}/stream",
        "go": f"{tenant.path}/workflows/flow/instances/{instance['id']}/events/go",
    }


def test_an_allowed_origin_may_do_what_our_own_pages_may(seen: Seen) -> None:
    """With a cookie, a token or a JWT; errors and the headers meant for pages can be read, too."""
    told = seen.friend
    assert told["login"] == 200
    assert told["wrong login"] == [401, READABLE]
    assert told["session"] == [200, "user"]
    assert told["list by nothing"] == [401, READABLE]
    for credential in ("cookie", "token", "JWT"):
        assert told[f"list by {credential}"] == [200, READABLE], credential
    assert told["missing"] == [404, READABLE]
    assert told["run"] == [200, READABLE]
    assert "run-friend" in seen.transactions


def test_an_allowed_origin_follows_streams(seen: Seen) -> None:
    """By `fetch` and by `EventSource`, which comes back with what it saw last, and is told that it saw the end."""
    told = seen.friend
    assert told["subscribe"] == [200, "onResume", "onStepSuccess", "onFinish"]
    assert told["stream by nothing"] == ["given up"]
    whole = ["connected", *["step", "progress"] * 3, "progress", "complete"]
    assert told["stream by cookie"] == [*whole, "given up"]
    assert told["ticket"] == 200
    assert told["stream by ticket"] == ["connected", *["step"] * 3, "progress", "complete"]
    assert told["socket"] == "connection_ack"


def test_another_origin_sees_nothing_though_the_browser_has_a_session(seen: Seen) -> None:
    """Nor with a token or a ticket of its own."""
    assert "connect.sid=" in seen.cookies, "the browser sends the cookie to all ports of the host"
    opaque, socket = seen.stranger.pop("simple run"), seen.stranger.pop("socket")
    streams = {name: told for name, told in seen.stranger.items() if name.startswith("stream by")}
    assert set(map(str, streams.values())) == {"['given up']"}
    assert {name: told for name, told in seen.stranger.items() if name not in streams and told != REFUSED} == {}
    assert len(seen.stranger) + 2 == len(seen.friend)
    assert (opaque, socket) == ("opaque", 4403)


def test_another_origin_changes_nothing(seen: Seen) -> None:
    """Not even by the requests that browsers send without asking first, with the cookie."""
    by_friend, simple = sorted(seen.transactions, reverse=True)
    assert (by_friend, simple[:5]) == ("run-friend", "auto-")
