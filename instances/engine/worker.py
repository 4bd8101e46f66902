"""A worker process's engine: claims runs, holds them in memory, keeps its lease, takes over from the dead.

All its loops work on PostgreSQL alone; :meth:`EngineWorker.wake` and :meth:`EngineWorker.poke` only shorten the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from instances.engine import faults, store
from instances.engine.client import EngineClient
from instances.engine.group_commit import LOST, REPLAN_AFTER, RETRIED
from instances.engine.inbox import Fact
from instances.engine.journal_writer import JournalWriter
from instances.engine.leases import Lease
from instances.engine.programs import Programs
from instances.engine.replay import Recorded, fold
from instances.engine.run import Held, Run
from instances.runtimes.protocol import Program, RunContext, Runtime, StoredVersion
from tenants import metrics
from tenants.clock import Clock
from tenants.database import Database
from tenants.limits import Limits

log = structlog.get_logger(__name__)

CLAIM_BATCH = 200
IDLE_SECONDS = 0.8
"""Between two looks at the queue when nobody rings; half of it to all of it, at random."""
MAX_BACKLOG = 4_000
"""Queued flushes at which claims stop: half of what the writer may fall behind."""
REPLAY_BATCH = 50
"""Journals read at once."""
RESERVED = 0.1
"""Share of the slots that is kept for accounts that hold less than their part of the others."""
REFUSED = timedelta(seconds=5)
"""A run whose version cannot be opened here is claimed again after this long, by whoever can."""
ZERO = UUID(int=0)

_UNLIMITED = Limits()
_SOURCES = ("unknown", "api", "binding", "event", "cron")


@dataclass(slots=True)
class WorkerOptions:
    """Sizes and times of a worker. Seconds."""

    slots: int = 2000
    lease_seconds: float = 6.0
    silent_seconds: float = 1.5
    """A worker whose session lock is free is dead when it has not renewed for this long."""


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A claimed row with what it takes to run it."""

    row: Any
    program: Program
    version: StoredVersion
    context: RunContext


class EngineWorker:
    """Start with :meth:`start`; leave with :meth:`drain` and :meth:`stop`."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        client: EngineClient,
        runtimes: Mapping[int, Runtime],
        load_version: Callable[[UUID, UUID], Awaitable[StoredVersion]],
        options: WorkerOptions | None = None,
        on_flushed: Callable[[list[tuple[UUID, UUID]]], None] | None = None,
        limits_of: Callable[[Collection[UUID]], Awaitable[Mapping[UUID, Limits]]] | None = None,
    ) -> None:
        """`limits_of` tells what accounts allow their instances; without it nothing is limited."""
        self.clock = clock
        self.client = client
        self._db = db
        self._options = options or WorkerOptions()
        self._runtimes = dict(runtimes)
        self._programs = Programs(runtimes, load_version)
        self._limits_of = limits_of
        self.writer = JournalWriter(lambda: db.dedicated("millrace-journal"), clock, on_flushed, self._child_ended)
        self._lease = Lease(db, clock, self._options.lease_seconds, self._describe())
        self._runs: dict[tuple[UUID, UUID, int], Run] = {}
        self._newest: dict[tuple[UUID, UUID], Run] = {}
        self._tasks: dict[Run, asyncio.Task[None]] = {}
        self._after = ZERO
        self._connection: Any = None
        self._claims = 0
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._loops: list[asyncio.Task[None]] = []
        self._draining = False
        self.crowded = False
        """Ready runs were left behind by the last claim: slots are wanted."""

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Register, then claim and drive until drained."""
        await self.writer.start()
        await self._lease.acquire()
        self._loops = [
            asyncio.create_task(self._forever(self._claim_once), name="claim"),
            asyncio.create_task(self._forever(self._renew_once), name="renew"),
            asyncio.create_task(self._forever(self._take_over_once), name="take-over"),
        ]

    async def drain(self, grace: float) -> None:
        """Stop claiming; give attempts in flight `grace` seconds, then cut them off; release every run."""
        self._draining = True
        self._wake.set()
        for run in list(self._tasks):
            run.release(now=False)
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=grace)
        for run in list(self._tasks):
            run.release(now=True)
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=5)

    async def stop(self) -> None:
        """End the loops and give up the lease. Runs not drained are taken over by others."""
        for loop in self._loops:
            loop.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._loops, *self._tasks.values(), return_exceptions=True)
        self._loops = []
        await self.writer.stop()
        if self._connection is not None:
            self._connection.terminate()
        await self._lease.release()

    @property
    def worker_id(self) -> int:
        return self._lease.worker_id

    @property
    def held(self) -> int:
        """Runs in memory."""
        return len(self._tasks)

    def wake(self) -> None:
        """Something may be ready: claim now."""
        self._wake.set()

    def poke(self, account_id: UUID, key: UUID) -> bool:
        """Tell a run that something happened outside; False when it is not held here."""
        run = self._newest.get((account_id, key))
        if run is not None:
            run.look()
        return run is not None

    def _child_ended(self, account_id: UUID, parent_key: UUID) -> None:
        """A parent may go on: look at it if it is held here, else it is ready to be claimed."""
        if not self.poke(account_id, parent_key):
            self._wake.set()

    # --- loops ---------------------------------------------------------------------------------------------------

    async def _forever(self, once: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await once()
                failures = 0
            except asyncio.CancelledError:
                raise
            except Exception as error:
                failures += 1
                if isinstance(error, (*LOST, *RETRIED)):
                    log.warning("the engine waits for the database", duty=once.__name__, error=repr(error))
                else:
                    log.exception("an engine loop failed and goes on", duty=once.__name__)
                await asyncio.sleep(min(1.0, 0.05 * 2**failures))

    async def _claim_once(self) -> None:
        room, shunned = self._room()
        self._wake.clear()
        if self._draining:
            await asyncio.sleep(IDLE_SECONDS)
            return
        if room <= 0 or self.writer.backlog > MAX_BACKLOG:
            await asyncio.sleep(0.02)  # runs in memory are ending all the time
            return
        async with self._claiming:
            now = self.clock.now()
            began = time.perf_counter()
            rows = await store.claim(
                await self._claim_connection(),
                self._lease.worker_id,
                list(self._runtimes),
                room,
                self._after,
                shunned,
                now,
            )
            tail = rows.pop()
            if rows:
                faults.point("after-claim")
            self.clock.observe(tail["now"])
            self.crowded = tail["more"]
            metrics.CLAIM_SECONDS.observe(time.perf_counter() - began)
            metrics.CLAIMED_RUNS.inc(len(rows))
            self._move_on(rows, tail["account_id"], full=len(rows) == room)
            opened = await self._open(rows) if rows else 0
        if opened and (tail["more"] or len(rows) == room):
            await asyncio.sleep(0)
            return
        pause = random.uniform(IDLE_SECONDS / 2, IDLE_SECONDS)  # noqa: S311
        if tail["next_due"] is not None:
            pause = min(pause, max(0.0, (tail["next_due"] - self.clock.now()).total_seconds()))
        await self._await_wake(pause)
        if tail["next_due"] is not None and tail["next_due"] <= self.clock.now():
            faults.point("timer-due")

    async def _claim_connection(self) -> Any:
        """A connection of the claim's own, whose plans are made anew as the tables grow."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._db.dedicated("millrace-claim")
            self._claims = 0
        self._claims += 1
        if self._claims in REPLAN_AFTER:
            await self._connection.execute("discard plans")
        return self._connection

    async def _await_wake(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):  # not wait_for: before 3.12 it may swallow a cancellation
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _room(self) -> tuple[int, list[UUID]]:
        """How many runs to claim, and of which accounts none: the last slots are for accounts that hold little."""
        slots, held = self._options.slots, len(self._tasks)
        common = slots - int(slots * RESERVED)
        if held < common:
            return min(common - held, CLAIM_BATCH), []
        holding = Counter(account for account, _, _ in self._runs)
        share = common / max(1, len(holding))
        return min(slots - held, CLAIM_BATCH), [account for account, n in holding.items() if n >= share]

    def _move_on(self, rows: list[Any], last_looked: UUID | None, *, full: bool) -> None:
        """The next claim begins after the last account served, or looked at when there was room for all of them."""
        if full:
            # Accounts up to the beginning of this round came after all others.
            self._after = max((row["account_id"] <= self._after, row["account_id"]) for row in rows)[1]
        elif last_looked is not None:
            self._after = last_looked

    async def _renew_once(self) -> None:
        rows = await self._lease.renew()
        if rows is None:
            log.error("the lease was lost: dropping every run", worker=self._lease.worker_id)
            metrics.LEASE_LOSSES.inc()
            await self._drop_all()
            await self._lease.acquire()
            return
        metrics.RUNS_HELD.set(len(self._tasks))
        await self._reconcile(rows)
        await asyncio.sleep(self._options.lease_seconds / 6)

    async def _reconcile(self, rows: list[Any]) -> None:
        """Tell runs of new signals; give back what the database says we hold and we do not."""
        strays: list[tuple[UUID, UUID, int]] = []
        for row in rows:
            id = (row["account_id"], row["key"], row["epoch"])
            run = self._runs.get(id)
            if run is None:
                strays.append(id)
            elif row["signal"] != run.signal:
                run.look()
        if not strays:
            return
        async with self._claiming:  # a claim whose answer is on its way is no stray
            strays = [id for id in strays if id not in self._runs]
            if strays:
                log.warning("giving back runs of a claim that never arrived", runs=len(strays))
                await self._give_back(strays)

    async def _give_back(self, ids: list[tuple[UUID, UUID, int]], *, patience: timedelta | None = None) -> None:
        columns = [list(column) for column in zip(*sorted(ids, key=lambda i: (i[0].bytes, i[1].bytes)), strict=True)]
        arguments = [self._lease.worker_id, *columns, self.clock.now()]
        if patience is None:
            await self._db.engine.fetchval(store.GIVE_BACK, *arguments)
        else:
            await self._db.engine.fetchval(store.REFUSE, *arguments, patience)

    async def refuse(self, run: Run) -> None:
        """Leave a run that cannot be opened now to whoever can, or to later."""
        ids = [(run.context.account_id, run.context.key, run.epoch)]
        await self._give_back(ids, patience=REFUSED)

    async def _take_over_once(self) -> None:
        await asyncio.sleep(random.uniform(0.5, 1.0))  # noqa: S311
        silent = timedelta(seconds=self._options.silent_seconds)
        taken = await store.take_over(self._db.engine, self._lease.worker_id, silent, self.clock.now())
        if taken:
            log.warning("took runs of dead workers back", runs=len(taken))
            metrics.TAKEOVERS.inc(len(taken))
            self._wake.set()

    async def _drop_all(self) -> None:
        for run in list(self._tasks):
            run.lose()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=5)

    # --- runs ----------------------------------------------------------------------------------------------------

    async def _open(self, rows: list[Any]) -> int:
        """Read what the claimed runs need to go on, several at once, and start driving them; how many."""
        await self._programs.load({(row["account_id"], row["version_key"]) for row in rows})
        limits = await self._limits_of({row["account_id"] for row in rows}) if self._limits_of else {}
        claimed: list[_Claimed] = []
        broken: list[tuple[UUID, UUID, int]] = []
        for row in rows:
            opened = self._programs.get(row["account_id"], row["version_key"])
            if opened is None:
                broken.append((row["account_id"], row["key"], row["epoch"]))
            else:
                context = await self._context(row, opened[1], limits.get(row["account_id"], _UNLIMITED))
                claimed.append(_Claimed(row, *opened, context))
        fresh = [c for c in claimed if c.row["seq"] <= 1 and c.row["signal"] == 0]
        for new in fresh:
            self._launch(new, Recorded(), [])
        woken = [c for c in claimed if c.row["seq"] > 1 or c.row["signal"] > 0]
        for at in range(0, len(woken), REPLAY_BATCH):
            part = woken[at : at + REPLAY_BATCH]
            journals = await store.journals(
                self._db.engine, [(c.context.account_id, c.context.key, c.row["live_from"]) for c in part]
            )
            inboxes = await store.inboxes(self._db.engine, [(c.context.account_id, c.context.key) for c in part])
            for one in part:
                id = (one.context.account_id, one.context.key)
                self._launch(one, fold(journals[id]), [_fact(fact) for fact in inboxes[id]])
        if broken:
            log.warning("leaving runs to other workers: their versions cannot be opened here", runs=len(broken))
            await self._give_back(broken, patience=REFUSED)
        return len(claimed)

    async def _context(self, row: Any, version: StoredVersion, limits: Limits) -> RunContext:
        text = row["input"]
        if text is None and row["input_bytes"]:
            text = await self._db.engine.fetchval(store.INPUT, row["account_id"], row["key"])
        trigger: dict[str, Any] = {"source": _SOURCES[row["trigger_source"]]}
        if row["trigger_detail"]:
            trigger.update(msgspec.json.decode(row["trigger_detail"]))
        return RunContext(
            row["account_id"],
            row["key"],
            row["instance_id"],
            row["run"],
            row["workflow_key"],
            version.handle,
            row["version_key"],
            text,
            row["created_at"],
            trigger,
            row["triggered_by"],
            version.workspace_id,
            row["depth"],
            min(version.step_limit, limits.steps_max),
            limits.state_bytes,
            limits.subrequests,
        )

    def _launch(self, claimed: _Claimed, past: Recorded, facts: list[Fact]) -> None:
        row, context = claimed.row, claimed.context
        held = Held(
            context,
            row["epoch"],
            row["signal"],
            row["want"],
            row["takeovers"],
            row["parent_key"],
            row["woken_at"],
            claimed.version.language,
        )
        run = Run(self, held, past, facts)
        self._runs[context.account_id, context.key, run.epoch] = run
        self._newest[context.account_id, context.key] = run
        self._tasks[run] = asyncio.get_running_loop().create_task(self._drive(run, claimed.program))

    async def _drive(self, run: Run, program: Program) -> None:
        id = (run.context.account_id, run.context.key, run.epoch)
        try:
            await run.drive(program)
        except Exception:
            # Somebody may still be able to run it; one that breaks every worker is ended by the takeover count.
            log.exception("a run broke the engine and is given back", **run.ids)
            with contextlib.suppress(Exception):
                await self._give_back([id])
        finally:
            self._runs.pop(id, None)
            if self._newest.get(id[:2]) is run:
                del self._newest[id[:2]]
            self._tasks.pop(run, None)
            if self.crowded:
                self._wake.set()

    async def read_inbox(self, run: Run) -> list[Fact]:
        """Unread facts of a run, oldest first."""
        id = (run.context.account_id, run.context.key)
        while True:
            try:
                return [_fact(row) for row in (await store.inboxes(self._db.engine, [id]))[id]]
            except LOST:
                await asyncio.sleep(0.1)

    def _describe(self) -> tuple[str, int, list[int], int]:
        return socket.gethostname(), os.getpid(), list(self._runtimes), self._options.slots


def _fact(row: Any) -> Fact:
    return Fact(row["no"], row["type"], row["payload"], row["at"])
