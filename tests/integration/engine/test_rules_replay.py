"""A run opened again hears what it heard before, in the same order, at the same times; nothing runs twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from instances.engine import store
from instances.engine.requests import Repeat
from instances.engine.runs.recorded import Recorded, Resolution, fold
from instances.engine.runs.replay import Replay
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    Broken,
    Do,
    Done,
    Failure,
    Message,
    Retry,
    RunContext,
    Started,
    StepFailure,
    StepKey,
    StepKind,
    Timer,
    TimerFired,
)
from tests.support.engine import Engine, ScriptFailed, step
from tests.support.puppet import Puppet
from tests.support.scripts import Steps, nap, one_step, wait


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


class Retold:
    """Steps that end in one order, called in another: `b` once `a` is heard, `k` once `x` is."""

    ORDER = ("a", "b", "x", "k", "c", "r")

    def __init__(self) -> None:
        self.lives: list[list[Any]] = []
        self.fails = True
        self._ended: set[str] = set()

    async def body(self, do: Do, _: Attempt) -> str | None:
        """Ends when all that come before it have."""
        name = do.key.name
        before = set(self.ORDER[: self.ORDER.index(name)])
        while not before <= self._ended | {message.key.name for message in self.lives[-1]}:
            await asyncio.sleep(0.001)
        self._ended.add(name)
        return json.dumps(name)

    def again(self) -> None:
        """From here on it succeeds, and nothing has ended."""
        self.lives, self.fails, self._ended = [], False, set()

    def script(self, run: RunContext) -> Steps:
        self.lives.append(heard := [])
        calls = {"a": [step("b")], "x": [step("k")]}
        messages: list[Any] = yield [step("c"), step("a"), step("x"), step("r")]
        while len(heard) < len(self.ORDER):
            heard += messages
            called = [do for message in messages for do in calls.get(message.key.name, [])]
            if len(heard) < len(self.ORDER):
                messages = yield called
        if self.fails:
            raise ScriptFailed("once")
        yield [nap("n")]
        return "1"


async def test_every_life_of_a_retry_hears_what_was_taken_over_in_its_order(engine: Engine) -> None:
    """What another instance left is heard as soon as it is called, the earliest first, also when it was called later;
    and at the same place between the results of this one's own steps in every life.
    """
    told = Retold()
    await engine.define("w", told.script, told.body)
    await engine.worker()
    origin = await engine.create("w")
    row = await engine.until(origin, Status.ERRORED)
    assert [message.key.name for message in told.lives[0]] == list(told.ORDER)
    told.again()
    steps = (Kind.STEP_STARTED, Kind.STEP_COMPLETED)
    kept = [
        entry["seq"]
        for entry in await engine.journal(origin)
        if entry["kind"] in steps and entry["name"] not in ("x", "r")
    ]
    wanted = Repeat(
        account_id=engine.account,
        origin=origin,
        run=row["run"],
        seq=row["seq"],
        key=engine.ids.uuid7(),
        from_step="x",
        detail=None,
        triggered_by=None,
        kept=kept,
    )
    assert isinstance(await engine.client.retry(wanted), int)
    await engine.until(wanted.key, Status.WAITING)
    await engine.advance(61)
    await engine.until(wanted.key, Status.COMPLETE)
    first, second = told.lives
    assert [message.key.name for message in first] == ["a", "b", "c", "x", "k", "r"]
    assert second == first


def test_a_session_that_replays_by_itself_gets_what_was_taken_over_first() -> None:
    """All at once, in the order of the journal: what was taken over has been there before anything else happened."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    done = [Done(StepKey(StepKind.DO, name), None, at) for name in "abcd"]
    past = Recorded(resolutions=[Resolution(7 + n, one.key, one) for n, one in enumerate(done[2:])])
    past.copied = {one.key: one for one in done[:2]}
    replay = Replay(past)
    assert replay.all_messages() == done
    assert not replay.has_copies and not any(replay.calls(one.key) for one in done)


async def test_the_first_message_is_the_time_of_the_start_in_every_life(engine: Engine) -> None:
    started: list[Started] = []
    from tests.support import engine as harness

    class Session(harness._Session):
        async def turn(self, messages: Sequence[Message]) -> Any:
            started.extend(m for m in messages if isinstance(m, Started))
            return await super().turn(messages)

    class Program(harness._Program):
        async def start(self, run: RunContext, wake: Any) -> Session:
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


async def test_a_replay_reads_results_and_not_logs_events_or_old_lives(engine: Engine, puppet: Puppet) -> None:
    await engine.define("w", one_step)
    key = await engine.create("w")
    row = await puppet.claim_one()
    await puppet.flush(row, entries=50)
    for _ in range(5):
        await engine.client.send_event(engine.account, key, "t", None)
    read = await store.journals(puppet.connection, [(engine.account, key, row["live_from"])])
    [[lines]] = read.values()
    assert (lines["kind"], len(lines["payload"].split(","))) == (Kind.LOG, 50)
    assert fold([lines]).started_at is None
