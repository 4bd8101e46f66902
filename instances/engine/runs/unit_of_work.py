"""What a run has written and not committed yet, and whom its commit is told to.

Everything a run changes goes out in one piece: journal entries, the facts it consumed and the transition it asks for.
Nobody acts on an entry before its commit: the session hears of a result, and an attempt that must not run uncounted
begins, only after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from instances.engine import faults
from instances.engine.journal_writer import Entry, Flush, Flushed, JournalWriter, Next
from instances.engine.runs.clock import RunClock
from instances.engine.runs.endings import RunLost
from instances.engine.runs.held import Held
from instances.engine.runs.inbox import Fact
from instances.engine.runs.pieces import Pieces
from instances.engine.runs.usage import VALUES, Usage
from instances.lifecycle import Kind
from instances.runtimes.protocol import Message

Sweep = Callable[[UUID, UUID, Pieces], None]
"""Deletes pieces of a stream, in the background: account and key of the instance, and whose they are."""
Then = Message | Callable[[], None]
"""What follows the commit of an entry: a message for the session, or something to do."""


class UnitOfWork:
    """Collects the changes of one run and commits them, one flush at a time."""

    def __init__(self, held: Held, clock: RunClock, usage: Usage, writer: JournalWriter, sweep: Sweep) -> None:
        self._held = held
        self._clock = clock
        self._usage = usage
        self._writer = writer
        self._sweep = sweep
        self._entries: list[Entry] = []
        self._consumed: list[int] = []
        self._given_up: list[tuple[UUID, bool]] = []
        self._awaited: set[asyncio.Future[Any]] = set()
        self._then: list[Then] = []
        self._deliveries: list[Message] = []
        self._ordinal = 0
        self.signal = held.signal
        """The last one the run knows: a park is refused while there is a newer one."""
        self.fenced = False
        """The run belongs to somebody else: nothing of it is committed or delivered any more."""

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._entries or self._consumed)

    @property
    def urgent(self) -> bool:
        """Whether anybody waits for the commit: the session for a result, a step for its start."""
        return bool(self._then or self._consumed or self._given_up or self._awaited)

    def write(
        self,
        kind: Kind,
        name: str | None = None,
        count: int | None = None,
        attempt: int | None = None,
        payload: str | None = None,
        then: Then | None = None,
        at: datetime | None = None,
    ) -> None:
        """Add a journal entry to the next commit; `then` is delivered (or called) after it.

        The entry's time is `at`, else the message's, so that a replay tells the session the very same, else now.
        """
        if at is None:
            at = self._clock.now() if then is None or callable(then) else then.at
        if kind in VALUES:
            self._usage.store(payload)
        self._entries.append((int(kind), name, count, attempt, at, payload))
        if then is not None:
            self._then.append(then)

    def consume(self, fact: Fact) -> None:
        """The next commit deletes this inbox row."""
        self._consumed.append(fact.no)

    def give_up(self, child: UUID, *, undo: bool) -> None:
        """The next commit ends this child, after having it roll back if `undo`."""
        self._given_up.append((child, undo))

    def sweep(self, pieces: Pieces) -> None:
        """These pieces belong to an attempt that does not complete: delete them, once all of them are committed."""
        context = self._held.context
        sweep = partial(self._sweep, context.account_id, context.key, pieces)
        if self.fenced:
            sweep()
        else:
            self._then.append(sweep)

    def wait_for(self, task: asyncio.Future[Any]) -> None:
        """Commit nothing before this is over."""
        self._awaited.add(task)

    def discard(self) -> None:
        """Forget what was not committed."""
        self._entries, self._consumed, self._given_up, self._then = [], [], [], []

    def tell_nobody(self) -> None:
        """The session is gone: what was written is committed all the same, but nobody hears of it."""
        self._then, self._deliveries = [], []

    async def commit(
        self,
        next: Next = Next.KEEP,
        *,
        due: datetime | None = None,
        awaits: Sequence[str] = (),
        body: str | None = None,
        rollback: str | None = None,
    ) -> Flushed:
        """Commit everything written so far and ask for a transition; the fields are those of a :class:`Flush`.

        Raises :class:`RunLost` when the run belongs to somebody else, and
        :class:`~instances.engine.group_commit.Unstorable` for what was written.
        """
        if self._awaited:
            await asyncio.wait(self._awaited)
            self._awaited.clear()
        self._ordinal += 1
        context = self._held.context
        flush = Flush(
            context.account_id,
            context.key,
            self._held.epoch,
            self._ordinal,
            self._clock.now(),
            self._entries,
            self._consumed,
            next,
            due,
            self.signal,
            body,
            rollback,
            awaits,
            self._held.parent_key,
            self._given_up,
        )
        then, self._then = self._then, []
        self._entries, self._consumed, self._given_up = [], [], []
        answer = await self._writer.submit(flush)
        faults.point("before-acknowledgement")
        if self.fenced or not answer.accepted:
            raise RunLost
        self.signal = answer.signal
        for item in then:
            if callable(item):
                item()
            else:
                self._deliveries.append(item)
        return answer

    def deliveries(self) -> list[Message]:
        """Messages for the session whose entries are committed by now, in journal order; each is given out once."""
        messages, self._deliveries = self._deliveries, []
        return messages
