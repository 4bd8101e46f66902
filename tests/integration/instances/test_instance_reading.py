"""One instance over HTTP: its view, one step of it, its log."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from instances import store
from instances.lifecycle import Kind, Status
from instances.live_feed import LiveFeed, channel
from instances.projections.values import StoredStream
from tenants.tokens import TokenGrant
from tests.support.instances import World

CONFIG = {"config": {"retries": {"limit": 5, "delay": 10000, "backoff": "exponential"}, "timeout": "10 minutes"}}


@pytest.fixture
async def running(world: World, call) -> str:
    """An instance that runs: `a` failed once and completed with a long output, `w` waits."""
    await call("POST", "/instances", json={"instance_id": "i", "params": {"order": 7}})
    world.clock.advance(1)
    await world.begin("i")
    await world.write(
        "i",
        (Kind.STEP_STARTED, "a", 1, 1, CONFIG),
        (Kind.ATTEMPT_FAILED, "a", 1, 1, {"name": "Error", "message": "busy", "delay": 10}),
        (Kind.LOG, "a-1", None, None, {"level": "warn", "message": "slow", "data": [1]}),
        (Kind.ATTEMPT_STARTED, "a", 1, 2),
        (Kind.STEP_COMPLETED, "a", 1, 2, '"' + "x" * 5000 + '"'),
        (Kind.WAIT_STARTED, "w", 1, None, {"type": "go", "due": 1767312000000}),
    )
    return "i"


async def test_view(running, call):
    view = (await call("GET", f"/instances/{running}")).result
    assert (view["status"], view["params"], view["step_count"]) == ("running", {"order": 7}, 2)
    assert (view["queued"], view["start"]) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.000Z")
    step, wait = view["steps"]
    assert step["output"] == '"' + "x" * 1023 + "[truncated output]"
    assert [attempt["success"] for attempt in step["attempts"]] == [False, True]
    assert wait == {
        "type": "waitForEvent",
        "name": "w-1",
        "start": "2026-01-01T00:00:01.000Z",
        "end": "2026-01-02T00:00:00.000Z",
        "finished": False,
        "error": None,
        "event_type": "go",
    }


async def test_order_and_simple(running, call):
    assert [s["name"] for s in (await call("GET", "/instances/i?order=desc")).result["steps"]] == ["w-1", "a-1"]
    assert [s["name"] for s in (await call("GET", "/instances/i?order=asc")).result["steps"]] == ["a-1", "w-1"]
    simple = (await call("GET", "/instances/i?simple=true")).result
    assert (simple["steps"], simple["step_count"], simple["start"]) == ([], 2, "2026-01-01T00:00:01.000Z")
    assert len((await call("GET", "/instances/i?simple=false")).result["steps"]) == 2


@pytest.mark.parametrize("query", ["order=up", "simple=yes", "simple=1", "order=asc&order=asc", "simple="])
async def test_bad_parameters(running, call, query):
    answer = await call("GET", f"/instances/i?{query}")
    assert (answer.status, answer.code) == (400, 10002)
    assert answer.body["errors"][0]["message"].startswith(query.partition("=")[0])


async def test_finished_instances(world, running, call):
    await world.end(["i"], Status.COMPLETE, '{"ok":[true]}')
    view = (await call("GET", "/instances/i")).result
    assert (view["status"], view["success"], view["output"], view["error"]) == ("complete", True, {"ok": [True]}, None)
    assert view["end"] == "2026-01-01T00:00:01.000Z"


async def test_errored_instance(world, running, call):
    await world.end(["i"], Status.ERRORED, '{"name":"TypeError","message":"no","code":"X"}')
    view = (await call("GET", "/instances/i")).result
    assert (view["success"], view["error"]) == (False, {"name": "TypeError", "message": "no"})


async def test_terminated_instance(running, call):
    await call("PATCH", "/instances/i/status", json={"status": "terminate"})
    view = (await call("GET", "/instances/i")).result
    assert view["steps"][-1] == {"type": "termination", "trigger": {"source": "api"}}
    assert (view["success"], view["step_count"]) == (False, 2)


class TestStep:
    async def test_whole_output(self, running, call):
        result = (await call("GET", "/instances/i/step?name=a-1&type=step")).result
        assert result == {"status": "complete", "error": None, "output": "x" * 5000}

    async def test_attempts(self, running, call):
        first = (await call("GET", "/instances/i/step?name=a-1&type=step&attempt=1")).result
        assert first == {"status": "errored", "error": {"name": "Error", "message": "busy"}}
        second = (await call("GET", "/instances/i/step?name=a-1&type=step&attempt=2.0")).result
        assert second["status"] == "complete"

    async def test_wait(self, world, running, call):
        path = "/instances/i/step?name=w-1&type=waitForEvent"
        assert (await call("GET", path)).result == {"status": "waiting", "error": None, "event_type": "go"}
        event = {"payload": "x" * 3000, "timestamp": "2026-01-01T00:00:02.000Z", "type": "go"}
        await world.write("i", (Kind.WAIT_COMPLETED, "w", 1, None, event))
        assert (await call("GET", path)).result["output"] == event

    async def test_stream(self, world, running, call):
        await world.write(
            "i",
            (Kind.STEP_STARTED, "s", 1, 1, CONFIG),
            (Kind.STEP_PIECE, "s", 1, 1, "////"),
            (Kind.ATTEMPT_STARTED, "s", 1, 2, None),
            (Kind.STEP_PIECE, "s", 1, 2, "AAE="),
            (Kind.STEP_PIECE, "s", 2, 2, "////"),
            (Kind.STEP_PIECE, "s", 1, 2, "Ag=="),
            (Kind.STEP_COMPLETED, "s", 1, 2, StoredStream("s", 1, 2, 1, 3).stored()),
        )
        answer = await call("GET", "/instances/i/step?name=s-1&type=step")
        assert (answer.body, answer.headers["content-type"]) == (b"\0\1\2", "application/octet-stream")
        assert answer.headers["content-length"] == "3"

    @pytest.mark.parametrize(
        "query",
        [
            "name=a-2&type=step",
            "name=a&type=step",
            "name=-&type=step",
            "name=&type=step",
            "name=a-99999999999999999999&type=step",
            "name=a-1&type=waitForEvent",
            "name=w-1&type=step",
            "name=a-1&type=step&attempt=3",
            "name=%00-1&type=step",
            "name=%ED%A0%80-1&type=step",
        ],
    )
    async def test_what_is_not_there(self, running, call, query):
        answer = await call("GET", f"/instances/i/step?{query}")
        assert (answer.status, answer.code) in ((404, 10464), (400, 10002))
        if "%" not in query and "name=&" not in query:
            assert answer.status == 404

    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ("", "name"),
            ("type=step", "name"),
            ("name=a-1", "type"),
            ("name=a-1&type=sleep", "type"),
            ("name=a-1&type=step&attempt=0", "attempt"),
            ("name=a-1&type=step&attempt=x", "attempt"),
            ("name=a-1&name=a-2&type=step", "name"),
        ],
    )
    async def test_bad_parameters(self, running, call, query, named):
        answer = await call("GET", f"/instances/i/step?{query}")
        assert (answer.status, answer.code) == (400, 10002)
        assert answer.body["errors"][0]["message"].startswith(named)


class TestLog:
    async def lines(self, call, query: str = "") -> list[tuple[int, str, str]]:
        result = (await call("GET", f"/instances/i/logs{query}")).result
        return [(line["id"], line["level"], line["message"]) for line in result]

    async def test_lines(self, running, call):
        assert await self.lines(call) == [
            (1, "info", "Instance queued"),
            (2, "info", "Instance started"),
            (3, "debug", "Step started"),
            (4, "warn", "Attempt failed: Error: busy (next attempt in 10 ms)"),
            (5, "warn", "slow"),
            (6, "debug", "Attempt started"),
            (7, "info", "Step completed"),
            (8, "info", "Waiting for an event"),
        ]
        line = (await call("GET", "/instances/i/logs?level=warn")).result[1]
        assert line == {
            "id": 5,
            "timestamp": "2026-01-01T00:00:01.000Z",
            "level": "warn",
            "source": "console",
            "message": "slow",
            "step": "a-1",
            "data": [1],
        }

    async def test_pages(self, running, call):
        seen, query = [], "?per_page=3"
        while query:
            answer = await call("GET", f"/instances/i/logs{query}")
            assert answer.body["result_info"]["per_page"] == 3
            seen += [line["id"] for line in answer.result]
            cursor = answer.body["result_info"].get("cursor")
            query = f"?per_page=3&cursor={cursor}" if cursor else ""
        assert seen == [1, 2, 3, 4, 5, 6, 7, 8]

    async def test_many_lines_below_the_level(self, world, running, call, monkeypatch):
        monkeypatch.setattr("instances.logs.CHUNK", 4)
        monkeypatch.setattr("instances.logs.CHUNKS_PER_PAGE", 3)
        lines = [(Kind.LOG, None, None, None, {"level": "info", "message": str(n)}) for n in range(20)]
        await world.write("i", *lines, (Kind.LOG, None, None, None, {"level": "error", "message": "at last"}))
        found, query = [], "?level=error"
        for _ in range(9):
            answer = await call("GET", f"/instances/i/logs{query}")
            found += [line["message"] for line in answer.result]
            cursor = answer.body["result_info"].get("cursor")
            if cursor is None:
                break
            query = f"?level=error&cursor={cursor}"
        assert found == ["at last"]

    async def test_restarts(self, running, call):
        await call(
            "PATCH", "/instances/i/status", json={"status": "restart", "from": {"name": "w", "type": "waitForEvent"}}
        )
        assert [line[0] for line in await self.lines(call)] == [1, 2, 3, 4, 5, 6, 7, 9]
        await call("PATCH", "/instances/i/status", json={"status": "restart"})
        assert await self.lines(call) == [(10, "info", "Restarted")]

    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ("level=loud", "level"),
            ("cursor=x", "cursor"),
            ("cursor=" + "9" * 20, "cursor"),
            ("per_page=1001", "per_page"),
        ],
    )
    async def test_bad_parameters(self, running, call, query, named):
        answer = await call("GET", f"/instances/i/logs?{query}")
        assert (answer.status, answer.code) == (400, 10002)
        assert answer.body["errors"][0]["message"].startswith(named)


EVENTS = {"accept": "text/event-stream"}


def parsed(stream: bytes) -> list[tuple[str | None, str | None, Any]]:
    """(id, event, data) of every frame that is one."""
    frames = []
    for block in stream.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            frames.append((fields.get("id"), fields.get("event"), json.loads(fields["data"])))
    return frames


class TestStream:
    async def test_of_a_finished_instance(self, world, running, call):
        await world.end(["i"])
        answer = await call("GET", "/instances/i/logs?level=warn", headers=EVENTS)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.body.startswith(b"retry: 3000\n\n")
        frames = parsed(answer.body)
        assert [(id_, event) for id_, event, _ in frames] == [("4", "log"), ("5", "log"), (None, "end")]
        assert frames[-1][2] == {"status": "complete"}
        assert frames[1][2]["message"] == "slow"

    async def test_resume(self, world, running, call):
        await world.end(["i"])
        answer = await call("GET", "/instances/i/logs?cursor=1", headers=EVENTS | {"last-event-id": "6"})
        assert [id_ for id_, _, _ in parsed(answer.body)] == ["7", "8", "9", None]
        answer = await call("GET", "/instances/i/logs?cursor=7", headers=EVENTS)
        assert [id_ for id_, _, _ in parsed(answer.body)] == ["8", "9", None]
        assert (await call("GET", "/instances/i/logs", headers=EVENTS | {"last-event-id": "9"})).status == 204
        assert (await call("GET", "/instances/i/logs", headers=EVENTS | {"last-event-id": "x"})).code == 10002

    async def test_follows_until_the_end(self, world, running, instances, redis):
        stream = await follow(world, instances, "i", after=7)
        assert parsed(await anext(stream))[0][2]["message"] == "Waiting for an event"
        following = asyncio.ensure_future(anext(stream))
        await instances.feed.listening.wait()
        await world.write("i", (Kind.LOG, None, None, None, {"level": "info", "message": "news"}))
        await redis.publish(channel(world.account), msgspec.msgpack.encode([(await world.key("i")).bytes]))
        assert parsed(await following)[0][2]["message"] == "news"
        following = asyncio.ensure_future(anext(stream))
        await world.end(["i"])
        await redis.publish(channel(world.account), msgspec.msgpack.encode([(await world.key("i")).bytes]))
        assert parsed(await following)[0][2]["message"] == "Instance complete"
        assert parsed(await anext(stream))[0][1] == "end"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_a_lost_message_costs_a_second(self, world, running, instances, monkeypatch):
        monkeypatch.setattr(LiveFeed, "_subscribe", no_subscription)
        stream = await follow(world, instances, "i", after=8)
        following = asyncio.ensure_future(anext(stream))
        await world.write("i", (Kind.LOG, None, None, None, {"level": "info", "message": "news"}))
        assert parsed(await following)[0][2]["message"] == "news"
        await stream.aclose()

    async def test_nothing_new_is_seen_without_reading_entries(self, world, running, instances, monkeypatch):
        async def read(*_args):
            raise AssertionError("read")

        await world.write("i", (Kind.NOTE, None, None, None, {}))  # gives no line
        stream = await follow(world, instances, "i", after=7)
        assert parsed(await anext(stream))[0][2]["message"] == "Waiting for an event"
        monkeypatch.setattr("instances.store.log_entries", read)
        world.clock.advance(15)
        [follower] = instances.feed._followers[world.account][await world.key("i")]
        follower.wake()
        assert await anext(stream) == b": ping\n\n"
        await stream.aclose()

    async def test_what_restarts_made_void_is_worked_out_once_per_run(
        self, world, running, instances, call, monkeypatch
    ):
        looks = 0
        really = store.entry_heads

        async def counted(*args):
            nonlocal looks
            looks += 1
            return await really(*args)

        monkeypatch.setattr("instances.store.entry_heads", counted)
        start = {"name": "w", "type": "waitForEvent"}
        await call("PATCH", "/instances/i/status", json={"status": "restart", "from": start})
        stream = await follow(world, instances, "i", after=8)
        assert parsed(await anext(stream))[0][2]["message"] == "Restarted from a step"
        for n in range(3):
            await world.write("i", (Kind.LOG, None, None, None, {"level": "info", "message": str(n)}))
            assert parsed(await anext(stream))[0][2]["message"] == str(n)
        assert looks == 1
        await stream.aclose()

    async def test_ends_when_the_credential_is_revoked(self, world, running, instances, tenants):
        row, text = await tenants.tokens.create(world.caller, TokenGrant(name="t", scopes=["executions:read"]))
        headers = {"authorization": f"Bearer {text}"}
        stream = await follow(
            world, instances, "i", after=8, still_allowed=lambda: tenants.authenticate_headers(headers)
        )
        following = asyncio.ensure_future(anext(stream))
        await tenants.tokens.revoke(world.caller, row.id)
        world.clock.advance(1)
        with pytest.raises(StopAsyncIteration):
            await following

    async def test_ends_when_the_instance_is_deleted(self, world, running, instances, call):
        stream = await follow(world, instances, "i", after=8)
        following = asyncio.ensure_future(anext(stream))
        await call("DELETE", "/instances/i")
        with pytest.raises(StopAsyncIteration):
            await following

    async def test_heartbeats_and_the_hour(self, world, running, instances):
        stream = await follow(world, instances, "i", after=8)
        following = asyncio.ensure_future(anext(stream))
        world.clock.advance(15)
        assert await following == b": ping\n\n"
        following = asyncio.ensure_future(anext(stream))
        world.clock.advance(3600)
        assert await following == b": ping\n\n"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_holds_no_connection_while_it_waits(self, world, running, instances, db):
        streams = [await follow(world, instances, "i", after=8) for _ in range(20)]
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        async with asyncio.timeout(5):
            for _ in range(5):
                async with db.scope(world.account) as connection:  # of five that there are
                    await connection.fetchval("select 1")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def test_as_many_as_a_credential_may_hold(self, world, running, instances, call):
        token_id = await world.admin.fetchval("select id from api_token where account_id = $1", world.account)
        with instances.feed.slot(token_id, 1000):
            for _ in range(19):
                instances.feed._streams[token_id] += 1
            answer = await call("GET", "/instances/i/logs", headers=EVENTS)
            assert (answer.status, answer.code) == (429, 10466)
            assert (await call("GET", "/instances/i/logs")).status == 200
            instances.feed._streams[token_id] = 1
        assert token_id not in instances.feed._streams


async def no_subscription(_self, _account_id) -> None:
    """Redis is away."""


async def follow(world: World, instances, instance_id: str, *, after: int, still_allowed=None):
    """The stream of an instance's log, past its first line."""

    async def always() -> None:
        pass

    stream = instances.logs.stream(
        world.account,
        await world.key(instance_id),
        after=after,
        level="debug",
        still_allowed=still_allowed or always,
    )
    assert await anext(stream) == b"retry: 3000\n\n"
    return stream
