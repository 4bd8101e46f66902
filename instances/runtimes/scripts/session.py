"""One run of a script, as the driver sees it. The code runs in a sandbox; this half keeps its books.

The sandbox numbers the steps a run calls; here they become the engine's commands, under their keys (kind, name, count
in call order), and the engine's outcomes become messages to the sandbox. Whatever the code outside steps did, it did
because of a message, so the same messages lead to the same calls.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
from instances.runtimes.scripts import told
from instances.runtimes.scripts.attempts import Attempts
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
    INVALID_STREAM,
    NON_DETERMINISTIC,
    ROLLBACK_MISSING,
    TIMED_OUT,
    UNSERIALISABLE,
    invalid_stream,
    output_too_large,
    storage_exceeded,
    thrown_in_step,
    told_to_code,
    unserialisable,
)
from instances.runtimes.scripts.isolate import Isolate, Part, encode
from instances.runtimes.scripts.line import Line
from instances.runtimes.scripts.messages import Violation
from instances.runtimes.scripts.operations import Operations
from instances.runtimes.scripts.rollback import Rollback
from instances.runtimes.scripts.streams import KEEP

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
        self._context = run
        self._class_name = class_name
        self._flags = flags
        self._operations = operations
        self._wake = wake
        self._on_close = on_close
        self._line = Line(isolate, isolate.attach(self), operations.now)
        self._attempts = Attempts(self._line, operations.cpu_ms, run.run)
        self._commands: list[CommandMessage] = []
        self._calls: dict[int, _Called] = {}
        self._ids: dict[StepKey, int] = {}
        self._counts: Counter[tuple[StepKind, str]] = Counter()
        self._outside = 0
        self._rollback: Rollback | None = None
        self._turning = False
        self._ended = False
        self._missed = False
        """The code did not call a step that is recorded: the handlers it registered are not all there should be."""

    # --- the session protocol ------------------------------------------------------------------------------------

    @property
    def isolate(self) -> Isolate:
        """The sandbox it runs in."""
        return self._line.isolate

    @property
    def busy(self) -> bool:
        return self._outside > 0 and not self._ended

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        self._turning = True
        try:
            await self._take(messages)
        finally:
            self._turning = False
        if self._line.lost is not None:
            raise self._line.lost
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
            await self._line.send(parts)
            parts = []
            self._heed(message)
        await self._line.send(parts + self._told(outcomes))

    def execute(self, step: Do, attempt: Attempt) -> asyncio.Future[Raw | None]:
        undo = step.key.kind is StepKind.ROLLBACK
        id = self._ids[StepKey(StepKind.DO, step.key.name, step.key.count) if undo else step.key]
        message: dict[str, Any] = {
            "op": "undo" if undo else "attempt",
            "r": self._line.number,
            "id": id,
            "attempt": attempt.number,
            "now": told.millis(attempt.now()),
            "entropy": base64.b64encode(os.urandom(32)).decode(),
        }
        if undo:
            assert self._rollback is not None
            message["error"] = told.error(self._rollback.failure)
        else:
            key = step.key
            message["ctx"] = {
                "step": {"name": key.name, "count": key.count},
                "attempt": attempt.number,
                "config": config_of(step.config),
            }
        return self._attempts.make(id, attempt, message, undo=undo)

    async def delay(self, step: Do, attempt: int, failure: Failure) -> int:
        id = self._ids[step.key]
        message = {"op": "delay", "r": self._line.number, "id": id, "attempt": attempt, "error": told.error(failure)}
        message["now"] = told.millis(self._operations.now())
        return await self._attempts.delay(id, step.key.counted, attempt, message)

    async def close(self) -> None:
        self._ended = True
        self._operations.close()
        self._line.isolate.detach(self._line.number)
        self._wake = _nobody  # the run holds this session: both would wait for the garbage collector
        self._attempts.fail_all(SessionLost("closed"))
        self._on_close()

    # --- to the sandbox ------------------------------------------------------------------------------------------

    def _start(self, message: Started) -> bytes:
        if self._context.timeout is not None:
            self._emit(Timer(DEADLINE, self._context.timeout))
        return encode(told.start(self._context, self._line.number, self._class_name, message.at))

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
                parts.append((encode({"op": "outcome", "r": self._line.number, "id": id, **outcome}), called.inside))
                continue
            key = message.key
            past.append({"kind": key.kind.value, "name": key.name, "count": key.count, **outcome})
            size += len(message.value or "") if isinstance(message, Done) else 100
            if size > PAST_BYTES:
                parts.append((encode({"op": "past", "r": self._line.number, "outcomes": past, "last": False}), 0))
                past, size = [], 0
        if past:
            parts.append((encode({"op": "past", "r": self._line.number, "outcomes": past, "last": True}), 0))
        return parts

    def _outcome(self, message: Done | Broken) -> dict[str, Any] | None:
        """An outcome as the sandbox is told; None when it ends the run without its code hearing of it."""
        outcome: dict[str, Any] = {"at": told.millis(message.at)}
        if isinstance(message, Done):
            return outcome | told.value(message.value)
        if message.failure.code == UNSERIALISABLE:
            self._fail(unserialisable(message.key.name))
            return None
        if message.failure.code == INVALID_STREAM:
            self._fail(invalid_stream(message.key.name))
            return None
        if message.failure.code == STREAM_STORAGE:
            self._fail(storage_exceeded(message.failure))
            return None
        return outcome | {"error": told.error(told_to_code(message.failure, self._flags))}

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
        self._line.tell({"op": "rollback", "r": self._line.number})
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
        if self._line.lost is None:
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
            self._attempts.used(step, micros)

    def die(self, step: int | None, cause: str) -> None:
        if self._line.lost is not None:
            return
        key = None
        if step:
            called = self._calls.get(step)
            key = called.command.key if called is not None else None
            if key is not None and self._rollback is not None:
                key = StepKey(StepKind.ROLLBACK, key.name, key.count)
        failure = CPU if cause == "cpu" and step is not None else None
        self._line.lost = SessionLost(
            f"the sandbox is gone: {cause}", step=key, failure=failure, blame=step is not None
        )
        self._operations.close()
        self._attempts.fail_all(self._line.lost)
        self._wake()

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
            key = self._called(message.id).command.key
            value = self._attempts.stream_of(message.id, message.attempt, key)
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
        self._called(abs(id))
        self._attempts.settle(id, number, outcome)

    def _called(self, id: int) -> _Called:
        called = self._calls.get(id)
        if called is None:
            raise Violation(f"no step {id} was called")
        return called

    def _call(self, message: said.Call) -> None:
        if message.kind == KEEP:
            self._attempts.keep(message)
        else:
            self._operations.begin(message, self._line.reply)

    def _cancel_call(self, message: said.CancelCall) -> None:
        self._operations.cancel(message.call)

    def _logged(self, message: said.Logged) -> None:
        if not message.inside or not self._attempts.log(message.inside, message.level, message.message):
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
