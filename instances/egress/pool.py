"""Connections: made to checked addresses, kept for a while, and never more than so many."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import OrderedDict
from collections.abc import Hashable

import certifi

from instances.egress.connection import Connection
from instances.egress.errors import EgressFailed
from instances.egress.gate import Gate
from instances.egress.policy import Target

CONNECTIONS = 512
"""Open at once, kept ones included; a new one takes the place of the one that was used longest ago."""
CONNECT_SECONDS = 5.0
"""For each address that is tried, TLS included."""
ADDRESSES = 3
KEEP_SECONDS = 10.0
"""A connection nobody uses is closed after this."""
AGE_SECONDS = 300.0
"""A connection older than this is not used again: its name is resolved, and its address checked, anew."""
CLOSE_SECONDS = 1.0

Key = tuple[Hashable, tuple[str, str, int]]


class Pool:
    """Kept connections by lane and origin. Lanes share none: some servers take what one caller proved for the next."""

    def __init__(self, gate: Gate, tls: ssl.SSLContext | None = None) -> None:
        self._gate = gate
        self._tls = tls
        self._open: set[Connection] = set()
        self._kept: OrderedDict[Connection, tuple[float, Key]] = OrderedDict()
        """Connections at rest and since when; the one that was used longest ago comes first."""
        self._by_key: dict[Key, list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed: asyncio.Event | None = None

    def __len__(self) -> int:
        """Open connections."""
        return len(self._open)

    def kept(self, target: Target, lane: Hashable) -> Connection | None:
        """A connection at rest to the origin of `target`, no longer at rest; None when there is none."""
        while kept := self._by_key.get((lane, target.origin)):
            connection = kept[-1]
            self._take_out(connection)
            if not connection.closing and asyncio.get_running_loop().time() - connection.since < AGE_SECONDS:
                return connection
            connection.abort()
        return None

    async def connect(self, target: Target, lane: Hashable) -> Connection:
        """A new connection. Raises :class:`EgressFailed`, :class:`EgressRefused`."""
        addresses = await self._gate.addresses(target, lane)
        tls = await self._tls_context() if target.scheme == "https" else None
        failure = EgressFailed(f"could not connect to {target.host!r}")
        for address in addresses[:ADDRESSES]:
            if self._closed is not None:
                break
            if len(self._open) >= CONNECTIONS and self._kept:
                self._drop(next(iter(self._kept)))
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._dial(target, address, tls)
            except ssl.SSLCertVerificationError as error:
                failure = EgressFailed(f"the certificate of {target.host!r} is not valid: {error.verify_message}")
            except (OSError, ssl.SSLError) as error:
                failure.__cause__ = error
        raise failure

    async def _dial(self, target: Target, address: str, tls: ssl.SSLContext | None) -> Connection:
        """Connect to an address; the name is for TLS only."""
        connection = Connection(target.host, self._forget)
        self._open.add(connection)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, address, target.port, ssl=tls, server_hostname=target.host if tls else None
            )
        except BaseException:
            self._forget(connection)
            raise
        if self._closed is not None:
            connection.abort()
        return connection

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:  # reading the authorities takes a tenth of a second
            self._tls = await asyncio.to_thread(_tls_context)
        return self._tls

    def rest(self, connection: Connection, target: Target, lane: Hashable) -> None:
        """Keep a connection whose answer has been read to its end, if it can be used again."""
        if not connection.rest() or self._closed is not None:
            connection.abort()
            return
        loop, key = asyncio.get_running_loop(), (lane, target.origin)
        self._kept[connection] = (loop.time(), key)
        self._by_key.setdefault(key, []).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody has used for long; come back when the next one will be due."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        for connection, (since, _) in list(self._kept.items()):
            if since + KEEP_SECONDS > loop.time():
                self._sweeper = loop.call_at(since + KEEP_SECONDS, self._sweep)
                return
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._take_out(connection)
        connection.abort()

    def _take_out(self, connection: Connection) -> None:
        """No longer at rest."""
        _, key = self._kept.pop(connection)
        kept = self._by_key[key]
        kept.remove(connection)
        if not kept:
            del self._by_key[key]

    def _forget(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection in self._kept:
            self._take_out(connection)
        self._open.discard(connection)
        if self._closed is not None and not self._open:
            self._closed.set()

    async def close(self) -> None:
        """Close every connection, used or not."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._closed = asyncio.Event()
        for connection in list(self._open):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._open:
                    await self._closed.wait()


def _tls_context() -> ssl.SSLContext:
    """The system's certificate authorities and certifi's: slim images come without the former."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
