"""A run opened again: same messages in the same order, no result silently swapped, attempts counted, restarts cheap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from instances.engine import store
from instances.engine.replay import fold
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    Broken,
    Do,
    Failure,
    Message,
    Retry,
    RunContext,
    Started,
    StepFailure,
    Timer,
    TimerFired,
)
from tests.support.engine import Engine, ScriptFailed, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, nap, one_step, outcome, wait

# --- order -----------------------------------------------------------------------------------------------------


class Branches:
    """Two parallel branches, each `first`, then `charge`: the second step has the same name in both.

    Which of the two is `charge-1` depends on which first step ended first, so results must be handed over in the
    journal's order, not in the order of the calls.
    """

    def __init__(self) -> None:
        self.gates = {"A": asyncio.Event(), "B": asyncio.Event()}
        self.lives: list[list[Message]] = []

    async def body(self, do: Do, _: Attempt) -> str | None:
        if do.key.name.startswith("first"):
            await self.gates[do.data].wait()
        return json.dumps(f"{do.key.name} for {do.data}")

    def script(self, run: RunContext) -> Steps:
        heard: list[Message] = []
        self.lives.append(heard)
        charges: dict[int, str] = {}
        paid: dict[str, str] = {}
        messages = yield [step(f"first {branch}", data=branch) for branch in "AB"]
        while True:
            commands = []
            for message in messages:
                heard.append(message)
                if message.key.name.startswith("first"):
                    branch = message.key.name[-1]
                    charges[len(charges) + 1] = branch
                    commands.append(step("charge", len(charges), data=branch))
                else:
                    paid[charges[message.key.count]] = json.loads(message.value)
            if len(paid) == 2:
                break
            messages = yield commands
        yield [nap("n")]
        return json.dumps(paid)


@pytest.mark.parametrize("order", ["AB", "BA"])
async def test_parallel_branches_keep_their_results(engine: Engine, order: str) -> None:
    branches = Branches()
    await engine.define("w", branches.script, branches.body)
    await engine.worker()
    key = await engine.create("w")
    for n, branch in enumerate(order, 1):
        branches.gates[branch].set()
        await engine.written(key, Kind.STEP_COMPLETED, 2 * n)
    await engine.until(key, Status.WAITING)
    await engine.advance(60)
    row = await engine.until(key, Status.COMPLETE)
    assert json.loads(row["output"]) == {"A": "charge for A", "B": "charge for B"}
    first, again = branches.lives
    assert again == first, "equal to the last field: order, values, times, attempts"


class Listener:
    """Notes every message of every life of a run."""

    def __init__(self) -> None:
        self.lives: list[list[Message]] = []

    def script(self, run: RunContext) -> Steps:
        heard: list[Message] = []
        self.lives.append(heard)

        def hear(messages: Sequence[Message]) -> list[Message]:
            heard.extend(messages)
            return list(messages)

        messages = hear((yield [step("a", 1), step("a", 2, retry=Retry(3, 1000)), wait("w", "go"), Timer("t", 5_000)]))
        while len(messages) < 4:
            messages += hear((yield []))
        hear((yield [nap("n", seconds=1)]))
        hear((yield [step("fails", retry=Retry(1, 1000))]))
        yield [wait("w", "never", 2, seconds=1)]
        return "1"


async def test_every_life_of_a_run_hears_the_same(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeps, waits, timers, retries and failures, over many parks and a dead worker, while no two looks at the clock
    give the same time."""
    listener, attempts, clock = Listener(), dict[str, int](), engine.clock
    look = type(clock).now

    def tick() -> datetime:
        clock.advance(0.000_123)  # type: ignore[attr-defined]
        return look(clock)

    monkeypatch.setattr(clock, "now", tick)

    async def body(do: Do, attempt: Attempt) -> str | None:
        attempts[do.key.counted] = attempt.number
        if do.key.name == "fails" or (do.key.count == 2 and attempt.number < 3):
            last = do.key.name == "fails" and attempt.number == 2
            raise StepFailure(Failure("Busy", f"attempt {attempt.number}", "CODE", permanent=last, output="[1]"))
        return json.dumps(f"{do.key.counted} {attempt.number}")

    await engine.define("w", listener.script, body)
    worker = await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "go", '{"n":1}')
    for n in range(60):
        if n == 4:
            await worker.stop()
            engine.workers.remove(worker)
            await engine.worker()
        await engine.advance(0.5)
        await asyncio.sleep(0.02)
        if (await engine.status(key)).finished:
            break
    await engine.until(key, Status.COMPLETE)
    assert attempts == {"a-1": 1, "a-2": 3, "fails-1": 2}
    longest = listener.lives[-1]
    assert len(listener.lives) > 3
    assert len(longest) == 6
    assert isinstance(longest[-1], Broken) and longest[-1].attempts == 2
    for life in listener.lives:
        assert life == longest[: len(life)]
    times = [row["at"] for row in await engine.journal(key)]
    assert times == sorted(times), "a run's time never goes back"


async def test_the_first_message_is_the_time_of_the_start_in_every_life(engine: Engine) -> None:
    started: list[Started] = []
    from tests.support import engine as harness

    class Session(harness._Session):
        async def turn(self, messages: Sequence[Message]) -> Any:
            started.extend(m for m in messages if isinstance(m, Started))
            return await super().turn(messages)

    class Program(harness._Program):
        async def start(self, run: RunContext) -> Session:
            return Session(self._script(run), self._body)

    class Runtime(harness.ScriptRuntime):
        async def open(self, version: Any) -> Program:
            return Program(*self.scripts[version.source])

    engine.runtime = Runtime()

    def script(run: RunContext) -> Steps:
        for n in range(3):
            yield [nap("n", n + 1)]
        return "1"

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    for n in range(3):
        await engine.written(key, Kind.SLEEP_STARTED, n + 1)
        await engine.until(key, Status.WAITING)
        await engine.advance(60)
    await engine.until(key, Status.COMPLETE)
    assert len(started) == 4
    assert len({m.at for m in started}) == 1


# --- never silence ---------------------------------------------------------------------------------------------


async def in_two_lives(engine: Engine, first: list[Any], second: list[Any]) -> str:
    """Run `first`, sleep, then on replay `second` instead; the error of the run ("" when it completes)."""
    lives = iter([first, second])

    def script(run: RunContext) -> Steps:
        commands = next(lives)
        messages: list[Message] = []
        for command in commands:
            messages = yield [command]
            outcome(messages[0])
        yield [nap("last")]
        return "1"

    async def body(_: Do, attempt: Attempt) -> str | None:
        return "1"

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.advance(60)

    async def ended() -> bool:
        return (await engine.status(key)).finished

    await engine.eventually(ended)
    row = await engine.admin.fetchrow("select * from instance where key = $1", key)
    assert row is not None
    return row["error"] or ""


A, B = step("a"), step("b")


@pytest.mark.parametrize(
    ("first", "second", "missing"),
    [
        ([A], [B], "a-1"),
        ([A, B], [A], "b-1"),
        ([A, B], [B, A], "a-1"),
        ([A, step("a", 2)], [A, step("a", 3)], "a-2"),
    ],
    ids=["renamed", "left out", "other order", "other count"],
)
async def test_a_recorded_step_that_is_not_called_again_is_an_error(
    engine: Engine, first: list[Any], second: list[Any], missing: str
) -> None:
    error = await in_two_lives(engine, first, second)
    assert "NonDeterministicError" in error
    assert f'the recorded step \\"{missing}\\" was not called on replay' in error


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (step("a", fingerprint="1"), step("a", fingerprint="2")),
        (step("a"), step("a", fingerprint="1")),
        (nap("n", seconds=0, fingerprint="1"), nap("n", seconds=0, fingerprint="2")),
    ],
    ids=["step", "step without", "sleep"],
)
async def test_a_step_that_differs_from_its_record_is_an_error(engine: Engine, first: Any, second: Any) -> None:
    error = await in_two_lives(engine, [first], [second])
    assert "NonDeterministicError" in error
    assert "differs from the recorded one" in error


async def test_a_wait_for_another_type_is_an_error(engine: Engine) -> None:
    """The wait is still open: it is found when it is called again, not when its event comes."""
    types = iter("ab")

    def script(run: RunContext) -> Steps:
        type = next(types)
        [message] = yield [wait("w", type, fingerprint=type)]
        return outcome(message)

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "a", None)
    assert "NonDeterministicError" in (await engine.until(key, Status.ERRORED))["error"]


async def test_what_stays_the_same_replays(engine: Engine) -> None:
    assert await in_two_lives(engine, [A, B], [A, B]) == ""


async def test_completed_steps_do_not_run_again(engine: Engine) -> None:
    ran: list[str] = []

    async def body(do: Do, _: Attempt) -> str | None:
        ran.append(do.key.counted)
        return None

    def script(run: RunContext) -> Steps:
        for n in range(1, 6):
            yield [step("a", n)]
            yield [nap("n", n)]
        return "1"

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    for n in range(1, 6):
        await engine.written(key, Kind.SLEEP_STARTED, n)
        await engine.until(key, Status.WAITING)
        await engine.advance(60)
    await engine.until(key, Status.COMPLETE)
    assert ran == [f"a-{n}" for n in range(1, 6)]


# --- attempts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"retry": Retry(0)}, {"retry": Retry(3), "guarded": True}], ids=["no retries", "guarded"]
)
async def test_a_start_that_must_last_is_committed_before_the_step_runs(engine: Engine, options: Any) -> None:
    seen: list[list[Kind]] = []

    async def body(_: Do, attempt: Attempt) -> str | None:
        seen.append(await engine.kinds(key))
        if options["retry"].limit and attempt.number == 1:
            raise StepFailure(Failure("Busy", "again"))
        return None

    def script(run: RunContext) -> Steps:
        yield [step("a", **options)]
        return "1"

    await engine.define("w", script, body)
    key = await engine.create("w")
    await engine.worker()
    if options["retry"].limit:
        await engine.until(key, Status.WAITING)
        await engine.advance(1)
    await engine.until(key, Status.COMPLETE)
    assert seen[0][-1] is Kind.STEP_STARTED
    assert [kinds[-1] for kinds in seen[1:]] == [Kind.ATTEMPT_STARTED] * (len(seen) - 1)


async def die(engine: Engine) -> None:
    """The only worker is gone without a word; another one takes its place."""
    worker = engine.workers.pop()
    engine.bell.workers.remove(worker)
    await worker.stop()
    await engine.worker()


async def leave(engine: Engine) -> None:
    """The only worker drains; another one takes its place."""
    worker = engine.workers.pop()
    engine.bell.workers.remove(worker)
    await worker.drain(0)
    await worker.stop()
    await engine.worker()


class Interrupted:
    """A step whose first attempt never ends by itself."""

    def __init__(self, engine: Engine, *, limit: int) -> None:
        self.engine, self.limit = engine, limit
        self.attempts: list[int] = []
        self.known: list[Kind] = []
        self.key: UUID

    async def body(self, _: Do, attempt: Attempt) -> str | None:
        self.attempts.append(attempt.number)
        if len(self.attempts) == 1:
            await asyncio.Event().wait()
        self.known = await self.engine.kinds(self.key)
        return '"done"'

    def script(self, run: RunContext) -> Steps:
        [message] = yield [step("a", retry=Retry(self.limit, 0))]
        if isinstance(message, Broken):
            raise ScriptFailed(message.failure.message)
        return str(message.attempts)

    async def begin(self) -> UUID:
        await self.engine.define("w", self.script, self.body)
        await self.engine.worker()
        self.key = await self.engine.create("w")
        await self.engine.written(self.key, Kind.STEP_STARTED)
        await self.engine.eventually(lambda: self.attempts)
        return self.key


async def test_an_attempt_whose_worker_died_counts_as_failed(engine: Engine) -> None:
    work = Interrupted(engine, limit=1)
    key = await work.begin()
    await die(engine)
    assert (await engine.until(key, Status.COMPLETE))["output"] == "2"
    assert work.attempts == [1, 2]
    [failed] = [row for row in await engine.journal(key) if row["kind"] == Kind.ATTEMPT_FAILED]
    assert json.loads(failed["payload"])["name"] == "WorkflowInternalError"


async def test_without_retries_an_attempt_whose_worker_died_is_the_last(engine: Engine) -> None:
    work = Interrupted(engine, limit=0)
    key = await work.begin()
    await die(engine)
    row = await engine.until(key, Status.ERRORED)
    assert "Attempt failed due to internal workflows error" in row["error"]
    assert work.attempts == [1]


@pytest.mark.parametrize("limit", [0, 1])
async def test_an_attempt_cut_off_by_a_drain_does_not_count(engine: Engine, limit: int) -> None:
    work = Interrupted(engine, limit=limit)
    key = await work.begin()
    await leave(engine)
    await engine.until(key, Status.COMPLETE)
    assert len(work.attempts) == 2
    kinds = await engine.kinds(key)
    assert Kind.ATTEMPT_INTERRUPTED in kinds and Kind.ATTEMPT_FAILED not in kinds
    assert work.known[-1] is Kind.ATTEMPT_STARTED, "on its second dispatch the start is committed first"


async def test_after_a_drain_a_death_still_counts(engine: Engine) -> None:
    """A step without retries that was cut off by a drain and then died has had its one attempt."""
    work = Interrupted(engine, limit=0)
    key = await work.begin()
    hold = asyncio.Event()

    async def holds(_: Do, attempt: Attempt) -> str | None:
        work.attempts.append(attempt.number)
        await hold.wait()
        return None

    [source] = engine.runtime.scripts
    engine.runtime.scripts[source] = (work.script, holds)
    await leave(engine)
    await engine.eventually(lambda: len(work.attempts) == 2)
    await die(engine)
    await engine.until(key, Status.ERRORED)
    assert len(work.attempts) == 2


async def test_a_drain_lets_attempts_end_within_its_grace(engine: Engine) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def body(_: Do, __: Attempt) -> str | None:
        entered.set()
        await gate.wait()
        return '"ended"'

    def script(run: RunContext) -> Steps:
        [message] = yield [step("a")]
        yield [step("b", immediate=True)]
        return outcome(message)

    await engine.define("w", script, body)
    worker = await engine.worker()
    key = await engine.create("w")
    await entered.wait()
    draining = asyncio.create_task(worker.drain(5))
    await asyncio.sleep(0.02)
    assert not draining.done()
    gate.set()
    await draining
    assert worker.held == 0
    assert await engine.status(key) is Status.QUEUED
    assert Kind.ATTEMPT_INTERRUPTED not in await engine.kinds(key)
    await engine.worker()
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"ended"'


# --- poison ----------------------------------------------------------------------------------------------------


async def test_a_run_that_ends_three_workers_in_a_row_is_stopped(engine: Engine) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    for n in range(1, 4):
        victim, heir = await Puppet.enter(engine), await Puppet.enter(engine)
        await victim.claim_one()
        await engine.admin.execute("delete from worker where id = $1", victim.worker_id)
        assert await heir.take_over() == [(engine.account, key)]
        assert (await engine.live(key))["takeovers"] == n  # type: ignore[index]
    await engine.worker()
    row = await engine.until(key, Status.ERRORED)
    assert json.loads(row["error"])["name"] == "WorkflowInternalError"
    assert Kind.STEP_STARTED not in await engine.kinds(key)


@pytest.mark.parametrize("want", ["pause", "rollback"])
async def test_a_poisonous_run_ends_whatever_was_asked_of_it(engine: Engine, want: str) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    victim = await Puppet.enter(engine)
    await victim.flush(await victim.claim_one(), entries=1)
    if want == "rollback":
        await engine.client.terminate(engine.account, key, rollback=True)
    await engine.admin.execute("update live set takeovers = 3")
    await victim.leave()
    await engine.admin.execute("delete from worker")
    worker = await engine.worker()
    if want == "pause":
        await engine.eventually(lambda: worker.held == 0)
        await engine.until(key, Status.ERRORED)
    else:
        await engine.until(key, Status.TERMINATED)


async def test_an_entry_between_deaths_clears_the_count(engine: Engine) -> None:
    await engine.define("w", one_step)
    await engine.create("w")
    for _ in range(5):
        victim, heir = await Puppet.enter(engine), await Puppet.enter(engine)
        await victim.flush(await victim.claim_one(), entries=1)
        await engine.admin.execute("delete from worker where id = $1", victim.worker_id)
        await heir.take_over()
    assert await engine.admin.fetchval("select takeovers from live") == 1


async def test_a_run_that_breaks_the_engine_is_stopped_and_harms_nobody(engine: Engine) -> None:
    """A session that raises is a fault of the platform; after three tries nobody tries again."""
    tries: list[str] = []

    def breaks(run: RunContext) -> Steps:
        tries.append(run.instance_id)
        raise RuntimeError("a broken session")
        yield []

    await engine.define("breaks", breaks)
    await engine.define("w", one_step)
    worker = await engine.worker()
    broken = await engine.create("breaks")
    keys = await engine.create_many("w", 5)
    row = await engine.until(broken, Status.ERRORED)
    assert "WorkflowInternalError" in row["error"]
    assert len(tries) == 3
    for key in keys:
        await engine.until(key, Status.COMPLETE)
    assert worker.held == 0


# --- restarts --------------------------------------------------------------------------------------------------


async def test_a_hundred_restarts_keep_replay_small(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    for _ in range(100):
        await puppet.flush(row, entries=10)
        await engine.client.restart(engine.account, key)
        row = await puppet.claim_one()
    assert len(await engine.journal(key)) > 1000
    read = await store.journals(puppet.connection, [(engine.account, key, row["live_from"])])
    assert [Kind(entry["kind"]) for entry in read[engine.account, key]] == [Kind.RESTARTED]


async def test_a_restart_erases_events_and_results(engine: Engine) -> None:
    runs: list[str] = []

    async def body(_: Do, __: Attempt) -> str | None:
        runs.append("a")
        return str(len(runs))

    def script(run: RunContext) -> Steps:
        [message] = yield [step("a")]
        yield [wait("w", "go")]
        return message.value

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.client.send_event(engine.account, key, "other", None)
    await engine.client.restart(engine.account, key)
    await engine.eventually(lambda: len(runs) == 2)
    await engine.until(key, Status.WAITING)
    assert await engine.admin.fetchval("select count(*) from inbox") == 0
    assert (await engine.live(key))["unread"] == 0  # type: ignore[index]
    await engine.client.send_event(engine.account, key, "go", None)
    row = await engine.until(key, Status.COMPLETE)
    assert (row["output"], row["run"]) == ("2", 2)


async def test_a_restart_from_a_step_keeps_what_started_before_it_even_if_it_ended_later(engine: Engine) -> None:
    """Started: long, short, last. Ended: short, long, last. From `short`: `long` keeps its result."""
    ran: list[str] = []
    gate = asyncio.Event()

    async def body(do: Do, _: Attempt) -> str | None:
        ran.append(do.key.name)
        if do.key.name == "long":
            await gate.wait()
        return json.dumps(f"{do.key.name} {ran.count(do.key.name)}")

    def script(run: RunContext) -> Steps:
        messages = yield [step("long"), step("short")]
        while len(messages) < 2:
            messages = messages + (yield [])
        messages = messages + (yield [step("last")])
        return json.dumps(sorted(json.loads(m.value) for m in messages))

    await engine.define("w", script, body)
    await engine.worker()
    key = await engine.create("w")
    await engine.written(key, Kind.STEP_COMPLETED, 1)
    gate.set()
    await engine.until(key, Status.COMPLETE)
    started = {r["name"]: r["seq"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED}
    assert started["long"] < started["short"]
    await engine.client.restart(engine.account, key, from_seq=started["short"])
    await engine.eventually(lambda: len(ran) == 5)
    row = await engine.until(key, Status.COMPLETE)
    assert ran == ["long", "short", "last", "short", "last"]
    assert json.loads(row["output"]) == ["last 2", "long 1", "short 2"]


async def test_a_restart_from_a_step_stays_on_its_version_and_a_full_one_moves_on(engine: Engine) -> None:
    await engine.define("w", one_step)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE)

    async def newer(_: Do, __: Attempt) -> str | None:
        return '"newer"'

    await engine.define("w", one_step, newer)
    start = next(r["seq"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED)
    await engine.client.restart(engine.account, key, from_seq=start)
    await engine.written(key, Kind.COMPLETED, 2)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"done"'
    await engine.client.restart(engine.account, key)
    await engine.written(key, Kind.COMPLETED, 3)
    assert (await engine.until(key, Status.COMPLETE))["output"] == '"newer"'


async def test_a_run_restarted_from_a_step_is_compensated_for_what_it_keeps(engine: Engine) -> None:
    """Asked to roll back before it is claimed again: it has not started anew, but what it keeps did run."""
    from instances.runtimes.protocol import EndRollback, RollbackRequested, StepKey, StepKind

    undone: list[str] = []

    async def body(do: Do, _: Attempt) -> str | None:
        if do.key.kind is StepKind.ROLLBACK:
            undone.append(do.key.name)
        return None

    def script(run: RunContext) -> Steps:
        done: list[str] = []
        for name in ("a", "b"):
            messages = yield [step(name)]
            for message in messages:
                if isinstance(message, RollbackRequested):
                    for other in reversed(done):
                        yield [Do(StepKey(StepKind.ROLLBACK, other), config='{"config":{}}')]
                    yield [EndRollback(True)]
                done.append(name)
        return "1"

    await engine.define("w", script, body)
    worker = await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.COMPLETE)
    await worker.drain(0)
    b = next(r["seq"] for r in await engine.journal(key) if r["kind"] == Kind.STEP_STARTED and r["name"] == "b")
    await engine.client.restart(engine.account, key, from_seq=b)
    assert (await engine.client.terminate(engine.account, key, rollback=True)).status is Status.ROLLING_BACK
    await engine.worker()
    await engine.until(key, Status.TERMINATED)
    assert undone == ["a"]


async def test_a_replay_reads_results_and_not_logs_events_or_old_lives(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await puppet.flush(row, entries=50)
    for _ in range(5):
        await engine.client.send_event(engine.account, key, "t", None)
    read = await store.journals(puppet.connection, [(engine.account, key, row["live_from"])])
    assert read == {(engine.account, key): []}
    assert fold([]).started_at is None


async def test_timers_of_a_life_go_on_in_the_next(engine: Engine) -> None:
    """A deadline is counted from the first life, a retry's wait from the failure."""

    def script(run: RunContext) -> Steps:
        yield [Timer("t", 10_000), nap("n", seconds=4)]
        [message] = yield []
        assert isinstance(message, TimerFired)
        return "1"

    await engine.define("w", script)
    await engine.worker()
    key = await engine.create("w")
    await engine.until(key, Status.WAITING)
    await engine.advance(4)
    await engine.written(key, Kind.SLEEP_COMPLETED)
    await engine.until(key, Status.WAITING)
    await engine.advance(5.5)
    await asyncio.sleep(0.05)
    assert not (await engine.status(key)).finished
    await engine.advance(0.5)
    await engine.until(key, Status.COMPLETE)
