"""An engine under test: real PostgreSQL, a clock that is moved by hand, workflows written as Python generators.

A workflow is a generator function `script(run)`: it yields lists of commands and receives the list of messages that
came since; what it returns is the output (JSON text). Step bodies are a second function, `body(step, attempt)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from instances.engine.client import Create, EngineClient, NewInstance
from instances.engine.worker import EngineWorker, WorkerOptions
from instances.lifecycle import Kind, Status
from instances.runtimes.protocol import (
    Attempt,
    CommandMessage,
    Do,
    Fail,
    Failure,
    Finish,
    Message,
    RunContext,
    StepKey,
    StepKind,
    StoredVersion,
)
from tenants.clock import Clock, ManualClock
from tenants.database import Database
from tenants.ids import Ids

Script = Callable[[RunContext], Generator[list[CommandMessage], list[Message], str | None]]
Body = Callable[[Do, Attempt], Awaitable[str | None]]


def step(name: str, count: int = 1, **options: Any) -> Do:
    """A `Do` command with a name."""
    return Do(StepKey(StepKind.DO, name, count), config='{"config":{}}', **options)


async def succeed(_step: Do, _attempt: Attempt) -> str | None:
    return '"done"'


class ScriptFailed(Exception):
    """Raised by a script to end its run as errored."""


class _Session:
    def __init__(self, script: Generator[list[CommandMessage], list[Message], str | None], body: Body) -> None:
        self._script = script
        self._body = body
        self._started = False

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        try:
            if not self._started:
                self._started = True
                commands = next(self._script)
                return commands + (await self.turn(messages[1:]) if len(messages) > 1 else [])
            return self._script.send(list(messages))
        except StopIteration as end:
            return [Finish(end.value)]
        except ScriptFailed as error:
            return [Fail(Failure("Error", str(error)))]

    async def execute(self, step: Do, attempt: Attempt) -> str | None:
        return await self._body(step, attempt)

    async def close(self) -> None:
        self._script.close()


class _Program:
    def __init__(self, script: Script, body: Body) -> None:
        self._script = script
        self._body = body

    async def start(self, run: RunContext) -> _Session:
        return _Session(self._script(run), self._body)


class ScriptRuntime:
    """Runs scripts by the name stored as the version's source."""

    number = 0

    def __init__(self) -> None:
        self.scripts: dict[str, tuple[Script, Body]] = {}

    async def open(self, version: StoredVersion) -> _Program:
        return _Program(*self.scripts[version.source])


class LocalDoorbell:
    """Rings the workers of the test directly; `silent` loses every ring."""

    def __init__(self) -> None:
        self.workers: list[EngineWorker] = []
        self.silent = False

    async def ring(self, job: str, refs: Sequence[tuple[UUID, UUID, int | None]]) -> None:
        if self.silent:
            return
        for worker in self.workers:
            worker.wake()
            for account, key, _ in refs:
                worker.poke(account, key)


class Engine:
    """Client, workers and a look behind the walls."""

    def __init__(self, db: Database, admin: asyncpg.Connection, clock: Clock, ids: Ids, account: UUID) -> None:
        self.db, self.admin, self.clock, self.ids, self.account = db, admin, clock, ids, account
        self.bell = LocalDoorbell()
        self.client = EngineClient(db, clock, self.bell)
        self.runtime = ScriptRuntime()
        self.workers: list[EngineWorker] = []

    async def define(
        self, handle: str, script: Script, body: Body = succeed, *, concurrency: int | None = None, steps: int = 25_000
    ) -> None:
        """Deploy a workflow, or a new version of it."""
        source = f"{handle}@{len(self.runtime.scripts)}"
        self.runtime.scripts[source] = (script, body)
        now, version = self.clock.now(), self.ids.uuid7()
        workflow = await self.admin.fetchval(
            "select workflow_key from workflow where account_id = $1 and handle = $2", self.account, handle
        )
        if workflow is None:
            workflow = self.ids.uuid7()
            await self.admin.execute(
                "insert into workflow (account_id, workflow_key, handle, display_name, script_name, class_name,"
                " concurrency, created_at, modified_at) values ($1, $2, $3, $3, $3, 'Script', $4, $5, $5)",
                self.account,
                workflow,
                handle,
                concurrency,
                now,
            )
        await self.admin.execute(
            "insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source,"
            " source_hash, step_limit, created_at) select $1, $2, $3, 1 + count(*), 'document', 0, 'Script', $4, '', $5, $6"
            " from version where account_id = $1 and workflow_key = $3",
            self.account,
            version,
            workflow,
            source,
            steps,
            now,
        )
        await self.admin.execute(
            "update workflow set current_version = $3 where account_id = $1 and workflow_key = $2",
            self.account,
            workflow,
            version,
        )

    async def load_version(self, account_id: UUID, version_key: UUID) -> StoredVersion:
        row = await self.db.engine.fetchrow(
            "select v.*, w.handle from version v join workflow w using (account_id, workflow_key)"
            " where v.account_id = $1 and v.version_key = $2",
            account_id,
            version_key,
        )
        return StoredVersion(
            account_id,
            version_key,
            row["workflow_key"],
            row["handle"],
            row["handle"],
            row["no"],
            row["runtime"],
            row["language"],
            row["class_name"],
            row["source"],
            row["settings"],
            row["step_limit"],
        )

    async def worker(self, clock: Clock | None = None, **options: Any) -> EngineWorker:
        """A started worker."""
        worker = EngineWorker(
            self.db,
            clock or self.clock,
            self.client,
            {0: self.runtime},
            self.load_version,
            WorkerOptions(**options),
        )
        await worker.start()
        self.workers.append(worker)
        self.bell.workers.append(worker)
        return worker

    async def create(self, handle: str, *, id: str | None = None, input: str | None = "{}") -> UUID:
        key = self.ids.uuid7()
        [created] = await self.client.create(
            [NewInstance(account_id=self.account, key=key, instance_id=id or str(key), handle=handle, input=input)]
        )
        assert created.outcome is Create.CREATED, created
        return key

    async def status(self, key: UUID) -> Status:
        return Status(
            await self.db.engine.fetchval(
                "select coalesce(l.status, i.status) from instance i left join live l using (account_id, key)"
                " where i.account_id = $1 and i.key = $2",
                self.account,
                key,
            )
        )

    async def until(self, key: UUID, status: Status, *, seconds: float = 15) -> asyncpg.Record:
        """The instance's row, once it has that status."""
        async with asyncio.timeout(seconds):
            while await self.status(key) is not status:
                await asyncio.sleep(0.003)
        row = await self.admin.fetchrow("select * from instance where account_id = $1 and key = $2", self.account, key)
        assert row is not None
        return row

    async def eventually(self, holds: Callable[[], Awaitable[Any]], *, seconds: float = 15) -> Any:
        async with asyncio.timeout(seconds):
            while not (value := await holds()):
                await asyncio.sleep(0.003)
        return value

    async def live(self, key: UUID) -> asyncpg.Record | None:
        return await self.admin.fetchrow("select * from live where account_id = $1 and key = $2", self.account, key)

    async def journal(self, key: UUID) -> list[asyncpg.Record]:
        return await self.admin.fetch(
            "select * from journal where account_id = $1 and key = $2 order by seq", self.account, key
        )

    async def kinds(self, key: UUID) -> list[Kind]:
        return [Kind(row["kind"]) for row in await self.journal(key)]

    async def advance(self, seconds: float) -> None:
        """Move the hand-held clock and let everybody look at it."""
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)
        await self.admin.execute(
            "update worker set lease_until = lease_until + make_interval(secs => $1),"
            " renewed_at = renewed_at + make_interval(secs => $1)",
            seconds,
        )
        for worker in self.workers:
            worker.wake()
            for run in list(worker._tasks):
                run.poke()

    async def close(self) -> None:
        for worker in self.workers:
            await worker.drain(0)
            await worker.stop()
        await self.client.stop()
