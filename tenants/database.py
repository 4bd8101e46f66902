"""The database: one pool per role, and the only ways in.

`api` connections see one account at a time (row-level security, `Database.scope`); `engine` connections run the few
statements that span accounts. Piccolo's queries join whatever scope they run in; outside one they have no pool and
fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import asyncpg
from piccolo.engine.postgres import PostgresEngine


class _ScopedEngine(PostgresEngine):
    """Piccolo's engine without a connection of its own: queries run in the scope that is open."""

    async def check_version(self) -> None:
        """Piccolo would connect at import to ask; `millrace doctor` checks versions instead."""


PICCOLO_ENGINE = _ScopedEngine(config={})

# Plans are cached while tables are empty; without these a cached plan scans and hashes whole tables later on.
ENGINE_PLANNER = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}


REPLAN_AFTER = frozenset({8, 32, 128, 512, 2048, 8192})
"""Uses of an API connection after which its plans are made anew, for the same reason: while tables are empty, every
index looks as good as the right one."""


class _Bound:
    """What Piccolo looks for in its transaction variable: something with a connection."""

    __slots__ = ("connection",)

    def __init__(self, connection: Any) -> None:
        self.connection = connection


async def _no_reset(_connection: Any) -> None:
    """Pooled connections carry no state worth a round trip; the account is tracked in `Database._accounts`."""


class Database:
    """Pools of one process. Open with :meth:`connect`, close with :meth:`close`."""

    def __init__(self, dsn: str, *, size: int = 10, statement_timeout: float = 30.0) -> None:
        self.dsn = dsn
        self._size = size
        self._statement_timeout = statement_timeout
        self._accounts: WeakKeyDictionary[asyncpg.Connection, UUID] = WeakKeyDictionary()
        self._uses: WeakKeyDictionary[asyncpg.Connection, int] = WeakKeyDictionary()
        self._api: asyncpg.Pool | None = None
        self._engine: asyncpg.Pool | None = None

    async def connect(self) -> Database:
        self._api = await asyncpg.create_pool(
            self.dsn,
            min_size=0,
            max_size=self._size,
            init=_as_role("millrace_api"),
            reset=_no_reset,
            server_settings={
                "application_name": "millrace-api",
                "idle_in_transaction_session_timeout": "10s",
                "statement_timeout": f"{int(self._statement_timeout * 1000)}",
                "jit": "off",
            },
        )
        self._engine = await asyncpg.create_pool(
            self.dsn,
            min_size=0,
            max_size=self._size,
            init=_as_role("millrace_engine"),
            reset=_no_reset,
            server_settings={"application_name": "millrace-engine", **ENGINE_PLANNER},
        )
        return self

    async def close(self) -> None:
        for pool in (self._api, self._engine):
            if pool is not None:
                with contextlib.suppress(TimeoutError):
                    await pool.close()
        self._api = self._engine = None

    @property
    def engine(self) -> asyncpg.Pool:
        """Pool of the engine role: statements that span accounts. Used by `store` modules only."""
        if self._engine is None:
            raise RuntimeError("the database is not connected")
        return self._engine

    @property
    def spare(self) -> bool:
        """Whether a scope that is entered now would wait for nobody's connection."""
        pool = self._api
        return pool is not None and (pool.get_idle_size() > 0 or pool.get_size() < pool.get_max_size())

    @asynccontextmanager
    async def scope(self, account_id: UUID, *, transaction: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """A connection that sees rows of `account_id` only, for raw SQL and Piccolo queries alike.

        Autocommit unless `transaction`. The account is set once per connection and change of account, not per query.
        """
        if self._api is None:
            raise RuntimeError("the database is not connected")
        async with self._api.acquire() as proxy:
            connection: Any = proxy
            raw = connection._con
            self._uses[raw] = uses = self._uses.get(raw, 0) + 1
            if uses in REPLAN_AFTER:
                await connection.execute("discard plans")
            if self._accounts.get(raw) != account_id:
                self._accounts.pop(raw, None)
                await connection.execute("select set_config('millrace.account', $1, false)", str(account_id))
                self._accounts[raw] = account_id
            token = PICCOLO_ENGINE.current_transaction.set(_Bound(connection))  # type: ignore[arg-type]
            try:
                if transaction:
                    async with connection.transaction():
                        yield connection
                else:
                    yield connection
            finally:
                PICCOLO_ENGINE.current_transaction.reset(token)

    @asynccontextmanager
    async def across_accounts(self, *, transaction: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """An engine-role connection for operators' commands and background work; Piccolo queries join it too."""
        async with self.engine.acquire() as proxy:
            connection: Any = proxy
            token = PICCOLO_ENGINE.current_transaction.set(_Bound(connection))  # type: ignore[arg-type]
            try:
                if transaction:
                    async with connection.transaction():
                        yield connection
                else:
                    yield connection
            finally:
                PICCOLO_ENGINE.current_transaction.reset(token)

    @asynccontextmanager
    async def fresh_plans(self) -> AsyncIterator[Any]:
        """An engine-role connection that plans for the tables as they are, for statements that touch much.

        Kept plans, made when the tables were empty, may read a whole table for a few rows; what runs here takes far
        longer than planning it, or runs seldom.
        """
        async with self.engine.acquire() as connection:
            await connection.execute("set plan_cache_mode = force_custom_plan")
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.execute("reset plan_cache_mode")

    async def dedicated(self, application_name: str, *, role: str = "millrace_engine") -> asyncpg.Connection:
        """A connection outside the pools (journal writers, lease renewal). The caller closes it."""
        connection = await asyncpg.connect(
            self.dsn, server_settings={"application_name": application_name, **ENGINE_PLANNER}
        )
        await _as_role(role)(connection)
        return connection

    async def now(self) -> datetime:
        """The database's time, which is the platform's (`tenants.clock`)."""
        return await self.engine.fetchval("select clock_timestamp()")


def _as_role(role: str) -> Callable[[Any], Awaitable[None]]:
    async def init(connection: Any) -> None:
        await connection.execute(f"set role {role}")

    return init


async def run_script(script: str, *arguments: Any) -> None:
    """Run a migration's SQL script, or one statement with `arguments`, on the connection of Piccolo's transaction."""
    transaction: Any = PICCOLO_ENGINE.current_transaction.get()
    if transaction is None:
        raise RuntimeError("migrations run inside a transaction")
    await transaction.connection.execute(script, *arguments)
