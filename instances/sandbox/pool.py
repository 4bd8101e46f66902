"""Sandboxes shared by the runs of a version: one process per account and version, never one for two accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar
from uuid import UUID

from instances.sandbox.errors import SandboxDied, SandboxUnavailable
from instances.sandbox.host import SandboxHost, was_cancelled
from instances.sandbox.process import SandboxProcess
from tenants.clock import Clock

Opened = TypeVar("Opened")
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many sandboxes a pool keeps, and for how long it keeps using one."""

    processes: int = 64
    """Alive at the same time, spares not counted. When all are in use, leases wait."""
    per_account: int = 16
    """Of these, how many one account may have: one tenant's versions must not keep all others waiting."""
    idle: int = 32
    """Kept although nobody uses them; beyond that the one not used for longest goes."""
    spares: int = 1
    """Kept ready without any tenant's code, so that a new version starts fast."""
    uses: int = 10_000
    """Leases after which a process is not leased again."""
    minutes: float = 60.0
    grown: int = 96 * MIB
    """Bytes of memory gained, after which it is not leased again."""

    @classmethod
    def of(cls, processes: int) -> PoolLimits:
        """For a pool of this many processes; the shares of it are as of the usual size."""
        return cls(processes=processes, per_account=max(1, processes // 4), idle=max(1, processes // 2))


@dataclass(frozen=True, slots=True)
class _Key:
    account_id: UUID
    version_key: UUID


@dataclass(eq=False, slots=True)
class _Slot(Generic[Opened]):
    """One process, being opened or open, and who uses it."""

    key: _Key
    since: datetime
    users: int = 0
    uses: int = 0
    process: SandboxProcess | None = None
    opening: asyncio.Task[Opened] = field(init=False)


@dataclass(eq=False, slots=True)
class _Waiter(Generic[Opened]):
    key: _Key
    open: Callable[[SandboxProcess], Awaitable[Opened]]
    granted: asyncio.Future[_Slot[Opened]]


class Lease(Generic[Opened]):
    """The right to use one process, together with others of the same version."""

    def __init__(self, slot: _Slot[Opened], release: Callable[[_Slot[Opened]], None]) -> None:
        assert slot.process is not None
        self.process = slot.process
        self.opened: Opened = slot.opening.result()
        """What `open` made of the process; the same object for everybody who leases it."""
        self._slot: _Slot[Opened] | None = slot
        self._release = release

    def release(self) -> None:
        """Give it back. A second call does nothing."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._release(slot)


class SandboxPool(Generic[Opened]):
    """Processes of one language, by account and version.

    A process that ran often, long, or has grown, is *retired*: whoever leases it goes on, new leases get a fresh one,
    and it ends with its last lease. A dead one is replaced.
    """

    def __init__(self, host: SandboxHost, clock: Clock, limits: PoolLimits | None = None) -> None:
        self._host = host
        self._clock = clock
        self._limits = limits or PoolLimits()
        self._slots: dict[_Key, _Slot[Opened]] = {}
        """What is leased to whoever asks, the least recently used first."""
        self._retired: set[_Slot[Opened]] = set()
        self._waiting: list[_Waiter[Opened]] = []
        self._spares: list[SandboxProcess] = []
        self._refill: asyncio.Task[None] | None = None
        self._dying: set[asyncio.Task[None]] = set()
        self._closed = False

    async def warm(self) -> None:
        """Make the spares before anybody needs them. Raises :class:`SandboxUnavailable`."""
        await self._host.start()
        self._start_filling()
        if self._refill is not None:
            await asyncio.shield(self._refill)

    async def lease(
        self, account_id: UUID, version_key: UUID, open: Callable[[SandboxProcess], Awaitable[Opened]]
    ) -> Lease[Opened]:
        """Use the process of this account and version; make one if there is none.

        `open` loads the version's code into a fresh process; it is called once per process, and everyone who asks
        meanwhile waits for it. When it raises, the process is killed and all of them get the exception.
        Raises :class:`SandboxUnavailable`.
        """
        slot = await self._grant(_Key(account_id, version_key), open)
        try:
            await asyncio.shield(slot.opening)
        except asyncio.CancelledError:
            self._give_back(slot)
            if was_cancelled():
                raise
            raise SandboxUnavailable("the sandbox pool is closed") from None
        except BaseException:
            self._give_back(slot)
            raise
        return Lease(slot, self._give_back)

    def evict(self, account_id: UUID, version_key: UUID) -> None:
        """Lease this version's process to nobody any more (its secrets changed, or it was deleted)."""
        slot = self._slots.get(_Key(account_id, version_key))
        if slot is not None:
            self._retire(slot)

    async def close(self) -> None:
        """Kill every process of the pool; leases still held die with them. The host stays open."""
        self._closed = True
        for waiter in self._waiting:
            if not waiter.granted.done():
                waiter.granted.set_exception(SandboxUnavailable("the sandbox pool is closed"))
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.gather(self._refill, return_exceptions=True)
        slots = [*self._slots.values(), *self._retired]
        for slot in slots:
            self._end(slot)
        await asyncio.gather(*(slot.opening for slot in slots), return_exceptions=True)
        await asyncio.gather(*(spare.close() for spare in self._spares), *self._dying)

    # --- who gets what -----------------------------------------------------------------------------------------------

    async def _grant(self, key: _Key, open: Callable[[SandboxProcess], Awaitable[Opened]]) -> _Slot[Opened]:
        """A slot with one more user. Waits, in order, while there is no room for another process."""
        if self._closed:
            raise SandboxUnavailable("the sandbox pool is closed")
        slot = self._find(key, open)
        if slot is not None:
            return slot
        waiter = _Waiter(key, open, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                self._give_back(waiter.granted.result())
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _find(self, key: _Key, open: Callable[[SandboxProcess], Awaitable[Opened]]) -> _Slot[Opened] | None:
        """The slot of this key, or a new one if there is room, with one more user."""
        slot = self._slots.get(key)
        if slot is not None and self._worn(slot):
            self._retire(slot)
            slot = None
        if slot is None:
            if not self._make_room(key.account_id):
                return None
            slot = _Slot[Opened](key, self._clock.now())
            slot.opening = asyncio.create_task(self._open(slot, open), name="sandbox")
            slot.opening.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, if all gave up
        self._slots.pop(key, None)
        self._slots[key] = slot  # the most recently used is last
        slot.users += 1
        slot.uses += 1
        return slot

    def _worn(self, slot: _Slot[Opened]) -> bool:
        process, limits = slot.process, self._limits
        if process is None or not slot.opening.done():
            return False
        return (
            not process.alive
            or slot.uses >= limits.uses
            or self._clock.now() - slot.since >= timedelta(minutes=limits.minutes)
            or (process.grown() or 0) >= limits.grown
            or 2 * process.cpu() >= self._host.options.limits.cpu  # long before the kernel ends it
        )

    def _make_room(self, account_id: UUID) -> bool:
        """Whether there may be one process more, after an idle one has gone if need be."""
        slots = [*self._slots.values(), *self._retired]
        own = [slot for slot in slots if slot.key.account_id == account_id]
        if len(own) >= self._limits.per_account:
            return self._end_idle(own)
        return len(slots) < self._limits.processes or self._end_idle(slots)

    def _end_idle(self, slots: list[_Slot[Opened]]) -> bool:
        for slot in slots:
            if slot.users == 0:
                self._retire(slot)
                return True
        return False

    def _give_back(self, slot: _Slot[Opened]) -> None:
        slot.users -= 1
        if slot.users > 0:
            return
        if self._slots.get(slot.key) is not slot or (slot.process is not None and not slot.process.alive):
            self._retire(slot)
        idle = [slot for slot in self._slots.values() if slot.users == 0]
        if len(idle) > self._limits.idle:
            self._retire(idle[0])
        for waiter in list(self._waiting):
            if not waiter.granted.done() and (found := self._find(waiter.key, waiter.open)) is not None:
                waiter.granted.set_result(found)

    def _retire(self, slot: _Slot[Opened]) -> None:
        """Nobody new gets it; it ends when nobody has it."""
        if slot.users == 0:
            self._end(slot)
            return
        self._forget(slot)
        self._retired.add(slot)

    def _forget(self, slot: _Slot[Opened]) -> None:
        self._retired.discard(slot)
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]

    def _end(self, slot: _Slot[Opened]) -> None:
        self._forget(slot)
        slot.opening.cancel()  # nobody waits for it any more
        if slot.process is not None:
            dying = asyncio.create_task(slot.process.close())
            self._dying.add(dying)
            dying.add_done_callback(self._dying.discard)

    # --- processes ---------------------------------------------------------------------------------------------------

    async def _open(self, slot: _Slot[Opened], open: Callable[[SandboxProcess], Awaitable[Opened]]) -> Opened:
        """Runs apart from whoever asked first: others wait for it, too."""
        try:
            process = slot.process = await self._fresh()
            return await open(process)
        except BaseException:
            if slot.process is not None:
                slot.process.kill()
            self._forget(slot)
            if slot.users:
                self._retired.add(slot)
            raise
        finally:
            self._start_filling()  # not before: a fork takes time that this one is waited for

    async def _fresh(self) -> SandboxProcess:
        process = None
        while self._spares and process is None:
            spare = self._spares.pop()
            process = spare if spare.alive else None
        return process or await self._host.spawn()

    def _start_filling(self) -> None:
        if (self._refill is None or self._refill.done()) and not self._closed:
            self._refill = asyncio.create_task(self._fill(), name="spare sandboxes")

    async def _fill(self) -> None:
        while len(self._spares) < self._limits.spares:
            try:
                spare = await self._host.spawn()
            except SandboxUnavailable:
                return  # whoever needs one is told why
            self._spares.append(spare)
            with suppress(SandboxDied):
                await spare.ready()
