"""Steps in flight: attempts, retries, timeouts, completion from outside, children.

One :class:`Attempts` per run. It writes through the run's pen (`Run.write`) and sets the run's timers; the run decides
when to commit. A step's outcome becomes a message to the session only after its entry is committed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import structlog

from app.errors import Unavailable
from instances.engine import faults
from instances.engine.client import Create, NewInstance
from instances.engine.inbox import Fact
from instances.engine.replay import BACKWARD, OpenStep, encode_failure
from instances.lifecycle import Kind
from instances.payloads import decode_stored, loads
from instances.runtimes.protocol import (
    MAX_DEATHS,
    Attempt,
    Broken,
    Do,
    Done,
    Failure,
    Raw,
    SessionLost,
    StepFailure,
    StepKey,
    StepKind,
)
from tenants import metrics
from tenants.limits import PAYLOAD_BYTES

if TYPE_CHECKING:
    from instances.engine.run import Run

log = structlog.get_logger(__name__)

MAX_DEPTH = 16
"""Children of children, at most."""

DEADLY = Failure("WorkflowInternalError", f"The attempt ended {MAX_DEATHS} sandboxes in a row")
DEFAULT_DELAY = 10_000
"""Base of the wait before a retry when the session that would say it is gone, ms."""

DIED = Failure("WorkflowInternalError", "Attempt failed due to internal workflows error")
"""An attempt whose worker died under it."""


class _State(Enum):
    STARTING = "starting"
    """The start waits for its commit."""
    RUNNING = "running"
    RETRYING = "retrying"
    OUTSIDE = "outside"
    """Completion comes from outside."""
    CHILD = "child"
    DELAYING = "delaying"
    """The session is asked how long to wait before the retry."""
    ENDED = "ended"


@dataclass(slots=True)
class _Step:
    do: Do
    started_at: datetime
    attempts: int = 1
    failures: int = 0
    state: _State = _State.STARTING
    task: asyncio.Task[None] | None = None
    child: str = ""
    compensate_input: Raw | None = None
    reopened: bool = False
    """Begun by a holder before this one."""
    deaths: int = 0
    """Sandboxes that died on it since its last failure."""

    @property
    def starts_durably(self) -> bool:
        """Whether an attempt runs only once its start is committed, so that a crash cannot make it run uncounted.

        Others may run again anyway; but when one holder is gone, what the next one begins counts.
        """
        do = self.do
        if do.child is not None:
            return True
        return not (do.immediate or do.repeatable) and (do.guarded or do.retry.limit == 0 or self.reopened)


class _ChildEnd(msgspec.Struct):
    status: str
    output: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] | None = None


_decode_child = msgspec.json.Decoder(_ChildEnd)


class Attempts:
    """The open steps of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steps: dict[StepKey, _Step] = {}
        self.running = 0
        """Attempts in flight: while there are any, the run stays in memory."""

    # --- starting ------------------------------------------------------------------------------------------------

    def begin(self, do: Do) -> None:
        """Start a step that has no past."""
        run = self._run
        step = _Step(do, run.now())
        self._steps[do.key] = step
        waits_for_commit = step.starts_durably
        config = _start_payload(do)
        then = (lambda: self._dispatch(step)) if waits_for_commit else None
        self._write(Kind.STEP_STARTED, step, config, then, step.started_at)
        if do.total_timeout is not None:
            run.timetable.set(("total", do.key), run.millis(step.started_at) + do.total_timeout)
        if not waits_for_commit:
            self._dispatch(step)

    def reopen(self, do: Do, past: OpenStep) -> None:
        """Go on with a step the journal left open."""
        run = self._run
        step = _Step(do, past.started_at, past.attempts, past.failures, reopened=True, deaths=past.deaths)
        self._steps[do.key] = step
        shifted = run.past.shifted
        if do.total_timeout is not None:
            run.timetable.set(
                ("total", do.key), shifted(run.millis(past.started_at) + do.total_timeout, past.started_at)
            )
        if past.waiting_at is not None:
            self._await_outside(step, past.waiting_at, shifted)
        elif (do.child is not None or do.immediate or do.repeatable) and past.failed_at is None:
            self._dispatch(step)
        elif past.attempt_open:
            self._failed(step, DIED)
        else:
            failed_at = past.failed_at or past.started_at
            step.state = _State.RETRYING
            run.timetable.set(("retry", do.key), shifted(run.millis(failed_at) + past.delay, failed_at))

    def retry_due(self, key: StepKey) -> None:
        """The wait before a retry is over."""
        step = self._steps.get(key)
        if step is None or step.state is not _State.RETRYING:
            return
        step.attempts += 1
        waits_for_commit = step.starts_durably
        step.state = _State.STARTING
        self._write(Kind.ATTEMPT_STARTED, step, None, (lambda: self._dispatch(step)) if waits_for_commit else None)
        if not waits_for_commit:
            self._dispatch(step)

    def _dispatch(self, step: _Step) -> None:
        if step.state is _State.ENDED:
            return
        if step.do.child is not None:
            step.state = _State.CHILD
            step.child = f"child:{self._child_key(step)}"
            self._start(step, self._create_child(step))
        elif step.do.immediate:
            self._run_in_place(step)
        elif step.do.outgoing and not self._run.may_request():
            self._break(
                step, _used_up(f"the instance has made its {self._run.context.request_limit} outgoing requests")
            )
        else:
            step.state = _State.RUNNING
            self._start(step, self._attempt(step))

    def _start(self, step: _Step, work: Any) -> None:
        self.running += 1
        step.task = asyncio.get_running_loop().create_task(work)
        step.task.add_done_callback(lambda _: self._left(step))

    def _left(self, step: _Step) -> None:
        self.running -= 1
        step.task = None
        self._run.poke()

    # --- one attempt ---------------------------------------------------------------------------------------------

    def _run_in_place(self, step: _Step) -> None:
        """A pure step: its coroutine ends at the first send, so it needs no task."""
        attempt = self._attempt_info(step)
        work = self._run.session.execute(step.do, attempt)
        try:
            work.send(None)  # type: ignore[attr-defined]
        except StopIteration as done:
            step.compensate_input = attempt.compensate_input
            self._succeeded(step, done.value)
        except StepFailure as error:
            self._failed(step, error.failure)
        else:
            raise RuntimeError(f"immediate step {step.do.key.counted} suspended")

    async def _attempt(self, step: _Step) -> None:
        do = step.do
        timeout = None if do.external else do.timeout
        scope = asyncio.timeout(None if timeout is None else timeout / 1000)
        began, outcome = time.perf_counter(), "failed"
        attempt = self._attempt_info(step)
        try:
            async with scope:
                output = await self._run.session.execute(do, attempt)
            faults.point("compensation-not-journaled" if do.key.kind is StepKind.ROLLBACK else "step-not-journaled")
        except StepFailure as error:
            self._failed(step, error.failure)
        except SessionLost as lost:
            self._run.lose_session(lost)
        except TimeoutError as error:
            if scope.expired():
                message = f"Execution timed out after {timeout}ms"
                self._failed(step, Failure("WorkflowTimeoutError", message, "STEP_TIMEOUT"), timed_out=True)
            else:
                self._failed(step, Failure("TimeoutError", str(error) or "timed out"))
        except asyncio.CancelledError:
            if step.state is not _State.ENDED and not self._run.lost:
                raise
        except Exception as error:
            log.exception("a step broke the engine", step=do.key.counted, **self._run.ids)
            self._failed(step, Failure("WorkflowInternalError", f"internal error: {type(error).__name__}"))
        else:
            outcome = "completed"
            step.compensate_input = attempt.compensate_input
            self._succeeded(step, output)
        finally:
            metrics.STEP_SECONDS.labels(self._run.runtime, outcome).observe(time.perf_counter() - began)

    def _attempt_info(self, step: _Step) -> Attempt:
        run, do = self._run, step.do
        phase = "compensate" if do.key.kind is StepKind.ROLLBACK else "invoke"
        return Attempt(
            step.attempts,
            lambda level, message: run.log(level, message, do.key.counted),
            run.now,
            lambda: run.lost or step.state is _State.ENDED,
            f"{run.context.workflow}:{run.context.instance_id}:{do.key.name}:{phase}",
        )

    def _succeeded(self, step: _Step, output: Raw | None) -> None:
        if step.state is _State.ENDED or self._run.lost:
            return
        do = step.do
        if output is not None and len(output) > PAYLOAD_BYTES // 4 and len(output.encode()) > PAYLOAD_BYTES:
            message = f"Step {do.key.counted} output is too large. Maximum allowed size is 1MiB."
            self._failed(step, Failure("WorkflowInternalError", message))
        elif do.external:
            now = self._run.now()
            plan: dict[str, Any] = {"type": self._outside_types(step)[0]}
            if do.timeout is not None:
                plan["until"] = self._run.millis(now) + do.timeout
            self._write(Kind.STEP_WAITING, step, msgspec.json.encode(plan).decode())
            self._await_outside(step, now)
        else:
            self._complete(step, output)

    def _complete(self, step: _Step, output: Raw | None) -> None:
        do = step.do
        value = output if do.save_output else None
        if do.key.kind is StepKind.DO and not self._run.has_room(value):
            self._break(
                step, _used_up(f"the output does not fit: the instance may store {self._run.context.state_limit} bytes")
            )
            return
        self._close(step)
        if step.compensate_input is not None and do.key.kind is StepKind.DO:
            self._run.write(Kind.COMPENSATE_INPUT, do.key.name, do.key.count, step.attempts, step.compensate_input)
        message = Done(do.key, value, self._run.now(), step.attempts, step.started_at, step.compensate_input)
        self._write(Kind.STEP_COMPLETED, step, value, message)

    def _failed(self, step: _Step, failure: Failure, *, timed_out: bool = False) -> None:
        if step.state is _State.ENDED or self._run.lost:
            return
        do = step.do
        step.failures += 1
        step.deaths = 0
        retry = do.retry
        again = not failure.permanent and step.failures <= retry.limit
        if again and retry.allow is not None:
            again = retry.allow(failure, step.attempts)
        if not again:
            self._break(step, failure, timed_out=timed_out)
        elif do.dynamic_delay:
            step.state = _State.DELAYING
            self._start(step, self._ask_delay(step, failure, timed_out))
        else:
            self._retry_later(step, failure, retry.wait(step.failures), timed_out=timed_out)

    async def _ask_delay(self, step: _Step, failure: Failure, timed_out: bool) -> None:
        """Have the session say how long to wait."""
        try:
            base = await self._run.session.delay(step.do, step.attempts, failure)
        except StepFailure as error:
            self._break(step, error.failure)
        except SessionLost as lost:
            self._run.lose_session(lost)
        else:
            delay = replace(step.do.retry, delay=base).wait(step.failures)
            self._retry_later(step, failure, delay, timed_out=timed_out)

    def _retry_later(self, step: _Step, failure: Failure, delay: int, *, timed_out: bool = False) -> None:
        run, do = self._run, step.do
        retry = do.retry
        if retry.jitter:
            delay += int(delay * retry.jitter * random.random())  # noqa: S311
        if failure.retry_after is not None:
            delay = max(delay, failure.retry_after)
        if retry.max_delay is not None:
            delay = min(delay, retry.max_delay)
        run.timetable.clear(("wait-outside", do.key))
        self._write(Kind.ATTEMPT_FAILED, step, encode_failure(failure, timed_out=timed_out, delay=delay))
        step.state = _State.RETRYING
        run.timetable.set(("retry", do.key), run.millis(run.now()) + delay)

    def _break(self, step: _Step, failure: Failure, *, timed_out: bool = False) -> None:
        told = replace(failure, permanent=False, retry_after=None)  # those were for us, and are not in the journal
        message = Broken(step.do.key, told, self._run.now(), step.attempts, timed_out, step.started_at)
        self._close(step)
        self._write(Kind.STEP_FAILED, step, encode_failure(failure, timed_out=timed_out), message)

    # --- completion from outside, children -----------------------------------------------------------------------

    def _await_outside(self, step: _Step, since: datetime, shifted: Any = None) -> None:
        run, do = self._run, step.do
        step.state = _State.OUTSIDE
        if do.timeout is not None:
            due = run.millis(since) + do.timeout
            run.timetable.set(("wait-outside", do.key), shifted(due, since) if shifted else due)

    def outside_timed_out(self, key: StepKey) -> None:
        step = self._steps.get(key)
        if step is not None and step.state is _State.OUTSIDE:
            message = f"Execution timed out after {step.do.timeout}ms"
            self._failed(step, Failure("WorkflowTimeoutError", message, "STEP_TIMEOUT"), timed_out=True)

    def total_timed_out(self, key: StepKey) -> None:
        """The whole step took too long: final, whatever it is doing."""
        step = self._steps.get(key)
        if step is not None:
            message = f"Execution timed out after {step.do.total_timeout}ms"
            self._break(step, Failure("WorkflowTimeoutError", message, "STEP_TIMEOUT", permanent=True), timed_out=True)

    def _child_key(self, step: _Step) -> UUID:
        """The key of a step's child: the same whenever it is asked for, and in order of time like all keys."""
        key, run = step.do.key, self._run
        phase = "rollback/" if key.kind is StepKind.ROLLBACK else ""
        name = f"{run.context.key}/{run.context.run}/{phase}{key.name}/{key.count}/{step.attempts}"
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10], "big")
        low = digest & ((1 << 62) - 1)
        return UUID(int=run.millis(step.started_at) << 80 | 0x7 << 76 | (digest >> 68) << 64 | 0b10 << 62 | low)

    async def _create_child(self, step: _Step) -> None:
        run, child = self._run, step.do.child
        assert child is not None
        if run.context.depth >= MAX_DEPTH:
            self._failed(step, Failure("WorkflowError", f"children may be nested {MAX_DEPTH} deep", permanent=True))
            return
        key = self._child_key(step)
        request = NewInstance(
            account_id=run.context.account_id,
            key=key,
            instance_id=str(key),
            handle=child.workflow,
            input=child.input,
            trigger_source=3,
            parent_key=run.context.key if child.wait else None,
            parent_step=step.do.key.counted,
            depth=run.context.depth + 1,
        )
        while True:
            try:
                [created] = await run.worker.client.create([request])
                break
            except Unavailable:  # the key makes repeating safe
                continue
        if created.outcome is Create.NO_WORKFLOW:
            message = f'there is no workflow "{child.workflow}"'
            self._failed(step, Failure("WorkflowNotFound", message, "WORKFLOW_NOT_FOUND", permanent=True))
        elif created.outcome is not Create.CREATED:
            self._failed(step, Failure("WorkflowError", f"the child instance was refused: {created.outcome.name}"))
        elif not child.wait:
            self._complete(step, msgspec.json.encode({"id": str(key)}).decode())

    def awaited(self) -> list[str]:
        """Types of outside facts open steps wait for."""
        types: list[str] = []
        for step in self._steps.values():
            types += self._types(step)
        return types

    def _types(self, step: _Step) -> tuple[str, ...]:
        if step.state is _State.CHILD:
            return (step.child,)
        return self._outside_types(step) if step.state is _State.OUTSIDE else ()

    @staticmethod
    def _outside_types(step: _Step) -> tuple[str, str]:
        """Types of the facts that complete a step from outside, and that fail it."""
        name = step.do.key.name
        if step.do.key.kind is StepKind.ROLLBACK:
            return (f"step:{name}:compensate", f"step-failed:{name}:compensate")
        return (f"step:{name}", f"step-failed:{name}")

    def match(self) -> None:
        """Give unread facts to the steps that wait for them."""
        run = self._run
        for step in list(self._steps.values()):
            types = self._types(step)
            if types and (fact := run.inbox.take(types)) is not None:
                run.consume(fact)
                self._receive(step, fact)

    def _receive(self, step: _Step, fact: Fact) -> None:
        run = self._run
        if step.state is _State.CHILD:
            end = decode_stored(_decode_child, fact.payload or "{}")
            if end.status == "complete":
                self._complete(step, bytes(end.output).decode())
            else:
                error = end.error or {"name": "WorkflowTerminated", "message": "the child instance was terminated"}
                self._failed(step, Failure(str(error.get("name")), str(error.get("message")), "CHILD_FAILED"))
        elif fact.type.startswith("step-failed:"):
            self._failed(step, _outside_failure(fact.payload))
        else:
            given = run.inbox.take((f"step-input:{step.do.key.name}",))
            if given is not None:
                run.consume(given)
                step.compensate_input = given.payload
            self._complete(step, fact.payload)

    # --- ending --------------------------------------------------------------------------------------------------

    def cancel(self, key: StepKey, failure: Failure) -> bool:
        """The session gives a step up: recorded, no message. False when the step is not open."""
        step = self._steps.get(key)
        if step is None:
            return False
        self._close(step)
        self._write(Kind.STEP_FAILED, step, encode_failure(failure, cancelled=True))
        return True

    def interrupt(self) -> None:
        """The worker leaves, or a sandbox died through no fault of theirs: attempts are closed without counting."""
        for step in list(self._steps.values()):
            if step.state is _State.RUNNING:
                self._write(Kind.ATTEMPT_INTERRUPTED, step, None)
                self._close(step)

    def died(self, key: StepKey, failure: Failure | None, cause: str) -> None:
        """A sandbox died on this attempt. It fails with `failure`, if that is known; else it is made again, unless it
        has been the death of too many."""
        step = self._steps.get(key)
        if step is None or step.state not in (_State.RUNNING, _State.DELAYING):
            return
        step.deaths += 1
        if failure is None and step.deaths >= MAX_DEATHS:
            failure = DEADLY
        if failure is None:
            self._write(Kind.ATTEMPT_INTERRUPTED, step, msgspec.json.encode({"died": cause}).decode())
            self._close(step)
            return
        step.failures += 1
        if step.failures <= step.do.retry.limit:
            retry = step.do.retry
            delay = (replace(retry, delay=DEFAULT_DELAY) if step.do.dynamic_delay else retry).wait(step.failures)
            self._write(Kind.ATTEMPT_FAILED, step, encode_failure(failure, delay=delay))
            self._close(step)
        else:
            self._break(step, failure)

    def drop(self) -> None:
        """The run is over or lost: stop everything, write nothing."""
        for step in list(self._steps.values()):
            self._close(step)

    def _close(self, step: _Step) -> None:
        step.state = _State.ENDED
        key = step.do.key
        self._steps.pop(key, None)
        for name in ("retry", "total", "wait-outside"):
            self._run.timetable.clear((name, key))
        if step.task is not None and step.task is not asyncio.current_task():
            step.task.cancel()

    def _write(
        self, kind: Kind, step: _Step, payload: Raw | None, then: Any = None, at: datetime | None = None
    ) -> None:
        key = step.do.key
        kind = BACKWARD[kind] if key.kind is StepKind.ROLLBACK else kind
        self._run.write(kind, key.name, key.count, step.attempts, payload, then, at)


def _used_up(message: str) -> Failure:
    """The account's limit for an instance is reached, so that trying again does not help."""
    return Failure("LIMIT_EXCEEDED", message, "LIMIT_EXCEEDED", permanent=True)


def _start_payload(do: Do) -> Raw:
    """What a start entry says: the configuration, and what a replay must know of the step."""
    extra = f',"hash":"{do.fingerprint}"' if do.fingerprint else ""
    if do.nested:
        extra += ',"nested":true'
    if not extra:
        return do.config
    return f"{do.config[:-1]}{extra}}}" if do.config != "{}" else f"{{{extra[1:]}}}"


def _outside_failure(payload: str | None) -> Failure:
    """What somebody outside says went wrong, or anything as the message.

    `{name?, message?, code?, permanent?, compensate_input?}`
    """
    value = loads(payload)
    if isinstance(value, dict):
        return Failure(
            str(value.get("name") or "Error"),
            str(value.get("message") or "failed from outside"),
            code=str(value["code"]) if value.get("code") else None,
            permanent=value.get("permanent") is True,
            compensate_input=_json_text(value.get("compensate_input")),
        )
    return Failure("Error", value if isinstance(value, str) else (payload or "failed from outside"))


def _json_text(value: Any) -> Raw | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))
