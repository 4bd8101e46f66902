"""A document driven by hand: a small driver with virtual time that keeps what it told the session.

It does what the engine's driver promises (attempts, retries, timers, waits, completion from outside) one thing at a
time, and delivers the results as messages. `replay` feeds the recorded messages to a fresh session.
"""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from instances.lifecycle import Kind
from instances.runtimes.document.actions import Tools
from instances.runtimes.document.handlers import known_handlers
from instances.runtimes.document.plan import compile_plan
from instances.runtimes.document.session import DocumentSession
from instances.runtimes.protocol import (
    RUNTIME_DOCUMENT,
    Attempt,
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
    Record,
    RollbackRequested,
    RunContext,
    Sleep,
    Started,
    StepFailure,
    StepKey,
    StepKind,
    StopRollback,
    StoredVersion,
    Timer,
    TimerFired,
    Wait,
)
from instances.step_entries import made_into
from tests.support.attempts import no_streams
from versions.document import decode_document, encode_document, parse_document
from versions.expressions import decode_json, encode_json

START = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT, INSTANCE, WORKFLOW, VERSION, WORKSPACE = (UUID(int=number) for number in range(1, 6))

Perform = Callable[[Do, Attempt], Awaitable[str | None]]


class NoTools:
    """Stands for tools a test does not expect to be used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the run reached for {name}")


def tools(**given: Any) -> Tools:
    """Tools of which only those given are there."""
    return Tools(**{"store": NoTools(), "egress": NoTools(), "handlers": NoTools(), **given})


async def ok(_do: Do, _attempt: Attempt) -> str:
    """What a call answers that went well."""
    return '{"status":200}'


def compiled(nodes: list[dict[str, Any]], **document: Any) -> Any:
    """A plan from the `nodes` of a definition, through the form in which versions are stored."""
    definition = {"spec": "workflow/1", "name": "test", "nodes": nodes, **document}
    parsed = parse_document(definition, known_handlers=frozenset(known_handlers()))
    return compile_plan(decode_document(encode_document(parsed)))


def stored_version(source: str = "") -> StoredVersion:
    return StoredVersion(
        ACCOUNT, VERSION, WORKFLOW, "test", "Test", 3, RUNTIME_DOCUMENT, "document", "", source, "{}", 25_000, WORKSPACE
    )


def run_context(input: str | None = "{}", **changes: Any) -> RunContext:
    return RunContext(
        **{
            "account_id": ACCOUNT,
            "key": INSTANCE,
            "instance_id": "i-1",
            "run": 1,
            "workflow_key": WORKFLOW,
            "workflow": "test",
            "workspace_id": WORKSPACE,
            "version_key": VERSION,
            "input": input,
            "created_at": START,
            "triggered_by": "user-7",
            **changes,
        }
    )


@dataclass
class _Open:
    do: Do
    started_at: datetime
    attempts: int = 0


@dataclass
class Driver:
    """One run. `perform` stands in for `Session.execute`; by default the real one runs."""

    plan: Any
    run: RunContext = field(default_factory=run_context)
    tools: Any = None
    perform: Perform | None = None
    order: random.Random | None = None
    """Given: which of several possible outcomes comes first is drawn from it."""

    def __post_init__(self) -> None:
        self.now = START
        self.commands: list[CommandMessage] = []
        self.batches: list[tuple[list[Message], list[CommandMessage]]] = []
        self.executed: list[tuple[str, int]] = []
        self.logs: list[tuple[str, str]] = []
        self.open: dict[StepKey, _Open] = {}
        self.waits: dict[StepKey, tuple[Wait, datetime]] = {}
        self.external: set[StepKey] = set()
        self.end: Finish | Fail | None = None
        self.rollback: EndRollback | None = None
        self.ended = False
        self._agenda: list[tuple[datetime, int, Callable[[], Message | None]]] = []
        self._sequence = itertools.count()
        self._soon: list[Callable[[], Awaitable[Message | None]]] = []
        self._gone: set[Any] = set()
        self.session = self._new_session()

    def _new_session(self) -> DocumentSession:
        tools = self.tools or Tools(NoTools(), NoTools(), NoTools())  # type: ignore[arg-type]
        return DocumentSession(self.plan, self.run, stored_version(), tools)

    # --- going on ------------------------------------------------------------------------------------------------

    async def start(self) -> Driver:
        await self.deliver(Started(self.now))
        return await self.settle()

    async def deliver(self, *messages: Message) -> list[CommandMessage]:
        """One turn of the session; its commands are carried out."""
        commands = await self.session.turn(messages)
        self.batches.append((list(messages), commands))
        self.commands += commands
        for command in commands:
            self._apply(command)
        return commands

    async def settle(self) -> Driver:
        """Carry out whatever needs no time."""
        while self._soon and not self.ended:
            position = self.order.randrange(len(self._soon)) if self.order else 0
            message = await self._soon.pop(position)()
            if message is not None:
                await self.deliver(message)
        return self

    async def advance(self, seconds: float) -> Driver:
        """Let time pass, firing what comes due on the way."""
        until = self.now + timedelta(seconds=seconds)
        await self.settle()
        while self._agenda and self._agenda[0][0] <= until and not self.ended:
            due, _, fire = heapq.heappop(self._agenda)
            self.now = max(self.now, due)
            message = fire()
            if message is not None:
                await self.deliver(message)
            await self.settle()
        self.now = until
        return self

    async def finish(self) -> Driver:
        """Let time pass until the run ends or nothing is planned."""
        await self.settle()
        while self._agenda and not self.ended:
            await self.advance((self._agenda[0][0] - self.now).total_seconds())
        return self

    async def event(self, type: str, payload: str = "null") -> bool:
        """Send an event; whether a wait took it."""
        for key, (wait, _) in list(self.waits.items()):
            if wait.type == type and (wait.accepts is None or wait.accepts(payload)):
                del self.waits[key]
                await self.deliver(self._waited(key, wait, payload))
                await self.settle()
                return True
        return False

    async def complete(self, name: str, payload: str | None = "null", *, kind: StepKind = StepKind.DO) -> None:
        """Complete a step from outside."""
        key = next(key for key in self.external if key.name == name and key.kind is kind)
        self.external.discard(key)
        message = self._completed(self.open[key], payload)
        if message is not None:
            await self.deliver(message)
        await self.settle()

    async def fail_outside(self, name: str, failure: Failure, *, kind: StepKind = StepKind.DO) -> None:
        """Fail a step from outside."""
        key = next(key for key in self.external if key.name == name and key.kind is kind)
        self.external.discard(key)
        message = self._failed(self.open[key], failure)
        if message is not None:
            await self.deliver(message)
        await self.settle()

    async def request_rollback(self) -> None:
        await self.deliver(RollbackRequested(Failure("Terminated", "terminated"), self.now))
        await self.settle()

    async def stop_rollback(self) -> None:
        await self.deliver(StopRollback(self.now))
        await self.settle()

    async def check_replay(self) -> None:
        """A fresh session gives the same commands for the same messages, one by one and all at once."""
        messages = [message for batch, _ in self.batches for message in batch]
        expected = [comparable(command) for command in self.commands]
        session = self._new_session()
        commands = [comparable(c) for message in messages for c in await session.turn([message])]
        assert commands == expected
        assert [comparable(c) for c in await self._new_session().turn(messages)] == expected

    # --- what tests look at --------------------------------------------------------------------------------------

    @property
    def output(self) -> Any:
        assert isinstance(self.end, Finish), self.end
        return None if self.end.output is None else decode_json(self.end.output)

    @property
    def error(self) -> Failure:
        assert isinstance(self.end, Fail), self.end
        return self.end.failure

    def started(self, kind: StepKind = StepKind.DO) -> list[str]:
        """Steps in the order of their commands."""
        return [c.key.name for c in self.commands if isinstance(c, (Do, Sleep, Wait)) and c.key.kind is kind]

    def records(self, kind: Kind) -> list[str]:
        return [c.name for c in self.commands if isinstance(c, Record) and c.kind == kind]

    def skipped(self) -> dict[str, str]:
        """Reasons by node."""
        return {
            c.name: decode_json(c.payload or "{}")["reason"]
            for c in self.commands
            if isinstance(c, Record) and c.kind == Kind.STEP_SKIPPED
        }

    def cancelled(self) -> list[str]:
        return [c.key.name for c in self.commands if isinstance(c, Cancel)]

    def result(self, name: str, count: int = 1) -> Any:
        """The output a step was recorded with."""
        for batch, _ in self.batches:
            for message in batch:
                if isinstance(message, Done) and (message.key.name, message.key.count) == (name, count):
                    return None if message.value is None else decode_json(message.value)
        raise AssertionError(f"{name} did not complete")

    # --- commands ------------------------------------------------------------------------------------------------

    def _apply(self, command: CommandMessage) -> None:
        match command:
            case Do():
                self.open[command.key] = _Open(command, self.now)
                self._soon.append(lambda: self._attempt(command))
                if command.total_timeout is not None:
                    self._at(command.total_timeout, lambda: self._total(command.key))
            case Sleep():
                due = (
                    self.now + timedelta(milliseconds=command.duration or 0)
                    if command.until is None
                    else max(self.now, datetime.fromtimestamp(command.until / 1000, UTC))
                )
                started = self.now
                self._plan(due, lambda: self._once(command.key, self._slept(command, started)))
            case Wait():
                self.waits[command.key] = (command, self.now)
                self._at(command.timeout, lambda: self._wait_over(command))
            case Timer():
                self._gone.discard(command.id)
                self._at(command.after, lambda: self._once(command.id, TimerFired(command.id, self.now)))
            case CancelTimer():
                self._gone.add(command.id)
            case Cancel():
                assert not self.ended
                self._gone.add(command.key)
                self.open.pop(command.key, None)
                self.waits.pop(command.key, None)
                self.external.discard(command.key)
            case EndRollback():
                self.rollback = command
            case Finish() | Fail():
                assert self.end is None
                self.end = command
                self.ended = True
            case BeginRollback() | Record() | Log():
                pass

    def _at(self, milliseconds: int, fire: Callable[[], Message | None]) -> None:
        self._plan(self.now + timedelta(milliseconds=milliseconds), fire)

    def _plan(self, due: datetime, fire: Callable[[], Message | None]) -> None:
        heapq.heappush(self._agenda, (due, next(self._sequence), fire))

    def _once(self, id: Any, message: Message) -> Message | None:
        return None if id in self._gone else message

    def _wait_over(self, wait: Wait) -> Message | None:
        if self.waits.pop(wait.key, None) is None:
            return None
        failure = Failure("WorkflowTimeoutError", f"Execution timed out after {wait.timeout}ms", "EVENT_TIMEOUT")
        return Broken(wait.key, failure, self.now, timed_out=True)

    def _total(self, key: StepKey) -> Message | None:
        step = self.open.pop(key, None)
        if step is None:
            return None
        self.external.discard(key)
        failure = Failure("WorkflowTimeoutError", "Execution timed out", "STEP_TIMEOUT", permanent=True)
        return Broken(key, failure, self.now, step.attempts, True, step.started_at)

    async def _attempt(self, do: Do) -> Message | None:
        step = self.open.get(do.key)
        if step is None:
            return None
        step.attempts += 1
        self.executed.append((do.key.counted, step.attempts))
        if do.child is not None:
            self.external.add(do.key)
            return None
        attempt = Attempt(
            step.attempts,
            lambda level, message: self.logs.append((level, message)),
            lambda: self.now,
            lambda: do.key not in self.open,
            no_streams,
            f"test:i-1:{do.key.name}:{'compensate' if do.key.kind is StepKind.ROLLBACK else 'invoke'}",
        )
        perform = self.session.execute if self.perform is None or do.immediate else self.perform
        try:
            work = perform(do, attempt)
            if do.immediate:
                output = _in_place(work)
            else:
                output = await asyncio.wait_for(work, 10)
        except StepFailure as error:
            return self._failed(step, error.failure)
        if do.external:
            self.external.add(do.key)
            if do.timeout is not None:
                self._at(do.timeout, lambda: self._outside_over(do.key))
            return None
        return self._completed(step, output, attempt.compensate_input)

    def _completed(self, step: _Open, result: str | None, compensate_input: str | None = None) -> Message | None:
        do = step.do
        try:
            output = result if do.shape is None else do.shape(result)
        except StepFailure as error:
            return self._failed(step, error.failure)
        del self.open[do.key]
        value, kept = output if do.save_output else None, result if do.keep_result else None
        return Done(do.key, value, self.now, step.attempts, step.started_at, compensate_input, kept)

    def _slept(self, sleep: Sleep, started: datetime) -> Message:
        try:
            value = None if sleep.shape is None else made_into(sleep.shape(started, self.now))
        except StepFailure as error:
            return Broken(sleep.key, error.failure, self.now, started_at=started)
        return Done(sleep.key, value, self.now, 1, started)

    def _waited(self, key: StepKey, wait: Wait, payload: str) -> Message:
        value = f'{{"payload":{payload},"timestamp":"2026-01-01T00:00:00.000Z","type":"{wait.type}"}}'
        try:
            value = value if wait.shape is None else made_into(wait.shape(payload))
        except StepFailure as error:
            return Broken(key, error.failure, self.now)
        return Done(key, value, self.now)

    def _outside_over(self, key: StepKey) -> Message | None:
        if key not in self.external:
            return None
        self.external.discard(key)
        failure = Failure("WorkflowTimeoutError", "Execution timed out", "STEP_TIMEOUT")
        return self._failed(self.open[key], failure, timed_out=True)

    def _failed(self, step: _Open, failure: Failure, *, timed_out: bool = False) -> Message | None:
        do = step.do
        again = not failure.permanent and step.attempts <= do.retry.limit
        if again and do.retry.allow is not None:
            again = do.retry.allow(failure, step.attempts)
        if again:
            wait = max(do.retry.wait(step.attempts), failure.retry_after or 0)
            self._at(wait, lambda: self._again(do))
            return None
        del self.open[do.key]
        return Broken(do.key, failure, self.now, step.attempts, timed_out, step.started_at)

    def _again(self, do: Do) -> None:
        if do.key in self.open:
            self._soon.append(lambda: self._attempt(do))


def comparable(command: CommandMessage) -> CommandMessage:
    """A command without what belongs to one process: closures and the session's own data."""
    match command:
        case Do():
            retry = dataclasses.replace(command.retry, allow=None)
            return dataclasses.replace(command, data=None, shape=None, retry=retry)
        case Sleep():
            return dataclasses.replace(command, shape=None)
        case Wait():
            return dataclasses.replace(command, accepts=None, shape=None)
    return command


def _in_place(work: Awaitable[str | None]) -> str | None:
    """Run a coroutine that must not suspend."""
    try:
        work.send(None)  # type: ignore[attr-defined]
    except StopIteration as done:
        return done.value
    raise AssertionError("an immediate step suspended")


async def drive(nodes: list[dict[str, Any]], *, input: Any = None, **options: Any) -> Driver:
    """Start a document and carry out whatever needs no time. Unknown options are the document's own fields."""
    own = {name: options.pop(name) for name in ("run", "tools", "perform", "order") if name in options}
    if input is not None:
        own["run"] = run_context(encode_json(input))
    return await Driver(compiled(nodes, **options), **own).start()


# --- nodes -------------------------------------------------------------------------------------------------------

Definition = dict[str, Any]


def noop(id: str, *depends_on: str, **fields: Any) -> Definition:
    return {"id": id, "depends_on": list(depends_on), **fields}


def fails(id: str, *depends_on: str, **fields: Any) -> Definition:
    return {"id": id, "type": "fail", "config": {"message": f"{id} broke"}, "depends_on": list(depends_on), **fields}


def sets(id: str, *depends_on: str, values: Any = None, **fields: Any) -> Definition:
    return {"id": id, "type": "set", "config": {"values": values or {}}, "depends_on": list(depends_on), **fields}


def gate(id: str, *depends_on: str, met: Any = True, **config: Any) -> Definition:
    config = {"field": "trigger.go", "operator": "eq", "value": met, **config}
    return {"id": id, "type": "condition", "config": config, "depends_on": list(depends_on)}


def wait(id: str, *depends_on: str, type: str = "wait", config: Any = None, **fields: Any) -> Definition:
    return {"id": id, "type": type, "config": config or {}, "depends_on": list(depends_on), **fields}


def event(id: str, *depends_on: str, config: Any = None, **fields: Any) -> Definition:
    return wait(id, *depends_on, type="wait_for_event", config={"event": "go", **(config or {})}, **fields)


def call(id: str, *depends_on: str, **fields: Any) -> Definition:
    config = fields.pop("config", {"url": "https://example.com"})
    return {"id": id, "type": "call_api", "config": config, "depends_on": list(depends_on), **fields}
