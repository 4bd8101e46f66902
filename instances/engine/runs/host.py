"""What a run needs of the worker that holds it."""

from __future__ import annotations

import asyncio
from typing import Protocol
from uuid import UUID

from instances.engine.client import EngineClient
from instances.engine.journal_writer import JournalWriter
from instances.engine.runs.held import Held
from instances.engine.runs.inbox import Fact
from instances.engine.runs.pieces import Pieces
from tenants.clock import Clock


class Host(Protocol):
    """A worker, as the runs it holds see it."""

    clock: Clock
    client: EngineClient
    writer: JournalWriter
    crowded: bool
    """Others wait for the slots of runs."""
    suspects: asyncio.Lock
    """Held by the one run under suspicion that is being opened."""

    def wake(self) -> None:
        """Something is ready: claim now."""
        ...

    @property
    def certain(self) -> bool:
        """Whether nobody can have taken the runs away."""
        ...

    async def trust(self) -> None:
        """Returns when that is so. Wait for it before doing what can be seen from outside."""
        ...

    async def refuse(self, held: Held) -> None:
        """Leave a run that cannot be opened now to whoever can, or to later."""
        ...

    def sweep(self, account_id: UUID, key: UUID, pieces: Pieces) -> None:
        """Delete, in the background, what an attempt that has not completed stored of a stream."""
        ...

    async def read_inbox(self, account_id: UUID, key: UUID) -> list[Fact]:
        """Unread facts of a run, oldest first."""
        ...
