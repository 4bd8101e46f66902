"""Requests and answers of the instance routes, in the shapes of the Workflows API."""

from __future__ import annotations

from uuid import UUID

import msgspec

Duration = int | float | str
"""Milliseconds, or `"<number> <unit>"`."""

LOCATION_HINTS = frozenset({"wnam", "weur", "enam", "eeur", "apac", "apac-ne", "apac-se", "oc", "sam", "afr", "me"})


class InstanceRetention(msgspec.Struct):
    """How long the instance is kept once it ended: `success` covers complete and terminated, `error` errored."""

    success_retention: Duration | None = None
    error_retention: Duration | None = None


class CreateInstance(msgspec.Struct):
    """Body of create, and element of a batch. `location_hint` is checked and has no effect: there is one location."""

    instance_id: str | None = None
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    instance_retention: InstanceRetention | None = None
    location_hint: str | None = None


class CreatedInstance(msgspec.Struct):
    """Result of create, and element of the result of a batch."""

    id: str
    status: str
    version_id: UUID
    workflow_id: UUID
    trigger_source: str = "api"


class ListedInstance(msgspec.Struct):
    """Element of a list of instances."""

    id: str
    status: str
    workflow_id: UUID
    version_id: UUID
    created_on: str
    modified_on: str
    started_on: str | None
    ended_on: str | None
    trigger_source: str


class RestartFrom(msgspec.Struct):
    """The step a restart begins with. `name` is uncounted, `type` is do, sleep or waitForEvent."""

    name: str
    count: int = 1
    type: str = "do"


class ChangeStatus(msgspec.Struct):
    """Body of the status route. `status` is the command: pause, resume, terminate or restart."""

    status: str
    rollback: bool | msgspec.UnsetType = msgspec.UNSET
    from_: RestartFrom | msgspec.UnsetType | None = msgspec.field(default=msgspec.UNSET, name="from")


class ChangedStatus(msgspec.Struct):
    """Status after the command."""

    status: str
    timestamp: str


class InstanceTouched(msgspec.Struct, rename="camel"):
    """Result of sending an event and of deleting an instance."""

    instance_id: str
    timestamp: str


class DeleteInstances(msgspec.Struct):
    """Body of batch delete."""

    instances: list[str]


class DeletedInstance(msgspec.Struct):
    """An instance that a batch deleted."""

    id: str


class NotDeleted(msgspec.Struct):
    """An instance that a batch could not delete, and why."""

    id: str
    code: int
    message: str


class DeletedInstances(msgspec.Struct):
    """Result of batch delete, in the order of the request; an id given twice is told twice."""

    deleted: list[DeletedInstance]
    errors: list[NotDeleted]


class TerminatedInstances(msgspec.Struct, rename="camel"):
    """Result of batch terminate: how many were really ended."""

    status: str
    instances_terminated: int


class TerminationStatus(msgspec.Struct):
    """Result of the terminate-all routes: ok or already_running; running or not_running."""

    status: str
