"""Host names into addresses, by the system's resolver and shared fairly: it may take half a minute to say no."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Hashable, Sequence

from instances.egress.errors import EgressFailed
from instances.egress.lanes import Lanes

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, for a port. Raises OSError or UnicodeError."""

LOOKUPS = 64
"""Names looked up at once, each in a thread of its own."""
LOOKUPS_PER_LANE = 4


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """All A and AAAA records, by the system's resolver. Raises OSError or UnicodeError.

    In a thread nobody waits for: the loop's own few are everybody's, and a name server that does not answer would
    hold them, and the end of the process, for as long as the system is patient.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(found: Sequence[str], error: Exception | None) -> None:
        if error is not None and not answer.done():
            answer.set_exception(error)
        elif not answer.done():
            answer.set_result(found)

    def look() -> None:
        found, failure = [], None
        try:
            found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found, failure)

    try:
        threading.Thread(target=look, name="egress-name", daemon=True).start()
    except RuntimeError as error:
        raise OSError("no thread for a look-up") from error
    return await answer


class Names:
    """Looks names up: one at most once at a time, and few of a lane, so that slow ones hold up nobody else's."""

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self._turns = Lanes(LOOKUPS, LOOKUPS_PER_LANE)
        self._running: dict[tuple[Hashable, str, int], asyncio.Task[Sequence[str]]] = {}

    async def lookup(self, host: str, port: int, lane: Hashable) -> Sequence[str]:
        """The addresses of a host. Raises :class:`EgressFailed`; who stops waiting leaves the look-up to the others."""
        try:
            return await asyncio.shield(await self._looking(host, port, lane))
        except (OSError, UnicodeError):
            raise EgressFailed(f"the host name {host!r} does not resolve") from None

    async def _looking(self, host: str, port: int, lane: Hashable) -> asyncio.Task[Sequence[str]]:
        key = (lane, host, port)
        if key not in self._running:
            await self._turns.enter(lane)
            if key in self._running:
                self._turns.leave(lane)
            else:
                self._running[key] = task = asyncio.create_task(self._look(host, port, lane), name="egress-name")
                task.add_done_callback(lambda task: task.cancelled() or task.exception())  # perhaps nobody waits
        return self._running[key]

    async def _look(self, host: str, port: int, lane: Hashable) -> Sequence[str]:
        try:
            return await self._resolve(host, port)
        finally:
            del self._running[lane, host, port]
            self._turns.leave(lane)

    def close(self) -> None:
        for task in self._running.values():
            task.cancel()
