"""Sandboxes shared by the runs of a version: one process per account and version, never one for two accounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from instances.sandbox.host import SandboxHost
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


class Lease(Generic[Opened]):
    """The right to use one process, together with others of the same version."""

    process: SandboxProcess
    opened: Opened
    """What `open` made of the process; the same object for everybody who leases it."""

    def release(self) -> None:
        """Give it back. A second call does nothing."""
        raise NotImplementedError


class SandboxPool(Generic[Opened]):
    """Processes of one language, by account and version.

    A process that ran often, long, or has grown, is *retired*: whoever leases it goes on, new leases get a fresh one,
    and it ends with its last lease. A dead one is forgotten at once.
    """

    def __init__(self, host: SandboxHost, clock: Clock, limits: PoolLimits | None = None) -> None: ...

    async def lease(
        self, account_id: UUID, version_key: UUID, open: Callable[[SandboxProcess], Awaitable[Opened]]
    ) -> Lease[Opened]:
        """Use the process of this account and version; make one if there is none.

        `open` loads the version's code into a fresh process; it is called once per process, and everyone who asks
        meanwhile waits for it. When it raises, the process is killed and all of them get the exception.
        Raises :class:`SandboxUnavailable`.
        """
        raise NotImplementedError

    def evict(self, account_id: UUID, version_key: UUID) -> None:
        """Lease this version's process to nobody any more (its secrets changed, or it was deleted)."""
        raise NotImplementedError

    async def close(self) -> None:
        """Kill every process of the pool. The host stays open."""
        raise NotImplementedError
