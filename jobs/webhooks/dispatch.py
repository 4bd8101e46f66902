"""From the feed to deliveries.

What happened is in the journal; which journals grew is in the feed, written with them in one transaction and read with
a cursor that misses nobody who commits late. A cursor per account is moved in the transaction that puts its deliveries
up, so each event becomes one delivery per endpoint, whatever is killed in between. Definitions that change are in the
same feed (`tell_definition` in the migration). Instances that were deleted before they were read are passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from instances.engine import faults
from instances.projections.execution import Blocker, MilestoneState, SyncPointState
from instances.projections.execution_steps import ExecutionStep
from instances.search.recorded import Recorder
from jobs.metrics import WEBHOOK_EVENTS
from jobs.webhooks.catalogue import PROGRESS, wanted
from jobs.webhooks.changes import Change
from jobs.webhooks.envelope import Payloads, body, event_id
from jobs.webhooks.journals import Grown, Journals
from jobs.webhooks.store import happened
from jobs.webhooks.store.happened import Fed, Hook, NewDelivery
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from versions.definitions.service import DefinitionService

ROWS = 50
"""Rows of an account's feed read at once."""
GROWN = 500
"""Instances after which no further row is taken along."""
AT_ONCE = 50
"""Journals in memory at once."""
READING = timedelta(seconds=10)
"""How long an account is its reader's, unless it is given back before."""
KEPT = timedelta(days=30)
WORKFLOW_GONE = -1
"""The seq that says of a definition that it was deleted, in the feed; 0 says of a version that it was made."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """What is told, before it is put into an envelope. `sequence`: the execution's event number."""

    name: str
    id: str
    at: datetime
    sequence: int | None
    key: UUID | None
    data: dict[str, Any]
    hooks: frozenset[int]


@dataclass(slots=True)
class _Ranges:
    """What one instance wrote: ranges of its journal, and who hears of them."""

    ranges: list[tuple[int, int, frozenset[int]]] = field(default_factory=list)

    def hears(self, seq: int) -> frozenset[int]:
        return next((hooks for first, last, hooks in self.ranges if first <= seq <= last), frozenset())


class DispatchEvents:
    """Makes deliveries of what happened, account after account. Safe on any number of workers at once."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        recorder: Recorder,
        definitions: DefinitionService,
        payloads: Payloads,
        dispatched: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._journals = Journals(recorder)
        self._definitions = definitions
        self._payloads = payloads
        self._dispatched = dispatched
        """Called when there are new deliveries."""
        self._accounts: set[UUID] = set()
        self._pending: set[UUID] = set()
        self._mark: str | None = None

    def listens(self, account_id: UUID) -> bool:
        """Whether anybody of the account listens, as far as was known a moment ago."""
        return account_id in self._accounts

    async def tick(self) -> bool:
        """Look which accounts have news, and read a piece of each; whether some have more."""
        await self._look()
        more = False
        for account_id in list(self._pending):
            try:
                left = await self._advance(account_id)
            except Exception as error:  # one account's trouble must not keep others waiting
                log.warning("webhook_dispatch_failed", account=account_id.hex, error=repr(error), exc_info=error)
                continue
            more = more or left is True
            if left is False:
                self._pending.discard(account_id)
        return more

    async def _look(self) -> None:
        accounts = await happened.subscribed(self._db)
        if not accounts:
            self._mark = None
        elif self._mark is None:  # whoever reads for the first time may have missed anything
            self._mark, self._pending = await happened.mark(self._db), set(accounts)
        else:
            news, self._mark = await happened.news(self._db, self._mark, list(accounts))
            self._pending |= news | (accounts - self._accounts)
        self._pending &= accounts
        self._accounts = accounts

    async def _advance(self, account_id: UUID) -> bool | None:
        """Read a piece of an account's feed. True: there may be more; None: somebody else reads it."""
        now = self._clock.now()
        read = await happened.begin(self._db, account_id, now, now + READING)
        if read is None:
            return None
        after = read
        new: list[NewDelivery] = []
        try:
            found = await happened.feed(self._db, account_id, read, ROWS)
            rows = _bounded(found)
            if rows:
                after = rows[-1].xid, rows[-1].no
                hooks = {hook.no: hook for hook in await happened.hooks(self._db, account_id)}
                new = list(self._deliveries(account_id, hooks, await self._events(account_id, hooks, rows)))
        except BaseException:
            with contextlib.suppress(Exception):
                await happened.deliver(self._db, account_id, read, read, (), now, now)
            raise
        now = self._clock.now()
        if new:
            faults.point("webhook-events-read")
        if not await happened.deliver(self._db, account_id, read, after, new, now, now + KEPT):
            return None
        if new:
            faults.point("webhook-events-put-up")
            WEBHOOK_EVENTS.inc(len(new))
            self._dispatched()
        return len(found) == ROWS or len(rows) < len(found)

    def _deliveries(self, account_id: UUID, hooks: dict[int, Hook], events: Sequence[Event]) -> Iterator[NewDelivery]:
        bodies: dict[tuple[str, str, str], str] = {}
        asked = {no: wanted(hook.events) for no, hook in hooks.items()}
        for event in events:
            for no in sorted(event.hooks):
                if no not in hooks or event.name not in asked[no]:
                    continue
                form = hooks[no].format
                known = form, event.name, event.id
                if known not in bodies:
                    bodies[known] = body(form, account_id, event.name, event.id, event.at, event.sequence, event.data)
                yield NewDelivery(no, event.name, event.id, event.key, bodies[known])

    # --- events --------------------------------------------------------------------------------------------------

    async def _events(self, account_id: UUID, hooks: dict[int, Hook], rows: Sequence[Fed]) -> list[Event]:
        asked = {no: wanted(hook.events) for no, hook in hooks.items()}
        grown: defaultdict[UUID, _Ranges] = defaultdict(_Ranges)
        events: list[Event] = []
        for row in rows:
            hears = frozenset(row.hooks)
            if not hears:
                continue
            for key, first, last in zip(row.keys, row.first_seqs, row.last_seqs, strict=True):
                if first > 0:
                    grown[key].ranges.append((first, last, hears))
                else:
                    events += await self._of_definition(account_id, row, key, first, hears)
        anything = frozenset().union(*asked.values())
        if grown and any(not name.startswith("workflow.definition.") for name in anything):
            events += await self._of_instances(account_id, grown, asked)
        return events

    async def _of_definition(
        self, account_id: UUID, row: Fed, key: UUID, seq: int, hears: frozenset[int]
    ) -> Iterable[Event]:
        if seq == WORKFLOW_GONE:
            name = "workflow.definition.deleted"
            data = {"id": self._payloads.definition_id(row.workflow_no)}
        else:
            caller = reading(account_id)
            found = (await self._definitions.of_versions(caller, [key])).get(key)
            if found is None:  # it went with its workflow
                return ()
            name = f"workflow.definition.{'created' if found.no == 1 else 'updated'}"
            data = self._payloads.definition(found, caller)
        return [Event(name, event_id(row.at, account_id, key, name), row.at, None, None, data, hears)]

    async def _of_instances(
        self, account_id: UUID, grown: dict[UUID, _Ranges], asked: dict[int, frozenset[str]]
    ) -> list[Event]:
        events: list[Event] = []
        firsts = {key: min(first for first, _, _ in one.ranges) for key, one in grown.items()}
        keys = list(firsts)
        for place in range(0, len(keys), AT_ONCE):
            chunk = {key: firsts[key] for key in keys[place : place + AT_ONCE]}
            for journal in await self._journals.read(account_id, chunk):
                events += await self._of_instance(account_id, journal, grown[journal.row.facts.key], asked)
        return sorted(events, key=lambda event: event.at)

    async def _of_instance(
        self, account_id: UUID, journal: Grown, one: _Ranges, asked: dict[int, frozenset[str]]
    ) -> list[Event]:
        listeners = frozenset().union(*(hooks for _, _, hooks in one.ranges))
        names = frozenset().union(*(asked[no] for no in listeners if no in asked))
        last = max(last for _, last, _ in one.ranges)
        workflow_key, report = journal.row.facts.workflow_key, None
        told: list[Event] = []
        try:
            told_to = journal.row, journal.entries, names.__contains__, lambda seq: bool(one.hears(seq))
            for change in journal.changes.of(*told_to, last):
                if change.event == PROGRESS:
                    report = change  # the last one says it all
                else:
                    told.append(self._event(account_id, change, one.hears(change.seq), self._data(change)))
                await asyncio.sleep(0)
            self._journals.keep(account_id, journal)
        except Exception as error:  # a journal nobody can read must not keep the account's others from being told
            key = journal.row.facts.key
            log.error("webhook_journal_unreadable", account=account_id.hex, instance=str(key), exc_info=error)
        if report is not None:
            figures = await self._definitions.node_figures(account_id, workflow_key)
            means = {node: figure.mean_ms for node, figure in figures.items()}
            data = self._payloads.progress(report.shown, means, report.at)
            told.append(self._event(account_id, report, listeners, data))
        return told

    def _event(self, account_id: UUID, change: Change, hears: frozenset[int], data: dict[str, Any]) -> Event:
        key = change.shown.row.facts.key
        id = event_id(change.at, account_id, key, change.seq, change.event, change.mark)
        return Event(change.event, id, change.at, change.seq, key, data, hears)

    def _data(self, change: Change) -> dict[str, Any]:
        shown, subject = change.shown, change.subject
        match subject:
            case ExecutionStep():
                return self._payloads.task(shown, subject)
            case Blocker():
                return self._payloads.blocker(shown, subject)
            case MilestoneState():
                return self._payloads.milestone(shown, subject)
            case SyncPointState():
                return self._payloads.sync_point(shown, subject)
            case _:
                return self._payloads.execution(shown)


def _bounded(rows: list[Fed]) -> list[Fed]:
    """As many of the rows as tell of `GROWN` instances, one at least."""
    total = 0
    for place, row in enumerate(rows):
        total += len(row.keys)
        if total > GROWN and place:
            return rows[:place]
    return rows


def reading(account_id: UUID) -> Caller:
    """Who reads for endpoints: secret headers of definitions stay hidden."""
    return Caller(account_id, None, None, "webhooks", frozenset({"workflows:read", "executions:read"}), "viewer")
