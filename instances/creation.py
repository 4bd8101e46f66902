"""Creating instances: what is checked at the door, and what each outcome means.

The common case costs one call of the engine and no query besides it: limits are cached, rates are asked for only where
the account has any, and whether the workflow checks its input is remembered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.errors import InvalidRequest
from instances import store
from instances.engine.client import EngineClient
from instances.engine.requests import Create, Created, NewInstance
from instances.errors import InstanceExists, InvalidInstanceId, InvalidTransactionId, TooManyQueued
from instances.lifecycle import TriggerSource
from instances.payloads import check_size, loads
from instances.runtimes.protocol import RUNTIME_DOCUMENT
from instances.schemas import Duration, InstanceRetention
from tenants.auth import Caller
from tenants.database import Database
from tenants.limits import (
    BATCH,
    EXECUTION_TIMEOUT_MAX_MS,
    INSTANCE_ID,
    RESERVED_TRANSACTION_IDS,
    TRANSACTION_ID,
    Limits,
    reserved_instance_id,
)
from tenants.service import TenantService
from versions.document import stored_idempotent, stored_schema, validate_inputs
from versions.durations import parse_duration
from versions.errors import WorkflowInactive, WorkflowNotFound
from versions.schemas import VersionRow
from versions.service import VersionService

REMEMBERED_WORKFLOWS = 10_000
REMEMBERED_BYTES = 64 << 20
"""Of schemas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An instance somebody wants. `input` is JSON text; `pointer` is where its request stands in the body."""

    instance_id: str | None = None
    transaction_id: str | None = None
    """At most one unfinished instance of the workflow has it: asked for again, the answer is that one (REUSED). Once it
    is finished a new one is made, unless the workflow is idempotent. The instance's own id is the same where that keeps
    the rules of ids and is free."""
    input: str | None = None
    retention: InstanceRetention | None = None
    trigger_source: TriggerSource = TriggerSource.API
    trigger_detail: str | None = None
    """What caused it: a JSON object."""
    triggered_by: str | None = None
    """Who caused it; None: the caller."""
    face: str | None = None
    """The API it came through."""
    timeout_ms: int | None = None
    """From its start: then it ends errored as EXECUTION_TIMEOUT. None: what its version says."""
    variables: Mapping[str, Any] | None = None
    """Initial values over those of its document."""
    dry_run: bool = False
    """Actions of its document only say what they would give, and waits are over at once. Scripts cannot do that."""
    pointer: str = ""


class Creator:
    """Creates instances for callers of any face."""

    def __init__(self, db: Database, tenants: TenantService, versions: VersionService, engine: EngineClient) -> None:
        self._tenants = tenants
        self._engine = engine
        self._db = db
        self._inputs = InputCheck(db, versions)

    async def create(
        self, caller: Caller, handle: str, wanted: Sequence[Wanted], key_of: Callable[[int], UUID]
    ) -> list[Created]:
        """Create all of `wanted`, in one commit; `key_of(i)` is the key of the i-th.

        Answers in order; ids that are in use or repeated are outcomes, everything else wrong is an error and creates
        nothing. Raises :class:`InvalidInstanceId`, :class:`app.errors.InvalidRequest`, `PayloadTooLarge`,
        :class:`WorkflowNotFound`, :class:`WorkflowInactive`, :class:`TooManyQueued`, `CreationRateExceeded`.
        """
        if any(one.dry_run for one in wanted):
            await self._require_document(caller, handle, next(one for one in wanted if one.dry_run))
        if any(one.transaction_id is not None for one in wanted):
            [one] = wanted
            return [await self._create_transaction(caller, handle, one, key_of(0))]
        limits = await self._tenants.limits(caller.account_id)
        by = str(caller.user_id or caller.token_id or "") or None
        # All of a request see one queue: it must have room for the whole of it.
        room = None if limits.queued is None else max(0, limits.queued + 1 - len(wanted))
        items = [_new_instance(caller, handle, one, key_of(n), by, limits, room) for n, one in enumerate(wanted)]
        checked = await self._inputs.check(caller, handle, wanted)
        await self._tenants.admit_creations(caller.account_id, handle, len(items))
        created = await self._engine.create(items)
        _refuse(created)
        await self._check_again(caller, handle, wanted, created, checked)
        return created

    async def _create_transaction(self, caller: Caller, handle: str, wanted: Wanted, key: UUID) -> Created:
        """Create under a transaction id, or find who has it: what is asked for besides is looked at only then."""
        assert wanted.transaction_id is not None
        account, id = caller.account_id, _transaction_id(wanted.transaction_id, wanted.pointer)
        reuse = await self._is_idempotent(caller, handle)
        found = await self._engine.find_transaction(
            account, handle, id, reuse_finished=reuse, workspace_id=caller.workspace_id
        )
        if found is not None:
            return found if found.key != key else replace(found, outcome=Create.CREATED)
        limits = await self._tenants.limits(account)
        by = str(caller.user_id or caller.token_id or "") or None
        item = _new_instance(caller, handle, wanted, key, by, limits, limits.queued)
        checked = await self._inputs.check(caller, handle, [wanted])
        await self._tenants.admit_creations(account, handle, 1)
        created = await self._engine.create_transaction(item, id, reuse_finished=reuse)
        _refuse([created])
        await self._check_again(caller, handle, [wanted], [created], checked)
        return created

    async def _is_idempotent(self, caller: Caller, handle: str) -> bool:
        """What the current version says. Raises :class:`WorkflowNotFound`."""
        version = await self._current(caller, handle)
        return version.runtime == RUNTIME_DOCUMENT and stored_idempotent(version.source)

    async def _require_document(self, caller: Caller, handle: str, wanted: Wanted) -> None:
        """A script would do what it does for real. Raises :class:`app.errors.InvalidRequest`."""
        if (await self._current(caller, handle)).runtime != RUNTIME_DOCUMENT:
            rule = "only workflows that are definition documents can be run dry"
            raise InvalidRequest(rule, pointer=f"{wanted.pointer}/dryRun")

    async def _current(self, caller: Caller, handle: str) -> VersionRow:
        """The current version. Raises :class:`WorkflowNotFound`, also outside the caller's workspace."""
        async with self._db.scope(caller.account_id) as connection:
            found = await store.find_workflow(connection, caller.account_id, handle, caller.workspace_id)
        if found is None or found[1] is None:
            raise WorkflowNotFound()
        return await self._inputs.versions.load(caller.account_id, found[1])

    async def _check_again(
        self, caller: Caller, handle: str, wanted: Sequence[Wanted], created: list[Created], checked: UUID | None
    ) -> None:
        """Instances run the version that is current when they are created. When that is not the one the input was
        checked against, a new version came in between: check against it, and take the instances back if they fail.
        """
        made = [one for one in created if one.outcome is Create.CREATED]
        if not made or made[0].version_key == checked or made[0].version_key is None:
            return
        try:
            await self._inputs.check_version(caller, handle, made[0].version_key, wanted)
        except InvalidRequest:
            await self._engine.delete(caller.account_id, [one.key for one in made])
            raise


def _new_instance(
    caller: Caller, handle: str, wanted: Wanted, key: UUID, triggered_by: str | None, limits: Limits, room: int | None
) -> NewInstance:
    at = wanted.pointer
    if wanted.input is not None:
        check_size(wanted.input, limits.payload_bytes, "params", f"{at}/params")
    retention = wanted.retention or _NO_RETENTION
    return NewInstance(
        account_id=caller.account_id,
        key=key,
        instance_id=_own_id(wanted, key),
        handle=handle,
        workspace_id=caller.workspace_id,
        input=wanted.input,
        trigger_source=wanted.trigger_source,
        trigger_detail=_trigger_detail(wanted, limits),
        triggered_by=wanted.triggered_by or triggered_by,
        success_retention_ms=_retention(retention.success_retention, "success_retention", at, limits),
        error_retention_ms=_retention(retention.error_retention, "error_retention", at, limits),
        max_queued=room,
    )


_NO_RETENTION = InstanceRetention()


def _own_id(wanted: Wanted, key: UUID) -> str:
    if wanted.instance_id is not None:
        return _instance_id(wanted.instance_id, wanted.pointer)
    id = wanted.transaction_id
    return id if id is not None and INSTANCE_ID.holds(id) and not reserved_instance_id(id) else str(key)


def _transaction_id(text: str, pointer: str) -> str:
    where = f"{pointer}/transaction_id"
    if not TRANSACTION_ID.holds(text):
        raise InvalidTransactionId(f"transaction_id must be {TRANSACTION_ID.rule}", pointer=where)
    if text in RESERVED_TRANSACTION_IDS:
        raise InvalidTransactionId(f"transaction_id {text!r} is reserved", pointer=where)
    return text


def _trigger_detail(wanted: Wanted, limits: Limits) -> str | None:
    """What is kept of the cause and of what was wanted besides the input. A dry run says so first: SQL looks there."""
    options: dict[str, Any] = {}
    if wanted.dry_run:
        options["dryRun"] = True
    if wanted.timeout_ms is not None:
        if not 1 <= wanted.timeout_ms <= EXECUTION_TIMEOUT_MAX_MS:
            rule = f"the timeout must be between 1 and {EXECUTION_TIMEOUT_MAX_MS} milliseconds"
            raise InvalidRequest(rule, pointer=f"{wanted.pointer}/timeout")
        options["timeout"] = wanted.timeout_ms
    if wanted.face is not None:
        options["face"] = wanted.face
    if wanted.variables is not None:
        options["variables"] = wanted.variables
    if not options:
        return wanted.trigger_detail
    if wanted.trigger_detail is not None:
        options |= msgspec.json.decode(wanted.trigger_detail)
    text = msgspec.json.encode(options).decode()
    check_size(text, limits.payload_bytes, "variables", f"{wanted.pointer}/variables")
    return text


def _instance_id(text: str, pointer: str) -> str:
    if not INSTANCE_ID.holds(text):
        raise InvalidInstanceId(f"instance_id must be {INSTANCE_ID.rule}", pointer=f"{pointer}/instance_id")
    if reserved_instance_id(text):
        raise InvalidInstanceId(f"instance_id {text!r} is reserved", pointer=f"{pointer}/instance_id")
    return text


def _retention(value: Duration | None, field: str, pointer: str, limits: Limits) -> int | None:
    if value is None:
        return None
    try:
        return parse_duration(value, maximum_ms=limits.retention_max_ms)  # type: ignore[arg-type]
    except ValueError as error:
        where = f"{pointer}/instance_retention/{field}"
        raise InvalidRequest(f"instance_retention.{field} {error}", pointer=where) from None


def _refuse(created: Sequence[Created]) -> None:
    """Outcomes that are the same for all of a request."""
    for one in created:
        if one.outcome is Create.NO_WORKFLOW:
            raise WorkflowNotFound()
        if one.outcome is Create.INACTIVE:
            raise WorkflowInactive()
        if one.outcome is Create.QUEUE_FULL:
            raise TooManyQueued(retry_after=1)
    if len(created) == 1 and created[0].outcome is Create.EXISTS:
        raise InstanceExists()


def check_batch_length(count: int, what: str) -> None:
    """Raise :class:`InvalidRequest` unless a batch has 1 to 100 elements."""
    if not 1 <= count <= BATCH:
        raise InvalidRequest(f"{what} must have 1 to {BATCH} elements, not {count}")


class _Checks(NamedTuple):
    """What the current version of a workflow holds inputs against, None if nothing, and where the workflow is."""

    version_key: UUID
    schema: bytes | None
    workspace_id: UUID


class InputCheck:
    """Checks inputs against the `input_schema` of documents. Remembers, per workflow, what its current version asks."""

    def __init__(self, db: Database, versions: VersionService) -> None:
        self._db = db
        self.versions = versions
        self._known: OrderedDict[tuple[UUID, str], _Checks] = OrderedDict()
        self._held = 0

    async def check(self, caller: Caller, handle: str, wanted: Sequence[Wanted]) -> UUID | None:
        """Check the inputs; the version they were checked against (it may be outdated), None when the caller has no
        such workflow.

        Raises :class:`versions.errors.InvalidInput`.
        """
        known = self._known.get((caller.account_id, handle))
        if known is None or caller.workspace_id not in (None, known.workspace_id):
            known = await self._look_up(caller, handle)
        if known is None:
            return None
        try:
            await _check_inputs(known.schema, wanted)
        except InvalidRequest:
            # The newest version may think otherwise, and whoever just deployed it must not be told about the old one.
            current = await self._look_up(caller, handle)
            if current is None or current.version_key == known.version_key:
                raise
            known = current
            await _check_inputs(known.schema, wanted)
        return known.version_key

    async def check_version(self, caller: Caller, handle: str, version_key: UUID, wanted: Sequence[Wanted]) -> None:
        """Check the inputs against this version, and remember it. Raises :class:`versions.errors.InvalidInput`."""
        await _check_inputs((await self._learn(caller.account_id, handle, version_key)).schema, wanted)

    async def _look_up(self, caller: Caller, handle: str) -> _Checks | None:
        async with self._db.scope(caller.account_id) as connection:
            found = await store.find_workflow(connection, caller.account_id, handle, caller.workspace_id)
        if found is None or found[1] is None:
            return None
        return await self._learn(caller.account_id, handle, found[1])

    async def _learn(self, account_id: UUID, handle: str, version_key: UUID) -> _Checks:
        version = await self.versions.load(account_id, version_key)
        schema = stored_schema(version.source) if version.runtime == RUNTIME_DOCUMENT else None
        before = self._known.pop((account_id, handle), None)
        learnt = self._known[account_id, handle] = _Checks(version_key, schema, version.workspace_id)
        self._held += len(schema or b"") - len((before and before.schema) or b"")
        while len(self._known) > REMEMBERED_WORKFLOWS or self._held > REMEMBERED_BYTES:
            _, forgotten = self._known.popitem(last=False)
            self._held -= len(forgotten.schema or b"")
        return learnt


async def _check_inputs(schema: bytes | None, wanted: Sequence[Wanted]) -> None:
    if schema is None:
        return
    inputs = ((loads(one.input), f"{one.pointer}/params") for one in wanted)
    await asyncio.to_thread(validate_inputs, schema, inputs)
