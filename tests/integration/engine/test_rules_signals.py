"""Outside facts between a run's last look and its park, settle or end: none is lost, none is overwritten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from instances.engine import client as engine_client
from instances.engine.client import Control, EngineClient
from instances.engine.journal_writer import Next
from instances.engine.requests import NewInstance, SendEvent
from instances.lifecycle import Kind, Phase, Status, Want
from instances.runtimes.protocol import Attempt, Broken, Do, Done, Failure, Retry, RunContext, StepFailure
from tests.support.engine import Engine, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, awaits_go, calls_child, naps, one_step, wait

Fact = Callable[[Engine, UUID], Awaitable[Any]]

# --- between check and park ------------------------------------------------------------------------------------


async def event(engine: Engine, key: UUID) -> None:
    assert await engine.client.send_event(engine.account, key, "go", None) is SendEvent.STORED


async def unawaited_event(engine: Engine, key: UUID) -> None:
    assert await engine.client.send_event(engine.account, key, "other", None) is SendEvent.STORED


async def pause(engine: Engine, key: UUID) -> None:
    assert (await engine.client.pause(engine.account, key)).status is Status.WAITING_FOR_PAUSE


async def pause_and_resume(engine: Engine, key: UUID) -> None:
    await pause(engine, key)
    assert (await engine.client.resume(engine.account, key)).status is Status.RUNNING


async def rollback_request(engine: Engine, key: UUID) -> None:
    assert (await engine.client.terminate(engine.account, key, rollback=True)).status is Status.ROLLING_BACK


async def child_end(engine: Engine, key: UUID) -> None:
    [kid] = await engine.create_many("w", 1, parent_key=key, depth=1)
    await engine.client.terminate(engine.account, kid)


FACTS: list[Fact] = [event, unawaited_event, pause, pause_and_resume, rollback_request, child_end]


@pytest.mark.parametrize("fact", FACTS, ids=lambda f: f.__name__)
async def test_a_park_that_missed_something_is_refused(engine: Engine, puppet: Puppet, fact: Fact) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await fact(engine, key)

    park = puppet.change(row, Next.PARK, entries=1, due=engine.clock.now() + timedelta(days=1), awaits=["go"])
    [answer] = await puppet.send(park)

    assert answer.accepted and not answer.done
    assert answer.signal > row["signal"]
    live = await engine.live(key)
    assert live is not None
    assert (live["phase"], live["owner"]) == (Phase.HELD, puppet.worker_id)
    assert Kind.LOG in await engine.kinds(key), "entries of a refused park are stored all the same"
    if fact in (event, unawaited_event, pause_and_resume, child_end):
        again = puppet.change(row, Next.PARK, seen=answer.signal)
        assert (await puppet.send(again))[0].done
        assert await engine.status(key) is Status.WAITING


async def test_a_park_that_missed_nothing_takes_place(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    due = engine.clock.now() + timedelta(minutes=1)
    assert (await puppet.flush(await puppet.claim_one(), Next.PARK, due=due, awaits=["go", "other"])).done
    live = await engine.live(key)
    assert live is not None
    assert (live["status"], live["phase"], live["owner"]) == (Status.WAITING, Phase.PARKED, None)
    assert (live["ready_at"], live["awaits"]) == (due, ["go", "other"])


async def test_a_pause_settles_only_while_it_is_wanted(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await pause(engine, key)
    answer = await puppet.flush(row)
    assert answer.want == Want.PAUSE
    await engine.client.resume(engine.account, key)
    refused = await puppet.flush(row, Next.SETTLE_PAUSE, seen=answer.signal, entries=1)
    assert refused.accepted and not refused.done and refused.want == Want.NOTHING
    assert await engine.status(key) is Status.RUNNING
    assert await engine.kinds(key) == [Kind.QUEUED, Kind.PAUSE_REQUESTED, Kind.RESUMED, Kind.LOG]

    await pause(engine, key)
    assert (await puppet.flush(row, Next.SETTLE_PAUSE, seen=0)).done
    assert await engine.status(key) is Status.PAUSED
    assert (await engine.kinds(key))[-1] is Kind.PAUSED
    assert not (await puppet.flush(row, entries=1)).accepted


@pytest.mark.parametrize("next", [Next.COMPLETE, Next.ERRORED])
async def test_an_end_that_missed_a_rollback_request_is_refused(engine: Engine, puppet: Puppet, next: Next) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await rollback_request(engine, key)
    answer = await puppet.flush(row, next, body="1")
    assert answer.accepted and not answer.done and answer.want == Want.ROLL_BACK
    assert await engine.status(key) is Status.ROLLING_BACK
    assert (await puppet.flush(row, Next.TERMINATED)).done
    assert await engine.status(key) is Status.TERMINATED


@pytest.mark.parametrize("next", [Next.COMPLETE, Next.ERRORED])
async def test_an_end_outruns_a_pause(engine: Engine, puppet: Puppet, next: Next) -> None:
    """A run that is through while a pause is pending ends: there is nothing left to pause."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await pause(engine, key)
    assert (await puppet.flush(row, next, body="1")).done
    assert (await engine.status(key)).finished


async def test_a_rollback_drops_a_pending_pause(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await pause(engine, key)
    answer = await puppet.flush(row, Next.ROLL_BACK)
    assert answer.done
    assert (await puppet.flush(row)).want == Want.NOTHING
    assert await engine.status(key) is Status.ROLLING_BACK
    assert (await engine.client.resume(engine.account, key)).outcome is Control.REFUSED


async def test_a_run_that_rolls_back_parks_and_keeps_its_status(engine: Engine, puppet: Puppet) -> None:
    """Readiness is not status: a compensation that backs off costs no slot and still shows as rolling back."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await puppet.flush(row, Next.ROLL_BACK)
    due = engine.clock.now() + timedelta(seconds=5)
    assert (await puppet.flush(row, Next.PARK, due=due)).done
    live = await engine.live(key)
    assert live is not None
    assert (live["status"], live["phase"]) == (Status.ROLLING_BACK, Phase.PARKED)
    engine.clock.advance(5)
    assert (await puppet.claim_one())["status"] == Status.ROLLING_BACK


async def test_an_event_while_the_last_look_is_under_way_is_seen(engine: Engine) -> None:
    """The whole driver: the event is committed after the inbox was read and before the park."""
    await engine.define("w", awaits_go)
    worker = await engine.worker()
    writer, sent = worker.writer, []

    def submit(flush: Any, submit: Any = writer.submit) -> Any:
        if flush.next is not Next.PARK or sent:
            return submit(flush)
        sent.append(flush)

        async def late() -> Any:
            await event(engine, flush.key)
            return await submit(flush)

        return late()

    writer.submit = submit  # type: ignore[method-assign]
    engine.bell.silent = True
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE, seconds=5)
    assert sent


# --- who is woken ----------------------------------------------------------------------------------------------


async def parked(engine: Engine, puppet: Puppet, *awaits: str, seconds: float = 60) -> UUID:
    """A run that waits for events."""
    await engine.define("w", one_step)
    key = await engine.create("w")
    due = engine.clock.now() + timedelta(seconds=seconds)
    assert (await puppet.flush(await puppet.claim_one(), Next.PARK, due=due, awaits=awaits)).done
    return key


async def test_an_event_wakes_only_a_run_that_awaits_its_type(engine: Engine, puppet: Puppet) -> None:
    key = await parked(engine, puppet, "a", "b")
    for other in ("c", "a,b", "A", ""):
        await engine.client.send_event(engine.account, key, other, None)
        assert await puppet.claim() == []
        assert await engine.status(key) is Status.WAITING
    await engine.client.send_event(engine.account, key, "b", None)
    assert await engine.status(key) is Status.QUEUED
    assert (await puppet.claim_one())["key"] == key


async def test_events_keep_their_order_across_types_and_callers(engine: Engine, puppet: Puppet) -> None:
    key = await parked(engine, puppet)
    for n in range(5):
        await engine.client.send_event(engine.account, key, "ab"[n % 2], str(n))
    rows = await engine.admin.fetch("select type, payload from inbox order by no")
    assert [(r["type"], r["payload"]) for r in rows] == [("ab"[n % 2], str(n)) for n in range(5)]
    assert [r["name"] for r in await engine.journal(key) if r["kind"] == Kind.EVENT_RECEIVED] == list("ababa")


async def test_the_wait_that_was_first_gets_the_first_event(engine: Engine) -> None:
    def script(run: RunContext) -> Steps:
        messages = yield [wait("w", "t", 1), wait("w", "t", 2)]
        while len(messages) < 2:
            messages = messages + (yield [])
        return json.dumps({m.key.count: json.loads(m.value)["payload"] for m in messages})

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    for n in (1, 2):
        await engine.client.send_event(engine.account, key, "t", str(n))
    assert json.loads((await engine.until(key, Status.COMPLETE))["output"]) == {"1": 1, "2": 2}


@pytest.mark.parametrize("seconds", [59, 60, 61])
async def test_an_event_stored_before_the_deadline_wins(engine: Engine, seconds: float) -> None:
    """However late the run looks; one stored after it comes too late, however early the run looks."""

    def script(run: RunContext) -> Steps:
        [message] = yield [wait("w", "go")]
        return '"timed out"' if isinstance(message, Broken) else '"event"'

    await engine.define("w", script)
    worker = await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await worker.drain(0)
    engine.clock.advance(seconds)
    await event(engine, key)
    engine.clock.advance(30)
    await engine.worker()
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == ('"event"' if seconds <= 60 else '"timed out"')


@pytest.mark.parametrize("seconds", [59, 61])
async def test_what_is_stored_before_the_deadline_wins_although_the_run_was_not_told(
    engine: Engine, seconds: float
) -> None:
    """A run in memory looks before it lets a wait time out. An event that came too late is left for a later wait."""
    gate = asyncio.Event()

    async def body(do: Do, _attempt: Attempt) -> str | None:
        if do.key.name == "busy":
            await gate.wait()
        return "1"

    def script(run: RunContext) -> Steps:
        first: list[Any] = yield [wait("w", "go"), step("x", external=True, timeout=60_000), step("busy")]
        while len(first) < 2:
            first += yield []
        ended = {one.key.counted: isinstance(one, Done) for one in first}
        if not ended["w-1"]:
            [again] = yield [wait("w", "go", 2)]
            ended["w-2"] = isinstance(again, Done)
        gate.set()
        yield []
        return json.dumps(ended)

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.WAIT_STARTED)
    await engine.written(key, Kind.STEP_WAITING)
    engine.bell.silent = True
    engine.clock.advance(59)  # type: ignore[attr-defined]
    assert await engine.client.send_event(engine.account, key, "step:x", "2") is SendEvent.STORED
    engine.clock.advance(seconds - 59)  # type: ignore[attr-defined]
    await event(engine, key)
    await engine.advance(2)
    row = await engine.until(key, Status.COMPLETE)
    in_time, too_late = {"w-1": True, "x-1": True}, {"w-1": False, "x-1": True, "w-2": True}
    assert json.loads(row["output"]) == (in_time if seconds < 60 else too_late)


async def test_too_many_unread_events_are_refused_until_some_are_read(
    engine: Engine, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_client, "UNREAD_EVENTS", 3)
    key = await parked(engine, puppet, "go")
    for expected in (SendEvent.STORED,) * 3 + (SendEvent.TOO_MANY,) * 2:
        assert await engine.client.send_event(engine.account, key, "t", "1") is expected
    await engine.admin.execute("update live set phase = 0, status = 0, ready_at = modified_at where key = $1", key)
    row = await puppet.claim_one()
    [first, *_] = await engine.admin.fetch("select no from inbox order by no")
    await puppet.flush(row, consumed=[first["no"]])
    for expected in (SendEvent.STORED, SendEvent.TOO_MANY):
        assert await engine.client.send_event(engine.account, key, "t", "1") is expected
    assert await _unread(engine, key) == (3, 3)


async def test_the_bytes_of_unread_events_are_bounded(
    engine: Engine, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_client, "UNREAD_EVENT_BYTES", 10)
    key = await parked(engine, puppet)
    for payload, expected in (
        ("123456", SendEvent.STORED),
        ("12345", SendEvent.TOO_MANY),
        ("1234", SendEvent.STORED),
        (None, SendEvent.STORED),
        ("1", SendEvent.TOO_MANY),
    ):
        assert await engine.client.send_event(engine.account, key, "t", payload) is expected
    assert await _unread(engine, key) == (3, 10)


async def test_a_crowd_of_events_in_one_commit_stops_at_the_cap(
    engine: Engine, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_client, "UNREAD_EVENTS", 5)
    key = await parked(engine, puppet)
    sends = [engine.client.send_event(engine.account, key, "t", str(n)) for n in range(12)]
    answers = await asyncio.gather(*sends)
    assert answers == [SendEvent.STORED] * 5 + [SendEvent.TOO_MANY] * 7
    assert await _unread(engine, key) == (5, 5)


async def _unread(engine: Engine, key: UUID) -> tuple[int, int]:
    live = await engine.live(key)
    assert live is not None
    assert live["unread"] == await engine.admin.fetchval("select count(*) from inbox where key = $1", key)
    return live["unread"], live["unread_bytes"]


async def test_an_event_with_a_used_dedupe_key_is_stored_once(engine: Engine, puppet: Puppet) -> None:
    key = await parked(engine, puppet)
    once = await engine.client.send_event(engine.account, key, "t", "1", dedupe="d")
    again = await engine.client.send_event(engine.account, key, "t", "2", dedupe="d")
    assert (once, again) == (SendEvent.STORED, SendEvent.DUPLICATE)
    sends = [engine.client.send_event(engine.account, key, "t", "3", dedupe=f"e{n % 2}") for n in range(6)]
    answers = await asyncio.gather(*sends)
    assert sorted(answers) == [SendEvent.STORED] * 2 + [SendEvent.DUPLICATE] * 4
    other = await parked(engine, puppet)
    assert await engine.client.send_event(engine.account, other, "t", "1", dedupe="d") is SendEvent.STORED


async def test_two_processes_that_send_the_same_event_store_it_once(engine: Engine, puppet: Puppet) -> None:
    """Both look for the key before either has stored it: the row's lock decides, not the look."""
    key = await parked(engine, puppet)
    other = EngineClient(engine.db, engine.clock, engine.bell)
    await other.start()
    lock = puppet.connection.transaction()
    await lock.start()
    await puppet.connection.execute("select from live where key = $1 for update", key)
    sends = [
        asyncio.create_task(client.send_event(engine.account, key, "t", "1", dedupe="d"))
        for client in (engine.client, other)
    ]
    waiting = (
        "select count(*) = 2 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    )
    await engine.eventually(lambda: engine.admin.fetchval(waiting))
    await lock.rollback()
    assert sorted(await asyncio.gather(*sends)) == [SendEvent.STORED, SendEvent.DUPLICATE]
    await other.stop()


# --- pauses ----------------------------------------------------------------------------------------------------


async def test_a_queued_run_is_paused_at_once_and_keeps_its_turn(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    first, second = await engine.create_many("w", 2)
    assert (await engine.client.pause(engine.account, first)).status is Status.PAUSED
    assert [row["key"] for row in await puppet.claim()] == [second]
    engine.clock.advance(5)
    [third] = await engine.create_many("w", 1)
    assert (await engine.client.resume(engine.account, first)).status is Status.QUEUED
    assert {row["key"] for row in await puppet.claim()} == {first, third}


async def test_a_waiting_run_is_paused_at_once_and_sleeps_through_its_deadline(engine: Engine) -> None:
    await engine.define("w", naps)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    assert (await engine.client.pause(engine.account, key)).status is Status.PAUSED
    await engine.advance(3600)
    assert await engine.status(key) is Status.PAUSED
    await engine.client.resume(engine.account, key)
    await engine.until(key, Status.WAITING)
    await engine.advance(59)
    assert await engine.status(key) is Status.WAITING
    await engine.advance(1)
    await engine.until(key, Status.COMPLETE)


async def test_a_pause_moves_event_waits_and_retries(engine: Engine) -> None:
    async def body(_: Do, attempt: Attempt) -> str | None:
        if attempt.number == 1:
            raise StepFailure(Failure("Busy", "later"))
        return '"retried"'

    def script(run: RunContext) -> Steps:
        messages = yield [step("a", retry=Retry(1, 60_000)), wait("w", "never")]
        while len(messages) < 2:
            messages = messages + (yield [])
        return json.dumps([m.key.name for m in messages])

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.pause(engine.account, key)
    await engine.advance(100)
    await engine.client.resume(engine.account, key)
    await engine.until(key, Status.WAITING)
    await engine.advance(59)
    assert await engine.status(key) is Status.WAITING
    assert not {Kind.STEP_COMPLETED, Kind.WAIT_TIMED_OUT} & {*await engine.kinds(key)}
    await engine.advance(1)
    row = await engine.until(key, Status.COMPLETE)
    assert sorted(json.loads(row["output"])) == ["a", "w"]


async def test_a_parent_is_told_while_paused(engine: Engine) -> None:
    await engine.define("child", awaits_go)
    await engine.define("parent", calls_child)
    await engine.worker()
    key = await engine.create("parent")
    await engine.until(key, Status.WAITING)
    kid = await engine.admin.fetchval("select key from instance where parent_key = $1", key)
    await engine.until(kid, Status.WAITING)
    await engine.client.pause(engine.account, key)
    await event(engine, kid)
    await engine.until(kid, Status.COMPLETE)
    assert await engine.status(key) is Status.PAUSED
    await engine.client.resume(engine.account, key)
    assert json.loads((await engine.until(key, Status.COMPLETE))["output"])["type"] == "go"


async def test_create_is_refused_when_the_queue_is_full(engine: Engine) -> None:
    await engine.define("w", one_step)
    items = [
        NewInstance(account_id=engine.account, key=engine.ids.uuid7(), instance_id=f"{n}", handle="w", max_queued=2)
        for n in range(3)
    ]
    outcomes = [(await engine.client.create([item]))[0].outcome.name for item in items]
    assert outcomes == ["CREATED", "CREATED", "QUEUE_FULL"]
