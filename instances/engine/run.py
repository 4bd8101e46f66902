"""One run in memory: opened from its journal, driven by its session's commands, parked or ended.

The loop is the same for every runtime: hand recorded results over in journal order, then live ones after their commit;
commit what was written; match outside facts; fire timers; when nothing moves, rest: stay while attempts are in flight,
else settle a pause, release, or park.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from instances.engine import faults
from instances.engine.attempts import Attempts
from instances.engine.group_commit import Unstorable
from instances.engine.inbox import Fact, Inbox
from instances.engine.journal_writer import Entry, Flush, Flushed, Next
from instances.engine.replay import VALUES, Recorded, Resolution, encode_failure, size_of
from instances.engine.timetable import Timetable
from instances.lifecycle import Kind, Want
from instances.runtimes.protocol import (
    MAX_DEATHS,
    BeginRollback,
    Broken,
    Cancel,
    CancelTimer,
    CommandMessage,
    Do,
    Done,
    EndRollback,
    Fail,
    Failure,
    Finish,
    Log,
    Message,
    Program,
    Record,
    RollbackRequested,
    RunContext,
    Session,
    SessionLost,
    Sleep,
    Started,
    StepKey,
    StepKind,
    StopRollback,
    Timer,
    TimerFired,
    Wait,
)
from tenants.clock import iso

if TYPE_CHECKING:
    from instances.engine.worker import EngineWorker

log = structlog.get_logger(__name__)

GRACE_MS = 200
"""A run that is due again this soon stays in memory, unless others wait for its slot."""
MAX_TAKEOVERS = 3
"""A run that outlived this many workers without writing an entry is ended."""
BREATH = 0.02
"""Seconds for which a run may keep the worker's loop to itself."""
SLOW_TURN = 1.0
"""Seconds from which on keeping it is worth a line in the worker's log."""
MAX_LOG_LINES = 10_000
MAX_LOG_BYTES = 1 << 20

TERMINATED = Failure("Terminated", "Instance terminated during rollback")
POISON = Failure("WorkflowInternalError", "The instance ended three workers in a row and was stopped")
DEATH_NOTE = "sandbox-died"
"""Name of the record that a sandbox died on the run's code outside steps."""
DEADLY_RUN = Failure("WorkflowInternalError", f"The code outside steps ended {MAX_DEATHS} sandboxes and was stopped")
UNSTORABLE = Failure("WorkflowInternalError", "The run wrote something that cannot be stored")
STUCK = Failure("WorkflowInternalError", "The run has nothing left to wait for")


class RunLost(Exception):
    """The run belongs to somebody else now: stop, write nothing."""


@dataclass(slots=True)
class _Waiting:
    """An open event wait."""

    wait: Wait
    due: int
    started_at: datetime
    refused: set[int] = field(default_factory=set)
    """Facts it has turned down: it would again."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a claim told about a run."""

    context: RunContext
    epoch: int
    signal: int
    want: int
    takeovers: int
    parent_key: Any
    claimed_at: datetime
    runtime: str
    """Language, for metrics."""


class Run:
    """A run held by this worker."""

    def __init__(self, worker: EngineWorker, held: Held, past: Recorded, facts: list[Fact]) -> None:
        self.worker = worker
        self.context = held.context
        self.epoch = held.epoch
        self.runtime = held.runtime
        self.past = past
        self.timetable = Timetable()
        self.inbox = Inbox()
        self.inbox.refresh(facts)
        self.attempts = Attempts(self)
        self.lost = False
        self.session: Session
        self._held = held
        self._floor = max(held.claimed_at, past.last_at or held.claimed_at)
        self._recorded: deque[Resolution] = deque(past.resolutions)
        self._pending_ids = {r.id for r in past.resolutions}
        self._issued: set[StepKey | str] = {"rollback", "stop"}
        self._entries: list[Entry] = []
        self._after: list[Message | Callable[[], None]] = []
        self._ready: list[Message] = []
        self._consumed: list[int] = []
        self._waits: dict[StepKey, _Waiting] = {}
        self._sleeps: dict[StepKey, datetime] = {}
        """Open sleeps, and since when."""
        self._timers: set[str] = set()
        self._blocked: list[Do] = []
        self._final: Finish | Fail | None = None
        self._rollback: str | None = None
        self._rolling_back = past.rolling_back
        self._begin_rollback = False
        self._signal = held.signal
        self._want = Want(held.want)
        self._stale = False
        self._releasing = False
        self._forced = False
        self._ordinal = 0
        self._steps = 0
        self._stored = past.stored + size_of(held.context.input)
        self._requests = 0
        self._requested: set[StepKey] = set()
        """Recorded steps whose attempts were outgoing requests."""
        self._log_lines = 0
        self._log_bytes = 0
        self._known_lines = len(past.lines)
        """Log lines of the session that are in the journal already, and still to come again."""
        self._nested: list[Message] = []
        self._woken = False
        self._session_lost: SessionLost | None = None
        self._breath_ends = 0.0
        self._mail = asyncio.Event()
        self.ids = {
            "account": held.context.account_id.hex,
            "instance": held.context.instance_id,
            "run": held.context.run,
        }

    # --- what attempts and the worker call -----------------------------------------------------------------------

    def now(self) -> datetime:
        """The platform's time, never before anything this run has written or was woken for."""
        self._floor = max(self._floor, self.worker.clock.now())
        return self._floor

    @staticmethod
    def millis(moment: datetime) -> int:
        return int(moment.timestamp() * 1000)

    def write(
        self,
        kind: Kind,
        name: str | None = None,
        count: int | None = None,
        attempt: int | None = None,
        payload: str | None = None,
        then: Message | Callable[[], None] | None = None,
        at: datetime | None = None,
    ) -> None:
        """Add a journal entry to the next flush; `then` is delivered (or called) once it is committed.

        The entry's time is `at`, else the message's, so that a replay tells the session the very same, else now.
        """
        if at is None:
            at = self.now() if then is None or callable(then) else then.at
        if kind in VALUES:
            self._stored += size_of(payload)
        self._entries.append((int(kind), name, count, attempt, at, payload))
        if then is not None:
            self._after.append(then)

    def consume(self, fact: Fact) -> None:
        """The next flush deletes this inbox row."""
        self._consumed.append(fact.no)

    def log(self, level: str, message: str, step: str | None = None, data: str | None = None) -> None:
        """A log line of the instance, within the caps of a run; lines beyond them are dropped after a last word."""
        if self._log_lines > MAX_LOG_LINES or self._log_bytes > MAX_LOG_BYTES:
            return
        message = message.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        self._log_lines += 1
        self._log_bytes += len(message) + len(data or "")
        if self._log_lines > MAX_LOG_LINES or self._log_bytes > MAX_LOG_BYTES:
            level, message, data = "warn", "log limit reached: further lines of this run are dropped", None
        line = {"level": level, "message": message}
        if data is not None:
            line["data"] = msgspec.Raw(data.encode())  # type: ignore[assignment]
        self.write(Kind.LOG, step, payload=msgspec.json.encode(line).decode())

    def has_room(self, payload: str | None) -> bool:
        """Whether the instance may store this value, too."""
        limit = self.context.state_limit
        return limit is None or self._stored + size_of(payload) <= limit

    def may_request(self) -> bool:
        """Count an outgoing request, if the instance may make another one."""
        limit = self.context.request_limit
        if limit is not None and self._requests >= limit:
            return False
        self._requests += 1
        return True

    def poke(self) -> None:
        """Something happened in memory."""
        self._mail.set()

    def look(self) -> None:
        """Something happened outside: read the inbox and the wishes again."""
        self._stale = True
        self._mail.set()

    def lose(self) -> None:
        """Another worker owns the run: stop at once."""
        self.lost = True
        self.attempts.drop()
        self._mail.set()

    def release(self, *, now: bool) -> None:
        """The worker is leaving: start nothing new; `now`: do not wait for attempts in flight either."""
        self._releasing = True
        self._forced = self._forced or now
        self._mail.set()

    def _woken_by_session(self) -> None:
        """The session has commands although no message came."""
        self._woken = True
        self._mail.set()

    def lose_session(self, lost: SessionLost) -> None:
        """What the session ran in is gone."""
        self._session_lost = self._session_lost or lost
        self._mail.set()

    @property
    def signal(self) -> int:
        return self._signal

    # --- the loop ------------------------------------------------------------------------------------------------

    async def drive(self, program: Program) -> None:
        """Drive until the run parks, ends, is released or lost."""
        try:
            if self._held.takeovers >= MAX_TAKEOVERS:
                await self._give_up(POISON)
                return
            try:
                self.session = await program.start(self.context, self._woken_by_session)
            except SessionLost as lost:
                log.warning("a run cannot be opened now", reason=str(lost), **self.ids)
                await self.worker.refuse(self)
                return
            try:
                await self._loop()
            except SessionLost as lost:
                await self._let_go(lost)
            except Unstorable:
                await self._give_up(UNSTORABLE)
            finally:
                self.attempts.drop()
                with contextlib.suppress(Exception):
                    await self.session.close()
        except RunLost:
            self.lost = True

    async def _let_go(self, lost: SessionLost) -> None:
        """The session is gone, the journal is not: the run is released, and opened anew by whoever claims it."""
        log.warning("a session was lost", reason=str(lost), step=lost.step and lost.step.counted, **self.ids)
        self._after, self._ready = [], []
        if lost.step is not None:
            self.attempts.died(lost.step, lost.failure, str(lost))
        elif lost.blame:
            deaths = 1 + sum(1 for kind, name, _ in self.past.notes if (kind, name) == (Kind.NOTE, DEATH_NOTE))
            failure = lost.failure or (DEADLY_RUN if deaths >= MAX_DEATHS else None)
            if failure is not None:
                await self._give_up(failure)
                return
            self._record(Record(Kind.NOTE, DEATH_NOTE, deaths))
        self.attempts.interrupt()
        self.attempts.drop()
        await self._flush(Next.RELEASE)
        self.worker.wake()

    async def _give_up(self, failure: Failure) -> None:
        """End the run without asking its session; what it has not committed is dropped."""
        self._fatal(failure)
        self._entries, self._consumed, self._after = [], [], []
        while not await self._finish():
            pass

    async def _loop(self) -> None:
        started_at = self.past.started_at
        if started_at is None:
            started_at = self.now()
            self.write(Kind.STARTED)
        messages: list[Message] = [Started(started_at)]
        if self.session.takes_past:
            messages += [resolution.message for resolution in self._recorded]
            self._recorded.clear()
        while not self.lost:
            if self._session_lost is not None:
                raise self._session_lost
            if messages or self._woken:
                self._woken = False
                self._inhale()
                commands = await self.session.turn(messages)
                await self._breathe()
                for command in commands:
                    _APPLY[type(command)](self, command)
                    await self._breathe()
            messages = self._next_recorded() or self._next_nested()
            if messages or self._woken:
                continue
            await self._heed()
            if self._final is not None:
                if await self._finish():
                    return
                messages = self._take_after()
            elif self._entries or self._consumed or self._begin_rollback:
                messages = await self._commit()
            elif await self._moves():
                continue
            elif await self._rest():
                return

    def _next_recorded(self) -> list[Message]:
        """Recorded results whose step has been called, in journal order, up to the first that has not."""
        messages: list[Message] = []
        while self._recorded and self._recorded[0].id in self._issued:
            resolution = self._recorded.popleft()
            self._pending_ids.discard(resolution.id)
            messages.append(resolution.message)
            if resolution.id in self._requested:
                self._requests += getattr(resolution.message, "attempts", 0)
        if not messages and self._recorded and self._final is None:
            missing = self._recorded[0].id
            name = missing.counted if isinstance(missing, StepKey) else missing
            self._fatal(Failure("NonDeterministicError", f'the recorded step "{name}" was not called on replay'))
        return messages

    def _next_nested(self) -> list[Message]:
        """Recorded results of steps that were called again inside an attempt."""
        messages, self._nested = self._nested, []
        return messages

    def _inhale(self) -> None:
        self._breath_ends = time.perf_counter() + BREATH

    async def _breathe(self) -> None:
        """Let others have the loop if this run has had it for long: steps that only compute are run in place."""
        over = time.perf_counter() - self._breath_ends
        if over >= 0:
            if over + BREATH > SLOW_TURN:
                log.warning("slow_turn", workflow=self.context.workflow, seconds=round(over + BREATH, 3), **self.ids)
            await asyncio.sleep(0)
            self._inhale()
            if self.lost:
                raise RunLost

    async def _moves(self) -> bool:
        """Match outside facts and fire timers; whether anything was written."""
        if self._held_back:
            return False
        if self.inbox:
            self.attempts.match()
            await self._match_waits()
        if not self._entries:
            self._fire_due()
        return bool(self._entries)

    @property
    def _held_back(self) -> bool:
        """No new step may start."""
        return (self._want is Want.PAUSE and not self._rolling_back) or self._releasing

    async def _rest(self) -> bool:
        """Nothing moves. True when the run has left memory."""
        if self._stale:
            await self._refresh()
            return False
        if self._releasing and (self._forced or not self.attempts.running):
            self.attempts.interrupt()
            await self._flush(Next.RELEASE)
            return True
        pausing = self._want is Want.PAUSE and not self._rolling_back
        due = None if self._held_back else self.timetable.next_due()
        if self.attempts.running:
            await self._nap(due)
            return False
        if pausing:
            return (await self._flush(Next.SETTLE_PAUSE)).done
        if self.session.busy:
            await self._nap(due)
            return False
        if due is None and not self._waits and not self.attempts.awaited():
            self._fatal(STUCK)
            return False
        if due is not None and due - self.millis(self.now()) <= GRACE_MS and not self.worker.crowded:
            await self._nap(due)
            return False
        answer = await self._flush(Next.PARK, due=due)
        return answer.done

    async def _nap(self, due: int | None) -> None:
        """Wait in memory for mail or the next timer."""
        self._mail.clear()
        if self._stale or self.lost or self._woken or self._session_lost is not None:
            return
        timeout = None if due is None else max(0.0, (due - self.millis(self.now())) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._mail.wait()

    async def _refresh(self) -> None:
        """Read what outside has to say: the wishes with an empty flush, then the inbox."""
        self._stale = False
        await self._flush(Next.KEEP)
        self.inbox.refresh(await self.worker.read_inbox(self))

    # --- commits -------------------------------------------------------------------------------------------------

    async def _commit(self) -> list[Message]:
        begin, self._begin_rollback = self._begin_rollback, False
        await self._flush(Next.ROLL_BACK if begin else Next.KEEP)
        return self._take_after()

    def _take_after(self) -> list[Message]:
        """Deliver what was waiting for the commit that just ended."""
        messages, self._ready = self._ready, []
        return messages

    async def _flush(self, next: Next, *, due: int | None = None, body: str | None = None) -> Flushed:
        self._ordinal += 1
        flush = Flush(
            self.context.account_id,
            self.context.key,
            self.epoch,
            self._ordinal,
            self.now(),
            self._entries,
            self._consumed,
            next,
            seen=self._signal,
            parent_key=self._held.parent_key,
        )
        if next is Next.PARK:
            if due is not None:
                flush.due = _moment(due)
            flush.awaits = [w.wait.type for w in self._waits.values()] + self.attempts.awaited()
        elif next >= Next.COMPLETE:
            flush.body, flush.rollback = body, self._rollback
        after, self._after = self._after, []
        self._entries, self._consumed = [], []
        answer = await self.worker.writer.submit(flush)
        faults.point("before-acknowledgement")
        if not answer.accepted or self.lost:
            raise RunLost
        if answer.signal != self._signal:
            self._signal = answer.signal
            self._stale = True
        if answer.want != self._want:
            self._want = Want(answer.want)
        messages: list[Message] = []
        for item in after:
            if callable(item):
                item()
            else:
                messages.append(item)
        self._ready = messages
        return answer

    async def _heed(self) -> None:
        """Act on what commands asked for."""
        if self._want in (Want.ROLL_BACK, Want.STOP_ROLLBACK) and not self._rolling_back:
            self._rolling_back = True
            self._final = None
            self._blocked.clear()
            message = RollbackRequested(TERMINATED, self.now())
            self.write(Kind.ROLLBACK_STARTED, payload=encode_failure(TERMINATED, requested=True), then=message)
        if self._want is Want.STOP_ROLLBACK and not self.past.rollback_stopped:
            self.past.rollback_stopped = True
            self.write(Kind.ROLLBACK_STOPPED, then=StopRollback(self.now()))
        if self._blocked and not self._held_back:
            blocked, self._blocked = self._blocked, []
            self._inhale()
            for do in blocked:
                self.attempts.begin(do)
                await self._breathe()

    async def _finish(self) -> bool:
        """The session is through: end the instance. False when a command came first."""
        final = self._final
        assert final is not None
        self.attempts.drop()
        if self._want in (Want.ROLL_BACK, Want.STOP_ROLLBACK):
            return await self._end(Next.TERMINATED, None)
        if isinstance(final, Finish):
            return await self._end(Next.COMPLETE, final.output)
        error = msgspec.json.encode({"name": final.failure.name, "message": final.failure.message}).decode()
        return await self._end(Next.ERRORED, error)

    async def _end(self, next: Next, body: str | None) -> bool:
        answer = await self._flush(next, body=body)
        return answer.done

    def _fatal(self, failure: Failure) -> None:
        """The run cannot go on, and nobody can catch it."""
        self.attempts.drop()
        self._recorded.clear()
        self._final = Fail(failure)

    # --- waits and timers ----------------------------------------------------------------------------------------

    async def _match_waits(self) -> None:
        self._inhale()
        for key, waiting in list(self._waits.items()):
            await self._breathe()
            wait, fact = waiting.wait, await self._matching(waiting)
            if fact is None:
                continue
            self.consume(fact)
            self._close_wait(key)
            payload = fact.payload if fact.payload is not None else "null"
            tagged = payload[:1].isspace()  # a value JSON lacks, sent by a script: what holds it is tagged, too
            value = f'{" " * tagged}{{"payload":{payload},"timestamp":"{iso(fact.at)}","type":"{wait.type}"}}'
            done = Done(key, value, self.now(), started_at=waiting.started_at)
            self.write(Kind.WAIT_COMPLETED, key.name, key.count, None, value, done)

    async def _matching(self, waiting: _Waiting) -> Fact | None:
        """Take the oldest fact a wait accepts."""
        wait = waiting.wait
        for fact in self.inbox.unread(wait.type, before=_moment(waiting.due)):
            if fact.no in waiting.refused:
                continue
            if wait.accepts is None or wait.accepts(fact.payload):
                self.inbox.remove(fact)
                return fact
            waiting.refused.add(fact.no)
            await self._breathe()
        return None

    def _fire_due(self) -> None:
        for name in self.timetable.pop_due(self.millis(self.now())):
            what, key = name  # type: ignore[misc]
            if what == "sleep":
                done = Done(key, None, self.now(), started_at=self._sleeps.pop(key))
                self.write(Kind.SLEEP_COMPLETED, key.name, key.count, None, None, done)
            elif what == "wait":
                waiting = self._waits.pop(key)
                wait = waiting.wait
                failure = Failure(
                    "WorkflowTimeoutError", f"Execution timed out after {wait.timeout}ms", "EVENT_TIMEOUT"
                )
                payload = encode_failure(failure, timed_out=True)
                message = Broken(key, failure, self.now(), timed_out=True, started_at=waiting.started_at)
                self.write(Kind.WAIT_TIMED_OUT, key.name, key.count, None, payload, message)
            elif what == "timer":
                self._timers.discard(key)
                self.write(Kind.TIMER_FIRED, key, then=TimerFired(key, self.now()))
            elif what == "retry":
                self.attempts.retry_due(key)
            elif what == "total":
                self.attempts.total_timed_out(key)
            else:
                self.attempts.outside_timed_out(key)

    def _close_wait(self, key: StepKey) -> None:
        del self._waits[key]
        self.timetable.clear(("wait", key))

    # --- commands ------------------------------------------------------------------------------------------------

    def _issue(self, id: StepKey | str, fingerprint: str = "") -> bool:
        """Note that a step was called; True when there is nothing to begin: the journal has its result, or its end."""
        self._issued.add(id)
        recorded = self.past.fingerprints.get(id) if isinstance(id, StepKey) else None
        if recorded is not None and recorded != fingerprint:
            name = id.counted if isinstance(id, StepKey) else id
            self._fatal(
                Failure("NonDeterministicError", f'the step "{name}" differs from the recorded one of that name')
            )
            return True
        nested = self.past.nested.pop(id, None) if isinstance(id, StepKey) else None
        if nested is not None:
            self._nested.append(nested.message)
            return True
        return id in self._pending_ids or id in self.past.given_up

    def _do(self, do: Do) -> None:
        if do.counts and do.key.kind is StepKind.DO:
            self._steps += 1
            if self._steps > self.context.step_limit:
                limit = f"The limit of {self.context.step_limit} steps has been reached."
                hint = "This limit can be changed in your worker configuration."
                self._fatal(Failure("WorkflowFatalError", f"{limit} {hint}"))
                return
        if do.outgoing and do.key in self._pending_ids:
            self._requested.add(do.key)
        if self._issue(do.key, do.fingerprint) or self._final is not None:
            return
        open_step = self.past.open.pop(do.key, None)
        if open_step is not None:
            self._requests += open_step.attempts if do.outgoing else 0
            self.attempts.reopen(do, open_step)
        elif self._held_back:
            self._blocked.append(do)
        else:
            self.attempts.begin(do)

    def _sleep(self, sleep: Sleep) -> None:
        key = sleep.key
        if self._issue(key, sleep.fingerprint):
            return
        absolute = sleep.until is not None
        past = self.past.open.pop(key, None)
        if past is None:
            since = self.now()
            due = sleep.until if sleep.until is not None else self.millis(since) + (sleep.duration or 0)
            plan = _planned(due, sleep.fingerprint, absolute=absolute, nested=sleep.nested)
            self.write(Kind.SLEEP_STARTED, key.name, key.count, None, plan, at=since)
        else:
            since, due = past.started_at, past.due or 0
            if not past.absolute:
                due = self.past.shifted(due, since)
        self._sleeps[key] = since
        self.timetable.set(("sleep", key), due)

    def _wait(self, wait: Wait) -> None:
        key = wait.key
        if self._issue(key, wait.fingerprint):
            return
        past = self.past.open.pop(key, None)
        if past is None:
            since = self.now()
            due = self.millis(since) + wait.timeout
            plan = _planned(due, wait.fingerprint, type=wait.type, nested=wait.nested)
            self.write(Kind.WAIT_STARTED, key.name, key.count, None, plan, at=since)
        else:
            since = past.started_at
            due = self.past.shifted(past.due or 0, since)
        self._waits[key] = _Waiting(wait, due, since)
        self.timetable.set(("wait", key), due)

    def _timer(self, timer: Timer) -> None:
        if self._issue("timer:" + timer.id):
            return
        past = self.past.timers.pop(timer.id, None)
        if past is None:
            due = self.millis(self.now()) + timer.after
            self.write(Kind.TIMER_STARTED, timer.id, payload=f'{{"due":{due}}}')
        else:
            due = self.past.shifted(*past)
        self._timers.add(timer.id)
        self.timetable.set(("timer", timer.id), due)

    def _cancel_timer(self, command: CancelTimer) -> None:
        self._timers.discard(command.id)
        self.timetable.clear(("timer", command.id))

    def _cancel(self, command: Cancel) -> None:
        key = command.key
        payload = encode_failure(command.failure, cancelled=True)
        if key in self._waits:
            self._close_wait(key)
            self.write(Kind.WAIT_TIMED_OUT, key.name, key.count, None, payload)
        elif key in self._sleeps:
            del self._sleeps[key]
            self.timetable.clear(("sleep", key))
            self.write(Kind.SLEEP_COMPLETED, key.name, key.count, None, payload)
        elif not self.attempts.cancel(key, command.failure):
            self._blocked = [do for do in self._blocked if do.key != key]

    def _record(self, record: Record) -> None:
        note = (record.kind, record.name, record.count)
        if note not in self.past.notes:
            self.past.notes.add(note)
            self.write(Kind(record.kind), record.name, record.count, None, record.payload)

    def _log(self, line: Log) -> None:
        if self._known_lines > 0:
            self._known_lines -= 1
        else:
            self.log(line.level, line.message, line.step, line.data)

    def _roll_back(self, command: BeginRollback) -> None:
        if not self._rolling_back:
            self._rolling_back = self._begin_rollback = True
            self.write(Kind.ROLLBACK_STARTED, payload=encode_failure(command.failure))

    def _rolled_back(self, command: EndRollback) -> None:
        error = None if command.failure is None else {"name": command.failure.name, "message": command.failure.message}
        complete = command.complete and not self.past.rollback_stopped
        outcome = {"outcome": "complete" if complete else "failed", "error": error}
        self._rollback = msgspec.json.encode(outcome).decode()
        if not self.past.rollback_ended:
            self.past.rollback_ended = True
            self.write(Kind.ROLLBACK_ENDED, payload=self._rollback)
        if self._want in (Want.ROLL_BACK, Want.STOP_ROLLBACK):
            self._final = Fail(TERMINATED)

    def _end_with(self, command: Finish | Fail) -> None:
        if self._final is None:
            self._final = command


_APPLY: dict[type[CommandMessage], Callable[[Run, Any], None]] = {
    Do: Run._do,
    Sleep: Run._sleep,
    Wait: Run._wait,
    Timer: Run._timer,
    CancelTimer: Run._cancel_timer,
    Cancel: Run._cancel,
    Record: Run._record,
    Log: Run._log,
    BeginRollback: Run._roll_back,
    EndRollback: Run._rolled_back,
    Finish: Run._end_with,
    Fail: Run._end_with,
}


def _planned(
    due: int, fingerprint: str, *, absolute: bool = False, type: str | None = None, nested: bool = False
) -> str:
    plan: dict[str, Any] = {"due": due}
    if nested:
        plan["nested"] = True
    if absolute:
        plan["absolute"] = True
    if type is not None:
        plan["type"] = type
    if fingerprint:
        plan["hash"] = fingerprint
    return msgspec.json.encode(plan).decode()


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _moment(millis: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=millis)
