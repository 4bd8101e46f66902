"""The client: from a URL to its answer, by the rules of everything else here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Hashable
from functools import partial
from typing import Literal

import h11

from instances.egress.connection import Connection, Head, Stale
from instances.egress.errors import EgressFailed, EgressTimeout
from instances.egress.gate import Gate
from instances.egress.lanes import Lanes
from instances.egress.messages import REDIRECTS, Call, Headers, checked_call, redirect_target
from instances.egress.names import Names, Resolver, system_resolver
from instances.egress.policy import EgressPolicy
from instances.egress.pool import CONNECTIONS, Pool
from instances.egress.response import EgressResponse, OpenResponse

Redirect = Literal["manual", "follow", "error"]

MIB = 1 << 20
MAX_REDIRECTS = 5
MAX_SECONDS = 300.0
CALLS_PER_LANE = 128
"""Calls one account may have in flight per process; the rest queue."""
SPILL = 65_536
"""Bytes of a redirect's body that are read to be able to use its connection again."""
SPILL_SECONDS = 1.0


class EgressClient:
    """Makes the calls. One per process; close it with :meth:`close`.

    A `lane` is whose call it is: calls of one do not take all connections, look-ups or turns, and share no connection
    with calls of another.
    """

    def __init__(
        self, policy: EgressPolicy, *, resolver: Resolver = system_resolver, tls: ssl.SSLContext | None = None
    ) -> None:
        self.policy = policy
        self._names = Names(resolver)
        self._gate = Gate(policy, self._names)
        self._pool = Pool(self._gate, tls)
        self._turns = Lanes(CONNECTIONS, CALLS_PER_LANE)

    async def close(self) -> None:
        """Cut off what is in flight."""
        await self._pool.close()
        self._names.close()

    async def vet(self, url: str, *, lane: Hashable = None) -> str | None:
        """Why a URL may not be stored, as a rule ("must …"), its name resolved; None when it may.

        Takes 2 s at most. A name that does not resolve by then passes: it is checked again when it is called.
        """
        return await self._gate.vet(url, lane)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        timeout: float = 30.0,
        max_request: int = MIB,
        max_response: int = MIB,
        redirect: Redirect = "manual",
        lane: Hashable = None,
    ) -> EgressResponse:
        """One call, its answer whole; parameters and errors as of :meth:`fetch`."""
        response = await self.fetch(
            method,
            url,
            headers=headers,
            body=body,
            timeout=timeout,
            max_request=max_request,
            max_response=max_response,
            redirect=redirect,
            lane=lane,
        )
        async with response:
            whole = await response.read()
        if response.encoded and whole:
            raise EgressFailed("the answer is encoded in a way that was not asked for")
        return EgressResponse(
            response.status, response.reason, response.headers, whole, response.url, response.redirected
        )

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        timeout: float = 30.0,
        max_request: int = MIB,
        max_response: int = MIB,
        redirect: Redirect = "follow",
        lane: Hashable = None,
    ) -> OpenResponse:
        """One call, up to the point where its answer begins; close the answer, or read it to its end.

        `timeout` (seconds, at most 300) bounds all of it: queueing, redirects and reading the body. Sizes are bytes of
        the body; `max_response` holds before and after decompression. `redirect`: hand a 3xx answer out, follow up to
        5, or fail. Headers may repeat; those that are the client's own to set (`Host`, `Connection`, …) are dropped.
        Cancelling closes the connection. Raises :class:`EgressError`.
        """
        call = checked_call(self.policy, method, url, headers, body, max_request)
        seconds = min(timeout, MAX_SECONDS)
        late = EgressTimeout(f"no complete answer from {call.target.host!r} within {seconds:g} s")
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.enter(lane)
                try:
                    response = await self._follow(call, redirect, max_response, lane)
                except BaseException:
                    self._turns.leave(lane)
                    raise
        except TimeoutError:
            raise late from None
        response.close_at(deadline, late)
        return response

    async def _follow(self, call: Call, redirect: Redirect, max_response: int, lane: Hashable) -> OpenResponse:
        for hop in range(MAX_REDIRECTS + 1):
            connection, head = await self._send(call, lane)
            location = head.header("location")
            if redirect == "manual" or head.status not in REDIRECTS or location is None:
                return OpenResponse(
                    head,
                    connection,
                    url=call.target.text,
                    redirected=hop > 0,
                    bodiless=call.method == "HEAD",
                    max_body=max_response,
                    on_end=partial(self._end, connection, call, lane),
                )
            await self._skip(connection, call, lane)
            if redirect == "error":
                raise EgressFailed("the target redirects")
            call = call.redirected(head.status, redirect_target(self.policy, call.target, location))
        raise EgressFailed("the target redirects too often")

    async def _send(self, call: Call, lane: Hashable) -> tuple[Connection, Head]:
        """Send a call on a kept connection, or on a new one; on a new one after all if the kept one was closed."""
        connection = self._pool.kept(call.target, lane)
        if connection is not None:
            try:
                return connection, await connection.exchange(call)
            except Stale:
                if not call.repeatable:
                    raise EgressFailed(f"the connection to {call.target.host!r} broke") from None
        connection = await self._pool.connect(call.target, lane)
        return connection, await connection.exchange(call)

    async def _skip(self, connection: Connection, call: Call, lane: Hashable) -> None:
        """Read what little there may be of a body nobody wants, so that the connection can be used again."""
        left = SPILL
        try:
            async with asyncio.timeout(SPILL_SECONDS):
                while type(event := await connection.event()) is h11.Data and left > 0:
                    left -= len(event.data)
        except (EgressFailed, TimeoutError):
            connection.abort()
        except BaseException:
            connection.abort()
            raise
        else:
            self._pool.rest(connection, call.target, lane)

    def _end(self, connection: Connection, call: Call, lane: Hashable, complete: bool) -> None:
        """An answer is over; its connection is closed unless it is complete."""
        if complete:
            self._pool.rest(connection, call.target, lane)
        self._turns.leave(lane)
