"""One run of a script, as the driver sees it. The code runs in a sandbox; this half keeps its books.

The sandbox numbers the steps a run calls; here they become the engine's commands, under their keys (kind, name, count
in call order), and the engine's outcomes become messages to the sandbox. Whatever the code outside steps did, it did
because of a message, so the same messages lead to the same calls.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from instances.lifecycle import Kind
from instances.runtimes.protocol import (
    REQUESTS,
    STREAM_STORAGE,
    Attempt,
    BeginRollback,
    Broken,
    Cancel,
    CancelTimer,
    CommandMessage,
    Do,
    Done,
    Fail,
    Failure,
    Finish,
    Log,
    Message,
    Raw,
    Record,
    RollbackRequested,
    RunContext,
    SessionLost,
    Sleep,
    Started,
    StepFailure,
    StepKey,
    StepKind,
    StopRollback,
    Timer,
    TimerFired,
    Wait,
)
from instances.runtimes.scripts import messages as said
from instances.runtimes.scripts.commands import (
    config_of,
    do_command,
    handler_of,
    sleep_command,
    undo_command,
    wait_command,
)
from instances.runtimes.scripts.failures import (
    CPU,
    DELAY_MS,
    INVALID_STREAM,
    NON_DETERMINISTIC,
    OVER,
    ROLLBACK_MISSING,
    TIMED_OUT,
    UNSERIALISABLE,
    delay_failure,
    invalid_stream,
    output_too_large,
    storage_exceeded,
    thrown_in_step,
    told_to_code,
    unserialisable,
)
from instances.runtimes.scripts.isolate import Isolate, Part, encode
from instances.runtimes.scripts.messages import Violation
from instances.runtimes.scripts.operations import Operations
from instances.runtimes.scripts.rollback import Rollback
from instances.runtimes.scripts.streams import KEEP, Keep, OutgoingStream, decode_keep
from versions.durations import parse_duration

PAST_BYTES = 2 << 20
"""Recorded outcomes handed to the sandbox in one message, at most about this much."""
DEADLINE = "timeout"
"""Timer of the instance's own time limit."""
MAX_CALLS = 100_000
"""Steps, sleeps and waits one run may call; steps have the account's limit besides."""


@dataclass(slots=True)
class _Called:
    """A step the code has called. `rollback`: the configuration of its handler, when it has one."""

    command: Do | Sleep | Wait
    inside: int = 0
    """The step in whose attempt it was called: that goes on, and answers for it, when this one has its outcome."""
    rollback: bytes | None = None
    open: bool = True


class ScriptSession:
    """A run in memory. See :class:`instances.runtimes.protocol.Session`."""

    takes_past = True

    def __init__(
        self,
        isolate: Isolate,
        run: RunContext,
        class_name: str,
        flags: frozenset[str],
        operations: Operations,
        wake: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        self._isolate = isolate
        self._context = run
        self._class_name = class_name
        self._flags = flags
        self._operations = operations
        self._wake = wake
        self._on_close = on_close
        self._run = isolate.attach(self)
        self._commands: list[CommandMessage] = []
        self._calls: dict[int, _Called] = {}
        self._ids: dict[StepKey, int] = {}
        self._counts: Counter[tuple[StepKind, str]] = Counter()
        self._outcomes: dict[tuple[int, int], asyncio.Future[Raw | None]] = {}
        """By id and number of the attempt; the id is negative for compensations, the number for delays."""
        self._attempts: dict[tuple[int, int], Attempt] = {}
        self._streams: dict[tuple[int, int], OutgoingStream] = {}
        self._cpu: Counter[int] = Counter()
        self._outside = 0
        self._rollback: Rollback | None = None
        self._turning = False
        self._ended = False
        self._missed = False
        """The code did not call a step that is recorded: the handlers it registered are not all there should be."""
        self._lost: SessionLost | None = None

    # --- the session protocol ------------------------------------------------------------------------------------

    @property
    def isolate(self) -> Isolate:
        """The sandbox it runs in."""
        return self._isolate

    @property
    def busy(self) -> bool:
        return self._outside > 0 and not self._ended

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        self._turning = True
        try:
            await self._take(messages)
        finally:
            self._turning = False
        if self._lost is not None:
            raise self._lost
        commands, self._commands = self._commands, []
        return commands

    async def _take(self, messages: Sequence[Message]) -> None:
        outcomes: list[Done | Broken] = []
        parts: list[Part] = []
        for message in messages:
            if isinstance(message, Done | Broken) and message.key.kind is not StepKind.ROLLBACK:
                outcomes.append(message)
                continue
            parts += self._told(outcomes)
            outcomes = []
            if isinstance(message, Started):
                parts.append((self._start(message), 0))
                continue
            await self._deliver(parts)
            parts = []
            self._heed(message)
        await self._deliver(parts + self._told(outcomes))

    def execute(self, step: Do, attempt: Attempt) -> asyncio.Future[Raw | None]:
        undo = step.key.kind is StepKind.ROLLBACK
        id = self._ids[StepKey(StepKind.DO, step.key.name, step.key.count) if undo else step.key]
        message: dict[str, Any] = {
            "op": "undo" if undo else "attempt",
            "r": self._run,
            "id": id,
            "attempt": attempt.number,
            "now": _millis(attempt.now()),
            "entropy": base64.b64encode(os.urandom(32)).decode(),
        }
        if undo:
            assert self._rollback is not None
            message["error"] = _error(self._rollback.failure)
        else:
            key = step.key
            message["ctx"] = {
                "step": {"name": key.name, "count": key.count},
                "attempt": attempt.number,
                "config": config_of(step.config),
            }
        self._attempts[id, attempt.number] = attempt
        self._cpu[id] = 0
        outcome = self._ask(-id if undo else id, attempt.number, message)
        outcome.add_done_callback(partial(self._attempt_over, id, attempt))
        return outcome

    def _attempt_over(self, id: int, attempt: Attempt, outcome: asyncio.Future[Raw | None]) -> None:
        if self._attempts.get((id, attempt.number)) is attempt:
            del self._attempts[id, attempt.number]
        stream = self._streams.pop((id, attempt.number), None)
        if stream is not None and stream.pending is not None:
            stream.pending.cancel()
        if outcome.cancelled():
            self._tell({"op": "abandon", "r": self._run, "id": id, "attempt": attempt.number}, id)

    async def delay(self, step: Do, attempt: int, failure: Failure) -> int:
        id, name = self._ids[step.key], step.key.counted
        message = {"op": "delay", "r": self._run, "id": id, "attempt": attempt, "error": _error(failure)}
        message["now"] = _millis(self._operations.now())
        try:
            async with asyncio.timeout(DELAY_MS / 1000):
                answer = await self._ask(id, -attempt, message)
        except TimeoutError:
            raise StepFailure(delay_failure(name, "did not return within 5 seconds")) from None
        except StepFailure as error:
            raise StepFailure(delay_failure(name, f"threw an error: {error.failure.message}")) from None
        try:
            return parse_duration(msgspec.json.decode(answer or "null"), minimum_ms=0, maximum_ms=366 * 86_400_000)
        except (ValueError, TypeError):
            text = 'returned an invalid delay value (expected a number of ms or a duration string like "30 seconds")'
            raise StepFailure(delay_failure(name, text)) from None

    async def close(self) -> None:
        self._ended = True
        self._operations.close()
        self._isolate.detach(self._run)
        self._wake = _nobody  # the run holds this session: both would wait for the garbage collector
        self._fail_pending(SessionLost("closed"))
        self._on_close()

    # --- to the sandbox ------------------------------------------------------------------------------------------

    def _start(self, message: Started) -> bytes:
        run = self._context
        if run.timeout is not None:
            self._emit(Timer(DEADLINE, run.timeout))
        event: dict[str, Any] = {
            "payload": _value(run.input if run.input is not None else "{}"),
            "timestamp": _millis(run.created_at),
            "instanceId": run.instance_id,
            "workflowName": run.workflow,
        }
        if "cron" in run.trigger:
            event["schedule"] = {"cron": run.trigger["cron"], "scheduledTime": run.trigger["scheduledTime"]}
        # What a retry took over from another instance must come about as it did there.
        life = run.trigger.get("seed") if run.run == 1 else None
        seed = hashlib.sha256((life or f"{run.key}/{run.run}").encode()).hexdigest()
        start = {"op": "start", "r": self._run, "cls": self._class_name, "event": event, "seed": seed}
        return encode(start | {"now": _millis(message.at), "workflow": run.workflow})

    def _told(self, outcomes: Iterable[Done | Broken]) -> list[Part]:
        """Messages that hand outcomes over, in order; those of steps not called yet as the past."""
        parts: list[Part] = []
        past: list[dict[str, Any]] = []
        size = 0
        for message in outcomes:
            outcome = self._outcome(message)
            if outcome is None:
                break
            id = self._ids.get(message.key)
            if id is not None:
                called = self._calls[id]
                called.open = False
                parts.append((encode({"op": "outcome", "r": self._run, "id": id, **outcome}), called.inside))
                continue
            key = message.key
            past.append({"kind": key.kind.value, "name": key.name, "count": key.count, **outcome})
            size += len(message.value or "") if isinstance(message, Done) else 100
            if size > PAST_BYTES:
                parts.append((encode({"op": "past", "r": self._run, "outcomes": past, "last": False}), 0))
                past, size = [], 0
        if past:
            parts.append((encode({"op": "past", "r": self._run, "outcomes": past, "last": True}), 0))
        return parts

    def _outcome(self, message: Done | Broken) -> dict[str, Any] | None:
        """An outcome as the sandbox is told; None when it ends the run without its code hearing of it."""
        told: dict[str, Any] = {"at": _millis(message.at)}
        if isinstance(message, Done):
            return told | _value(message.value)
        if message.failure.code == UNSERIALISABLE:
            self._fail(unserialisable(message.key.name))
            return None
        if message.failure.code == INVALID_STREAM:
            self._fail(invalid_stream(message.key.name))
            return None
        if message.failure.code == STREAM_STORAGE:
            self._fail(storage_exceeded(message.failure))
            return None
        return told | {"error": _error(told_to_code(message.failure, self._flags))}

    async def _deliver(self, parts: list[Part]) -> None:
        if self._lost is not None:
            raise self._lost
        if parts:
            await self._send(parts)

    async def _send(self, parts: list[Part]) -> None:
        try:
            await self._isolate.send(self._run, parts)
        except SessionLost as lost:
            raise self._lost or lost from None  # ours knows what this run has to do with it

    def _ask(self, id: int, number: int, message: dict[str, Any]) -> asyncio.Future[Raw | None]:
        """Send a message that is answered by name and number. The future gets that answer, or the sandbox's death."""
        outcome: asyncio.Future[Raw | None] = asyncio.get_running_loop().create_future()
        if self._lost is not None:
            outcome.set_exception(self._lost)
            return outcome
        self._outcomes[id, number] = outcome
        outcome.add_done_callback(partial(self._answered, id, number))
        self._tell(message, abs(id))
        return outcome

    def _answered(self, id: int, number: int, outcome: asyncio.Future[Raw | None]) -> None:
        if self._outcomes.get((id, number)) is outcome:
            del self._outcomes[id, number]
        if not outcome.cancelled():
            outcome.exception()  # somebody may have stopped waiting

    def _tell(self, message: dict[str, Any], step: int = 0) -> None:
        if self._lost is None:
            self._isolate.tell(self._run, encode(message), step)

    # --- commands of the engine ----------------------------------------------------------------------------------

    def _heed(self, message: Message) -> None:
        if isinstance(message, RollbackRequested):
            self._roll_back(message.failure, requested=True)
        elif isinstance(message, TimerFired):
            if not self._ended and self._rollback is None:
                self._roll_back(TIMED_OUT, requested=False)
                self._ended = True
        elif isinstance(message, StopRollback):
            if self._rollback is not None:
                self._emit(*self._rollback.stop())
        elif isinstance(message, Done | Broken) and self._rollback is not None:
            failure = message.failure if isinstance(message, Broken) else None
            self._emit(*self._rollback.ended(failure))

    def _roll_back(self, failure: Failure, *, requested: bool) -> None:
        """Start nothing new, give up what is open, undo what was done, the last thing started first."""
        if self._context.timeout is not None:
            self._emit(CancelTimer(DEADLINE))
        for called in self._calls.values():
            if called.open:
                called.open = False
                self._emit(Cancel(called.command.key, failure))
        self._tell({"op": "rollback", "r": self._run})
        undos = [
            undo_command(called.command.key, called.rollback)
            for _, called in sorted(self._calls.items(), reverse=True)
            if called.rollback is not None
        ]
        if undos and not requested:
            self._emit(BeginRollback(failure))
        broken = ROLLBACK_MISSING if self._missed else None
        self._rollback = Rollback(undos, failure, requested=requested, broken=broken)
        self._emit(*self._rollback.next())

    def _emit(self, *commands: CommandMessage) -> None:
        self._commands += commands

    def _fail(self, failure: Failure) -> None:
        self._ended = True
        self._emit(Fail(failure))

    def requested(self, total: int) -> None:
        """The run has made so many outgoing requests: written down at once, lest its next life begin at none."""
        if self._lost is None:
            self._emit(Record(Kind.NOTE, REQUESTS, total))
            self._wake()

    # --- from the sandbox ----------------------------------------------------------------------------------------

    def receive(self, message: said.RunMessage) -> None:
        """Raises :class:`Violation`."""
        if self._ended and not self._undoes(message):
            return
        _RECEIVE[type(message)](self, message)

    def _undoes(self, message: said.RunMessage) -> bool:
        """Whether it comes of a compensation: what else the code says after its end is not heard."""
        if isinstance(message, said.Call):
            return self._rollback is not None and message.inside != 0
        return isinstance(message, said.UndoOk | said.UndoFailed | said.Logged | said.CancelCall)

    def turned(self, active: int, outside: int, inside: int) -> None:
        self._outside = outside
        if self._commands and not self._turning:
            self._wake()

    def used(self, step: int, micros: int) -> None:
        """CPU time is counted per attempt; what runs outside steps has the limit for each turn only."""
        if step:
            self._cpu[step] += micros
            if self._cpu[step] > self._operations.cpu_ms * 1000:
                self._settle_attempts_of(step, StepFailure(CPU))

    def die(self, step: int | None, cause: str) -> None:
        if self._lost is not None:
            return
        key = None
        if step:
            called = self._calls.get(step)
            key = called.command.key if called is not None else None
            if key is not None and self._rollback is not None:
                key = StepKey(StepKind.ROLLBACK, key.name, key.count)
        failure = CPU if cause == "cpu" and step is not None else None
        self._lost = SessionLost(f"the sandbox is gone: {cause}", step=key, failure=failure, blame=step is not None)
        self._operations.close()
        self._fail_pending(self._lost)
        self._wake()

    def _fail_pending(self, error: Exception) -> None:
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(error)

    def _step_called(self, message: said.StepCalled) -> None:
        key = self._key(StepKind.DO, message.name, message.id)
        command = do_command(key, message)
        self._calls[message.id] = _Called(command, message.inside, handler_of(message))
        self._emit(command)

    def _sleep_called(self, message: said.SleepCalled) -> None:
        command = sleep_command(self._key(StepKind.SLEEP, message.name, message.id), message)
        self._calls[message.id] = _Called(command, message.inside)
        self._emit(command)

    def _wait_called(self, message: said.WaitCalled) -> None:
        command = wait_command(self._key(StepKind.WAIT, message.name, message.id), message)
        self._calls[message.id] = _Called(command, message.inside)
        self._emit(command)

    def _key(self, kind: StepKind, name: str, id: int) -> StepKey:
        if id in self._calls or self._rollback is not None:
            raise Violation(f"step {id} may not be called now")
        if len(self._calls) >= MAX_CALLS:
            raise Violation(f"more than {MAX_CALLS} steps, sleeps and waits were called")
        self._counts[kind, name] += 1
        key = StepKey(kind, name, self._counts[kind, name])
        self._ids[key] = id
        return key

    def _attempt_ok(self, message: said.AttemptOk) -> None:
        value = message.stored()
        if message.stream:
            stream = self._streams.get((message.id, message.attempt)) or OutgoingStream()
            if stream.pending is not None:
                raise Violation("a stream that is over and is not")
            value = stream.value(self._called(message.id).command.key, message.attempt, self._context.run)
        self._settle(message.id, message.attempt, value)

    def _attempt_failed(self, message: said.AttemptFailed) -> None:
        name = self._called(message.id).command.key.name
        if message.fatal == "stream":
            failure = Failure("WorkflowFatalError", message.error.message, INVALID_STREAM, permanent=True)
        elif message.fatal is not None:
            text = f'Value returned from step "{name}" is not serialisable'
            failure = Failure("WorkflowFatalError", text, UNSERIALISABLE, permanent=True)
        else:
            failure = thrown_in_step(message.error, self._flags)
        self._settle(message.id, message.attempt, StepFailure(failure))

    def _undo_ok(self, message: said.UndoOk) -> None:
        self._settle(-message.id, message.attempt, None)

    def _undo_failed(self, message: said.UndoFailed) -> None:
        self._settle(-message.id, message.attempt, StepFailure(thrown_in_step(message.error, self._flags)))

    def _delay_ok(self, message: said.DelayOk) -> None:
        self._settle(message.id, -message.attempt, msgspec.json.encode(message.delay).decode())

    def _delay_failed(self, message: said.DelayFailed) -> None:
        self._settle(message.id, -message.attempt, StepFailure(Failure(message.error.name, message.error.message)))

    def _settle(self, id: int, number: int, outcome: Raw | StepFailure | None) -> None:
        """Answer whoever waits for it; nobody does when the attempt was given up."""
        self._called(abs(id))
        waiting = self._outcomes.get((id, number))
        if waiting is None or waiting.done():
            return
        if isinstance(outcome, StepFailure):
            waiting.set_exception(outcome)
        else:
            waiting.set_result(outcome)

    def _settle_attempts_of(self, id: int, failure: StepFailure) -> None:
        for (step, number), waiting in self._outcomes.items():
            if abs(step) == id and not waiting.done():
                waiting.set_exception(failure)
                self._tell({"op": "abandon", "r": self._run, "id": id, "attempt": abs(number)}, id)

    def _called(self, id: int) -> _Called:
        called = self._calls.get(id)
        if called is None:
            raise Violation(f"no step {id} was called")
        return called

    def _call(self, message: said.Call) -> None:
        if message.kind == KEEP:
            self._keep(message)
        else:
            self._operations.begin(message, self._answer)

    def _keep(self, message: said.Call) -> None:
        """A piece of the stream an attempt returns."""
        call, piece = decode_keep(bytes(message.args))
        at = call.id, call.attempt
        attempt, waiting = self._attempts.get(at), self._outcomes.get(at)
        if attempt is None or waiting is None or waiting.done():
            self._answer(message.call, message.inside, {"error": _error(OVER)})
            return
        stream = self._streams.setdefault(at, OutgoingStream())
        if stream.pending is not None:
            raise Violation("two pieces of a stream at once")
        stream.take(piece)
        work = self._store(message, call, attempt, stream)
        stream.pending = asyncio.get_running_loop().create_task(work)

    async def _store(self, message: said.Call, call: Keep, attempt: Attempt, stream: OutgoingStream) -> None:
        answer: dict[str, Any] = {}
        try:
            await attempt.keep(call.b64)
        except StepFailure as refused:
            self._settle(call.id, call.attempt, refused)
            answer = {"error": _error(refused.failure)}
        stream.pending = None
        self._answer(message.call, message.inside, answer)

    def _answer(self, call: int, inside: int, answer: dict[str, Any]) -> None:
        """What a host call came to, told in the context that made it."""
        reply = {"op": "reply", "r": self._run, "call": call, "now": _millis(self._operations.now()), **answer}
        self._tell(reply, inside)

    def _cancel_call(self, message: said.CancelCall) -> None:
        self._operations.cancel(message.call)

    def _logged(self, message: said.Logged) -> None:
        if message.inside:
            for (id, _), attempt in self._attempts.items():
                if id == message.inside:
                    attempt.log(message.level, message.message)
                    return
        self._emit(Log(message.level, message.message))

    def _returned(self, message: said.Returned) -> None:
        self._ended = True
        if message.fits:
            self._emit(Finish(message.stored()))
        else:
            self._emit(Fail(output_too_large()))

    def _thrown(self, message: said.Thrown) -> None:
        failure = Failure(message.error.name, message.error.message)
        if message.fatal is not None or self._rollback is not None:
            self._fail(failure)
        else:
            self._roll_back(failure, requested=False)
            self._ended = True

    def _mismatch(self, message: said.Mismatch) -> None:
        name = f"{message.name}-{message.count}"
        self._missed = True
        self._fail(Failure(NON_DETERMINISTIC, f'the recorded step "{name}" was not called on replay'))


_RECEIVE: dict[type, Callable[[ScriptSession, Any], None]] = {
    said.StepCalled: ScriptSession._step_called,
    said.SleepCalled: ScriptSession._sleep_called,
    said.WaitCalled: ScriptSession._wait_called,
    said.AttemptOk: ScriptSession._attempt_ok,
    said.AttemptFailed: ScriptSession._attempt_failed,
    said.UndoOk: ScriptSession._undo_ok,
    said.UndoFailed: ScriptSession._undo_failed,
    said.DelayOk: ScriptSession._delay_ok,
    said.DelayFailed: ScriptSession._delay_failed,
    said.Call: ScriptSession._call,
    said.CancelCall: ScriptSession._cancel_call,
    said.Logged: ScriptSession._logged,
    said.Returned: ScriptSession._returned,
    said.Thrown: ScriptSession._thrown,
    said.Mismatch: ScriptSession._mismatch,
}


def _nobody() -> None:
    """Wakes no run: it is over."""


def _value(text: Raw | None) -> dict[str, Any]:
    """A stored value as it goes into the sandbox: `v` plain, `x` tagged, nothing for undefined."""
    if text is None:
        return {}
    return {"x" if text.startswith(" ") else "v": msgspec.Raw(text.encode("utf-8", "surrogatepass"))}


def _error(failure: Failure) -> dict[str, str]:
    return {"name": failure.name, "message": failure.message}


def _millis(moment: Any) -> int:
    return int(moment.timestamp() * 1000)
