"""Workflow bindings: `self.env.X` and `self.ctx.exports.X`. Everything is asked of the worker, within the script's
account. Options are dicts as JavaScript has them, or keywords; methods have their Python and their JavaScript names.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from books import current, place_call
from durations import is_number
from steps import EVENT_TYPE
from values import decode, encode, error_from, fault

_INSTANCE_ID = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9-_]*", re.ASCII)
_ADDRESSABLE = re.compile(r"[a-zA-Z0-9, */#_-]{1,271}", re.ASCII)
BATCH = 100
_INVALID = "(body) Provided argument is invalid"


def workflow_error(message: str) -> Exception:
    return fault("WorkflowError", message)


class Record(dict[str, Any]):
    """A dict whose items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def as_record(value: Any) -> Any:
    if isinstance(value, dict):
        return Record({key: as_record(item) for key, item in value.items()})
    return [as_record(item) for item in value] if isinstance(value, list) else value


async def host_call(kind: str, args: dict[str, Any]) -> Any:
    """Ask the worker for something, and wait for its answer."""
    answered = asyncio.get_running_loop().create_future()

    def answer(message: dict[str, Any]) -> None:
        if answered.done():
            return
        if "error" in message:
            answered.set_exception(error_from(message["error"]))
        else:
            answered.set_result(decode(message))

    place_call(kind, args, current.get(), answer)
    return await answered


async def _ask(handle: str, method: str, **args: Any) -> Any:
    return as_record(await host_call("workflow", {"workflow": handle, "method": method, **args}))


def _options(options: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    if options is None:
        return keywords
    if not isinstance(options, dict):
        raise workflow_error(_INVALID)
    return options | keywords


def _creation(options: Any) -> dict[str, Any]:
    """Options of a create as the worker takes them. Raises for what is no valid id."""
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise workflow_error(_INVALID)
    wanted: dict[str, Any] = {}
    id = options.get("id")
    if id is not None:
        if not isinstance(id, str) or len(id) > 100 or not _INSTANCE_ID.fullmatch(id):
            raise workflow_error("Workflow instance has invalid id")
        wanted["id"] = id
    if options.get("params") is not None:
        wanted["params"] = encode(options["params"])
    if options.get("retention") is not None:
        wanted["retention"] = options["retention"]
    return wanted


def _check_id(id: Any) -> None:
    if not isinstance(id, str) or not _ADDRESSABLE.fullmatch(id):
        raise workflow_error("(instance.invalid_id) Instance ID is invalid")


class WorkflowInstance:
    """An instance of a workflow, by its id."""

    def __init__(self, handle: str, id: str) -> None:
        self._handle = handle
        self.id = id

    async def status(self) -> Any:
        """`{status, output, error?, rollback}`."""
        return await _ask(self._handle, "status", id=self.id)

    async def pause(self) -> None:
        await _ask(self._handle, "pause", id=self.id)

    async def resume(self) -> None:
        await _ask(self._handle, "resume", id=self.id)

    async def terminate(self, options: Any = None, **keywords: Any) -> None:
        rollback = _options(options, keywords).get("rollback") is True
        await _ask(self._handle, "terminate", id=self.id, rollback=rollback)

    async def restart(self, options: Any = None, **keywords: Any) -> None:
        start = _options(options, keywords).get("from")
        await _ask(self._handle, "restart", id=self.id, **({} if start is None else {"from": start}))

    async def delete(self) -> None:
        await _ask(self._handle, "delete", id=self.id)

    async def send_event(self, options: Any = None, **keywords: Any) -> None:
        """`{type, payload}`."""
        wanted = _options(options, keywords)
        type, payload = wanted.get("type"), wanted.get("payload")
        if not isinstance(type, str) or not EVENT_TYPE.fullmatch(type):
            raise workflow_error("(workflow.invalid_event_type) Provided event type is invalid")
        await _ask(self._handle, "sendEvent", id=self.id, type=type, payload=encode(payload))

    async def subscribe(self, options: Any = None, **keywords: Any) -> Subscription:
        wanted = _options(options, keywords)
        cursor, filter = wanted.get("cursor"), wanted.get("filter")
        types = isinstance(filter, list | tuple) and all(isinstance(one, str) for one in filter)
        if (
            wanted.keys() - {"cursor", "filter"}
            or (cursor is not None and not (is_number(cursor) and cursor >= 0))
            or not (filter is None or types)
        ):
            raise workflow_error("Invalid Workflow subscription options")
        found = await _ask(self._handle, "subscribe", id=self.id, **wanted)
        return Subscription(self._handle, found["subscription"])

    sendEvent = send_event


class Subscription:
    """Events of an instance, one after the other. An asynchronous context manager and iterator."""

    def __init__(self, handle: str, subscription: Any) -> None:
        self._handle = handle
        self._subscription = subscription

    async def next(self) -> Any:
        """`{done, value}`."""
        return await _ask(self._handle, "next", subscription=self._subscription)

    async def dispose(self) -> None:
        await _ask(self._handle, "unsubscribe", subscription=self._subscription)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Any:
        found = await self.next()
        if found.get("done"):
            raise StopAsyncIteration
        return found.get("value")

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispose()


class Workflow:
    """A workflow of the account."""

    def __init__(self, handle: str) -> None:
        self._handle = handle

    async def create(self, options: Any = None, **keywords: Any) -> WorkflowInstance:
        """`{id?, params?, retention?}`."""
        found = await _ask(self._handle, "create", instance=_creation(_options(options, keywords)))
        return WorkflowInstance(self._handle, found["id"])

    async def get(self, id: str) -> WorkflowInstance:
        _check_id(id)
        await _ask(self._handle, "get", id=id)
        return WorkflowInstance(self._handle, id)

    async def create_batch(self, wanted: Any = None, **keywords: Any) -> Any:
        """A list of options, or `{count | instances, …}`, which is answered `{created, errors}`."""
        if isinstance(wanted, list | tuple):
            if not wanted:
                raise workflow_error("batchCreate should have at least 1 instance")
            if len(wanted) > BATCH:
                raise workflow_error(f"batchCreate only supports {BATCH} instances at a time")
            found = await _ask(self._handle, "createBatch", instances=[_creation(one) for one in wanted])
            return self._instances(found)
        found = await _ask(self._handle, "createBatch", instances=_expand(_options(wanted, keywords)))
        return Record(created=self._instances(found), errors=found["errors"])

    def _instances(self, found: Any) -> list[WorkflowInstance]:
        return [WorkflowInstance(self._handle, one["id"]) for one in found["created"]]

    async def delete_batch(self, ids: Any) -> Any:
        """`{deleted, errors}`."""
        if not isinstance(ids, list | tuple) or not ids:
            raise workflow_error("(body) batchDeleteInstances should have at least 1 instance")
        if len(ids) > BATCH:
            raise workflow_error(f"(body) batchDeleteInstances only supports {BATCH} instances at a time")
        for id in ids:
            _check_id(id)
        return await _ask(self._handle, "deleteBatch", ids=list(ids))

    createBatch = create_batch
    deleteBatch = delete_batch


def _expand(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    count, instances = wanted.get("count"), wanted.get("instances")
    if (count is None) == (instances is None):
        raise workflow_error(_INVALID)
    too_many = workflow_error(f"(body) batchCreate only supports {BATCH} instances at a time")
    if instances is not None:
        if not isinstance(instances, list | tuple) or not instances:
            raise workflow_error(_INVALID)
        if len(instances) > BATCH:
            raise too_many
        return [_creation(one) for one in instances]
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise workflow_error("(body) count must be a positive integer")
    if count > BATCH:
        raise too_many
    common = {key: item for key, item in wanted.items() if key not in ("count", "id")}
    return [_creation(common)] * count
