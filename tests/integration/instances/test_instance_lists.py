"""Lists of instances: order, pages, cursors, filters."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from instances.engine.requests import NewInstance
from instances.lifecycle import BY_WIRE, Status
from instances.listing import LAST_KEY, Cursor
from tenants.clock import iso
from tenants.tokens import TokenGrant
from tests.support.instances import World


async def create(world: World, *ids: str, handle: str = "orders", apart: float = 1.0) -> None:
    """Create instances, `apart` seconds after each other."""
    for instance_id in ids:
        world.clock.advance(apart)
        item = NewInstance(account_id=world.account, key=world.ids.uuid7(), instance_id=instance_id, handle=handle)
        await world.engine.create([item])


def ids(answer) -> list[str]:
    return [row["id"] for row in answer.result]


async def test_rows(world, call):
    await create(world, "a")
    (row,) = (await call("GET", "/instances")).result
    at = iso(world.clock.now())
    assert row == {
        "id": "a",
        "status": "queued",
        "workflow_id": row["workflow_id"],
        "version_id": row["version_id"],
        "created_on": at,
        "modified_on": at,
        "started_on": None,
        "ended_on": None,
        "trigger_source": "api",
    }
    world.clock.advance(1)
    await world.begin("a")
    world.clock.advance(1)
    await world.end(["a"])
    (row,) = (await call("GET", "/instances")).result
    assert (row["status"], row["started_on"], row["ended_on"], row["modified_on"]) == (
        "complete",
        "2026-01-01T00:00:02.000Z",
        "2026-01-01T00:00:03.000Z",
        "2026-01-01T00:00:03.000Z",
    )


async def test_newest_first_and_only_of_this_workflow_and_account(world, other, call):
    await world.workflow("else")
    await create(world, "a", "b")
    await create(world, "x", handle="else")
    await create(other, "y")
    await create(world, "c", apart=0)  # in the same millisecond as y: the key still grows
    assert ids(await call("GET", "/instances")) == ["c", "b", "a"]
    assert ids(await call("GET", "/instances/")) == ["c", "b", "a"]
    assert ids(await call("GET", "/instances", workflow="else")) == ["x"]
    assert ids(await call("GET", "/instances", of=other)) == ["y"]


async def test_pages(world, call):
    await create(world, *"abcde")
    first = await call("GET", "/instances?per_page=2&page=1")
    assert first.body["result_info"] == {"page": 1, "per_page": 2, "count": 2, "total_count": 5, "total_pages": 3}
    assert [ids(await call("GET", f"/instances?per_page=2&page={n}")) for n in (1, 2, 3, 4, 5000)] == [
        ["e", "d"],
        ["c", "b"],
        ["a"],
        [],
        [],
    ]
    assert ids(await call("GET", "/instances?page=2&per_page=2&direction=asc")) == ["c", "d"]


async def test_cursors_reach_everything_once(world, call):
    await create(world, *"abcde")
    for direction, order in (("", "edcba"), ("&direction=desc", "edcba"), ("&direction=asc", "abcde")):
        seen, cursor = [], ""
        for _ in range(10):
            answer = await call("GET", f"/instances?per_page=2{direction}{cursor}")
            seen += ids(answer)
            info = answer.body["result_info"]
            assert info["total_count"] == 5
            assert "page" not in info
            if "cursor" not in info:
                break
            cursor = f"&cursor={info['cursor']}"
        assert seen == list(order)


async def test_a_cursor_alone_keeps_its_direction(world, call):
    await create(world, *"abc")
    cursor = (await call("GET", "/instances?per_page=1&direction=asc")).body["result_info"]["cursor"]
    assert ids(await call("GET", f"/instances?cursor={cursor}")) == ["b", "c"]
    assert (await call("GET", f"/instances?cursor={cursor}&direction=desc")).status == 400


async def test_a_cursor_survives_the_end_of_its_instance(world, call):
    await create(world, *"abc")
    cursor = (await call("GET", "/instances?per_page=1")).body["result_info"]["cursor"]
    await world.engine.delete(world.account, [await world.key("c")])
    assert ids(await call("GET", f"/instances?cursor={cursor}")) == ["b", "a"]


async def test_cursor_at_the_ends(world, call):
    await create(world, "a")
    assert ids(await call("GET", f"/instances?cursor={Cursor(LAST_KEY, True, 0)}")) == []
    assert ids(await call("GET", f"/instances?cursor={Cursor(type(LAST_KEY)(int=0), False, 0)}")) == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=x", "page"),
        ("page=null", "page"),
        ("page=1&page=2", "page"),
        ("per_page=0", "per_page"),
        ("per_page=101", "per_page"),
        ("per_page=", "per_page"),
        ("page=1&cursor=AQAAAGMAAAAAAAAAAAAAAAAAAAAF", "page and cursor"),
        ("cursor=x", "cursor"),
        ("cursor=" + "_" * 28, "cursor"),
        ("direction=up", "direction"),
        ("status=done", "status"),
        ("status=", "status"),
        ("date_start=yesterday", "date_start"),
        ("date_end=2026-13-01", "date_end"),
        ("date_end=2026-02-30T00:00:00Z", "date_end"),
        ("date_start=2026-01-01T00:00:00%2B99:99", "date_start"),
    ],
)
async def test_what_is_refused(world, call, query, named):
    answer = await call("GET", f"/instances?{query}")
    assert (answer.status, answer.code) == (400, 10002)
    assert answer.body["errors"][0]["message"].startswith(named)


@pytest.mark.parametrize(
    "query",
    [
        "unknown=1&unknown=2",
        "per_page=100",
        "page=1.0",
        "cursor=",
        "page=1&cursor=",
        "date_start=0001-01-01T00:00:00%2B01:00",
        "date_start=2026-01-01T00:00:00.1234567890123Z",
        "date_end=9999-12-31T23:59:59.999-10:00",
    ],
)
async def test_what_is_accepted(world, call, query):
    await create(world, "a")
    assert ids(await call("GET", f"/instances?{query}")) == ["a"]


async def test_unknown_workflow(world, other, call):
    await other.workflow("theirs")
    for query in ("", "?page=2", "?page=9999", "?status=complete"):
        answer = await call("GET", f"/instances{query}", workflow="theirs")
        assert (answer.status, answer.code) == (404, 10200)


async def test_every_status(world, call):
    unfinished = [status for status in Status if not status.finished]
    await create(world, *(status.wire for status in Status), "one-more")
    for status in unfinished[1:]:
        await world.begin(status.wire, status)
    for status in Status:
        if status.finished:
            await world.end([status.wire], status)
    for wire in BY_WIRE:
        answer = await call("GET", f"/instances?status={wire}")
        assert ids(answer) == (["one-more", "queued"] if wire == "queued" else [wire])
        assert {row["status"] for row in answer.result} == {wire}
        assert answer.body["result_info"]["total_count"] == len(answer.result)
    paged = await call("GET", "/instances?status=queued&per_page=1")
    assert (ids(paged), paged.body["result_info"]["total_count"]) == (["one-more"], 2)
    following = await call("GET", f"/instances?status=queued&per_page=1&cursor={paged.body['result_info']['cursor']}")
    assert ids(following) == ["queued"]


async def test_dates_are_inclusive(world, call):
    await create(world, "a", "b", "c", apart=0.2504)  # created at .2504, .5008 and .7512
    created = {row["id"]: row["created_on"] for row in (await call("GET", "/instances")).result}
    assert created["b"] == "2026-01-01T00:00:00.500Z"

    async def between(start: str, end: str, more: str = "") -> list[str]:
        return ids(await call("GET", f"/instances?date_start={quote(start)}&date_end={quote(end)}{more}"))

    assert await between(created["b"], created["b"]) == ["b"]
    assert await between(created["a"], created["b"]) == ["b", "a"]
    assert await between("2026-01-01T00:00:00.500801Z", "2027-01-01") == ["c"]
    assert await between("2025-12-31T19:00:00.251-05:00", "2026-01-01T01:00:00.751+01:00") == ["c", "b"]
    assert await between("2025-01-01", "2026-01-01") == []
    assert await between("2027-01-01", "2025-01-01") == []
    assert await between(created["a"], created["c"], "&status=queued&per_page=2") == ["c", "b"]
    assert await between(created["a"], created["c"], "&status=complete") == []
    counted = await call("GET", f"/instances?date_start={created['b']}&per_page=1")
    assert counted.body["result_info"]["total_count"] == 2
    sdk = quote("2026-01-01T00:00:00.600000+00:00")
    assert ids(await call("GET", f"/instances?date_end={sdk}&direction=asc")) == ["a", "b"]
    assert ids(await call("GET", f"/instances?date_start={created['b']}&direction=asc&per_page=1")) == ["b"]


async def test_an_instance_that_is_committed_late_was_created_when_it_was_asked_for(world, call):
    """The database may be away in between. Order, times shown and filters agree, or lists would leave it out."""
    early, asked = world.ids.uuid7(), iso(world.clock.now())
    await create(world, "other")
    world.clock.advance(3600)
    await world.engine.create([NewInstance(account_id=world.account, key=early, instance_id="late", handle="orders")])
    rows = (await call("GET", "/instances")).result
    assert [row["id"] for row in rows] == ["other", "late"]
    assert rows[1]["created_on"] == asked
    assert ids(await call("GET", f"/instances?date_start={asked}&date_end={asked}")) == ["late"]
    assert ids(await call("GET", f"/instances?date_start={iso(world.clock.now())}")) == []
    assert (await call("GET", "/instances/late")).result["queued"] == iso(world.clock.now())


async def test_workspace_of_the_credential(world, call, tenants):
    space = await tenants.workspaces.create(world.caller, "team", "Team")
    await world.workflow("inside", workspace=space.id)
    await create(world, "i", handle="inside")
    await create(world, "o")
    _, token = await tenants.tokens.create(world.caller, TokenGrant(name="t", scopes=["admin"], workspace_id=space.id))
    headers = {"authorization": f"Bearer {token}"}
    assert ids(await call("GET", "/instances", workflow="inside", headers=headers)) == ["i"]
    for method, path in (
        ("GET", "/instances"),
        ("POST", "/instances"),
        ("GET", "/instances/o"),
        ("DELETE", "/instances/o"),
    ):
        assert (await call(method, path, headers=headers)).code == 10200


async def test_a_stored_answer_does_not_leave_its_workspace(world, call, tenants):
    space = await tenants.workspaces.create(world.caller, "team", "Team")
    headers = {"idempotency-key": "k"}
    assert (await call("POST", "/instances", headers=headers)).status == 200
    _, token = await tenants.tokens.create(world.caller, TokenGrant(name="t", scopes=["admin"], workspace_id=space.id))
    assert (await call("POST", "/instances", headers=headers | {"authorization": f"Bearer {token}"})).code == 10200


async def test_high_pages_are_refused_only_where_there_are_rows(world, call, monkeypatch):
    monkeypatch.setattr("instances.service.REACHABLE_ROWS", 4)
    await create(world, *"abcd")
    assert ids(await call("GET", "/instances?page=3&per_page=2")) == []
    await create(world, "e")
    assert ids(await call("GET", "/instances?page=2&per_page=2")) == ["c", "b"]
    answer = await call("GET", "/instances?page=3&per_page=2")
    assert (answer.status, answer.code) == (400, 10002)
    assert "cursor" in answer.body["errors"][0]["message"]
