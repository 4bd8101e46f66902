"""Instances in any state, without a worker: what their tests put into the database, and how they read answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from instances.engine.client import EngineClient
from instances.lifecycle import Kind, Status
from instances.runtimes.document import known_handlers
from tenants.auth import Caller
from tenants.clock import ManualClock
from tenants.ids import Ids
from versions.document import encode_document
from versions.document.parse import parse_document


@dataclass
class World:
    """One account and its workflows, and ways to put instances into any state."""

    admin: asyncpg.Connection
    engine: EngineClient
    clock: ManualClock
    ids: Ids
    caller: Caller
    token: str

    @property
    def account(self) -> UUID:
        return self.caller.account_id

    async def workflow(self, handle: str, *, workspace: UUID | None = None, definition: Any = None) -> UUID:
        """A workflow with a version; a script unless `definition` is a document. Its key."""
        key = self.ids.uuid7()
        await self.admin.execute(
            "insert into workflow (account_id, workflow_key, handle, display_name, workspace_id, script_name,"
            " class_name, created_at, modified_at) values ($1, $2, $3, $3, $4, 's', 'C', $5, $5)",
            self.account,
            key,
            handle,
            workspace or self.account,
            self.clock.now(),
        )
        await self.deploy(key, definition)
        return key

    async def deploy(self, workflow: UUID, definition: Any = None) -> UUID:
        """A new current version of a workflow. Its key."""
        version = self.ids.uuid7()
        source = ""
        if definition is not None:
            source = encode_document(parse_document(definition, known_handlers=known_handlers()))
        await self.admin.execute(
            "insert into version (account_id, version_key, workflow_key, no, language, runtime, class_name, source,"
            " source_hash, step_limit, created_at) values ($1, $2, $3, (select 1 + count(*) from version where"
            " workflow_key = $3), $4, $5, 'C', $6, '', 1000, $7)",
            self.account,
            version,
            workflow,
            "document" if source else "javascript",
            0 if source else 1,
            source,
            self.clock.now(),
        )
        await self.admin.execute("update workflow set current_version = $2 where workflow_key = $1", workflow, version)
        return version

    async def key(self, instance_id: str) -> UUID:
        key = await self.admin.fetchval(
            "select key from instance where account_id = $1 and instance_id = $2", self.account, instance_id
        )
        assert isinstance(key, UUID)
        return key

    async def count(self) -> None:
        """Have counters say what finished instances there are, as if each had ended as they do."""
        await self.admin.execute("delete from counter where account_id = $1", self.account)
        await self.admin.execute(
            "insert into counter (account_id, workflow_key, slot, status, n, us) select account_id, workflow_key, 1,"
            " status, count(*), sum(took_us(started_at, ended_at)) from instance where account_id = $1 and status >= 6"
            " group by 1, 2, 4",
            self.account,
        )

    async def write(self, instance_id: str, *entries: tuple[Any, ...]) -> list[int]:
        """Append journal entries (kind, name, count, attempt, payload), as a flush would; their seqs."""
        key = await self.key(instance_id)
        seqs: list[int] = []
        for entry in entries:
            kind, name, count, attempt, payload = [*entry, None, None, None, None][:5]
            text = payload if payload is None or isinstance(payload, str) else json.dumps(payload)
            seq = await self.admin.fetchval(
                "with l as (update live set seq = seq + 1 where key = $1 returning account_id, key, seq, run)"
                " insert into journal (account_id, key, seq, run, kind, name, count, attempt, at, payload)"
                " select account_id, key, seq, run, $2, $3, $4, $5, $6, $7 from l returning seq",
                key,
                int(kind),
                name,
                count,
                attempt,
                self.clock.now(),
                text,
            )
            assert isinstance(seq, int)
            seqs.append(seq)
        return seqs

    async def begin(self, instance_id: str, status: Status = Status.RUNNING) -> None:
        """As if a worker had it and its status were `status`."""
        held = status in (Status.RUNNING, Status.WAITING_FOR_PAUSE, Status.ROLLING_BACK)
        await self.admin.execute(
            "update live set status = $2, phase = $3, owner = $4, started_at = $5, modified_at = $5 where key = $1",
            await self.key(instance_id),
            int(status),
            1 if held else 2 if status is Status.WAITING else 3 if status is Status.PAUSED else 0,
            1 if held else None,
            self.clock.now(),
        )
        await self.write(instance_id, (Kind.STARTED,))

    async def end(self, instance_ids: Sequence[str], status: Status = Status.COMPLETE, body: str | None = "1") -> None:
        """End instances, as a flush would; `body` is the output or the error."""
        await self.admin.execute(
            "select end_runs(array_agg($1::uuid), array_agg(i.key), array_agg($3::smallint), array_agg($5::text),"
            " array_agg(null::text), array_agg($4::timestamptz)) from instance i"
            " where i.account_id = $1 and i.instance_id = any ($2)",
            self.account,
            list(instance_ids),
            int(status),
            self.clock.now(),
            body,
        )


@dataclass
class Answer:
    status: int
    body: Any
    headers: Any

    @property
    def result(self) -> Any:
        assert self.status == 200, self.body
        return self.body["result"]

    @property
    def code(self) -> int:
        """The code of the first error."""
        assert self.status >= 400, self.body
        return self.body["errors"][0]["code"]
