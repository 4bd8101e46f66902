"""Sending events to instances."""

from __future__ import annotations

import pytest

from tenants.limits import PAYLOAD_BYTES
from tenants.tokens import TokenGrant
from tests.support.commands import RB, WP, C, E, P, Q, R, T, W, make


class TestEvents:
    @pytest.mark.parametrize("status", [Q, R, W, P, WP, RB])
    async def test_stored_whatever_the_status(self, world, call, status):
        await make(world, call, status)
        world.clock.advance(1)
        answer = await call("POST", "/instances/i/events/go", content=b' {"a": [1, 2.0]} ')
        assert answer.result == {"instanceId": "i", "timestamp": "2026-01-01T00:00:01.000Z"}
        row = await world.admin.fetchrow("select type, payload from inbox")
        assert tuple(row) == ("go", '{"a": [1, 2.0]}')

    @pytest.mark.parametrize("status", [C, E, T])
    async def test_refused_when_finished(self, world, call, status):
        await make(world, call, status)
        answer = await call("POST", "/instances/i/events/go", json={})
        assert (answer.status, answer.code) == (400, 10454)

    @pytest.mark.parametrize(
        ("body", "payload"),
        [(b"", "{}"), (b"null", "null"), (b'"x"', '"x"'), (b"5", "5"), (rb'"\ud800\u0000"', r'"\ud800\u0000"')],
    )
    async def test_any_json_value(self, world, call, body, payload):
        await make(world, call, Q)
        assert (await call("POST", "/instances/i/events/go", content=body)).status == 200
        assert await world.admin.fetchval("select payload from inbox") == payload

    @pytest.mark.parametrize("body", [b"nope", b"{", b'"\xff"', b"\x00"])
    async def test_bodies_that_are_no_json(self, world, call, body):
        await make(world, call, Q)
        answer = await call("POST", "/instances/i/events/go", content=body)
        assert (answer.status, answer.code) == (400, 10002)

    @pytest.mark.parametrize(
        "event_type",
        ["go", "a-b_C9", "x" * 100, "step:node-1", "step%3Anode", "step:" + "x" * 128, f"step:{'x' * 128}:compensate"],
    )
    async def test_types(self, world, call, event_type):
        await make(world, call, Q)
        assert (await call("POST", f"/instances/i/events/{event_type}")).status == 200

    @pytest.mark.parametrize(
        "event_type",
        [
            *("a.b", "-a", "a%20b", "x" * 101, "ä", "a:b", "step:", "step:a:b", "step:" + "x" * 129, "step-failed:a"),
            *("step::compensate", "a:compensate", "step:a:compensate:compensate", f"step:{'x' * 129}:compensate"),
        ],
    )
    async def test_types_that_are_refused(self, world, call, event_type):
        await make(world, call, Q)
        answer = await call("POST", f"/instances/i/events/{event_type}")
        assert (answer.status, answer.code) == (400, 10455)

    async def test_size(self, world, call):
        await make(world, call, Q)
        fits = b'"' + b"x" * (PAYLOAD_BYTES - 2) + b'"'
        assert (await call("POST", "/instances/i/events/go", content=fits)).status == 200
        answer = await call("POST", "/instances/i/events/go", content=b"[" + fits + b"]")
        assert (answer.status, answer.code) == (413, 10458)

    async def test_too_many_unread(self, world, call):
        await make(world, call, Q)
        await world.admin.execute("update live set unread = 1000")
        answer = await call("POST", "/instances/i/events/go")
        assert (answer.status, answer.code) == (429, 10465)
        assert "retry-after" in answer.headers

    async def test_idempotency_key(self, world, call):
        await make(world, call, Q)
        headers = {"idempotency-key": "k"}
        first = await call("POST", "/instances/i/events/go", json=1, headers=headers)
        world.clock.advance(1)
        again = await call("POST", "/instances/i/events/go", json=1, headers=headers)
        assert (again.body, again.headers["idempotent-replayed"]) == (first.body, "true")
        assert (await call("POST", "/instances/i/events/go", json=2, headers=headers)).status == 409
        assert await world.admin.fetchval("select count(*) from inbox") == 1

    async def test_a_repeat_after_the_process_died_stores_nothing_twice(self, world, call):
        await make(world, call, Q)
        headers = {"idempotency-key": "k"}
        await call("POST", "/instances/i/events/go", headers=headers)
        await world.admin.execute("update idempotency_key set status = null, response = null")
        await world.admin.execute("delete from inbox")  # a wait has taken it
        world.clock.advance(100)
        assert (await call("POST", "/instances/i/events/go", headers=headers)).status == 200
        assert await world.admin.fetchval("select count(*) from inbox") == 0

    async def test_the_first_use_of_a_key_does_not_search_the_journal(self, world, call, monkeypatch):
        async def search(*_args):
            raise AssertionError("searched")

        monkeypatch.setattr("instances.store.event_received", search)
        await make(world, call, Q)
        assert (await call("POST", "/instances/i/events/go", headers={"idempotency-key": "k"})).status == 200

    async def test_a_stored_answer_is_for_who_may_send(self, world, call, tenants):
        await make(world, call, Q)
        headers = {"idempotency-key": "k"}
        assert (await call("POST", "/instances/i/events/go", headers=headers)).status == 200
        _, token = await tenants.tokens.create(world.caller, TokenGrant(name="r", scopes=["executions:read"]))
        answer = await call("POST", "/instances/i/events/go", headers=headers | {"authorization": f"Bearer {token}"})
        assert (answer.status, answer.code) == (403, 10000)

    @pytest.mark.parametrize("fact", ["step-failed:a", "step:a:compensate", "step-input:a"])
    async def test_faces_may_tell_what_callers_may_not_name(self, world, call, instances, fact):
        await make(world, call, R)
        assert await instances.tell(world.caller, "orders", "i", fact, "1", dedupe="step:a:1")
        assert not await instances.tell(world.caller, "orders", "i", fact, "2", dedupe="step:a:1")
        assert [tuple(row) for row in await world.admin.fetch("select type, payload from inbox")] == [(fact, "1")]
        await world.admin.execute("delete from inbox")  # read
        assert not await instances.tell(world.caller, "orders", "i", fact, "3", dedupe="step:a:1")
        assert await world.admin.fetchval("select count(*) from inbox") == 0
