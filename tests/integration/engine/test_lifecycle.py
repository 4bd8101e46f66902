"""Every command and every move in every status, on the SQL functions, against the tables of `instances.lifecycle`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from instances.engine.journal_writer import Next
from instances.engine.requests import SendEvent
from instances.lifecycle import MOVES, Command, Control, Effect, Kind, Move, Status, effect
from tests.support.databases import Databases
from tests.support.engine import Engine
from tests.support.lifecycle import (
    NEVER_RUN,
    SITUATIONS,
    Situation,
    Subject,
    counters_are_right,
    engine_of_a_module,
)
from tests.support.puppet import Puppet

HELD_STATUSES = (Status.RUNNING, Status.WAITING_FOR_PAUSE, Status.ROLLING_BACK)
BY_FLUSH = {
    Move.PARK: Next.PARK,
    Move.SETTLE_PAUSE: Next.SETTLE_PAUSE,
    Move.ROLL_BACK: Next.ROLL_BACK,
    Move.RELEASE: Next.RELEASE,
    Move.COMPLETE: Next.COMPLETE,
    Move.FAIL: Next.ERRORED,
    Move.STOP: Next.TERMINATED,
}
situations = pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.name)
held = pytest.mark.parametrize("situation", [s for s in SITUATIONS if s.held], ids=lambda each: each.name)


@pytest.fixture(scope="module")
async def shared(databases: Databases) -> AsyncIterator[Engine]:
    async with engine_of_a_module(databases) as engine:
        await engine.define("w", NEVER_RUN)
        yield engine


@pytest.fixture(scope="module")
async def worker(shared: Engine) -> Puppet:
    return await Puppet.enter(shared)


@pytest.fixture(scope="module")
async def survivor(shared: Engine) -> Puppet:
    return await Puppet.enter(shared)


@pytest.fixture
async def subject(shared: Engine, worker: Puppet, situation: Situation) -> AsyncIterator[Subject]:
    """An instance in that situation; the only one there is."""
    subject = await Subject.create(shared, worker, "w")
    await subject.go(situation.way)
    assert await subject.status() is situation.status
    yield subject
    await counters_are_right(shared)
    await shared.client.delete(shared.account, [subject.key])
    await counters_are_right(shared)


async def changed(subject: Subject, before: list[int], situation: Situation, expected: Effect | None) -> None:
    """The instance is as the table says: status, journal, numbering. None: nothing happened."""
    expected = expected or Effect(situation.status)
    assert await subject.status() is expected.status
    journal = await subject.engine.journal(subject.key)
    if expected.status is None:
        assert journal == []
        return
    assert [row["seq"] for row in journal] == list(range(1, len(journal) + 1))
    written = [Kind(row["kind"]) for row in journal[len(before) :]]
    assert written == ([] if expected.entry is None else [expected.entry])


@situations
@pytest.mark.parametrize("command", Command)
async def test_commands(subject: Subject, situation: Situation, command: Command) -> None:
    before = await subject.seqs()
    expected = effect(command, situation.status, started=situation.started)
    answer = await subject.command(command)
    assert answer.outcome is expected.outcome
    assert answer.status is (None if expected.outcome is Control.NOT_LIVE else expected.status)
    await changed(subject, before, situation, expected)
    if situation.held:
        assert (await subject.flush()).accepted == (expected.status in HELD_STATUSES)


@situations
async def test_a_restart_from_a_step_is_a_restart(subject: Subject, situation: Situation) -> None:
    before = await subject.seqs()
    answer = await subject.engine.client.restart(subject.engine.account, subject.key, from_seq=2)
    expected = effect(Command.RESTART, situation.status)
    assert answer.outcome is expected.outcome
    await changed(subject, before, situation, expected)


@situations
async def test_a_restart_of_a_run_that_is_over_is_refused(subject: Subject, situation: Situation) -> None:
    before = await subject.seqs()
    answer = await subject.engine.client.restart(subject.engine.account, subject.key, from_seq=2, expected_run=99)
    assert answer.outcome is Control.REFUSED
    await changed(subject, before, situation, None)


@situations
async def test_events_are_stored_until_the_end(subject: Subject, situation: Situation) -> None:
    stored = await subject.engine.client.send_event(subject.engine.account, subject.key, "another", None)
    assert stored is (SendEvent.NOT_LIVE if situation.status.finished else SendEvent.STORED)
    assert await subject.status() is situation.status


@held
@pytest.mark.parametrize("move", BY_FLUSH)
async def test_moves_of_the_holder(subject: Subject, situation: Situation, move: Move) -> None:
    before = await subject.seqs()
    expected = MOVES[move].get(situation.status)
    live = await subject.engine.live(subject.key)
    assert live is not None
    if situation.status is Status.ROLLING_BACK and move in (Move.FAIL, Move.STOP):
        # One of the two ends it: a rollback somebody asked for, or stopped, ends as terminated.
        expected = expected if (live["want"] >= 2) == (move is Move.STOP) else None
    answer = await subject.flush(BY_FLUSH[move])
    assert answer.accepted
    if expected is not None:
        assert answer.done
    await changed(subject, before, situation, expected)


@held
async def test_a_park_is_refused_while_there_is_something_unseen(subject: Subject, situation: Situation) -> None:
    before = await subject.seqs()
    answer = await subject.worker.flush(subject.row, Next.PARK, seen=-1)
    assert answer.accepted and not answer.done
    await changed(subject, before, situation, None)


@situations
async def test_claims(subject: Subject, situation: Situation) -> None:
    before = await subject.seqs()
    live = await subject.engine.live(subject.key)
    claimed = await subject.worker.claim()
    can = live is not None and live["phase"] == 0
    assert len(claimed) == can
    assert can == (situation.status is Status.QUEUED) or situation.status is Status.ROLLING_BACK
    await changed(subject, before, situation, MOVES[Move.CLAIM][situation.status] if can else None)


@situations
async def test_timers_wake(subject: Subject, situation: Situation) -> None:
    before = await subject.seqs()
    live = await subject.engine.live(subject.key)
    parked = live is not None and live["phase"] == 2
    if parked:
        await subject.engine.admin.execute("update live set ready_at = $1", subject.engine.clock.now())
    await subject.worker.claim(runtimes=())
    await changed(subject, before, situation, MOVES[Move.WAKE][situation.status] if parked else None)
    live = await subject.engine.live(subject.key)
    assert live is None or live["phase"] != 2


@situations
async def test_events_wake_what_awaits_them(subject: Subject, situation: Situation) -> None:
    live = await subject.engine.live(subject.key)
    parked = live is not None and live["phase"] == 2
    await subject.engine.client.send_event(subject.engine.account, subject.key, "go", None)
    woken = MOVES[Move.WAKE][situation.status].status if parked else situation.status
    assert await subject.status() is woken


@situations
async def test_take_over(subject: Subject, situation: Situation, shared: Engine, survivor: Puppet) -> None:
    before = await subject.seqs()
    await shared.admin.execute("delete from worker where id = $1", subject.worker.worker_id)  # its sign of death
    taken = await survivor.take_over()
    assert taken == ([(shared.account, subject.key)] if situation.held else [])
    await changed(subject, before, situation, MOVES[Move.TAKE_OVER][situation.status] if situation.held else None)


async def test_commands_to_an_instance_there_is_not(shared: Engine, worker: Puppet) -> None:
    subject = Subject(shared, worker, shared.ids.uuid7())
    for command in Command:
        answer = await subject.command(command)
        assert (answer.outcome, answer.status) == (Control.NOT_LIVE, None)
    assert await shared.client.send_event(shared.account, subject.key, "go", None) is SendEvent.NOT_LIVE
