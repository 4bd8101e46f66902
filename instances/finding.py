"""Finding instances for a caller: by the handle of their workflow and their id, in its account and workspace."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from instances import store
from instances.creation import check_batch_length
from instances.errors import InstanceNotFound, InvalidInstanceId
from tenants.auth import Caller
from tenants.database import Database
from tenants.limits import ADDRESSABLE_INSTANCE_ID
from versions.errors import WorkflowNotFound


class Finder:
    """Looks up what callers name. Checks no scopes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def workflow(self, caller: Caller, handle: str) -> UUID:
        """The key of a workflow. Raises :class:`WorkflowNotFound`."""
        async with self._db.scope(caller.account_id) as connection:
            found = await store.find_workflow(connection, caller.account_id, handle, caller.workspace_id)
        if found is None:
            raise WorkflowNotFound()
        return found[0]

    async def key(self, caller: Caller, handle: str, instance_id: str) -> UUID:
        """The key of an instance. Raises :class:`InvalidInstanceId`, :class:`WorkflowNotFound` and
        :class:`InstanceNotFound`.
        """
        _check_addressable(instance_id)
        async with self._db.scope(caller.account_id) as connection:
            found = await store.locate(connection, caller.account_id, handle, caller.workspace_id, instance_id)
        if found is None:
            raise WorkflowNotFound()
        if found[1] is None:
            raise InstanceNotFound()
        return found[1]

    async def keys(self, caller: Caller, handle: str, instance_ids: Sequence[str], pointer: str) -> dict[str, UUID]:
        """Keys of those instances that exist, by id. `pointer`: where the list stands in the request.

        Raises :class:`app.errors.InvalidRequest` unless there are 1 to 100 ids, :class:`InvalidInstanceId` and
        :class:`WorkflowNotFound`.
        """
        check_batch_length(len(instance_ids), "the list of instances")
        for position, instance_id in enumerate(instance_ids):
            _check_addressable(instance_id, f"{pointer}/{position}")
        async with self._db.scope(caller.account_id) as connection:
            found = await store.locate_many(connection, caller.account_id, handle, caller.workspace_id, instance_ids)
        if found is None:
            raise WorkflowNotFound()
        return found[1]

    async def record(self, caller: Caller, handle: str, instance_id: str, detail: store.Detail) -> store.InstanceRecord:
        """An instance with as much of its journal as `detail` says. Raises as :meth:`key`."""
        _check_addressable(instance_id)
        async with self._db.scope(caller.account_id) as connection:
            record = await store.read_instance(
                connection, caller.account_id, handle, caller.workspace_id, instance_id, detail
            )
        if record is None:
            raise WorkflowNotFound()
        if isinstance(record, UUID):
            raise InstanceNotFound()
        return record


def _check_addressable(instance_id: str, pointer: str | None = None) -> None:
    if not ADDRESSABLE_INSTANCE_ID.holds(instance_id):
        raise InvalidInstanceId(f"an instance id must be {ADDRESSABLE_INSTANCE_ID.rule}", pointer=pointer)
