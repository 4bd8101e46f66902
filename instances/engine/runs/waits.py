"""Sleeps, waits for events and timers of a run: begun once, kept by the journal, ended by time or by an event.

When they are due is written down as they begin. A later life of the run reads it there, moved by the pauses since.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import msgspec

from instances.engine.runs.clock import millis, moment
from instances.engine.runs.failures import encode_failure, failure_from_outside
from instances.engine.runs.inbox import Fact
from instances.engine.runs.state import RunState
from instances.facts import fails_wait
from instances.lifecycle import Kind
from instances.projections.values import plain
from instances.runtimes.protocol import (
    Broken,
    CancelTimer,
    Done,
    Failure,
    Raw,
    Sleep,
    StepFailure,
    StepKey,
    Timer,
    TimerFired,
    Wait,
)
from instances.step_entries import made_into
from tenants.clock import iso


@dataclass(frozen=True, slots=True)
class _OpenSleep:
    sleep: Sleep
    started_at: datetime


@dataclass(slots=True)
class _OpenWait:
    wait: Wait
    due: int
    started_at: datetime
    refused: set[int] = field(default_factory=set)
    """Events it has turned down: it would again."""


class Waits:
    """What one run waits for without running anything."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._past = state.past
        self._replay = state.replay
        self._clock = state.clock
        self._work = state.work
        self._inbox = state.inbox
        self._timetable = state.timetable
        self._sleeps: dict[StepKey, _OpenSleep] = {}
        self._waits: dict[StepKey, _OpenWait] = {}

    def awaited(self) -> list[str]:
        """Types of the events waited for."""
        return [type for key, open in self._waits.items() for type in (open.wait.type, fails_wait(key))]

    def cancel(self, key: StepKey, told: Raw) -> bool:
        """The session gives a sleep or a wait up: recorded as `told`, no message. False when it is not open."""
        if key in self._waits:
            self._close_wait(key)
            kind = Kind.WAIT_TIMED_OUT
        elif key in self._sleeps:
            del self._sleeps[key]
            self._timetable.clear(("sleep", key))
            kind = Kind.SLEEP_COMPLETED
        else:
            return False
        self._work.write(kind, key.name, key.count, None, told)
        return True

    # --- sleeps --------------------------------------------------------------------------------------------------

    def sleep(self, sleep: Sleep) -> None:
        key = sleep.key
        if not self._replay.calls(key, sleep.fingerprint):
            return
        past = self._past.open.pop(key, None)
        if past is None:
            since = self._clock.now()
            due = sleep.until if sleep.until is not None else millis(since) + (sleep.duration or 0)
            plan = _plan(due, sleep, absolute=sleep.until is not None)
            self._work.write(Kind.SLEEP_STARTED, key.name, key.count, None, plan, at=since)
        else:
            since, due = past.started_at, past.due or 0
            if not past.absolute:
                due = self._past.shifted(due, since)
        self._sleeps[key] = _OpenSleep(sleep, since)
        self._timetable.set(("sleep", key), due, partial(self._wake, key))

    def _wake(self, key: StepKey) -> None:
        open, now = self._sleeps.pop(key), self._clock.now()
        try:
            shape = open.sleep.shape
            value = None if shape is None else made_into(shape(open.started_at, now))
        except StepFailure as error:
            self._write_broken(Kind.SLEEP_COMPLETED, key, error.failure, open.started_at)
            return
        done = Done(key, value, now, started_at=open.started_at)
        self._work.write(Kind.SLEEP_COMPLETED, key.name, key.count, None, value, done)

    # --- waits for events ----------------------------------------------------------------------------------------

    def wait(self, wait: Wait) -> None:
        key = wait.key
        if not self._replay.calls(key, wait.fingerprint):
            return
        past = self._past.open.pop(key, None)
        if past is None:
            since = self._clock.now()
            due = millis(since) + wait.timeout
            plan = _plan(due, wait, type=wait.type)
            self._work.write(Kind.WAIT_STARTED, key.name, key.count, None, plan, at=since)
        else:
            since = past.started_at
            due = self._past.shifted(past.due or 0, since)
        self._waits[key] = _OpenWait(wait, due, since)
        self._timetable.set(("wait", key), due, partial(self._time_out, key), ends_a_wait=True)

    async def match(self) -> None:
        """Give unread events to the waits for them, the oldest wait first. Raises :class:`RunLost`."""
        self._state.breath.begin()
        for key, open in list(self._waits.items()):
            await self._state.breathe()
            told = self._inbox.take((fails_wait(key),))
            if told is not None:
                self._work.consume(told)
                self._break(key, failure_from_outside(told.payload))
                continue
            event = await self._acceptable(open)
            if event is not None:
                self._receive(key, open, event)

    async def _acceptable(self, open: _OpenWait) -> Fact | None:
        """The oldest event stored before the deadline that the wait does not turn down."""
        wait = open.wait
        for event in self._inbox.unread(wait.type, before=moment(open.due)):
            if event.no in open.refused:
                continue
            if wait.accepts is None or wait.accepts(event.payload):
                return event
            open.refused.add(event.no)
            await self._state.breathe()
        return None

    def _receive(self, key: StepKey, open: _OpenWait, event: Fact) -> None:
        self._inbox.remove(event)
        self._work.consume(event)
        self._close_wait(key)
        payload = event.payload if event.payload is not None else "null"
        tagged = payload[:1].isspace()  # a value JSON lacks, sent by a script: what holds it is tagged, too
        value = f'{" " * tagged}{{"payload":{payload},"timestamp":"{iso(event.at)}","type":"{open.wait.type}"}}'
        try:
            if open.wait.shape is not None:
                value = made_into(open.wait.shape(plain(payload)))
        except StepFailure as error:
            self._write_broken(Kind.WAIT_TIMED_OUT, key, error.failure, open.started_at)
            return
        done = Done(key, value, self._clock.now(), started_at=open.started_at)
        self._work.write(Kind.WAIT_COMPLETED, key.name, key.count, None, value, done)

    def _time_out(self, key: StepKey) -> None:
        open = self._waits.pop(key)
        message = f"Execution timed out after {open.wait.timeout}ms"
        failure = Failure("WorkflowTimeoutError", message, "EVENT_TIMEOUT")
        broken = Broken(key, failure, self._clock.now(), timed_out=True, started_at=open.started_at)
        payload = encode_failure(failure, timed_out=True)
        self._work.write(Kind.WAIT_TIMED_OUT, key.name, key.count, None, payload, broken)

    def _break(self, key: StepKey, failure: Failure) -> None:
        """Somebody outside says that what is waited for will not come."""
        open = self._waits[key]
        self._close_wait(key)
        self._write_broken(Kind.WAIT_TIMED_OUT, key, failure, open.started_at)

    def _write_broken(self, kind: Kind, key: StepKey, failure: Failure, started_at: datetime) -> None:
        failure = replace(failure, permanent=False)
        broken = Broken(key, failure, self._clock.now(), started_at=started_at)
        self._work.write(kind, key.name, key.count, None, encode_failure(failure), broken)

    def _close_wait(self, key: StepKey) -> None:
        del self._waits[key]
        self._timetable.clear(("wait", key))

    # --- timers --------------------------------------------------------------------------------------------------

    def set_timer(self, timer: Timer) -> None:
        if not self._replay.calls("timer:" + timer.id):
            return
        past = self._past.timers.pop(timer.id, None)
        if past is None:
            due = self._clock.millis() + timer.after
            self._work.write(Kind.TIMER_STARTED, timer.id, payload=f'{{"due":{due}}}')
        else:
            due = self._past.shifted(*past)
        self._timetable.set(("timer", timer.id), due, partial(self._fire, timer.id))

    def cancel_timer(self, command: CancelTimer) -> None:
        self._timetable.clear(("timer", command.id))

    def _fire(self, id: str) -> None:
        self._work.write(Kind.TIMER_FIRED, id, then=TimerFired(id, self._clock.now()))


def _plan(due: int, command: Sleep | Wait, *, absolute: bool = False, type: str | None = None) -> Raw:
    """What the entry of a beginning keeps for later lives."""
    plan: dict[str, object] = {"due": due}
    if command.nested:
        plan["nested"] = True
    if absolute:
        plan["absolute"] = True
    if type is not None:
        plan["type"] = type
    if command.items is not None:
        plan["items"] = command.items
    if command.fingerprint:
        plan["hash"] = command.fingerprint
    return msgspec.json.encode(plan).decode()
