"""The loop of one run: turns of its session, commits between them, rest when nothing moves.

A turn gives the session messages and carries out the commands it answers with. Messages are first the results the
journal has recorded, then live ones, each after the commit of its entry: both in the order of the journal. When nothing
moves, the run stays in memory while attempts are in flight or something is due at once; else it settles a pause, is
released, or parks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from instances.engine.group_commit import Unstorable
from instances.engine.journal_writer import Next
from instances.engine.runs.clock import RunClock, millis, moment
from instances.engine.runs.control import Control
from instances.engine.runs.endings import DEADLY, POISON, STUCK, UNSTORABLE, RunFailed, RunLost
from instances.engine.runs.failures import encode_failure
from instances.engine.runs.held import Held
from instances.engine.runs.host import Host
from instances.engine.runs.inbox import Fact, Inbox
from instances.engine.runs.notes import Notes
from instances.engine.runs.recorded import Recorded
from instances.engine.runs.replay import Replay
from instances.engine.runs.state import RunState
from instances.engine.runs.steps import Steps
from instances.engine.runs.suspicion import Suspicion
from instances.engine.runs.unit_of_work import UnitOfWork
from instances.engine.runs.usage import Usage
from instances.engine.runs.waits import Waits
from instances.lifecycle import Kind, Want
from instances.runtimes.protocol import (
    MAX_DEATHS,
    BeginRollback,
    Cancel,
    CancelTimer,
    CommandMessage,
    Do,
    EndRollback,
    Fail,
    Failure,
    Finish,
    Log,
    Message,
    Program,
    Record,
    RunContext,
    SessionLost,
    Sleep,
    Started,
    Timer,
    Wait,
)

log = structlog.get_logger(__name__)

MOMENT = 0.01
"""Seconds for which the record of a start waits for the end of what it started, to be committed with it."""
GRACE_MS = 200
"""A run that is due again this soon stays in memory, unless others wait for its slot."""
DEATH_NOTE = "sandbox-died"
"""Name of the record that a sandbox died on the run's code outside steps."""


class Run:
    """A run held by this worker."""

    def __init__(self, host: Host, held: Held, past: Recorded, facts: list[Fact]) -> None:
        self.held = held
        self._host = host
        self._past = past
        clock = RunClock(host.clock, max(held.claimed_at, past.last_at or held.claimed_at))
        usage = Usage(held.context, past.stored, past.streamed)
        work = UnitOfWork(held, clock, usage, host.writer, host.sweep)
        state = RunState(held, past, Replay(past), clock, usage, work, Inbox(facts))
        self._state = state
        self._clock, self._work, self._replay = clock, work, state.replay
        self._control = Control(held.want, past, clock, work)
        self._notes = Notes(past, work)
        self._suspicion = Suspicion(held, past, work, host.suspects)
        self._waits = Waits(state)
        self._steps = Steps(state, self._control, self._notes, host)
        self._outside_changed = False
        """The inbox must be read again."""
        self._looked_at = millis(held.claimed_at)
        """The inbox has been read since."""
        self._session_calls = False
        """The session has commands although no message came."""
        self._gathered = False
        """What was written has waited for more."""

    # --- what the worker tells it --------------------------------------------------------------------------------

    @property
    def signal(self) -> int:
        """The last one it knows."""
        return self._work.signal

    def poke(self) -> None:
        """Something happened in memory, or the time has come: look."""
        self._state.mail.set()

    def look(self) -> None:
        """Something happened outside: read the inbox and the wishes again."""
        self._outside_changed = True
        self.poke()

    def lose(self) -> None:
        """Another worker owns the run: stop at once."""
        self._work.fenced = True
        self._steps.drop()
        self.poke()

    def release(self, *, now: bool) -> None:
        """The worker is leaving: start nothing new; `now`: do not wait for attempts in flight either."""
        self._control.release(hurry=now)
        self.poke()

    # --- the loop ------------------------------------------------------------------------------------------------

    async def drive(self, program: Program) -> None:
        """Drive until the run parks, ends, is released or lost."""
        try:
            if self._suspicion.proved:
                await self._give_up(POISON)
                return
            await self._suspicion.stand_alone(self._commit)
            for pieces in self._past.litter:
                self._host.sweep(self.held.context.account_id, self.held.context.key, pieces)
            try:
                self._state.session = await program.start(self._context(), self._called_by_session)
            except SessionLost as lost:
                log.warning("a run cannot be opened now", reason=str(lost), **self.held.log_fields)
                self._suspicion.clear()
                if self._work:
                    await self._commit()
                await self._host.refuse(self.held)
                return
            try:
                await self._loop()
            except SessionLost as lost:
                await self._let_go(lost)
            except Unstorable:
                await self._give_up(UNSTORABLE)
            except asyncio.CancelledError:
                self._work.fenced = True  # the worker stops: nothing more is written
                raise
            finally:
                self._steps.drop()
                self._state.close()
                with contextlib.suppress(Exception):
                    await self._state.session.close()
        except RunLost:
            self._work.fenced = True
        finally:
            self._suspicion.leave()

    def _context(self) -> RunContext:
        """What the session is told of the run."""
        requests = self._past.requests
        return replace(self.held.context, requests=requests) if requests else self.held.context

    async def _loop(self) -> None:
        messages = self._first_messages()
        while not self._work.fenced:
            if self._state.session_lost is not None:
                raise self._state.session_lost
            if messages or self._session_calls:
                await self._turn(messages)
            messages = self._next_recorded()
            if messages or self._session_calls:
                continue
            await self._heed()
            self._suspicion.clear()
            if self._control.final is not None and not self._steps.aside:
                if await self._end():
                    return
                messages = self._work.deliveries()
            elif self._work:
                if self._gathered or self._work.urgent or not self._steps.running:
                    await self._commit(self._control.transition())
                    messages = self._work.deliveries()
                else:
                    await self._gather()
            elif not await self._moves() and await self._rest():
                return

    def _first_messages(self) -> list[Message]:
        """Every life of a run begins with the time of its start."""
        started_at = self._past.started_at
        if started_at is None:
            started_at = self._clock.now()
            self._work.write(Kind.STARTED)
        messages: list[Message] = [Started(started_at)]
        if self._state.session.takes_past:
            messages += self._replay.all_messages()
        return messages

    async def _turn(self, messages: list[Message]) -> None:
        """Give the session messages, in an order that does not depend on how they came together."""
        rest = messages
        while rest and self._replay.has_copies:
            await self._give(rest[:1])
            rest = rest[1:]
            while given := self._replay.given():
                await self._give(given)
        if rest or not messages:
            await self._give(rest)
        while given := self._replay.given():
            await self._give(given)

    async def _give(self, messages: list[Message]) -> None:
        """Give the session messages, and carry out what it answers."""
        self._session_calls = False
        self._state.breath.begin()
        commands = await self._state.session.turn(messages)
        await self._state.breathe()
        for command in commands:
            try:
                _CARRY_OUT[type(command)](self, command)
            except RunFailed as error:
                self._fail(error.failure)
            await self._state.breathe()

    def _called_by_session(self) -> None:
        self._session_calls = True
        self.poke()

    def _next_recorded(self) -> list[Message]:
        try:
            return self._replay.next_messages(over=self._control.final is not None)
        except RunFailed as error:
            self._fail(error.failure)
            return []

    def _cancel(self, command: Cancel) -> None:
        told = encode_failure(command.failure, timed_out=command.timed_out, cancelled=True)
        if not self._waits.cancel(command.key, told):
            self._steps.cancel(command.key, told)

    async def _heed(self) -> None:
        """Act on what commands from outside want."""
        control, steps = self._control, self._steps
        if control.want is not Want.NOTHING:
            if control.request_rollback():
                steps.held_back.clear()
            control.request_stop()
        if steps.held_back and not control.held_back:
            await steps.begin_held_back()

    async def _moves(self) -> bool:
        """Match outside facts, else fire timers; whether anything was written."""
        if self._control.held_back:
            return False
        if self._state.inbox:
            self._steps.match()
            await self._waits.match()
        timetable = self._state.timetable
        fires = not self._work and timetable.next_due() is not None
        if fires and not timetable.fire_due(self._clock.millis(), self._looked_at):
            self._outside_changed = True  # what is stored before a deadline wins, whether or not the run was told of it
        return bool(self._work)

    # --- at rest -------------------------------------------------------------------------------------------------

    async def _rest(self) -> bool:
        """Nothing moves: wait in memory, or leave it. True when the run has left."""
        control, steps = self._control, self._steps
        if self._outside_changed:
            await self._refresh()
            return False
        if control.lets_go(steps.running):
            steps.interrupt()
            await self._commit(Next.RELEASE)
            return True
        due = None if control.held_back else self._state.timetable.next_due()
        if steps.running:
            await self._nap(due)
            return False
        if control.pausing:
            return await self._commit(Next.SETTLE_PAUSE)
        if self._state.session.busy:
            await self._nap(due)
            return False
        return await self._park(due)

    async def _park(self, due: int | None) -> bool:
        """Leave memory until `due` or until something awaited happens; stay a little if that is worth it."""
        awaits = self._waits.awaited() + self._steps.awaited()
        if due is None and not awaits:
            self._fail(STUCK)
            return False
        awaits += self._steps.retriable()
        if due is None:
            return await self._commit(Next.PARK, awaits=awaits)
        if due - self._clock.millis() <= GRACE_MS and not self._host.crowded:
            await self._nap(due)
            return False
        return await self._commit(Next.PARK, due=moment(due), awaits=awaits)

    async def _nap(self, due: int | None) -> None:
        """Wait in memory for mail or the next timer."""
        state = self._state
        state.mail.clear()
        if self._outside_changed or self._work.fenced or self._session_calls or state.session_lost is not None:
            return
        if due is None:
            await state.mail.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (due - self._clock.millis()) / 1000)):
                await state.mail.wait()

    async def _gather(self) -> None:
        """Nobody waits for the next commit, and attempts are in flight: if one ends at once, that goes with it."""
        self._gathered = True
        state = self._state
        state.mail.clear()
        if self._session_calls or state.session_lost is not None:
            return
        timer = asyncio.get_running_loop().call_later(MOMENT, state.mail.set)
        await state.mail.wait()
        timer.cancel()

    async def _refresh(self) -> None:
        """Read what outside has to say: the wishes with an empty commit, then the inbox."""
        self._outside_changed = False
        now = self._clock.millis()
        await self._commit()
        context = self.held.context
        self._state.inbox.refresh(await self._host.read_inbox(context.account_id, context.key))
        self._looked_at = now

    # --- commits, and the end ------------------------------------------------------------------------------------

    async def _commit(self, next: Next = Next.KEEP, **fields: Any) -> bool:
        """Commit what was written; whether the transition asked for took place. Raises :class:`RunLost`."""
        self._gathered = False
        seen = self._work.signal
        answer = await self._work.commit(next, **fields)
        if answer.signal != seen:
            self._outside_changed = True
        self._control.hear(answer.want)
        return answer.done

    async def _end(self) -> bool:
        """The session is through: end the instance. False when a command came first."""
        self._steps.drop()
        next, body = self._control.ending()
        return await self._commit(next, body=body, rollback=self._control.rollback)

    async def _give_up(self, failure: Failure) -> None:
        """End the run without asking its session; what it has not committed is dropped."""
        self._fail(failure)
        self._work.discard()
        while not await self._end():
            pass

    async def _let_go(self, lost: SessionLost) -> None:
        """The session is gone, the journal is not: the run is released, and opened anew by whoever claims it."""
        step = lost.step
        log.warning("a session was lost", reason=str(lost), step=step and step.counted, **self.held.log_fields)
        self._work.tell_nobody()
        self._suspicion.clear()
        if step is not None:
            self._steps.die(step, lost.failure, str(lost))
        elif lost.blame:
            deaths = self._notes.count(Kind.NOTE, DEATH_NOTE) + 1
            failure = lost.failure or (DEADLY if deaths >= MAX_DEATHS else None)
            if failure is not None:
                await self._give_up(failure)
                return
            self._notes.record(Record(Kind.NOTE, DEATH_NOTE, deaths))
        self._steps.interrupt()
        self._steps.drop()
        await self._commit(Next.RELEASE)
        self._host.wake()

    def _fail(self, failure: Failure) -> None:
        """The run cannot go on, and nobody can catch it."""
        self._steps.drop()
        self._replay.stop()
        self._control.final = Fail(failure)


_CARRY_OUT: dict[type[CommandMessage], Callable[[Run, Any], None]] = {
    Do: lambda run, command: run._steps.do(command),
    Sleep: lambda run, command: run._waits.sleep(command),
    Wait: lambda run, command: run._waits.wait(command),
    Timer: lambda run, command: run._waits.set_timer(command),
    CancelTimer: lambda run, command: run._waits.cancel_timer(command),
    Cancel: Run._cancel,
    Record: lambda run, command: run._notes.record(command),
    Log: lambda run, command: run._notes.say(command),
    BeginRollback: lambda run, command: run._control.begin_rollback(command),
    EndRollback: lambda run, command: run._control.end_rollback(command),
    Finish: lambda run, command: run._control.end(command),
    Fail: lambda run, command: run._control.end(command),
}
