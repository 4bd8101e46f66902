"""Audit lines: who did what to what, when, from where, in which request.

Lines of concurrent requests share one insert. A line is durable when :meth:`AuditLog.write` returns; a mutation that
has a transaction of its own writes its line inside it instead (:meth:`AuditLog.line`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from contextvars import ContextVar
from typing import Any

import msgspec
import structlog

from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.store import audit as store

MAX_LINES_PER_INSERT = 500

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: the client's address and the request's id, both None outside a request."""

    address: str | None = None
    request_id: str | None = None


origin: ContextVar[Origin] = ContextVar("millrace_origin", default=Origin())  # noqa: B039  (frozen)
"""Set once per request by the outermost layer that knows; read when an audit line is made."""


class AuditLog:
    """Writes audit lines. Close it to write the last ones."""

    def __init__(self, db: Database, clock: Clock, ids: Ids) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._pending: list[tuple[tuple[Any, ...], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    def line(self, caller: Caller, action: str, target: str, detail: dict[str, Any] | None = None) -> tuple[Any, ...]:
        """One line, ready for `store.insert_audit_lines`. `detail` must hold neither payloads nor secrets."""
        where = origin.get()
        text = None if detail is None else msgspec.json.encode(detail).decode()
        now = self._clock.now()
        id_ = self._ids.uuid7()
        return (caller.account_id, id_, now, caller.actor, action, target, where.address, where.request_id, text)

    def submit(
        self, caller: Caller, action: str, target: str, detail: dict[str, Any] | None = None
    ) -> asyncio.Future[None]:
        """Hand a line over; the future is done when it is durable, and fails when it could not be written."""
        written = asyncio.get_running_loop().create_future()
        written.add_done_callback(_collect)
        self._pending.append((self.line(caller, action, target, detail), written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._drain())
        return written

    async def close(self) -> None:
        """Wait until everything handed over is written."""
        if self._writer is not None:
            await self._writer

    async def _drain(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending[:MAX_LINES_PER_INSERT], self._pending[MAX_LINES_PER_INSERT:]
                await self._write(batch)
        finally:
            self._writer = None

    async def _write(self, batch: list[tuple[tuple[Any, ...], asyncio.Future[None]]]) -> None:
        error: Exception | None = None
        try:
            await store.insert_audit_lines(self._db.engine, [line for line, _ in batch])
        except Exception as problem:
            error = problem
            log.error("audit_lines_not_written", lines=len(batch), exc_info=True)
        for _, written in batch:
            if not written.done():
                written.set_exception(error) if error else written.set_result(None)


def _collect(written: asyncio.Future[None]) -> None:
    if not written.cancelled():
        written.exception()  # a caller that does not wait has seen the log line instead
