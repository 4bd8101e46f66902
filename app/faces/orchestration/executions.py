"""Executions as REST and GraphQL find and steer them: what a status forbids is a :class:`Conflict` that names it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from uuid import UUID

from app.errors import MillraceError
from app.faces.orchestration import views
from app.faces.orchestration.errors import Conflict
from instances.errors import CannotCancel, CannotPause, CannotResume, CannotRetry, InstanceNotFound, NotFinished
from instances.search.executions import Shown
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.spellings import EXECUTION, parse_key, parse_no

FACE = "002"


async def find(instances: InstanceService, caller: Caller, id: str) -> Shown:
    """The execution of an id: its number, or its UUID. Raises :class:`InstanceNotFound`."""
    no = parse_no(id)
    if no is not None:
        return await instances.reader.of(caller, await instances.searcher.one_by_no(caller, no))
    key = parse_key(id, EXECUTION)
    if key is None:
        caller.require("executions:read")
        raise InstanceNotFound()
    return await instances.reader.one(caller, key)


async def find_key(instances: InstanceService, caller: Caller, id: str) -> UUID:
    """The key of the execution of an id. Raises :class:`InstanceNotFound`."""
    key = None if parse_no(id) is not None else parse_key(id, EXECUTION)
    return key or (await find(instances, caller, id)).row.facts.key


async def cancel(instances: InstanceService, caller: Caller, key: UUID) -> None:
    """Stop an execution; one that is stopped already cannot be."""
    async with _forbidden(CannotCancel, "cancel", instances, caller, key):
        if (await instances.executions.cancel(caller, key)).repeated:
            raise CannotCancel()


async def pause(instances: InstanceService, caller: Caller, key: UUID) -> None:
    """Hold an execution; tasks under way finish first."""
    async with _forbidden(CannotPause, "pause", instances, caller, key):
        await instances.executions.pause(caller, key)


async def resume(instances: InstanceService, caller: Caller, key: UUID) -> None:
    """Let a paused execution go on."""
    async with _forbidden(CannotResume, "resume", instances, caller, key):
        await instances.executions.resume(caller, key)


async def delete(instances: InstanceService, caller: Caller, key: UUID) -> None:
    """Hide a finished execution."""
    async with _forbidden(NotFinished, "delete", instances, caller, key):
        await instances.executions.delete(caller, key)


async def retry(
    instances: InstanceService, caller: Caller, key: UUID, first: str | None, new_key: UUID | None = None
) -> UUID:
    """Repeat a failed or cancelled execution as a new one, from the task that failed or from `first`; its key."""
    async with _forbidden(CannotRetry, "retry", instances, caller, key):
        return (await instances.executions.retry(caller, key, first=first, new_key=new_key)).key


@contextlib.asynccontextmanager
async def _forbidden(
    refusal: type[MillraceError], what: str, instances: InstanceService, caller: Caller, key: UUID
) -> AsyncGenerator[None]:
    """Say a refusal in this face's words. Raises :class:`InstanceNotFound` when the execution is gone by then."""
    try:
        yield
    except refusal:
        status = views.status_of((await instances.searcher.one(caller, key)).facet)
        raise Conflict(f"Cannot {what} execution with status {status}") from None
