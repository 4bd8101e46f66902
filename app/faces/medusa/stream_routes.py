"""Streams of what happens: of a workflow, of a transaction, of one step of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.faces.medusa import views
from app.faces.medusa.finding import find_step, find_transaction, find_workflow
from app.faces.medusa.outlines import path_of
from app.faces.medusa.telling import FINISH, Event, Teller
from app.faces.streams import frame, last_event_id, open_stream
from instances.errors import InstanceNotFound
from instances.event_stream import EventStream
from instances.following.store import Mark, Told
from instances.projections.entries import Entry
from instances.search.store import Row
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.service import TenantService
from versions.definitions.schemas import Named
from versions.service import VersionService

READ = "executions:read"
FOLLOWED_MAX = 500
"""Unfinished instances a stream of a workflow knows the steps of at once; of others it reads them again."""
STREAM: dict[str, Any] = {"accepts_ticket": True}

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Instances = NamedDependency[InstanceService]
Versions = NamedDependency[VersionService]
Tenants = NamedDependency[TenantService]


@get("/workflows-executions/{workflow_id:str}/subscribe", opt=STREAM)
async def follow_workflow(
    workflow_id: FromPath[str], caller: Who, instances: Instances, versions: Versions, tenants: Tenants
) -> EventStream:
    """What happens in all transactions of a workflow, from now on."""
    caller.require(READ)
    workflow = await find_workflow(versions, caller, workflow_id)
    source, mark = Source(caller, instances, workflow), await instances.follow.mark(caller)
    return await _open(lambda: source.of_workflow(mark), caller, instances, tenants)


@get("/workflows-executions/{workflow_id:str}/{transaction_id:str}/subscribe", opt=STREAM)
async def follow_transaction(
    request: AnyRequest,
    workflow_id: FromPath[str],
    transaction_id: FromPath[str],
    caller: Who,
    instances: Instances,
    versions: Versions,
    tenants: Tenants,
) -> Response[Any]:
    """What happens in a transaction, until it has finished."""
    workflow = await find_workflow(versions, caller, workflow_id)
    return await _of_transaction(request, caller, instances, tenants, workflow, transaction_id, None)


@get("/workflows-executions/{workflow_id:str}/{transaction_id:str}/{step_id:str}/subscribe", opt=STREAM)
async def follow_step(
    request: AnyRequest,
    workflow_id: FromPath[str],
    transaction_id: FromPath[str],
    step_id: FromPath[str],
    caller: Who,
    instances: Instances,
    versions: Versions,
    tenants: Tenants,
) -> Response[Any]:
    """What happens to one step, and how the transaction finishes."""
    workflow = await find_workflow(versions, caller, workflow_id)
    return await _of_transaction(request, caller, instances, tenants, workflow, transaction_id, step_id)


async def _of_transaction(
    request: AnyRequest,
    caller: Caller,
    instances: InstanceService,
    tenants: TenantService,
    workflow: Named,
    transaction_id: str,
    step_id: str | None,
) -> Response[Any]:
    row = await find_transaction(instances, caller, workflow, transaction_id)
    execution = (await instances.reader.of(caller, row)).execution
    path = None if step_id is None else path_of(find_step(execution, step_id))
    history, seen = execution.history, last_event_id(request)
    if seen is not None and history.end is not None and seen >= history.end.seq:
        return Response(None, status_code=204)  # stops a browser from connecting again and again
    start = seen
    if start is None:
        start = history.last_seq if history.end is None else history.end.seq - 1
    source = Source(caller, instances, workflow, path)
    return await _open(lambda: source.of_transaction(row, start), caller, instances, tenants)


async def _open(
    events: Callable[[], AsyncGenerator[bytes]], caller: Caller, instances: InstanceService, tenants: TenantService
) -> EventStream:
    return await open_stream(
        events,
        caller=caller,
        tenants=tenants,
        feed=instances.feed,
        still_allowed=lambda: tenants.recheck(caller),
    )


@dataclass(frozen=True, slots=True)
class Source:
    """Frames for one stream. `path`: of the only step it tells of, with the end of the transaction."""

    caller: Caller
    instances: InstanceService
    workflow: Named
    path: str | None = None

    async def of_transaction(self, row: Row, after: int) -> AsyncGenerator[bytes]:
        """What the runs of a transaction tell, of the first behind entry `after`, until the newest has finished."""
        while True:
            key = row.facts.key
            teller = await self._teller(row)
            async with contextlib.aclosing(self.instances.follow.instance(self.caller, key)) as chunks:
                async for entries in chunks:
                    for entry in entries:
                        if entry.seq <= after:
                            teller.heed(entry)
                        elif told := await self._frames(teller, key, row.facts.transaction_id, entry, entry.seq):
                            yield told
            row = await self.instances.searcher.one_by_transaction(
                self.caller, self.workflow.workflow_key, row.facts.transaction_id
            )
            if row.facts.key == key:
                return
            after = 0

    async def of_workflow(self, since: Mark) -> AsyncGenerator[bytes]:
        """What all instances of the workflow tell from then on."""
        tellers: OrderedDict[UUID, Teller] = OrderedDict()
        stream = self.instances.follow.workflow(self.caller, self.workflow.workflow_key, since)
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                for told in chunk:
                    with contextlib.suppress(InstanceNotFound):
                        if piece := await self._of_one(tellers, told):
                            yield piece

    async def _of_one(self, tellers: OrderedDict[UUID, Teller], told: Told) -> bytes:
        teller = tellers.get(told.key) or await self._caught_up(told)
        tellers[told.key] = teller
        tellers.move_to_end(told.key)
        piece = await self._frames(teller, told.key, told.transaction_id, told.entry, None)
        if teller.history.end is not None:
            del tellers[told.key]
        elif len(tellers) > FOLLOWED_MAX:
            tellers.popitem(last=False)
        return piece

    async def _caught_up(self, told: Told) -> Teller:
        """A teller of the instance that knows what happened before."""
        teller = await self._teller(await self.instances.searcher.one(self.caller, told.key, with_deleted=True))
        if told.entry.seq <= 1:
            return teller
        async with contextlib.aclosing(self.instances.follow.instance(self.caller, told.key)) as chunks:
            async for entries in chunks:
                for entry in entries:
                    if entry.seq >= told.entry.seq:
                        return teller
                    teller.heed(entry)
        return teller

    async def _teller(self, row: Row) -> Teller:
        version_key = row.facts.version_key
        return Teller(version_key, await self.instances.reader.document(self.caller.account_id, version_key))

    async def _frames(self, teller: Teller, key: UUID, transaction_id: str, entry: Entry, id: int | None) -> bytes:
        """What an entry tells, in one piece; the id comes with the last frame."""
        events = [event for event in teller.tell(entry) if self._wanted(event)]
        pieces: list[bytes] = []
        for place, event in enumerate(events, 1):
            data = teller.data(event, self.workflow.handle, transaction_id)
            if event.type == FINISH and "result" not in data:
                data["errors"] = await self._errors(key)
            pieces.append(frame(event.type, msgspec.json.encode(data), id if place == len(events) else None))
        await asyncio.sleep(0)  # others have their turn during a long replay
        return b"".join(pieces)

    def _wanted(self, event: Event) -> bool:
        if self.path is None or event.type == FINISH:
            return True
        return event.step is not None and path_of(event.step) == self.path

    async def _errors(self, key: UUID) -> Sequence[dict[str, Any]]:
        shown = await self.instances.reader.one(self.caller, key, with_deleted=True)
        return views.errors(shown.execution.failures)


route_handlers = [follow_workflow, follow_transaction, follow_step]
