"""An installation whose API and workers are real processes, killed and started as a test likes.

The test deploys, creates and looks with an API of its own, so that only what it kills is ever gone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx

from app.composition import Platform
from app.settings import Settings
from instances.engine.faults import VARIABLE
from instances.engine.group_commit import LOST
from instances.lifecycle import Kind, Status
from instances.runtimes.document import unregister_action_handler
from tests.crash.member import GATE, HANDLERS, LOG, register, run
from tests.support.api import Tenant, client_of, new_tenant

RECOVERY_SECONDS = 10.0
"""From a replacement's start, or from the failure when nothing is replaced, until everything goes on."""
START_SECONDS = 30.0
LEASE_SECONDS = 2.0

PROCESSES = multiprocessing.get_context("forkserver")
"""Forks of one process that has imported everything: an interpreter of its own would take each member a second more."""
PROCESSES.set_forkserver_preload([run.__module__, "app.cli.migrate", "app.cli.serve", "app.cli.worker"])

COMPLETIONS = {Kind.STEP_COMPLETED: False, Kind.ROLLBACK_STEP_COMPLETED: True}
"""Entries that say a step is done; whether it is a compensation."""

Step = tuple[str, str, bool]
"""Instance, node, whether it is its compensation."""

RETRIES = {"limit": 3, "delay": 0}


def mark(id: str, *depends_on: str, type: str = "mark", **fields: Any) -> dict[str, Any]:
    """A node whose executions are counted."""
    return {"id": id, "type": type, "retries": RETRIES, "depends_on": list(depends_on), **fields}


def hold(id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A node that runs until :meth:`Installation.let_go`."""
    return mark(id, *depends_on, type="hold", **fields)


def mend(id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A node that fails until :meth:`Installation.mend`."""
    return mark(id, *depends_on, type="mend", **fields)


class Member:
    """One process of the installation."""

    def __init__(self, process: ForkServerProcess, output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.is_alive()

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def address(self) -> str | None:
        """Where it serves the API, once it does."""
        found = re.search(r"Serving on (http://\S+)\n", self.said)
        return found and found[1]

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself; that of one a signal ended is the signal's, negative."""
        await asyncio.to_thread(self._process.join, START_SECONDS)
        code = self._process.exitcode
        assert code is not None, f"process {self.pid} did not end; it said:\n{self.said}"
        return code

    async def killed(self) -> None:
        """Returns once it has died at the point it was told to."""
        assert await self.ended() == -signal.SIGKILL, self.said

    async def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        self._process.kill()
        await self.ended()


@dataclass(frozen=True)
class Snapshot:
    """What was committed, and what had run, at one moment."""

    completed: frozenset[Step]
    executions: int


class Installation:
    """See the module. Made by :func:`installed`."""

    def __init__(
        self, settings: Settings, directory: Path, platform: Platform, tenant: Tenant, api: httpx.AsyncClient
    ) -> None:
        self.settings = settings
        self.platform = platform
        self.tenant = tenant
        self.api = api
        self.members: list[Member] = []
        self._log = directory / "executions"
        self._gate = directory / "gate"
        self._directory = directory
        self._numbers = itertools.count()

    # --- processes -----------------------------------------------------------------------------------------------

    async def start(self, *command: str, crash: str | None = None, ready: bool = True) -> Member:
        """Start a process that dies at the point `crash`; with `ready`, once it can do its work."""
        output = self._directory / f"output-{next(self._numbers)}"
        output.touch()
        environment = self._environment() | ({} if crash is None else {VARIABLE: crash})
        process = PROCESSES.Process(target=run, args=(command, environment, output), daemon=True)
        await asyncio.to_thread(process.start)  # the first of all waits for the imports
        member = Member(process, output)
        self.members.append(member)
        if ready:
            await self.eventually(lambda: self._is_ready(member, command[0]), START_SECONDS)
        return member

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "MILLRACE_DATABASE_URL": self.settings.database_url,
            "MILLRACE_REDIS_URL": self.settings.redis_url,
            "MILLRACE_SECRET": self.settings.secret,
            "MILLRACE_BIND": "127.0.0.1:0",
            "MILLRACE_METRICS_BIND": "",
            "MILLRACE_LEASE_SECONDS": str(LEASE_SECONDS),
            "MILLRACE_LOG_FORMAT": "console",
            "MILLRACE_EGRESS_ALLOW": ",".join(self.settings.egress_allow),
            "MILLRACE_EGRESS_PLAIN_HTTP": str(self.settings.egress_plain_http).lower(),
            LOG: str(self._log),
            GATE: str(self._gate),
        }

    def let_go(self, member: Member) -> None:
        """Let `hold` steps of a process end."""
        Path(f"{self._gate}-{member.pid}").touch()

    def mend(self) -> None:
        """Let `mend` steps succeed from now on."""
        self._gate.touch()

    async def _is_ready(self, member: Member, role: str) -> bool:
        assert member.lives, member.said
        if role == "worker":
            return "worker_ready" in member.said
        return member.address is not None

    @asynccontextmanager
    async def client(self, member: Member) -> AsyncIterator[httpx.AsyncClient]:
        """A client of one API process."""
        url = f"{member.address}{self.tenant.path}"
        async with httpx.AsyncClient(base_url=url, headers=self.tenant.headers, trust_env=False) as client:
            yield client

    # --- work ----------------------------------------------------------------------------------------------------

    async def deploy(self, handle: str, nodes: Sequence[dict[str, Any]], **document: Any) -> None:
        definition = {"spec": "workflow/1", "name": handle, "nodes": nodes, **document}
        answer = await self.api.put(f"/workflows/{handle}", json={"definition": definition})
        assert answer.status_code == 200, answer.text

    async def create(self, handle: str, count: int) -> list[str]:
        """Ids of new instances, which are their keys."""
        answer = await self.api.post(f"/workflows/{handle}/instances/batch", json=[{}] * count)
        assert answer.status_code == 200, answer.text
        return [created["id"] for created in answer.json()["result"]]

    async def send(self, handle: str, instance: str, event: str, payload: Any) -> None:
        answer = await self.api.post(f"/workflows/{handle}/instances/{instance}/events/{event}", json=payload)
        assert answer.status_code == 200, answer.text

    async def let_idempotency_keys_go(self) -> None:
        """A request of a process that died holds its key for a while; let that be over."""
        query = "update idempotency_key set held_until = created_at where status is null"
        await self.platform.db.engine.execute(query)

    async def instance(self, handle: str, id: str) -> dict[str, Any]:
        answer = await self.api.get(f"/workflows/{handle}/instances/{id}")
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    async def statuses(self, handle: str) -> Counter[str]:
        """How many instances of a workflow have which status."""
        rows = await self.platform.db.engine.fetch(
            "select coalesce(l.status, i.status) as status from instance i left join live l using (account_id, key)"
            " join workflow w on (w.account_id, w.workflow_key) = (i.account_id, i.workflow_key) where w.handle = $1",
            handle,
        )
        return Counter(Status(row["status"]).wire for row in rows)

    async def all_are(self, handle: str, status: str, seconds: float = RECOVERY_SECONDS) -> None:
        """Returns once every instance of the workflow has that status."""

        async def holds() -> bool:
            try:
                return set(await self.statuses(handle)) == {status}
            except LOST:  # the database may be what failed
                return False

        try:
            await self.eventually(holds, seconds)
        except TimeoutError:
            said = "\n".join(member.said for member in self.members)
            raise AssertionError(f"{await self.statuses(handle)}; the processes said:\n{said}") from None

    async def eventually(self, holds: Callable[[], Awaitable[Any]], seconds: float = RECOVERY_SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not await holds():
                await asyncio.sleep(0.01)

    # --- what happened -------------------------------------------------------------------------------------------

    def executions(self) -> list[dict[str, Any]]:
        """What handlers ran, in order."""
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    async def entries(self, *kinds: Kind) -> list[tuple[str, str, int]]:
        """Instance, name and kind of the journal's entries of these kinds."""
        rows = await self.platform.db.engine.fetch(
            "select key, name, kind from journal where account_id = $1 and kind = any ($2::smallint[])"
            " order by key, seq",
            self.tenant.id,
            [int(kind) for kind in kinds],
        )
        return [(str(row["key"]), row["name"], row["kind"]) for row in rows]

    async def payloads(self, kind: Kind, name: str) -> list[str]:
        """JSON texts of the entries of one kind and name."""
        query = "select payload from journal where account_id = $1 and kind = $2 and name = $3"
        rows = await self.platform.db.engine.fetch(query, self.tenant.id, int(kind), name)
        return [row["payload"] for row in rows]

    async def completed(self) -> list[Step]:
        return [(key, name, COMPLETIONS[Kind(kind)]) for key, name, kind in await self.entries(*COMPLETIONS)]

    async def snapshot(self) -> Snapshot:
        """The state now; take it while no worker lives."""
        return Snapshot(frozenset(await self.completed()), len(self.executions()))

    async def nothing_ran_twice(self, before: Snapshot) -> None:
        """No step whose end was committed at `before` ran after it, and none was completed twice."""
        later = {(ran["instance"], ran["step"], ran["undo"]) for ran in self.executions()[before.executions :]}
        assert not later & before.completed
        assert set(Counter(await self.completed()).values()) <= {1}


@asynccontextmanager
async def installed(settings: Settings, directory: Path) -> AsyncIterator[Installation]:
    """An installation on the database and the Redis of `settings`, without any process yet; it may call this host."""
    settings = replace(settings, egress_allow=("127.0.0.1",), egress_plain_http=True)
    async with AsyncExitStack() as stack:
        register()
        for name in HANDLERS:
            stack.callback(unregister_action_handler, name)
        platform = await stack.enter_async_context(Platform(settings).opened())
        tenant = await new_tenant(platform)
        api = await stack.enter_async_context(client_of(settings, platform, tenant, checked=False))
        installation = Installation(settings, directory, platform, tenant, api)
        try:
            yield installation
        finally:
            for member in installation.members:
                await member.kill()
