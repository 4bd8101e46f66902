"""Instances brought into every situation there is, by hand: for tests that hold SQL against `instances.lifecycle`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from instances.engine.journal_writer import Next
from instances.engine.requests import Controlled
from instances.lifecycle import Command, Control, Kind, Status
from instances.runtimes.protocol import StepKey, StepKind
from tenants.clock import ManualClock
from tenants.database import Database
from tenants.ids import Ids
from tests.support.databases import Databases
from tests.support.engine import Engine, Script
from tests.support.puppet import Puppet

FAR = timedelta(days=100)


@asynccontextmanager
async def engine_of_a_module(databases: Databases) -> AsyncIterator[Engine]:
    """An engine on a database that several tests share."""
    name = await databases.create()
    clock = ManualClock()
    ids = Ids(clock, entropy=random.Random(20260101).randbytes)
    db = await Database(databases.dsn(name), size=5).connect()
    admin = await asyncpg.connect(databases.dsn(name))
    engine = Engine(db, admin, clock, ids, UUID(int=0))
    engine.account = await engine.add_account()
    await engine.client.start()
    yield engine
    await engine.close()
    await admin.close()
    await db.close()
    databases.drop(name)


def nothing(_run: Any) -> Any:
    """A script that is never run."""
    raise AssertionError


NEVER_RUN: Script = nothing


@dataclass(frozen=True)
class Situation:
    """A way to a status, as verbs in order; `started`: a worker has held the instance."""

    name: str
    status: Status
    way: str
    started: bool = True

    @property
    def held(self) -> bool:
        return self.name.endswith(", held")


SITUATIONS = [
    Situation("queued, new", Status.QUEUED, "", started=False),
    Situation("queued, released", Status.QUEUED, "claim release"),
    Situation("queued, woken", Status.QUEUED, "claim park event"),
    Situation("queued, restarted", Status.QUEUED, "claim start restart", started=False),
    Situation("queued, restarted from a step", Status.QUEUED, "claim start restart-from"),
    Situation("running, held", Status.RUNNING, "claim"),
    Situation("running, pause taken back, held", Status.RUNNING, "claim pause resume"),
    Situation("waiting", Status.WAITING, "claim park"),
    Situation("paused, new", Status.PAUSED, "pause", started=False),
    Situation("paused, settled", Status.PAUSED, "claim pause settle"),
    Situation("paused, waiting", Status.PAUSED, "claim park pause"),
    Situation("waiting for pause, held", Status.WAITING_FOR_PAUSE, "claim pause"),
    Situation("rolling back by itself, held", Status.ROLLING_BACK, "claim roll-back"),
    Situation("rolling back by itself, parked", Status.ROLLING_BACK, "claim roll-back park"),
    Situation("rolling back by command, held", Status.ROLLING_BACK, "claim terminate-with-rollback"),
    Situation("rolling back by command, queued", Status.ROLLING_BACK, "claim park terminate-with-rollback"),
    Situation("rolling back, stopped, held", Status.ROLLING_BACK, "claim roll-back terminate"),
    Situation("complete", Status.COMPLETE, "claim complete"),
    Situation("errored", Status.ERRORED, "claim fail"),
    Situation("errored after rollback", Status.ERRORED, "claim roll-back fail"),
    Situation("terminated", Status.TERMINATED, "terminate", started=False),
    Situation("terminated after rollback", Status.TERMINATED, "claim terminate-with-rollback stop"),
]
NEXTS = {
    "park": Next.PARK,
    "settle": Next.SETTLE_PAUSE,
    "roll-back": Next.ROLL_BACK,
    "release": Next.RELEASE,
    "complete": Next.COMPLETE,
    "fail": Next.ERRORED,
    "stop": Next.TERMINATED,
}


@dataclass
class Subject:
    """One instance and the row its worker got when it claimed it."""

    engine: Engine
    worker: Puppet
    key: UUID
    row: Any = None

    @classmethod
    async def create(cls, engine: Engine, worker: Puppet, handle: str) -> Subject:
        return cls(engine, worker, await engine.create(handle))

    async def go(self, way: str) -> Subject:
        for verb in way.split():
            await self.do(verb)
        return self

    async def do(self, verb: str) -> None:
        client, account = self.engine.client, self.engine.account
        if verb == "claim":
            [self.row] = [row for row in await self.worker.claim() if row["key"] == self.key]
        elif verb == "start":
            entry = (int(Kind.STARTED), None, None, None, self.engine.clock.now(), None)
            change = self.worker.change(self.row)
            change.entries = [entry]
            await self.worker.send(change)
        elif verb == "event":
            await client.send_event(account, self.key, "go", "1")
        elif verb == "restart-from":
            assert (await client.restart(account, self.key, from_seq=3)).outcome is Control.DONE
        elif verb in NEXTS:
            assert (await self.flush(NEXTS[verb])).done
        else:
            assert (await self.command(Command(verb.replace("-", " ")))).outcome is Control.DONE

    async def flush(self, next: Next = Next.KEEP) -> Any:
        """A flush of the worker that claimed it, which has seen everything that happened."""
        live = await self.engine.live(self.key)
        seen = live["signal"] if live else 0
        due = self.engine.clock.now() + FAR
        return await self.worker.flush(self.row, next, seen=seen, due=due, awaits=["go"], body="{}")

    async def command(self, command: Command) -> Controlled:
        """What the engine answers; for a delete: done, or not there."""
        client, account = self.engine.client, self.engine.account
        match command:
            case Command.PAUSE:
                return await client.pause(account, self.key)
            case Command.RESUME:
                return await client.resume(account, self.key)
            case Command.TERMINATE:
                return await client.terminate(account, self.key)
            case Command.TERMINATE_WITH_ROLLBACK:
                return await client.terminate(account, self.key, rollback=True)
            case Command.RESTART:
                return await client.restart(account, self.key)
            case Command.REOPEN:
                ended = await self.engine.admin.fetchrow("select run, seq from instance where key = $1", self.key)
                seen = {"run": ended["run"], "seq": ended["seq"]} if ended is not None else {"run": 1, "seq": 1}
                key = StepKey(StepKind.DO, "step")
                return await client.reopen(account, self.key, key, attempt=2, failed_seq=2, aside=False, **seen)
            case Command.DELETE:
                gone = await client.delete(account, [self.key])
                return Controlled(Control.DONE if gone else Control.NOT_LIVE, None)

    async def status(self) -> Status | None:
        """None: there is no such instance."""
        found = await self.engine.admin.fetchval(
            "select coalesce(l.status, i.status) from instance i left join live l using (account_id, key)"
            " where i.account_id = $1 and i.key = $2",
            self.engine.account,
            self.key,
        )
        return None if found is None else Status(found)

    async def seqs(self) -> list[int]:
        return [row["seq"] for row in await self.engine.journal(self.key)]


async def counters_are_right(engine: Engine) -> None:
    """The counters of finished instances are their numbers."""
    counted = await engine.admin.fetch("select status, sum(n)::int as n from counter group by 1 having sum(n) <> 0")
    there = await engine.admin.fetch("select status from instance where status >= 6")
    assert {row["status"]: row["n"] for row in counted} == Counter(row["status"] for row in there)
