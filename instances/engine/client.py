"""How the rest of the platform asks the engine for something: create, send an event, command, delete.

Creates and events of concurrent callers share one group commit each. An answer means the change is committed; the
doorbell rings after that and only shortens the wait.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from asyncpg.exceptions import ProgramLimitExceededError

from app.errors import Unavailable
from instances.engine import faults, store
from instances.engine.group_commit import LOST, RETRIED, GroupCommit
from instances.engine.requests import (
    Cancelled,
    Controlled,
    Create,
    Created,
    NewInstance,
    Repeat,
    SendEvent,
    StepAnswer,
)
from instances.lifecycle import Control, Status, TriggerSource
from instances.runtimes.protocol import StepKey
from tenants import metrics
from tenants.clock import Clock
from tenants.database import Database
from tenants.limits import UNREAD_EVENT_BYTES, UNREAD_EVENTS

_CREATED = [metrics.INSTANCES_CREATED.labels(source.wire) for source in TriggerSource]

MAX_EVENTS = 200
"""Events stored by one statement: it joins them with each other."""

ANSWER_WITHIN = 25.0
"""Seconds a caller waits for a commit before it gets 503; the change may still be committed."""


class Doorbell(Protocol):
    """Tells workers that something may be due. Never raises; losing a ring costs latency only."""

    async def ring(self, job: str, refs: Sequence[tuple[UUID, UUID, int | None]]) -> None:
        """`job`: run_instances, deliver_event or change_status; refs: (account, key, holding worker or None)."""
        ...


@dataclass(frozen=True, slots=True)
class _Event:
    account_id: UUID
    key: UUID
    type: str
    payload: str | None
    dedupe: str


class EngineClient:
    """One per process that creates or commands instances. `start` before use, `stop` at the end."""

    def __init__(self, db: Database, clock: Clock, doorbell: Doorbell) -> None:
        self._db = db
        self._clock = clock
        self._doorbell = doorbell
        self._rings: set[asyncio.Task[None]] = set()
        self._creates: GroupCommit[Sequence[NewInstance], list[Created]] = GroupCommit(
            "create", lambda: db.dedicated("millrace-create"), self._write_creates, len, on_committed=self._ring_created
        )
        self._events: GroupCommit[_Event, tuple[SendEvent, int | None]] = GroupCommit(
            "event",
            lambda: db.dedicated("millrace-event"),
            self._write_events,
            lambda _: 1,
            max_weight=MAX_EVENTS,
            on_committed=self._ring_events,
        )

    async def start(self) -> None:
        await self._creates.start()
        await self._events.start()

    async def stop(self) -> None:
        await self._creates.stop()
        await self._events.stop()
        if self._rings:
            await asyncio.wait(self._rings, timeout=1)

    async def create(self, items: Sequence[NewInstance]) -> list[Created]:
        """Create instances in one commit; answers in the order of `items`. Raises :class:`app.errors.Unavailable`."""
        return await self._answer(self._creates.submit(items))

    async def find_transaction(
        self, account_id: UUID, handle: str, transaction_id: str, *, reuse_finished: bool, workspace_id: UUID | None
    ) -> Created | None:
        """The instance :meth:`create_transaction` would answer with instead of creating one, if there is one."""
        item = (None,) * 9
        arguments = account_id, handle, transaction_id, reuse_finished, *item, self._clock.now(), workspace_id
        [row] = await self._fetch(store.CREATE_TRANSACTION, *arguments)
        return _created(row) if row["outcome"] == Create.REUSED else None

    async def create_transaction(self, item: NewInstance, transaction_id: str, *, reuse_finished: bool) -> Created:
        """Create an instance under a transaction id; REUSED when an unfinished one of the workflow has that id, or,
        with `reuse_finished`, a finished one. `item.instance_id` is taken only if it is free.

        Repeating it with the same key is harmless. Raises :class:`app.errors.Unavailable`.
        """
        while True:
            [row] = await self._fetch(
                store.CREATE_TRANSACTION,
                item.account_id,
                item.handle,
                transaction_id,
                reuse_finished,
                item.key,
                item.instance_id,
                item.input,
                item.trigger_source,
                item.trigger_detail,
                item.triggered_by,
                item.success_retention_ms,
                item.error_retention_ms,
                item.max_queued,
                self._clock.now(),
                item.workspace_id,
            )
            created = _created(row)
            if created.outcome is not Create.EXISTS:  # else somebody took the instance's id at that moment
                break
        if created.outcome is Create.CREATED:
            self.announce([item])
        return created

    def announce(self, created: Sequence[NewInstance]) -> None:
        """Instances were created by a statement that is not ours, and are committed: count them, and ring."""
        for item in created:
            _CREATED[item.trigger_source].inc()
        if created:
            self._ring("run_instances", [])

    async def send_event(
        self, account_id: UUID, key: UUID, type: str, payload: str | None, *, dedupe: str | None = None
    ) -> SendEvent:
        """Store an event for an unfinished instance, whatever its status."""
        event = _Event(account_id, key, type, payload, dedupe or "~" + secrets.token_hex(16))
        outcome, _ = await self._answer(self._events.submit(event))
        return outcome

    async def pause(self, account_id: UUID, key: UUID) -> Controlled:
        return await self._command(store.PAUSE, account_id, key)

    async def resume(self, account_id: UUID, key: UUID) -> Controlled:
        return await self._command(store.RESUME, account_id, key)

    async def terminate(self, account_id: UUID, key: UUID, *, rollback: bool = False) -> Controlled:
        """End an instance and its unfinished children; with `rollback`, compensate it first."""
        if rollback:
            return await self._command(store.ROLL_BACK, account_id, key)
        rows = await self._fetch(store.TERMINATE, account_id, [key], False, self._clock.now())
        self._ring("change_status", [(account_id, row["key"], row["owner"]) for row in rows])
        for row in rows:
            if row["key"] == key:
                return Controlled(Control.DONE, Status.TERMINATED if row["ended"] else Status.ROLLING_BACK)
        return Controlled(Control.NOT_LIVE, None)

    async def cancel(self, account_id: UUID, key: UUID, reason: str, *, rollback: bool = False) -> Cancelled:
        """End an instance and its unfinished children, and keep `reason` (JSON text) as its error; with `rollback`,
        compensate it first. NOTHING when it was terminated before.
        """
        [row] = await self._fetch(store.CANCEL, account_id, key, rollback, reason, self._clock.now())
        outcome, status = Control(row["outcome"]), row["status"]
        if outcome is Control.DONE:
            self._ring("change_status", [(account_id, key, row["owner"])])
        return Cancelled(outcome, None if status is None else Status(status), row["at"])

    async def hide(self, account_id: UUID, key: UUID) -> Controlled:
        """Hide a finished instance. REFUSED while it is unfinished, NOT_LIVE when it is gone or hidden."""
        return await self._command(store.HIDE, account_id, key)

    async def answer(self, account_id: UUID, key: UUID, answer: StepAnswer) -> Control:
        """Answer a step from outside. REFUSED when it does not wait any more or was answered before, TOO_MUCH when the
        instance has too much unread.
        """
        types, payloads = [type for type, _ in answer.facts], [payload for _, payload in answer.facts]
        about = answer.run, answer.since, list(answer.kinds), answer.name, answer.count
        most = UNREAD_EVENTS, UNREAD_EVENT_BYTES
        try:
            done = await self._command(store.ANSWER, account_id, key, *about, types, payloads, answer.dedupe, *most)
        except ProgramLimitExceededError:
            return Control.TOO_MUCH
        return done.outcome

    async def reopen(
        self,
        account_id: UUID,
        key: UUID,
        step: StepKey,
        *,
        attempt: int | None,
        failed_seq: int,
        aside: bool,
        run: int,
        seq: int,
    ) -> Controlled:
        """Go on with an errored instance, whose run and last seq were these, with this attempt of a step, whose failure
        was written at `failed_seq`. None: it is a wait, which begins again. `aside`: the instance did not end of that,
        and its end stands. REFUSED when it is not errored, not as it was seen, or somebody's child.
        """
        about = step.name, step.count, attempt, failed_seq, aside
        return await self._command(store.REOPEN, account_id, key, run, seq, *about)

    async def retry(self, wanted: Repeat) -> int | Create | None:
        """Create the repetition: its number, QUEUE_FULL, or None when the origin is not any more as it was seen."""
        [row] = await self._fetch(
            store.RETRY,
            wanted.account_id,
            wanted.origin,
            wanted.run,
            wanted.seq,
            wanted.key,
            wanted.from_step,
            wanted.detail,
            wanted.triggered_by,
            list(wanted.kept),
            wanted.max_queued,
            self._clock.now(),
        )
        if row["outcome"] != Control.DONE:
            return None if row["outcome"] == Control.REFUSED else Create.QUEUE_FULL
        _CREATED[TriggerSource.RETRY].inc()
        self._ring("run_instances", [])
        return row["no"]

    async def terminate_many(self, account_id: UUID, keys: Sequence[UUID]) -> int:
        """End several instances; how many were ended."""
        rows = await self._fetch(store.TERMINATE, account_id, list(keys), False, self._clock.now())
        self._ring("change_status", [(account_id, row["key"], row["owner"]) for row in rows])
        return sum(row["ended"] for row in rows)

    async def restart(
        self, account_id: UUID, key: UUID, *, from_seq: int | None = None, expected_run: int | None = None
    ) -> Controlled:
        """Run again, wholly or from the step whose start entry is `from_seq`. REFUSED when `expected_run` is over."""
        return await self._command(store.RESTART, account_id, key, from_seq, expected_run)

    async def delete(self, account_id: UUID, keys: Sequence[UUID]) -> set[UUID]:
        """Delete instances, ending unfinished ones; the keys that existed."""
        rows = await self._fetch(store.DELETE, account_id, list(keys), self._clock.now())
        self._ring("change_status", [(account_id, row["key"], row["owner"]) for row in rows if row["owner"]])
        return {row["key"] for row in rows}

    async def _command(self, statement: str, account_id: UUID, key: UUID, *more: Any) -> Controlled:
        rows = await self._fetch(statement, account_id, key, *more, self._clock.now())
        outcome, status = Control(rows[0]["outcome"]), rows[0]["status"]
        if outcome is Control.DONE:
            self._ring("change_status", [(account_id, key, rows[0]["owner"])])
        return Controlled(outcome, None if status is None else Status(status))

    async def _fetch(self, statement: str, *args: Any) -> list[Any]:
        while True:
            try:
                rows = await self._db.engine.fetch(statement, *args)
                faults.point("command-not-told")
                return rows
            except RETRIED:
                continue
            except LOST as error:
                raise Unavailable("the database is away; the command may or may not have been carried out") from error

    async def _answer(self, future: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await asyncio.shield(future)
        except TimeoutError:
            raise Unavailable("the database did not answer in time; the request may still be carried out") from None

    async def _write_creates(
        self, connection: Any, requests: list[Sequence[NewInstance]], resent: list[bool]
    ) -> list[list[Created]]:
        items = [item for request in requests for item in request]
        order = sorted(
            range(len(items)), key=lambda i: (items[i].account_id.bytes, items[i].handle, items[i].instance_id)
        )
        ordered = [items[i] for i in order]
        rows = await connection.fetch(
            store.CREATE,
            [n.account_id for n in ordered],
            [n.handle for n in ordered],
            [n.key for n in ordered],
            [n.instance_id for n in ordered],
            [n.input for n in ordered],
            [n.trigger_source for n in ordered],
            [n.trigger_detail for n in ordered],
            [n.triggered_by for n in ordered],
            [n.success_retention_ms for n in ordered],
            [n.error_retention_ms for n in ordered],
            [n.parent_key for n in ordered],
            [n.parent_step for n in ordered],
            [n.depth for n in ordered],
            [n.max_queued for n in ordered],
            self._clock.now(),
            [n.maker_key or n.parent_key for n in ordered],
            [n.maker_epoch for n in ordered],
            [n.workspace_id for n in ordered],
        )
        mine: set[UUID] = set()
        if any(resent):
            # A first try may have committed while its answer was lost: what carries our key is ours.
            taken = [
                (n.account_id, n.key) for n, row in zip(ordered, rows, strict=True) if row["outcome"] == Create.EXISTS
            ]
            if taken:
                found = await connection.fetch(store.CREATED_KEYS, [a for a, _ in taken], [k for _, k in taken])
                mine = {row["key"] for row in found}
        answers: dict[int, Created] = {}
        for position, item, row in zip(order, ordered, rows, strict=True):
            outcome = Create(row["outcome"])
            if outcome is Create.EXISTS and item.key in mine:
                outcome = Create.CREATED
            answers[position] = Created(outcome, item.key, row["workflow_key"], row["version_key"], row["no"])
        results: list[list[Created]] = []
        position = 0
        for request in requests:
            results.append(_mark_repeats(request, [answers[position + i] for i in range(len(request))]))
            position += len(request)
        return results

    async def _write_events(
        self, connection: Any, events: list[_Event], resent: list[bool]
    ) -> list[tuple[SendEvent, int | None]]:
        received: set[tuple[UUID, str]] = set()
        if any(resent):
            # A first try may have committed, and its event may even be consumed by now: the journal remembers.
            found = await connection.fetch(
                store.RECEIVED, [e.account_id for e in events], [e.key for e in events], [e.dedupe for e in events]
            )
            received = {(row["key"], row["dedupe"]) for row in found}
        fresh = [i for i, e in enumerate(events) if (e.key, e.dedupe) not in received]
        answers: list[tuple[SendEvent, int | None]] = [(SendEvent.STORED, None)] * len(events)
        if fresh:
            for i, answer in zip(fresh, await self._store_events(connection, [events[i] for i in fresh]), strict=True):
                answers[i] = answer
        return answers

    async def _store_events(self, connection: Any, events: list[_Event]) -> list[tuple[SendEvent, int | None]]:
        rows = await connection.fetch(
            store.SEND_EVENTS,
            [e.account_id for e in events],
            [e.key for e in events],
            [e.type for e in events],
            [e.payload for e in events],
            [e.dedupe for e in events],
            UNREAD_EVENTS,
            UNREAD_EVENT_BYTES,
            self._clock.now(),
        )
        return [(SendEvent(row["outcome"]), row["owner"]) for row in rows]

    def _ring_created(self, committed: list[tuple[Sequence[NewInstance], list[Created]]]) -> None:
        created = [n for request, answers in committed for n, a in zip(request, answers, strict=True) if a.outcome == 0]
        if created:
            faults.point("created-not-answered")
        self.announce(created)

    def _ring_events(self, committed: list[tuple[_Event, tuple[SendEvent, int | None]]]) -> None:
        refs = [(e.account_id, e.key, owner) for e, (outcome, owner) in committed if outcome is SendEvent.STORED]
        metrics.EVENTS_STORED.inc(len(refs))
        if refs:
            faults.point("event-not-signalled")
            self._ring("deliver_event", refs)

    def _ring(self, job: str, refs: list[tuple[UUID, UUID, int | None]]) -> None:
        task = asyncio.get_running_loop().create_task(self._doorbell.ring(job, refs))
        self._rings.add(task)
        task.add_done_callback(self._rings.discard)


def _created(row: Any) -> Created:
    status = Status.QUEUED if row["status"] is None else Status(row["status"])
    return Created(Create(row["outcome"]), row["key"], row["workflow_key"], row["version_key"], row["no"], status)


def _mark_repeats(request: Sequence[NewInstance], answers: list[Created]) -> list[Created]:
    """Tell ids used earlier in the same request from ids of older instances."""
    if len(request) == 1:
        return answers
    created: set[tuple[str, str]] = set()
    for item, answer in zip(request, answers, strict=True):
        if answer.outcome is Create.CREATED:
            created.add((item.handle, item.instance_id))
    return [
        Created(Create.DUPLICATE, answer.key, answer.workflow_key, answer.version_key, answer.no)
        if answer.outcome is Create.EXISTS and (item.handle, item.instance_id) in created
        else answer
        for item, answer in zip(request, answers, strict=True)
    ]
