"""Random lives of instances on the real engine, against the tables of `instances.lifecycle`.

Once with workers played by hand, where every status is known; once with real workers, commands and events coming
whenever they come.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instances.engine.journal_writer import Next
from instances.engine.requests import SendEvent
from instances.lifecycle import COMMANDS, MOVES, NEVER_STARTED, Command, Control, Kind, Move, Status, effect
from instances.runtimes.protocol import EndRollback, RollbackRequested, RunContext, Sleep, StepKey, StepKind, Wait
from tests.support.databases import Databases
from tests.support.engine import Engine, step
from tests.support.lifecycle import NEVER_RUN, Subject, counters_are_right, engine_of_a_module
from tests.support.puppet import Puppet

DAYS = 864_000_000
NEXTS = {
    Move.PARK: Next.PARK,
    Move.SETTLE_PAUSE: Next.SETTLE_PAUSE,
    Move.ROLL_BACK: Next.ROLL_BACK,
    Move.RELEASE: Next.RELEASE,
    Move.COMPLETE: Next.COMPLETE,
    Move.FAIL: Next.ERRORED,
    Move.STOP: Next.TERMINATED,
}
INSTANCES = 3
bounded = settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
async def shared(databases: Databases) -> AsyncIterator[Engine]:
    async with engine_of_a_module(databases) as engine:
        await engine.define("by hand", NEVER_RUN, runtime=1)
        await engine.define("consumer", consumer)
        yield engine


@pytest.fixture(scope="module")
async def puppets(shared: Engine) -> tuple[Puppet, Puppet]:
    return await Puppet.enter(shared), await Puppet.enter(shared)


# --- workers played by hand --------------------------------------------------------------------------------------


class Expected:
    """What the tables say about one instance after everything that happened to it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.status: Status | None = Status.QUEUED
        self.place = "queue"
        self.started = False
        self.ends_terminated = False
        self.fenced = False
        """Whether what its last holder writes must be turned down. One that parked it may, until the next claim."""
        self.run = 1
        self.entries = [(Kind.QUEUED, 1)]

    def command(self, command: Command) -> tuple[Control, Status | None]:
        if self.status is None:
            return Control.NOT_LIVE, None
        done = effect(command, self.status, started=self.started)
        if done.outcome is not Control.DONE:
            return done.outcome, None if done.outcome is Control.NOT_LIVE else done.status
        if done.status is Status.ROLLING_BACK:
            self.ends_terminated = True
            self.place = "held" if self.place == "held" else "queue"
        elif done.status is Status.QUEUED:
            self.place = "queue"
        elif done.status is Status.PAUSED or done.status is None or done.status.finished:
            self.place = "aside"
        if command is Command.RESTART:
            self.started = self.ends_terminated = False
            self.fenced = True
            self.run += 1
        elif command is Command.REOPEN:
            self.fenced = True
        self._to(done.status, done.entry)
        return done.outcome, done.status

    def move(self, move: Move) -> bool:
        """Whether it takes place."""
        if self.status is None or self.status not in MOVES[move]:
            return False
        ends_rollback = self.status is Status.ROLLING_BACK and move in (Move.FAIL, Move.STOP)
        if ends_rollback and self.ends_terminated != (move is Move.STOP):
            return False
        done = MOVES[move][self.status]
        if move is Move.CLAIM:
            self.place, self.started, self.fenced = "held", True, False
        elif move is Move.PARK:
            self.place = "parked"
        elif done.status in (Status.QUEUED, Status.ROLLING_BACK):
            self.place = self.place if move is Move.ROLL_BACK else "queue"
        else:
            self.place = "aside"
        if move in (Move.RELEASE, Move.TAKE_OVER, Move.SETTLE_PAUSE):
            self.fenced = True
        self._to(done.status, done.entry)
        return True

    def event(self, type: str) -> bool:
        """Whether it is stored."""
        if self.status is None or self.status.finished:
            return False
        self.entries.append((Kind.EVENT_RECEIVED, self.run))
        if type == "go" and self.place == "parked":
            self.move(Move.WAKE)
        return True

    def _to(self, status: Status | None, entry: Kind | None) -> None:
        self.status = status
        self.fenced = self.fenced or status is None or status.finished
        if status is None:
            self.entries = []
        elif entry is not None:
            self.entries.append((entry, self.run))

    async def holds(self) -> None:
        assert await self.subject.status() is self.status
        journal = await self.subject.engine.journal(self.subject.key)
        assert [(Kind(row["kind"]), row["run"]) for row in journal] == self.entries
        assert [row["seq"] for row in journal] == list(range(1, len(journal) + 1))


which = st.integers(0, INSTANCES - 1)
happenings = st.one_of(
    st.tuples(st.just("command"), which, st.sampled_from(Command)),
    st.tuples(st.just("move"), which, st.sampled_from(list(NEXTS))),
    st.tuples(st.just("event"), which, st.sampled_from(["go", "other"])),
    st.tuples(st.just("claim"), st.just(0), st.none()),
    st.tuples(st.sampled_from(["claim", "time", "death"]), st.just(0), st.none()),
)


@bounded
@given(lives=st.lists(happenings, min_size=20, max_size=40))
async def test_every_step_of_a_life_is_in_the_tables(
    shared: Engine, puppets: tuple[Puppet, Puppet], lives: list[tuple[str, int, Any]]
) -> None:
    worker, survivor = puppets
    all_ = [Expected(await Subject.create(shared, worker, "by hand")) for _ in range(INSTANCES)]
    try:
        for name, number, what in lives:
            await happen(all_, survivor, name, all_[number], what)
            for expected in all_:
                await expected.holds()
        await counters_are_right(shared)
    finally:  # the next example finds nothing of this one, failed or not
        await shared.client.delete(shared.account, [expected.subject.key for expected in all_])
    await counters_are_right(shared)


async def happen(all_: list[Expected], survivor: Puppet, name: str, one: Expected, what: Any) -> None:
    subject = one.subject
    engine, worker = subject.engine, subject.worker
    match name:
        case "command":
            answer = await subject.command(what)
            assert (answer.outcome, answer.status) == one.command(what)
        case "move" if one.place == "held":
            rolling_back_again = what is Move.ROLL_BACK and one.status is Status.ROLLING_BACK
            assert (await subject.flush(NEXTS[what])).done == (one.move(what) or rolling_back_again)
        case "move" if one.fenced and subject.row is not None:
            assert not (await subject.flush(NEXTS[what])).accepted
        case "event":
            stored = await engine.client.send_event(engine.account, subject.key, what, "1")
            assert stored is (SendEvent.STORED if one.event(what) else SendEvent.NOT_LIVE)
        case "claim":
            claimed = {row["key"]: row for row in await worker.claim(runtimes=(1,))}
            due = [each for each in all_ if each.place == "queue"]
            assert set(claimed) == {each.subject.key for each in due}
            for each in due:
                assert each.move(Move.CLAIM)
                each.subject.row = claimed[each.subject.key]
        case "time":
            await engine.advance(101 * 86_400)
            await survivor.claim(runtimes=())  # looks at the timers, takes nothing
            for each in all_:
                if each.place == "parked":
                    each.move(Move.WAKE)
        case "death":
            await engine.admin.execute("delete from worker where id = $1", worker.worker_id)
            held = [each for each in all_ if each.place == "held"]
            assert {key for _, key in await survivor.take_over()} == {each.subject.key for each in held}
            for each in held:
                assert each.move(Move.TAKE_OVER)
        case _:
            pass


# --- real workers ------------------------------------------------------------------------------------------------


def consumer(run: RunContext) -> Generator[list[Any], list[Any], str | None]:
    """Reads events of one type for ever, with a step or a nap after each."""
    n = 0
    while True:
        n += 1
        nap = Sleep(StepKey(StepKind.SLEEP, "nap", n), duration=60_000)
        for command in (Wait(StepKey(StepKind.WAIT, "wait", n), "go", DAYS), nap if n % 3 == 0 else step("work", n)):
            messages = yield [command]
            if any(isinstance(message, RollbackRequested) for message in messages):
                yield [EndRollback(True)]
                return None


def reachable(status: Status) -> set[Status]:
    """Where the engine may bring an instance by itself."""
    found, more = set(), {status}
    while more:
        one = more.pop()
        found.add(one)
        more |= {e.status for effects in MOVES.values() if (e := effects.get(one)) and e.status is not None} - found
    return found


def answers(command: Command, status: Status) -> set[tuple[Control, Status | None]]:
    """What may be answered when the instance was last seen in `status`."""
    effects = [
        table[s]
        for s in reachable(status)
        for table in (COMMANDS[command], NEVER_STARTED.get(command, {}))
        if s in table
    ]
    return {(e.outcome, None if e.outcome is Control.NOT_LIVE else e.status) for e in effects}


@dataclass
class Seen:
    """An instance, and the last status anybody was told."""

    subject: Subject
    status: Status | None = Status.QUEUED
    sent: int = field(default=0)

    async def look(self) -> None:
        now = await self.subject.status()
        if self.status is None:
            assert now is None
        else:
            assert now in reachable(self.status)
            self.status = now

    async def command(self, command: Command) -> None:
        answer = await self.subject.command(command)
        if self.status is None:
            assert (answer.outcome, answer.status) == (Control.NOT_LIVE, None)
            return
        assert (answer.outcome, answer.status) in answers(command, self.status)
        if answer.outcome is Control.DONE:
            self.status = answer.status

    async def event(self) -> None:
        self.sent += 1
        text = str(self.sent)
        engine = self.subject.engine
        stored = await engine.client.send_event(engine.account, self.subject.key, "go", text, dedupe=text)
        over = self.status is None or self.status.finished
        assert stored in ((SendEvent.NOT_LIVE,) if over else (SendEvent.STORED, SendEvent.NOT_LIVE))


async def events_are_read_once(engine: Engine, key: UUID) -> None:
    """In each run: what was read is what came, in order; what was not is still there while the run lives."""
    journal = await engine.journal(key)
    unread = await engine.admin.fetch("select payload from inbox where key = $1 order by no", key)
    assert [row["seq"] for row in journal] == list(range(1, len(journal) + 1))
    for run in {row["run"] for row in journal}:
        of_run = [row for row in journal if row["run"] == run]
        came = [row["payload"] for row in of_run if row["kind"] == Kind.EVENT_RECEIVED]
        read = [str(json.loads(row["payload"])["payload"]) for row in of_run if row["kind"] == Kind.WAIT_COMPLETED]
        assert came[: len(read)] == read
        if run == journal[-1]["run"] and await engine.live(key):
            assert came[len(read) :] == [row["payload"] for row in unread]


deeds = st.one_of(
    st.tuples(st.just("command"), which, st.sampled_from([*Command, Command.PAUSE, Command.RESUME])),
    st.tuples(st.just("event"), which, st.none()),
    st.tuples(st.just("event"), which, st.none()),
    st.tuples(st.sampled_from(["wait", "time", "crash", "drain"]), st.just(0), st.none()),
)


@settings(bounded, max_examples=15)
@given(doings=st.lists(deeds, min_size=8, max_size=30))
async def test_no_event_is_lost_or_read_twice(
    shared: Engine, puppets: tuple[Puppet, Puppet], doings: list[tuple[str, int, Any]]
) -> None:
    hand = puppets[0]  # holds nothing here
    await shared.worker()
    all_ = [Seen(Subject(shared, hand, key)) for key in await shared.create_many("consumer", INSTANCES)]
    try:
        for name, number, what in doings:
            await do(shared, name, all_[number], what)
            for seen in all_:
                await seen.look()
        await come_to_rest(shared, all_)
        for seen in all_:
            await events_are_read_once(shared, seen.subject.key)
        await counters_are_right(shared)
    finally:
        await dismiss_worker(shared, gently=True)
        await shared.client.delete(shared.account, [seen.subject.key for seen in all_])


async def do(engine: Engine, name: str, one: Seen, what: Any) -> None:
    match name:
        case "command":
            await one.command(what)
        case "event":
            await one.event()
        case "wait":
            await asyncio.sleep(0.01)
        case "time":
            await engine.advance(61)
        case _:
            await dismiss_worker(engine, gently=name == "drain")
            await engine.worker()


async def dismiss_worker(engine: Engine, *, gently: bool) -> None:
    worker = engine.workers.pop()
    engine.bell.workers.remove(worker)
    if gently:
        await worker.drain(0)
    await worker.stop()


async def come_to_rest(engine: Engine, all_: list[Seen]) -> None:
    """Nobody is paused, and whoever lives has read all its events."""

    async def still() -> bool:
        return not await engine.admin.fetchval("select exists (select from live where phase in (0, 1))")

    for seen in all_:
        await seen.command(Command.RESUME)
    await engine.eventually(still)
    for seen in all_:
        await seen.command(Command.RESUME)  # a pause may have settled just then
    await engine.eventually(still)
    while await engine.admin.fetchval("select exists (select from inbox)"):
        await engine.advance(61)
        await engine.eventually(still)
    for seen in all_:
        await seen.look()
