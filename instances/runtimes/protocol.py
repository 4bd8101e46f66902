"""What the driver and a runtime say to each other. One protocol for documents and for scripts.

A :class:`Session` is the deterministic half of one run: it gets messages, in journal order, and answers with commands.
It never reads a clock, never does I/O, never rolls dice: everything it knows came in a message, so that the same
journal gives the same commands again. Side effects happen in :meth:`Session.execute`, one call per step attempt; its
outcome reaches the session as a message only after it was committed.

Values cross as JSON text (`Raw`), decoded only by whoever needs them. Times are epoch milliseconds, durations
milliseconds.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

import msgspec

Raw = str
"""JSON text."""


class StepKind(StrEnum):
    """Families of steps; together with name and count it is a step's identity in the journal."""

    DO = "do"
    SLEEP = "sleep"
    WAIT = "wait"
    ROLLBACK = "rollback"


class StepKey(msgspec.Struct, frozen=True, gc=False):
    """Identity of a step in one run: the `count`-th (from 1) step of this kind and name, in call order."""

    kind: StepKind
    name: str
    count: int = 1

    @property
    def counted(self) -> str:
        """`name-count`, as step lists show it."""
        return f"{self.name}-{self.count}"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as data. `permanent` forbids retries; `retry_after` (ms) raises the next wait."""

    name: str
    message: str
    code: str | None = None
    permanent: bool = False
    retry_after: int | None = None
    output: Raw | None = None
    """What a failed action still produced (an HTTP answer outside `expect`)."""
    compensate_input: Raw | None = None
    """Input for the step's own compensation, when the failure carried one."""


class StepFailure(Exception):
    """Raised by :meth:`Session.execute` when an attempt fails."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


REQUESTS = "requests"
"""Name of the notes in which a session that counts outgoing requests itself says how many the run has made: `count`."""
STREAM_STORAGE = "STREAM_STORAGE"
"""Code of the failure of an attempt whose stream the instance may not store."""


class SessionLost(Exception):
    """What a session ran in is gone (a sandbox died). Raised by any of its methods; the run is opened anew.

    `step`: the attempt it died on, when that is known. `failure`: that attempt's outcome, when it is the attempt's own
    fault (it used up its CPU time); None makes the attempt again, up to :data:`MAX_DEATHS` times. `blame`: it died on
    code of this run outside steps, or on `step`; a run that only shared the sandbox has no part in it.
    """

    def __init__(
        self, reason: str, *, step: StepKey | None = None, failure: Failure | None = None, blame: bool = False
    ) -> None:
        self.step = step
        self.failure = failure
        self.blame = blame
        super().__init__(reason)


MAX_DEATHS = 3
"""Sandboxes that may die on one attempt, or on one run's code outside steps, before it ends as an internal error."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Retry policy: `limit` retries after the first attempt, wait before retry n by `backoff`.

    constant: d; linear: d*n; exponential: d*multiplier^(n-1); capped by `max_delay`; then up to the fraction `jitter`
    more, at random.
    """

    limit: int = 0
    delay: int = 1000
    backoff: str = "exponential"
    multiplier: float = 2.0
    max_delay: int | None = None
    jitter: float = 0.0
    allow: Callable[[Failure, int], bool] | None = None
    """Given the failure and the attempt number, whether a retry is wanted at all."""

    def wait(self, failed_attempts: int) -> int:
        """Milliseconds before the retry that follows `failed_attempts` failures (jitter not included)."""
        if self.backoff == "constant":
            delay: float = self.delay
        elif self.backoff == "linear":
            delay = self.delay * failed_attempts
        else:
            delay = self.delay * self.multiplier ** min(failed_attempts - 1, 1000) if self.delay else 0
        return int(min(delay, self.max_delay if self.max_delay is not None else 366 * 86_400_000))


# --- commands: session to driver -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Do:
    """Run a step (or, with a ROLLBACK key, a compensation): attempts, retries and timeouts are the driver's."""

    key: StepKey
    retry: Retry = Retry()
    timeout: int | None = None
    """Per attempt."""
    total_timeout: int | None = None
    """From the first start to the end, waits included; expiry is final."""
    config: Raw = "{}"
    """What the step view shows as `config`."""
    fingerprint: str = ""
    """Must be equal on replay, else the run is non-deterministic."""
    external: bool = False
    """After the attempt, completion comes from outside (event type `step:<name>`); `timeout` bounds that wait."""
    guarded: bool = False
    """The start must be committed before the attempt runs: no retries left, or a compensation is registered."""
    save_output: bool = True
    """False: the output is handed on in this run's memory only through the journal's null."""
    shape: Callable[[Raw | None], Raw] | None = None
    """What the step's output is made of its result, however that came. Raises :class:`StepFailure`."""
    keep_result: bool = False
    """A replay needs the result as well, which is not the output."""
    sensitive: bool = False
    counts: bool = True
    """Whether it counts towards the step limit."""
    immediate: bool = False
    """`execute` is pure and never suspends: the driver runs it in place, without a task, timeout or guarded start."""
    repeatable: bool = False
    """Doing it twice has the effect of once: an attempt whose worker died is simply made again, and does not count."""
    outgoing: bool = False
    """Each attempt is an outgoing request, of which an instance may make only so many."""
    child: Child | None = None
    """Instead of calling `execute`: create this child instance and, if it says so, take its end as the outcome."""
    nested: bool = False
    """Called inside another step's attempt: its recorded outcome is handed over when it is called again, and not in
    its turn, because the attempt that calls it is made after the replay."""
    dynamic_delay: bool = False
    """:meth:`Session.delay` gives the base of each wait before a retry, in place of `retry.delay`."""
    data: Any = None
    """The session's own; comes back in `execute`."""


@dataclass(frozen=True, slots=True)
class Child:
    """A child instance of workflow `workflow` (handle) with `input`; `wait` False: the step ends when it is created."""

    workflow: str
    input: Raw | None
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Sleep:
    """Durable timer: `duration` from its first start, or until `until` (not moved by pauses)."""

    key: StepKey
    duration: int | None = None
    until: int | None = None
    fingerprint: str = ""
    nested: bool = False
    shape: Callable[[datetime, datetime], Raw] | None = None
    """Its output, given when it began and ended. Raises :class:`StepFailure`."""
    items: int | None = None
    """It is one of so many that are a step together."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for an event of `type`; `accepts` (payload JSON text) may turn one down, which leaves it unread."""

    key: StepKey
    type: str
    timeout: int
    accepts: Callable[[Raw | None], bool] | None = None
    fingerprint: str = ""
    nested: bool = False
    shape: Callable[[Raw], Raw] | None = None
    """Its output, given the payload of its event. Raises :class:`StepFailure`."""
    items: int | None = None


@dataclass(frozen=True, slots=True)
class Timer:
    """A durable timer without a step of its own (deadlines): answered by `TimerFired(id)`, once.

    `after` ms from the moment the command is first seen (moved by pauses).
    """

    id: str
    after: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Abandon a step, sleep or wait that is still open. It is recorded as failed with `failure`; no message follows."""

    key: StepKey
    failure: Failure
    timed_out: bool = False
    """Its time was up: it is shown so."""


@dataclass(frozen=True, slots=True)
class Record:
    """Journal something once per run: a skipped step, a milestone, a sync point. `kind` is a `lifecycle.Kind`."""

    kind: int
    name: str
    count: int = 1
    payload: Raw | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """A log line of the instance (`debug`, `info`, `warn`, `error`)."""

    level: str
    message: str
    step: str | None = None
    data: Raw | None = None


@dataclass(frozen=True, slots=True)
class BeginRollback:
    """The run failed with `failure`; compensations follow. Status becomes rollingBack, a pending pause is dropped."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class EndRollback:
    """Compensations are over. `Fail` (or, after a terminate, nothing) follows; the driver ends the instance."""

    complete: bool
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The run returned `output`: status complete."""

    output: Raw | None


@dataclass(frozen=True, slots=True)
class Fail:
    """The run failed for good: status errored (terminated when a terminate asked for the rollback)."""

    failure: Failure


CommandMessage = (
    Do | Sleep | Wait | Timer | CancelTimer | Cancel | Record | Log | BeginRollback | EndRollback | Finish | Fail
)


# --- messages: driver to session -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """First message of every run and of every replay."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """A step completed, a sleep ended, or a wait got its event.

    `value`: the output; of a sleep None, of a wait `{payload, timestamp, type}`, unless they have a shape
    (:func:`instances.step_entries.made_into`). `result`: what a step with `keep_result` came to.
    """

    key: StepKey
    value: Raw | None
    at: datetime
    attempts: int = 1
    started_at: datetime | None = None
    compensate_input: Raw | None = None
    result: Raw | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A step failed for good, or a wait timed out."""

    key: StepKey
    failure: Failure
    at: datetime
    attempts: int = 1
    timed_out: bool = False
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TimerFired:
    id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RollbackRequested:
    """Somebody asked to terminate with rollback: start nothing new, compensate, `EndRollback`."""

    failure: Failure
    at: datetime


@dataclass(frozen=True, slots=True)
class StopRollback:
    """Start no further compensation; `EndRollback(complete=False)` when those in flight are over."""

    at: datetime


Message = Started | Done | Broken | TimerFired | RollbackRequested | StopRollback


# --- the two parties -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a session may know about its run."""

    account_id: UUID
    key: UUID
    instance_id: str
    run: int
    workflow_key: UUID
    workflow: str
    """Handle."""
    workspace_id: UUID
    """The workflow's. Names of workflows, whoever says them in the run, mean those of this workspace."""
    version_key: UUID
    input: Raw | None
    created_at: datetime
    trigger: dict[str, Any] = field(default_factory=dict)
    """`{source, cron?, scheduledTime?}`."""
    triggered_by: str | None = None
    depth: int = 0
    step_limit: int = 25_000
    state_limit: int | None = None
    """Bytes the instance may store: parameters, outputs of steps, received events."""
    request_limit: int | None = None
    """Outgoing requests the instance may make."""
    timeout: int | None = None
    """Milliseconds from its start within which the run must end, given when it was created; before what its version
    says. Pauses do not count."""
    requests: int = 0
    """Outgoing requests a session has recorded (:data:`REQUESTS`) in earlier lives of the run."""


@dataclass(slots=True)
class Attempt:
    """One attempt of a step, given to :meth:`Session.execute`."""

    number: int
    log: Callable[[str, str], None]
    """`log(level, message)`"""
    now: Callable[[], datetime]
    cancelled: Callable[[], bool]
    keep: Callable[[str], Awaitable[None]]
    """Store the next piece (base64) of a stream the attempt returns; back when it is committed. Pieces of an attempt
    that does not complete are deleted. Raises :class:`StepFailure` when it must not be stored."""
    idempotency_key: str = ""
    compensate_input: Raw | None = None
    """Set by `execute`: what the step's compensation gets instead of its output."""


class Session(Protocol):
    """One run in memory.

    A session that does I/O of its own outside steps says so by `busy`, and calls the `wake` it was started with when
    there are commands although no message came: the driver then makes an empty turn. While it is busy the run is
    neither parked nor called stuck.
    """

    takes_past: bool
    """Whether it takes recorded outcomes before their steps are called, hands them on in order as the calls come, and
    ends the run itself (`NonDeterministicError`) when one is missing. Otherwise the driver sees to both."""

    @property
    def busy(self) -> bool: ...

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        """Take messages, in order, and answer with what to do next. Raises :class:`SessionLost`."""
        ...

    def execute(self, step: Do, attempt: Attempt) -> Coroutine[Any, Any, Raw | None] | Future[Raw | None]:
        """Run one attempt of a step; the output as JSON text. Raises :class:`StepFailure`, :class:`SessionLost`.

        A coroutine gets a task. A future says that the attempt has begun already, and that there is nothing to do here
        but to wait for its answer: it costs no task. Cancelled (asyncio) when the attempt times out or the run is lost.
        """
        ...

    async def delay(self, step: Do, attempt: int, failure: Failure) -> int:
        """Base of the wait before the next attempt of a step with `dynamic_delay`, in ms.

        Raises :class:`StepFailure` when there is none: the step then fails with that.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; called exactly once."""
        ...


class Program(Protocol):
    """A version, opened and ready to start runs. Shared by all its runs in the process."""

    async def start(self, run: RunContext, wake: Callable[[], None]) -> Session:
        """Begin a run, or its replay. Raises :class:`SessionLost`."""
        ...


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """An immutable version as the engine loads it."""

    account_id: UUID
    version_key: UUID
    workflow_key: UUID
    handle: str
    display_name: str
    no: int
    runtime: int
    language: str
    class_name: str
    source: str
    settings: str
    step_limit: int
    workspace_id: UUID
    script_id: UUID | None = None


class Runtime(Protocol):
    """One language: its number is the lane workers claim by."""

    number: int

    async def open(self, version: StoredVersion) -> Program: ...


RUNTIME_DOCUMENT = 0
RUNTIME_JAVASCRIPT = 1
RUNTIME_PYTHON = 2
