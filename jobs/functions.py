"""The arq jobs. Each passes a hint on and returns; none carries state and none is needed for correctness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from jobs.arq_worker import JobFunction

PackedRef = tuple[bytes, bytes, int | None]
"""Account, instance key, holding worker, as `jobs.doorbell` packs them."""


class Claimer(Protocol):
    """The part of the engine's worker that hints go to."""

    @property
    def worker_id(self) -> int: ...

    def wake(self) -> None:
        """Claim now."""
        ...

    def poke(self, account_id: UUID, key: UUID) -> bool:
        """Look at this run's news; False when it is not held here."""
        ...


class JobFunctions:
    """What this worker does about each kind of ring."""

    def __init__(
        self,
        engine: Claimer,
        tell: Callable[[int, list[tuple[UUID, UUID]]], object],
        terminate: Callable[[], None],
        deliver: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._tell = tell
        """Pokes runs another worker holds: `tell(worker, [(account, key), …])`."""
        self._terminate = terminate
        """Wakes the loop that does termination jobs."""
        self._deliver = deliver
        """Wakes the loops that see to webhooks."""

    def by_name(self) -> Mapping[str, JobFunction]:
        """The jobs, by the name they are rung with."""
        return {
            "run_instances": self.run_instances,
            "deliver_event": self.deliver_event,
            "change_status": self.change_status,
            "terminate_batch": self.terminate_batch,
            "terminate_all": self.terminate_all,
            "delete_batch": self.delete_batch,
            "deliver_webhook": self.deliver_webhook,
        }

    async def run_instances(self, _context: Any, _refs: Sequence[PackedRef]) -> None:
        """Something became ready: claim and drive it."""
        self._engine.wake()

    async def deliver_event(self, _context: Any, refs: Sequence[PackedRef]) -> None:
        """Events were stored: tell the holders, or claim the waiters they woke."""
        self._pass_on(refs)

    async def change_status(self, _context: Any, refs: Sequence[PackedRef]) -> None:
        """Runs were paused, resumed, terminated, restarted or deleted: tell the holders, or claim what is ready."""
        self._pass_on(refs)

    async def terminate_batch(self, _context: Any, _refs: Sequence[PackedRef]) -> None:
        self._terminate()

    async def terminate_all(self, _context: Any, _refs: Sequence[PackedRef]) -> None:
        self._terminate()

    async def delete_batch(self, _context: Any, _refs: Sequence[PackedRef]) -> None:
        self._terminate()

    async def deliver_webhook(self, _context: Any, _refs: Sequence[PackedRef]) -> None:
        """Something is to be sent, or endpoints have changed."""
        self._deliver()

    def _pass_on(self, refs: Sequence[PackedRef]) -> None:
        elsewhere: defaultdict[int, list[tuple[UUID, UUID]]] = defaultdict(list)
        ready = False
        for account, key, owner in refs:
            run = UUID(bytes=account), UUID(bytes=key)
            if owner is None or (owner == self._engine.worker_id and not self._engine.poke(*run)):
                ready = True
            elif owner != self._engine.worker_id:
                elsewhere[owner].append(run)
        for owner, runs in elsewhere.items():
            self._tell(owner, runs)
        if ready:
            self._engine.wake()
