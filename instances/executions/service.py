"""What callers can do with one execution, found by its key: faces look keys up by every spelling they have.

Every method takes the :class:`Caller` first, checks its scope, and sees nothing outside its account and workspace.
What does not exist there, or is deleted, is :class:`InstanceNotFound`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.errors import MillraceError, Unavailable
from instances import store as instances
from instances.engine.client import EngineClient
from instances.engine.requests import Controlled, Create, Repeat, StepAnswer
from instances.errors import (
    CannotCancel,
    CannotPause,
    CannotResume,
    CannotRetry,
    CannotRetryStep,
    InstanceNotFound,
    NotFinished,
    StepAnswered,
    StepNotWaiting,
    TooManyEvents,
    TooManyQueued,
)
from instances.executions import answers, store
from instances.executions.answers import Phase
from instances.executions.retries import takeover
from instances.executions.step_retries import plan_retry
from instances.executions.waiting import Until, Waited, wait_for
from instances.lifecycle import Control, Status
from instances.live_feed import LiveFeed
from instances.payloads import check_size
from instances.projections.entries import Entry
from instances.projections.fold import fold
from instances.projections.steps import StepRun
from instances.runtimes.protocol import StepKey, StepKind
from tenants.auth import Caller
from tenants.database import Database
from tenants.ids import Ids
from tenants.service import TenantService

READ, WRITE, DELETE = "executions:read", "executions:write", "executions:delete"
CANCELLED = "Cancelled by user"
"""What is shown of an instance that somebody cancelled."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a cancel. `at`: when it ended, None while it is undone; `repeated`: it was cancelled before."""

    status: Status
    at: datetime | None
    repeated: bool


@dataclass(frozen=True, slots=True)
class Retried:
    """A retry: the new instance, and the step it runs from (None: all over)."""

    key: UUID
    no: int
    first: str | None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A step that waits to be answered, with the journal of its execution."""

    execution: store.Execution
    step: StepRun
    entries: Sequence[Entry]


class Executions:
    """One per process."""

    def __init__(self, db: Database, ids: Ids, tenants: TenantService, engine: EngineClient, feed: LiveFeed) -> None:
        self._db = db
        self._ids = ids
        self._tenants = tenants
        self._engine = engine
        self._feed = feed

    async def wait(self, caller: Caller, key: UUID, until: Until, seconds: float) -> Waited:
        """Wait up to `seconds` for the end, or for rest. A caller that goes away leaves the instance alone."""
        caller.require(READ)
        await self._find(caller, key)
        return await wait_for(self._db, self._feed, caller.account_id, key, until, seconds)

    async def cancel(
        self,
        caller: Caller,
        key: UUID,
        *,
        reason: str = CANCELLED,
        rollback: bool | None = None,
        via: str | None = None,
    ) -> Cancellation:
        """End an unfinished instance, with `rollback` after compensating it; None: as its document says. One that is
        terminated stays as it is.

        `via` is how it was asked for, which the audit line names.
        Its error is then `{name: "WorkflowTerminated", message: reason, by}`. Raises :class:`CannotCancel` of one that
        ended otherwise.
        """
        caller.require(WRITE)
        execution = await self._find(caller, key)
        by = caller.user_id or caller.token_id
        error = {"name": "WorkflowTerminated", "message": reason, "by": None if by is None else str(by)}
        text = msgspec.json.encode(error).decode()
        undo = execution.undone_when_cancelled if rollback is None else rollback
        done = await self._engine.cancel(caller.account_id, key, text, rollback=undo)
        if done.outcome is Control.NOT_LIVE:
            ended = await self._find(caller, key)
            raise CannotCancel(f"an execution that is {ended.status.wire} cannot be cancelled")
        if done.status is None:
            raise Unavailable()
        if done.outcome is Control.DONE:
            await self._audit(caller, "cancel", execution, None if via is None else {"via": via})
        return Cancellation(done.status, done.at, done.outcome is Control.NOTHING)

    async def is_undone_when_cancelled(self, caller: Caller, key: UUID) -> bool:
        """Whether the instance is compensated before it ends when somebody cancels it and says nothing of that."""
        return (await self._find(caller, key)).undone_when_cancelled

    async def pause(self, caller: Caller, key: UUID) -> Status:
        """Pause an instance, also of a retired workflow; its status then. Raises :class:`CannotPause`."""
        return await self._steer(caller, key, "pause", self._engine.pause, CannotPause())

    async def resume(self, caller: Caller, key: UUID) -> Status:
        """Let a paused instance go on; its status then. Raises :class:`CannotResume`."""
        return await self._steer(caller, key, "resume", self._engine.resume, CannotResume())

    async def _steer(
        self,
        caller: Caller,
        key: UUID,
        action: str,
        command: Callable[[UUID, UUID], Awaitable[Controlled]],
        refusal: MillraceError,
    ) -> Status:
        caller.require(WRITE)
        execution = await self._find(caller, key)
        done = await command(caller.account_id, key)
        if done.outcome in (Control.REFUSED, Control.NOT_LIVE):
            raise refusal
        if done.status is None:
            raise Unavailable()
        if done.outcome is Control.DONE:
            await self._audit(caller, action, execution)
        return done.status

    async def delete(self, caller: Caller, key: UUID) -> None:
        """Hide a finished instance from everybody; it counts on, and goes when its retention is over.

        Raises :class:`NotFinished`.
        """
        caller.require(DELETE)
        execution = await self._find(caller, key)
        done = await self._engine.hide(caller.account_id, key)
        if done.outcome is Control.REFUSED:
            raise NotFinished("an execution must be finished before it is deleted")
        if done.outcome is Control.NOT_LIVE:
            raise InstanceNotFound()
        await self._audit(caller, "hide", execution)

    # --- retries ---------------------------------------------------------------------------------------------------

    async def retry(
        self, caller: Caller, key: UUID, *, first: str | None = None, new_key: UUID | None = None
    ) -> Retried:
        """Repeat an errored or terminated instance as a new one, on its version, with its input and options.

        It runs from step `first` on, by default the one that failed (all of it, if none did), and takes over results
        of others. With the same `new_key` again the answer is the same instance. Counts as a creation. Raises
        :class:`CannotRetry`, :class:`InvalidFirstStep` (unknown, or something before it has no result),
        :class:`RolledBack` (then only the start will do), :class:`TooManyQueued`, `CreationRateExceeded`.
        """
        caller.require(WRITE)
        execution = await self._find(caller, key)
        if execution.status not in (Status.ERRORED, Status.TERMINATED):
            raise CannotRetry(f"an execution that is {execution.status.wire} cannot be retried")
        async with self._db.scope(caller.account_id) as connection:
            record = await instances.read_by_key(connection, caller.account_id, key, instances.WHOLE)
        if record is None:
            raise InstanceNotFound()
        taken = takeover(record.entries, execution.document, first, execution.error)
        limits = await self._tenants.limits(caller.account_id)
        await self._tenants.admit_creations(caller.account_id, execution.handle)
        by = caller.user_id or caller.token_id
        wanted = Repeat(
            account_id=caller.account_id,
            origin=key,
            run=execution.run,
            seq=execution.seq,
            key=new_key or self._ids.uuid7(),
            from_step=taken.first,
            detail=_seeded(execution) if taken.kept and execution.document is None else execution.trigger_detail,
            triggered_by=None if by is None else str(by),
            kept=taken.kept,
            max_queued=limits.queued,
        )
        made = await self._engine.retry(wanted)
        if made is Create.QUEUE_FULL:
            raise TooManyQueued(retry_after=1)
        if made is None:
            raise CannotRetry("the execution was changed at the same time")
        await self._audit(caller, "retry", execution, {"first": taken.first, "key": str(wanted.key)})
        return Retried(wanted.key, made, taken.first)

    async def retries(self, caller: Caller, key: UUID) -> list[UUID]:
        """Keys of the instances that are retries of this one, the oldest first."""
        caller.require(READ)
        await self._find(caller, key)
        async with self._db.scope(caller.account_id) as connection:
            return await store.retries_of(connection, caller.account_id, key)

    async def retry_step(
        self, caller: Caller, key: UUID, step: str, *, count: int = 1, kind: StepKind = StepKind.DO
    ) -> None:
        """Try a step again, in place; back when that is durable. `step` is the plain name, `kind` may be `WAIT`.

        One that waits for its next attempt gets it now. One that failed gets an attempt with a policy of retries that
        begins anew: passed over, in an unfinished instance, without its dependents running again; or, when it failed
        its instance and nothing was compensated, with the instance going on from there. Of a failed instance, one that
        was passed over is tried again, and then the instance is over as before. A wait that failed its instance begins
        again, with all its time. Raises :class:`StepNotFound`,
        :class:`CannotRetryStep`, :class:`RolledBack`.
        """
        caller.require(WRITE)
        execution = await self._find(caller, key)
        async with self._db.scope(caller.account_id) as connection:
            record = await instances.read_by_key(connection, caller.account_id, key, instances.WHOLE)
        if record is None:
            raise InstanceNotFound()
        found = plan_retry(record.entries, execution, StepKey(kind, step, count))
        if isinstance(found, StepAnswer):
            outcome = await self._engine.answer(caller.account_id, key, found)
        else:
            asked = await self._engine.reopen(
                caller.account_id,
                key,
                found.key,
                attempt=found.attempt,
                failed_seq=found.failed_seq,
                aside=found.aside,
                run=execution.run,
                seq=execution.seq,
            )
            outcome = asked.outcome
        if outcome is Control.TOO_MUCH:
            raise TooManyEvents(retry_after=1)
        if outcome is not Control.DONE:
            raise CannotRetryStep(
                f'the step "{step}" is retried already, or its execution was changed at the same time'
            )
        await self._audit(caller, "retry_step", execution, {"step": step})

    # --- answers from outside ------------------------------------------------------------------------------------

    async def complete_step(
        self,
        caller: Caller,
        key: UUID,
        step: str,
        response: str | None,
        *,
        count: int | None = 1,
        compensate_input: str | None = None,
        phase: Phase = Phase.INVOKE,
    ) -> None:
        """Complete a step that waits for that now, or for an event, which is then `response`. Back when it is durable.

        `step` is the plain name, payloads are JSON text. `count` None: of several runs of the step the first that waits
        and has no answer yet. Raises :class:`StepNotFound`, :class:`WrongPhase`,
        :class:`StepNotWaiting` (with its state; :class:`StepAnsweredBefore` when its run has not read the answer),
        :class:`StepAnswered` (somebody else was faster), :class:`TooManyEvents`, `PayloadTooLarge`. A second answer is
        refused, never taken for the next wait.
        """
        waiting = await self._waiting(caller, key, step, count, phase, response, compensate_input)
        answer = answers.success(waiting.step, waiting.execution.run, response, compensate_input)
        await self._answer(caller, waiting, answer)

    async def fail_step(
        self,
        caller: Caller,
        key: UUID,
        step: str,
        response: str | None,
        *,
        count: int | None = 1,
        compensate_input: str | None = None,
        phase: Phase = Phase.INVOKE,
    ) -> None:
        """Fail the attempt of a step that waits to be completed, which then follows its retry policy; or a wait for an
        event, for good. Raises as :meth:`complete_step`.
        """
        waiting = await self._waiting(caller, key, step, count, phase, response, compensate_input)
        answer = answers.failure(waiting.step, waiting.execution.run, response, compensate_input)
        await self._answer(caller, waiting, answer)

    async def _waiting(
        self, caller: Caller, key: UUID, step: str, count: int | None, phase: Phase, *payloads: str | None
    ) -> _Waiting:
        caller.require(WRITE)
        limits = await self._tenants.limits(caller.account_id)
        for payload in payloads:
            if payload is not None:
                check_size(payload, limits.payload_bytes, "the response")
        execution = await self._find(caller, key)
        async with self._db.scope(caller.account_id) as connection:
            record = await instances.read_by_key(connection, caller.account_id, key, instances.WHOLE)
        if record is None:
            raise InstanceNotFound()
        document = execution.document
        nodes: set[str] = set() if document is None else {node.id for node in document.nodes}
        history = fold(record.entries)
        if count is None:
            count = answers.first_waiting(record.entries, history, execution.run, step, phase)
        found = answers.waiting_step(history, nodes, step, count, phase)
        return _Waiting(execution, found, record.entries)

    async def _answer(self, caller: Caller, waiting: _Waiting, answer: StepAnswer) -> None:
        execution = waiting.execution
        answers.check_unanswered(waiting.entries, answer)
        outcome = await self._engine.answer(caller.account_id, execution.key, answer)
        if outcome is Control.NOT_LIVE:
            raise StepNotWaiting(f'the step "{answer.name}" does not wait to be completed: the execution is over')
        if outcome is Control.REFUSED:
            raise StepAnswered(f'the step "{answer.name}" was answered at the same time')
        if outcome is Control.TOO_MUCH:
            raise TooManyEvents(retry_after=1)
        await self._audit(caller, "answer_step", execution, {"step": answer.name})

    # --- inner ---------------------------------------------------------------------------------------------------

    async def _find(self, caller: Caller, key: UUID) -> store.Execution:
        async with self._db.scope(caller.account_id) as connection:
            found = await store.execution(connection, caller.account_id, key, caller.workspace_id)
        if found is None:
            raise InstanceNotFound()
        return found

    async def _audit(
        self, caller: Caller, action: str, execution: store.Execution, detail: dict[str, Any] | None = None
    ) -> None:
        await self._tenants.audit(caller, f"instance.{action}", execution.named, detail, wait=False)


def _seeded(execution: store.Execution) -> str:
    """The trigger detail of a retry, with the seed its origin made its randomness of."""
    detail = {} if execution.trigger_detail is None else msgspec.json.decode(execution.trigger_detail)
    if execution.run > 1 or "seed" not in detail:
        detail["seed"] = f"{execution.key}/{execution.run}"
    return msgspec.json.encode(detail).decode()
