"""What callers can do with instances, whichever face they come through.

Every method takes the :class:`Caller` first, checks its scope, and sees nothing outside its account (and workspace,
when the credential is restricted to one). Mutations leave an audit line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import structlog

from app.errors import InvalidRequest, Unavailable
from instances import store
from instances.creation import Creator, Wanted, check_batch_length
from instances.engine.client import Control, EngineClient
from instances.engine.requests import Controlled, Created, SendEvent
from instances.errors import (
    CannotPause,
    CannotRestart,
    CannotResume,
    CannotSendEvent,
    CannotTerminate,
    InstanceNotFound,
    InvalidEventType,
    StepNotFound,
    TooManyEvents,
)
from instances.executions.service import Executions
from instances.figures.service import Figures
from instances.finding import Finder
from instances.following.service import Follow
from instances.lifecycle import Status
from instances.listing import REACHABLE_ROWS, Cursor, ListQuery
from instances.live_feed import LiveFeed
from instances.logs import LogReader
from instances.payloads import check_size
from instances.projections.fold import fold
from instances.projections.history import History
from instances.projections.instance_view import InstanceFacts, InstanceView, instance_view
from instances.projections.restarts import find_step_start
from instances.projections.step_view import StepDetail, find_step, step_detail
from instances.projections.values import StoredStream
from instances.schemas import RestartFrom
from instances.search.executions import ExecutionReader, Shown
from instances.search.growing import Growing
from instances.search.service import Searcher
from instances.streams import StepStream, StreamReader
from instances.subscriptions import Subscription
from instances.triggers.service import Triggers
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.service import TenantService
from versions.errors import WorkflowNotFound
from versions.names import EVENT_RULE, may_be_sent
from versions.service import VersionService

log = structlog.get_logger(__name__)

READ, WRITE, DELETE = "executions:read", "executions:write", "executions:delete"


class StartedJob(Protocol):
    """A job of the background that was asked for."""

    @property
    def already_running(self) -> bool: ...


class TerminationJobs(Protocol):
    """What is asked of the background: ending many instances there (`jobs.termination`)."""

    async def start(
        self, account_id: UUID, workflow_key: UUID, kind: Any, *, statuses: Iterable[int] | None = None
    ) -> StartedJob: ...

    async def running(self, account_id: UUID, workflow_key: UUID) -> bool: ...


@dataclass(frozen=True, slots=True)
class InstanceList:
    """A page of instances. `total` is counted to `listing.COUNTED_ROWS`; `next` begins the next page, if any."""

    workflow_key: UUID
    rows: list[store.InstanceRow]
    total: int
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of one id of a batch delete: deleted, not there, or not possible now."""

    instance_id: str
    deleted: bool
    found: bool


class InstanceService:
    """Instances of all accounts. One per process."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        tenants: TenantService,
        versions: VersionService,
        engine: EngineClient,
        terminations: TerminationJobs,
        feed: LiveFeed,
    ) -> None:
        self._db = db
        self._ids = ids
        self._tenants = tenants
        self._engine = engine
        self._terminations = terminations
        self._finder = Finder(db)
        self.executions = Executions(db, ids, tenants, engine, feed)
        self._creator = Creator(db, tenants, versions, engine)
        self.triggers = Triggers(db, tenants, versions, self._creator, self._finder, self._fresh)
        self.feed = feed
        self.logs = LogReader(db, clock, feed)
        self.streams = StreamReader(db)
        self.searcher = Searcher(db)
        self.reader = ExecutionReader(db, versions, self.searcher)
        self.figures = Figures(db, clock)
        self.follow = Follow(db, feed)

    def growing(self, caller: Caller, shown: Shown) -> Growing:
        """An execution the caller was shown, to be looked at again and again."""
        return Growing(self._db, self.searcher, caller, shown)

    # --- create ------------------------------------------------------------------------------------------------

    async def create(
        self, caller: Caller, handle: str, wanted: Wanted, key_of: Callable[[int], UUID] | None = None
    ) -> Created:
        """Create one instance. `key_of(0)` is its key: with the same key again, the answer is the same instance.

        Raises what `Creator.create` raises, and :class:`InstanceExists`.
        """
        caller.require(WRITE)
        [created] = await self._creator.create(caller, handle, [wanted], key_of or self._fresh)
        await self._tenants.audit(
            caller, "instance.create", f"{handle}/{wanted.instance_id or created.key}", wait=False
        )
        return created

    async def create_batch(
        self, caller: Caller, handle: str, wanted: Sequence[Wanted], key_of: Callable[[int], UUID] | None = None
    ) -> list[Created]:
        """Create 1 to 100 instances. Ids in use or repeated are outcomes; anything else wrong creates nothing."""
        caller.require(WRITE)
        check_batch_length(len(wanted), "the batch")
        created = await self._creator.create(caller, handle, wanted, key_of or self._fresh)
        await self._tenants.audit(caller, "instance.create_batch", handle, {"count": len(wanted)}, wait=False)
        return created

    def _fresh(self, _index: int) -> UUID:
        return self._ids.uuid7()

    # --- read --------------------------------------------------------------------------------------------------

    async def list_page(self, caller: Caller, handle: str, query: ListQuery) -> InstanceList:
        """A page of a workflow's instances. Raises :class:`WorkflowNotFound`, and :class:`InvalidRequest` for a page
        number beyond the rows that page numbers reach.
        """
        caller.require(READ)
        where = caller.account_id, handle, caller.workspace_id
        async with self._db.scope(caller.account_id) as connection:
            if query.offset >= REACHABLE_ROWS:
                return await self._far_page(connection, caller, handle, query)
            found = await store.list_instances(connection, *where, query)
            if found is None:
                raise WorkflowNotFound()
            workflow_key, rows = found
            page, more = rows[: query.per_page], len(rows) > query.per_page
            if query.cursor is not None:
                total = query.cursor.total
            elif not more and (page or query.offset == 0):
                total = query.offset + len(page)
            else:
                total = await store.count_instances(connection, *where, query)
        following = Cursor(page[-1].key, query.ascending, total) if more and query.page is None else None
        return InstanceList(workflow_key, page, total, following)

    async def _far_page(
        self, connection: asyncpg.Connection, caller: Caller, handle: str, query: ListQuery
    ) -> InstanceList:
        """A page number so high that reading up to it would cost too much: empty, or refused when there are rows."""
        workflow = await store.find_workflow(connection, caller.account_id, handle, caller.workspace_id)
        if workflow is None:
            raise WorkflowNotFound()
        total = await store.count_instances(
            connection, caller.account_id, handle, caller.workspace_id, query, REACHABLE_ROWS + 1
        )
        if total > REACHABLE_ROWS:
            raise InvalidRequest(f"page reaches the first {REACHABLE_ROWS} instances; use cursor to go further")
        return InstanceList(workflow[0], [], total, None)

    async def view(
        self, caller: Caller, handle: str, instance_id: str, *, newest_first: bool = False, simple: bool = False
    ) -> InstanceView:
        """The instance with its steps. Raises :class:`WorkflowNotFound`, :class:`InstanceNotFound`."""
        detail = store.COUNTED if simple else store.SHOWN
        record = await self._read(caller, handle, instance_id, detail)
        return instance_view(record.facts, fold(record.entries), newest_first=newest_first, simple=simple)

    async def facts(self, caller: Caller, handle: str, instance_id: str) -> InstanceFacts:
        """What the instance's own rows say. Raises :class:`WorkflowNotFound`, :class:`InstanceNotFound`."""
        return (await self._read(caller, handle, instance_id, store.COUNTED)).facts

    async def step(
        self, caller: Caller, handle: str, instance_id: str, name: str, kind: str, attempt: int | None = None
    ) -> StepDetail | StepStream:
        """One step in full, by its counted name and its type (`step` or `waitForEvent`), or the stream it returned.

        Raises :class:`WorkflowNotFound`, :class:`InstanceNotFound`, :class:`StepNotFound`.
        """
        plain, _, count = name.rpartition("-")
        if not count.isascii() or not count.isdigit() or len(count) > 9:
            plain, count = name, "0"  # no step is counted so; whether the instance exists still matters
        record = await self._read(caller, handle, instance_id, store.one_step(plain, int(count)))
        found = find_step(fold(record.entries), name, kind)
        detail = None if found is None else step_detail(found, record.facts.status, attempt)
        if detail is None:
            raise StepNotFound()
        if isinstance(detail, StoredStream):
            return StepStream(self.streams.pieces(caller.account_id, record.facts.key, detail), detail.bytes)
        return detail

    async def find(self, caller: Caller, handle: str, instance_id: str) -> UUID:
        """The key of an instance. Raises :class:`WorkflowNotFound`, :class:`InstanceNotFound`."""
        caller.require(READ)
        return await self._finder.key(caller, handle, instance_id)

    async def history(self, caller: Caller, key: UUID) -> tuple[InstanceFacts, History]:
        """Everything about the instance of this key, outputs whole. Raises :class:`InstanceNotFound`."""
        caller.require(READ)
        async with self._db.scope(caller.account_id) as connection:
            record = await store.read_by_key(connection, caller.account_id, key, store.WHOLE)
        if record is None:
            raise InstanceNotFound()
        return record.facts, fold(record.entries)

    async def subscribe(
        self, caller: Caller, handle: str, instance_id: str, *, cursor: int, types: Collection[str] | None
    ) -> Subscription:
        """Events of an instance after number `cursor`, of `types` (None: all). Raises as :meth:`facts`."""
        facts = await self.facts(caller, handle, instance_id)
        account, feed = caller.account_id, self.feed
        return Subscription(self._db, feed, account, facts.key, instance_id, facts.input, cursor=cursor, types=types)

    # --- events and commands -----------------------------------------------------------------------------------

    async def send_event(
        self,
        caller: Caller,
        handle: str,
        instance_id: str,
        event_type: str,
        payload: str | None,
        *,
        dedupe: str | None = None,
        first: bool = False,
    ) -> None:
        """Store an event of a type that callers may name, see :meth:`tell`. The same `dedupe` again changes nothing.

        Raises :class:`InvalidEventType` and what `tell` raises.
        """
        caller.require(WRITE)
        if not may_be_sent(event_type):
            raise InvalidEventType(f"event_type must be {EVENT_RULE}")
        await self.tell(caller, handle, instance_id, event_type, payload, dedupe=dedupe, first=first)

    async def tell(
        self,
        caller: Caller,
        handle: str,
        instance_id: str,
        fact: str,
        payload: str | None,
        *,
        dedupe: str | None = None,
        first: bool = False,
    ) -> bool:
        """Store a fact from outside, whatever the status of the unfinished instance; False when one with this `dedupe`
        was stored before. `first`: no such one can have been read already, so the journal need not be searched for it.

        For faces, which choose `fact`: an event's type, or what answers a step (`step:<node>`, `step-failed:<node>`,
        for its compensation each with `:compensate`). Raises `PayloadTooLarge`, :class:`WorkflowNotFound`,
        :class:`InstanceNotFound`, :class:`CannotSendEvent` (it is finished), :class:`TooManyEvents`.
        """
        caller.require(WRITE)
        if payload is not None:
            limits = await self._tenants.limits(caller.account_id)
            check_size(payload, limits.payload_bytes, "the event")
        key = await self._finder.key(caller, handle, instance_id)
        if dedupe is not None and not first and await self._received(caller.account_id, key, dedupe):
            return False
        outcome = await self._engine.send_event(caller.account_id, key, fact, payload, dedupe=dedupe)
        if outcome is SendEvent.NOT_LIVE:
            raise await self._unless_gone(caller, handle, instance_id, CannotSendEvent())
        if outcome is SendEvent.TOO_MANY:
            raise TooManyEvents(retry_after=1)
        if outcome is SendEvent.DUPLICATE:
            return False
        await self._audit(caller, "instance.send_event", handle, instance_id, {"type": fact})
        return True

    async def pause(self, caller: Caller, handle: str, instance_id: str) -> Status:
        """Pause; the status after it. Of a paused one nothing changes. Raises :class:`CannotPause`, …NotFound."""
        key = await self._target(caller, handle, instance_id, WRITE)
        outcome = await self._engine.pause(caller.account_id, key)
        return await self._commanded(caller, "pause", handle, instance_id, outcome, CannotPause())

    async def resume(self, caller: Caller, handle: str, instance_id: str) -> Status:
        """Resume; the status after it. Of a running one nothing changes. Raises :class:`CannotResume`, …NotFound."""
        key = await self._target(caller, handle, instance_id, WRITE)
        outcome = await self._engine.resume(caller.account_id, key)
        return await self._commanded(caller, "resume", handle, instance_id, outcome, CannotResume())

    async def terminate(self, caller: Caller, handle: str, instance_id: str, *, rollback: bool | None = None) -> Status:
        """End an instance, with `rollback` after compensating it; None: as its document says.

        Raises :class:`CannotTerminate`, …NotFound.
        """
        key = await self._target(caller, handle, instance_id, WRITE)
        if rollback is None:
            rollback = await self.executions.is_undone_when_cancelled(caller, key)
        outcome = await self._engine.terminate(caller.account_id, key, rollback=rollback)
        return await self._commanded(caller, "terminate", handle, instance_id, outcome, CannotTerminate())

    async def restart(self, caller: Caller, handle: str, instance_id: str, start: RestartFrom | None = None) -> Status:
        """Run again, all of it on the newest version, or from a step on the same version. Counts as a creation.

        Raises :class:`CannotRestart` (rolling back, or the step is not in the history), `CreationRateExceeded`,
        …NotFound.
        """
        caller.require(WRITE)
        from_seq = expected_run = None
        if start is None:
            key = await self._finder.key(caller, handle, instance_id)
        else:
            record = await self._read(caller, handle, instance_id, store.STARTS)
            key, expected_run = record.facts.key, record.facts.run
            from_seq = find_step_start(record.entries, start.name, start.count, start.type)
            if from_seq is None:
                raise CannotRestart(f'(instance.cannot_restart) Step "{start.name}" not found in execution history')
        await self._tenants.admit_creations(caller.account_id, handle)
        outcome = await self._engine.restart(caller.account_id, key, from_seq=from_seq, expected_run=expected_run)
        if outcome.outcome is Control.REFUSED and outcome.status is None and start is None:
            # It was finished, and somebody else restarted it at this very moment: now it is not finished any more.
            outcome = await self._engine.restart(caller.account_id, key)
        return await self._commanded(caller, "restart", handle, instance_id, outcome, CannotRestart())

    async def delete(self, caller: Caller, handle: str, instance_id: str) -> None:
        """Remove an instance and all it left; an unfinished one is stopped, not rolled back. Raises …NotFound."""
        key = await self._target(caller, handle, instance_id, DELETE)
        if key not in await self._engine.delete(caller.account_id, [key]):
            raise InstanceNotFound()
        await self._audit(caller, "instance.delete", handle, instance_id)

    # --- many at once ------------------------------------------------------------------------------------------

    async def terminate_batch(self, caller: Caller, handle: str, instance_ids: Sequence[str]) -> int:
        """End up to 100 instances; how many were ended. Unknown and finished ones are passed over."""
        caller.require(WRITE)
        keys = await self._finder.keys(caller, handle, instance_ids, "")
        ended = await self._engine.terminate_many(caller.account_id, sorted(keys.values())) if keys else 0
        await self._tenants.audit(caller, "instance.terminate_batch", handle, {"ended": ended}, wait=False)
        return ended

    async def delete_batch(self, caller: Caller, handle: str, instance_ids: Sequence[str]) -> list[Deletion]:
        """Delete up to 100 instances; what became of each, in the order given, repeats included."""
        caller.require(DELETE)
        keys = await self._finder.keys(caller, handle, instance_ids, "/instances")
        deleted: set[UUID] = set()
        failed = False
        try:
            if keys:
                deleted = await self._engine.delete(caller.account_id, sorted(keys.values()))
        except Exception:
            # The contract wants every id answered, and the cause hidden.
            log.exception("batch_delete_failed", account=caller.account_id.hex, count=len(keys))
            failed = True
        await self._tenants.audit(caller, "instance.delete_batch", handle, {"deleted": len(deleted)}, wait=False)
        return [
            Deletion(one, keys.get(one) in deleted, one in keys and (failed or keys[one] in deleted))
            for one in instance_ids
        ]

    async def terminate_all(self, caller: Caller, handle: str, status: Status | None) -> bool:
        """Have all unfinished instances (of `status`) ended in the background; False when that is under way already."""
        caller.require(WRITE)
        workflow_key = await self._finder.workflow(caller, handle)
        statuses = None if status is None else [int(status)]
        job = await self._terminations.start(caller.account_id, workflow_key, "terminate_all", statuses=statuses)
        detail = {"status": status.wire} if status is not None else None
        await self._tenants.audit(caller, "instance.terminate_all", handle, detail, wait=False)
        return not job.already_running

    async def terminating_all(self, caller: Caller, handle: str) -> bool:
        """Whether a job that ends all instances of the workflow is under way."""
        caller.require(READ)
        return await self._terminations.running(caller.account_id, await self._finder.workflow(caller, handle))

    # --- inner -------------------------------------------------------------------------------------------------

    async def _target(self, caller: Caller, handle: str, instance_id: str, scope: str) -> UUID:
        caller.require(scope)
        return await self._finder.key(caller, handle, instance_id)

    async def _read(self, caller: Caller, handle: str, instance_id: str, detail: store.Detail) -> store.InstanceRecord:
        caller.require(READ)
        return await self._finder.record(caller, handle, instance_id, detail)

    async def _unless_gone(self, caller: Caller, handle: str, instance_id: str, refusal: Exception) -> Exception:
        """`refusal` of an instance that is finished. Raises :class:`InstanceNotFound` when it was deleted meanwhile."""
        await self._finder.key(caller, handle, instance_id)
        return refusal

    async def _received(self, account_id: UUID, key: UUID, dedupe: str) -> bool:
        async with self._db.scope(account_id) as connection:
            return await store.event_received(connection, account_id, key, dedupe)

    async def _commanded(
        self, caller: Caller, command: str, handle: str, instance_id: str, done: Controlled, refusal: Exception
    ) -> Status:
        if done.outcome is Control.REFUSED:
            raise refusal
        if done.outcome is Control.NOT_LIVE:
            raise await self._unless_gone(caller, handle, instance_id, refusal)
        if done.outcome is Control.DONE:
            await self._audit(caller, f"instance.{command}", handle, instance_id)
        if done.status is None:
            raise Unavailable()
        return done.status

    async def _audit(
        self, caller: Caller, action: str, handle: str, instance_id: str, detail: dict[str, Any] | None = None
    ) -> None:
        await self._tenants.audit(caller, action, f"{handle}/{instance_id}", detail, wait=False)
