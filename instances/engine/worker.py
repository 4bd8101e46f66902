"""A worker process's engine: claims runs, holds them in memory, keeps its lease, takes over from the dead.

All its loops work on PostgreSQL alone; :meth:`EngineWorker.wake` and :meth:`EngineWorker.poke` only shorten the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from instances.engine import store
from instances.engine.claims import Claims, room_of
from instances.engine.client import EngineClient
from instances.engine.group_commit import LOST, RETRIED
from instances.engine.held_runs import HeldRuns, RunId, id_of
from instances.engine.journal_writer import JournalWriter
from instances.engine.leases import Lease
from instances.engine.opening import LimitsOf, Opened, Opener, read_facts
from instances.engine.programs import Programs
from instances.engine.runs.held import Held
from instances.engine.runs.inbox import Fact
from instances.engine.runs.pieces import Pieces
from instances.engine.runs.run import Run
from instances.runtimes.protocol import Program, Runtime, StoredVersion
from tenants import metrics
from tenants.clock import Clock
from tenants.database import Database

log = structlog.get_logger(__name__)

IDLE_SECONDS = 0.8
"""Between two looks at the queue when nobody rings; half of it to all of it, at random."""
FULL_SECONDS = 0.02
"""Between two looks whether there is room: runs in memory are ending all the time."""
MAX_BACKLOG = 4_000
"""Queued flushes at which claims stop: half of what the writer may fall behind."""
SWEPT_AT_ONCE = 64
"""Pieces of streams deleted in one statement: some 16 MiB."""
REFUSED = timedelta(seconds=5)
"""A run whose version cannot be opened here is claimed again after this long, by whoever can."""


@dataclass(slots=True)
class WorkerOptions:
    """Sizes and times of a worker. Seconds."""

    slots: int = 2000
    lease_seconds: float = 6.0
    silent_seconds: float = 1.5
    """A worker whose session lock is free is dead when it has not renewed for this long."""


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
        limits_of: LimitsOf | None = None,
    ) -> None:
        """`on_flushed` hears of (account, key) pairs whose journal grew; without `limits_of` nothing is limited."""
        self.clock = clock
        self.client = client
        self.writer = JournalWriter(lambda: db.dedicated("millrace-journal"), clock, on_flushed, self._child_ended)
        self.crowded = False
        """Ready runs were left behind by the last claim: slots are wanted."""
        self.suspects = asyncio.Lock()
        self._db = db
        self._options = options or WorkerOptions()
        self._runtimes = dict(runtimes)
        description = (socket.gethostname(), os.getpid(), list(runtimes), self._options.slots)
        self._lease = Lease(db, clock, self._options.lease_seconds, self._options.silent_seconds, description)
        self._claims = Claims(db, clock, self._runtimes)
        self._opener = Opener(db, Programs(self._runtimes, load_version), limits_of)
        self._runs = HeldRuns()
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        """Held from a claim until its runs are in memory."""
        self._loops: list[asyncio.Task[None]] = []
        self._sweeps: set[asyncio.Task[None]] = set()
        self._draining = False

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
        for run in self._runs:
            run.release(now=False)
        await self._runs.gone(within=grace)
        for run in self._runs:
            run.release(now=True)
        await self._runs.gone(within=5)

    async def stop(self) -> None:
        """End the loops and give up the lease. Runs not drained are taken over by others."""
        for loop in (*self._loops, *self._sweeps):
            loop.cancel()
        await self._runs.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        await self.writer.stop()
        self._claims.close()
        await self._lease.release()

    def offer(self, runtime: Runtime) -> None:
        """Run what belongs to this runtime, too, from now on."""
        self._runtimes[runtime.number] = runtime
        self._wake.set()

    @property
    def worker_id(self) -> int:
        return self._lease.worker_id

    @property
    def held(self) -> int:
        """Runs in memory."""
        return len(self._runs)

    def wake(self) -> None:
        """Something may be ready: claim now."""
        self._wake.set()

    def poke(self, account_id: UUID, key: UUID) -> bool:
        """Tell a run that something happened outside; False when it is not held here."""
        run = self._runs.newest(account_id, key)
        if run is not None:
            run.look()
        return run is not None

    def _child_ended(self, account_id: UUID, parent_key: UUID) -> None:
        """A parent may go on: look at it if it is held here, else it is ready to be claimed."""
        if not self.poke(account_id, parent_key):
            self._wake.set()

    async def _forever(self, once: Callable[[], Awaitable[None]]) -> None:
        """Repeat a duty; no failure ends it."""
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

    # --- claiming ------------------------------------------------------------------------------------------------

    async def _claim_once(self) -> None:
        """Claim what there is room for, and wait until there may be more."""
        room = room_of(self._options.slots, self._runs)
        self._wake.clear()
        if self._draining:
            await asyncio.sleep(IDLE_SECONDS)
            return
        if room.runs <= 0 or self.writer.backlog > MAX_BACKLOG:
            await asyncio.sleep(FULL_SECONDS)
            return
        async with self._claiming:
            claimed = await self._claims.claim(self.worker_id, room)
            self.crowded = claimed.more
            opened = await self._open(claimed.rows) if claimed.rows else 0
        if opened and (claimed.more or len(claimed.rows) == room.runs):
            await asyncio.sleep(0)
            return
        pause = random.uniform(IDLE_SECONDS / 2, IDLE_SECONDS)  # noqa: S311
        if claimed.next_due is not None:
            pause = min(pause, max(0.0, (claimed.next_due - self.clock.now()).total_seconds()))
        await self._await_wake(pause)

    async def _await_wake(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):  # not wait_for: before 3.12 it may swallow a cancellation
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _open(self, rows: list[Any]) -> int:
        """Open claimed runs and start driving them; how many."""
        closed = await self._opener.open(rows, self._launch)
        if closed:
            log.warning("leaving runs to other workers: their versions cannot be opened here", runs=len(closed))
            await self._give_back(closed, patience=REFUSED)
        return len(rows) - len(closed)

    def _launch(self, opened: Opened) -> None:
        run = Run(self, opened.held, opened.past, opened.facts)
        self._runs.add(run, self._drive(run, opened.program))

    async def _drive(self, run: Run, program: Program) -> None:
        try:
            await run.drive(program)
        except Exception:
            # Somebody may still be able to run it; one that breaks every worker is ended by the takeover count.
            log.exception("a run broke the engine and is given back", **run.held.log_fields)
            with contextlib.suppress(Exception):
                await self._give_back([id_of(run)])
        finally:
            self._runs.remove(run)
            if self.crowded:
                self._wake.set()

    async def refuse(self, held: Held) -> None:
        """Leave a run that cannot be opened now to whoever can, or to later."""
        await self._give_back([(held.context.account_id, held.context.key, held.epoch)], patience=REFUSED)

    @property
    def certain(self) -> bool:
        """Whether nobody can have taken the runs away."""
        return self._lease.certain

    async def trust(self) -> None:
        """Returns when that is so."""
        await self._lease.trust()

    def sweep(self, account_id: UUID, key: UUID, pieces: Pieces) -> None:
        """Delete, in the background, what an attempt that has not completed stored of a stream."""
        task = asyncio.create_task(self._sweep(account_id, key, pieces), name="sweep")
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)

    async def _sweep(self, account_id: UUID, key: UUID, pieces: Pieces) -> None:
        """What is left when the worker dies is found by whoever opens the run next, and goes with the instance."""
        after: int | None = 0
        while after is not None:
            try:
                after = await store.sweep(self._db.engine, account_id, key, pieces, after, SWEPT_AT_ONCE)
            except (*LOST, *RETRIED):
                await asyncio.sleep(0.1)

    async def read_inbox(self, account_id: UUID, key: UUID) -> list[Fact]:
        """Unread facts of a run, oldest first."""
        while True:
            try:
                return await read_facts(self._db, account_id, key)
            except LOST:
                await asyncio.sleep(0.1)

    # --- the lease -----------------------------------------------------------------------------------------------

    async def _renew_once(self) -> None:
        """Renew the lease; without it, drop every run and register anew."""
        held = list(self._runs)
        rows = await self._lease.renew()
        if rows is None:
            log.error("the lease was lost: dropping every run", worker=self.worker_id)
            metrics.LEASE_LOSSES.inc()
            async with self._claiming:  # what is claimed under the old id, too, is somebody else's
                for run in self._runs:
                    run.lose()
                await self._runs.gone(within=5)
                await self._lease.acquire()
            return
        metrics.RUNS_HELD.set(len(self._runs))
        await self._reconcile(rows, held)
        await self._lease.rest()

    async def _reconcile(self, rows: list[Any], held: list[Run]) -> None:
        """Tell runs of new signals; give back what the database says we hold and we do not; stop what is ours no more.

        `held` is what was in memory before `rows` were read.
        """
        strays: list[RunId] = []
        ours = {(row["account_id"], row["key"], row["epoch"]) for row in rows}
        for run in held:
            if id_of(run) not in ours:
                run.lose()
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
            strays = [id for id in strays if self._runs.get(id) is None]
            # Most often there is none: a run that was leaving when the rows were read has left since.
            if strays and (gone := await self._give_back(strays)):
                log.warning("gave back runs of a claim that never arrived", runs=gone)

    async def _give_back(self, ids: list[RunId], *, patience: timedelta | None = None) -> int:
        """Put runs back into the queue that are held in the database only; how many of them still were.

        With `patience` they are ready after that while, and it does not count against them.
        """
        columns = [list(column) for column in zip(*sorted(ids, key=lambda i: (i[0].bytes, i[1].bytes)), strict=True)]
        arguments = [self.worker_id, *columns, self.clock.now()]
        if patience is None:
            return await self._db.engine.fetchval(store.GIVE_BACK, *arguments)
        return await self._db.engine.fetchval(store.REFUSE, *arguments, patience)

    async def _take_over_once(self) -> None:
        """Put the runs of dead workers back into the queue."""
        await asyncio.sleep(random.uniform(0.5, 1.0))  # noqa: S311
        silent = timedelta(seconds=self._options.silent_seconds)
        taken = await store.take_over(self._db.engine, self.worker_id, silent, self.clock.now())
        if taken:
            log.warning("took runs of dead workers back", runs=len(taken))
            metrics.TAKEOVERS.inc(len(taken))
            self._wake.set()
