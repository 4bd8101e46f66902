"""An engine under test: real PostgreSQL, a clock that is moved by hand, workflows written as Python generators.

A workflow is a generator function `script(run)`: it yields lists of commands and receives the list of messages that
came since; what it returns is the output (JSON text). Step bodies are a second function, `body(step, attempt)`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from instances.engine.client import EngineClient
from instances.engine.requests import Create, NewInstance
from instances.engine.runs.endings import MAX_DEATHS_ALONE, SUSPECTED
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
from tenants.limits import Limits

if TYPE_CHECKING:
    from tests.support.puppet import Puppet

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
    takes_past = False
    busy = False

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

    async def delay(self, step: Do, attempt: int, failure: Failure) -> int:
        return step.retry.delay

    async def close(self) -> None:
        self._script.close()


class _Program:
    def __init__(self, script: Script, body: Body) -> None:
        self._script = script
        self._body = body

    async def start(self, run: RunContext, wake: Callable[[], None]) -> _Session:
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
        self.puppets: list[Puppet] = []

    async def add_account(self, *, concurrency: int | None = None) -> UUID:
        """One more account."""
        account = self.ids.account_id()
        await self.admin.execute(
            "insert into account (account_id, name, concurrency, created_at, modified_at) values ($1, $2, $3, $4, $4)",
            account,
            account.hex,
            concurrency,
            self.clock.now(),
        )
        return account

    async def define(
        self,
        handle: str,
        script: Script,
        body: Body = succeed,
        *,
        concurrency: int | None = None,
        steps: int = 25_000,
        runtime: int = 0,
        account: UUID | None = None,
        workspace: UUID | None = None,
    ) -> None:
        """Deploy a workflow, or a new version of it. `workspace`: where a new one is, if not with the others."""
        account = account or self.account
        source = f"{handle}@{len(self.runtime.scripts)}"
        self.runtime.scripts[source] = (script, body)
        now, version = self.clock.now(), self.ids.uuid7()
        workflow = await self.admin.fetchval(
            "select workflow_key from workflow where account_id = $1 and handle = $2", account, handle
        )
        if workflow is None:
            workflow = self.ids.uuid7()
            await self.admin.execute(
                "insert into workflow (account_id, workflow_key, handle, display_name, workspace_id, script_name,"
                " class_name, concurrency, created_at, modified_at)"
                " values ($1, $2, $3, $3, coalesce($6::uuid, $1), $3, 'Script', $4, $5, $5)",
                account,
                workflow,
                handle,
                concurrency,
                now,
                workspace,
            )
        await self.admin.execute(
            "insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source,"
            " source_hash, step_limit, created_at) select $1, $2, $3, 1 + count(*), 'document', $7, 'Script', $4, '',"
            " $5, $6 from version where account_id = $1 and workflow_key = $3",
            account,
            version,
            workflow,
            source,
            steps,
            now,
            runtime,
        )
        await self.admin.execute(
            "update workflow set current_version = $3 where account_id = $1 and workflow_key = $2",
            account,
            workflow,
            version,
        )

    async def load_version(self, account_id: UUID, version_key: UUID) -> StoredVersion:
        row = await self.db.engine.fetchrow(
            "select v.*, w.handle, w.workspace_id from version v join workflow w using (account_id, workflow_key)"
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
            row["workspace_id"],
        )

    async def worker(
        self,
        clock: Clock | None = None,
        *,
        db: Database | None = None,
        client: EngineClient | None = None,
        runtimes: Sequence[int] = (0,),
        limits: Limits | None = None,
        **options: Any,
    ) -> EngineWorker:
        """A started worker; `db` and `client` when they are its own, `limits` are every account's."""

        async def limits_of(accounts: Collection[UUID]) -> dict[UUID, Limits]:
            return dict.fromkeys(accounts, limits or Limits())

        worker = EngineWorker(
            db or self.db,
            clock or self.clock,
            client or self.client,
            dict.fromkeys(runtimes, self.runtime),
            self.load_version,
            WorkerOptions(**options),
            limits_of=limits_of,
        )
        await worker.start()
        self.workers.append(worker)
        self.bell.workers.append(worker)
        return worker

    async def create(
        self, handle: str, *, id: str | None = None, input: str | None = "{}", account: UUID | None = None
    ) -> UUID:
        [key] = await self.create_many(handle, 1, id=id, input=input, account=account)
        return key

    async def create_many(
        self,
        handle: str,
        n: int,
        *,
        id: str | None = None,
        input: str | None = "{}",
        account: UUID | None = None,
        **fields: Any,
    ) -> list[UUID]:
        """Keys of `n` new instances, oldest first."""
        keys = [self.ids.uuid7() for _ in range(n)]
        created = await self.client.create(
            [
                NewInstance(
                    account_id=account or self.account,
                    key=key,
                    instance_id=id or str(key),
                    handle=handle,
                    input=input,
                    **fields,
                )
                for key in keys
            ]
        )
        assert {c.outcome for c in created} == {Create.CREATED}, created
        return keys

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

    async def eventually(self, holds: Callable[[], Any], *, seconds: float = 15) -> Any:
        """What `holds` (sync or async) gives, once it is true."""
        async with asyncio.timeout(seconds):
            while True:
                value = holds()
                if inspect.isawaitable(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.003)

    async def live(self, key: UUID) -> asyncpg.Record | None:
        return await self.admin.fetchrow("select * from live where account_id = $1 and key = $2", self.account, key)

    async def journal(self, key: UUID) -> list[asyncpg.Record]:
        return await self.admin.fetch(
            "select * from journal where account_id = $1 and key = $2 order by seq", self.account, key
        )

    async def kinds(self, key: UUID) -> list[Kind]:
        return [Kind(row["kind"]) for row in await self.journal(key)]

    async def written(self, key: UUID, kind: Kind, n: int = 1) -> None:
        """Returns once the journal has `n` entries of the kind."""

        async def holds() -> bool:
            return (await self.kinds(key)).count(kind) >= n

        await self.eventually(holds)

    async def blocked(self, connection: Any) -> None:
        """Returns once `connection` waits for a lock."""
        waits = "select cardinality(pg_blocking_pids($1)) > 0"
        await self.eventually(lambda: self.admin.fetchval(waits, connection.get_server_pid()))

    async def convict(self, key: UUID) -> None:
        """Let the journal say that workers died while the run was opened alone: whoever claims it ends it."""
        await self.admin.execute(
            "with l as (update live set seq = seq + $2 where key = $1 returning account_id, key, seq, run)"
            " insert into journal (account_id, key, seq, run, kind, name, count, at)"
            " select account_id, key, seq - $2 + n, run, $3, $4, n, $5 from l, generate_series(1, $2) n",
            key,
            MAX_DEATHS_ALONE,
            int(Kind.NOTE),
            SUSPECTED,
            self.clock.now(),
        )

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
            for run in worker._runs:
                run.poke()

    async def close(self) -> None:
        while self.workers:
            worker = self.workers.pop()
            await worker.drain(0)
            await worker.stop()
        while self.puppets:
            await self.puppets.pop().leave()
        await self.client.stop()
