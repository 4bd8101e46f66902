"""Workflow bindings: what `env.X` and `ctx.exports.X` of a script ask for, done as any caller of the account would.

A binding names a workflow of the workspace of the workflow that runs the script. Arguments come out of a sandbox:
nothing in them is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw

from app.errors import MillraceError
from instances.creation import Wanted
from instances.engine.requests import Create
from instances.errors import (
    CannotPause,
    CannotResume,
    CannotTerminate,
    DuplicateInBatch,
    InstanceExists,
    InstanceNotFound,
)
from instances.lifecycle import TriggerSource
from instances.projections.instance_events import TYPES
from instances.runtimes.scripts.operations import CallFailed, Handler, RunFacts
from instances.schemas import InstanceRetention, RestartFrom
from instances.service import InstanceService
from instances.subscriptions import Subscription
from tenants.auth import Caller

SCOPES = frozenset({"executions:read", "executions:write", "executions:delete"})

_TAKEN = InstanceExists.code, f"workflows.api.error.{InstanceExists.key}"
_REPEATED = DuplicateInBatch.code, f"workflows.api.error.{DuplicateInBatch.key}"
_MISSING = InstanceNotFound.code, f"workflows.api.error.{InstanceNotFound.key}"
_INTERNAL = 10001, "workflows.api.error.internal_server"


class _Value(msgspec.Struct):
    v: Any = UNSET
    x: Any = UNSET

    def stored(self) -> str | None:
        if self.x is not UNSET:
            return " " + msgspec.json.encode(self.x).decode()
        return None if self.v is UNSET else msgspec.json.encode(self.v).decode()


class _Retention(msgspec.Struct, rename="camel"):
    success_retention: int | str | None = None
    error_retention: int | str | None = None


class _Creation(msgspec.Struct):
    id: str | None = None
    params: _Value | None = None
    retention: _Retention | None = None

    def wanted(self) -> Wanted:
        retention = None
        if self.retention is not None:
            retention = InstanceRetention(
                success_retention=self.retention.success_retention, error_retention=self.retention.error_retention
            )
        return Wanted(
            instance_id=self.id,
            input=None if self.params is None else self.params.stored(),
            retention=retention,
            trigger_source=TriggerSource.BINDING,
        )


class _From(msgspec.Struct):
    name: str
    count: int = 1
    type: str = "do"


class _Call(msgspec.Struct):
    workflow: str
    method: str
    id: str = ""
    instance: _Creation | None = None
    instances: list[_Creation] = []
    ids: list[str] = []
    rollback: bool = False
    start: _From | None = msgspec.field(name="from", default=None)
    type: str = ""
    payload: _Value | None = None
    cursor: Annotated[int, msgspec.Meta(ge=-1, le=2**62)] = -1
    filter: list[str] | None = None
    subscription: int = 0


class Bindings:
    """Answers calls of kind `workflow`."""

    def __init__(self, instances: InstanceService) -> None:
        self._instances = instances

    def handlers(self) -> Mapping[str, Handler]:
        return {"workflow": self.call}

    async def call(self, facts: RunFacts, arguments: Any) -> dict[str, Any]:
        """Raises :class:`CallFailed` with what went wrong, in the words of the API."""
        try:
            call = msgspec.convert(arguments, _Call)
            if call.method not in _METHODS and call.method not in _FEEDS:
                raise CallFailed("TypeError", f"a binding has no method {call.method!r}")
        except msgspec.ValidationError as error:
            raise CallFailed("TypeError", f"the binding cannot do that: {error}") from None
        caller = Caller(
            facts.account_id, None, None, f"script {facts.workflow}", SCOPES, "operator", facts.workspace_id
        )
        try:
            if call.method in _FEEDS:
                return await _FEEDS[call.method](self._instances, caller, call, _feeds(facts))
            ends = await _deletes_itself(self._instances, caller, call, facts)
            answer = await _METHODS[call.method](self._instances, caller, call)
            if ends:
                await asyncio.Event().wait()  # an instance that deleted itself hears of nothing any more
            return answer
        except MillraceError as error:
            raise CallFailed("WorkflowError", _words(error, call)) from None


def _words(error: MillraceError, call: _Call) -> str:
    """What code is told went wrong: `(key) words`, with Cloudflare's words where it has some (measured)."""
    match error:
        case InstanceExists():
            text = f'Workflow instance with id "{call.instance.id if call.instance else ""}" already exists'
        case InstanceNotFound():
            text = "Instance does not exist"
        case CannotTerminate():
            text = "Cannot terminate instance since its on a finite state"
        case _:
            text = error.message
    return text if text.startswith("(") or not error.key else f"({error.key}) {text}"


async def _deletes_itself(instances: InstanceService, caller: Caller, call: _Call, facts: RunFacts) -> bool:
    """Whether the instance that runs the code is among those it wants deleted."""
    ids = {"delete": [call.id], "deleteBatch": call.ids}.get(call.method, [])
    if facts.instance_id not in ids:
        return False
    try:
        return await instances.find(caller, call.workflow, facts.instance_id) == facts.key
    except InstanceNotFound:
        return False


async def _create(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    wanted = (call.instance or _Creation()).wanted()
    created = await instances.create(caller, call.workflow, wanted)
    return {"v": {"id": wanted.instance_id or str(created.key)}}


async def _create_batch(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    wanted = [one.wanted() for one in call.instances]
    outcomes = await instances.create_batch(caller, call.workflow, wanted)
    made: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for index, (one, outcome) in enumerate(zip(wanted, outcomes, strict=True)):
        if outcome.outcome is Create.CREATED:
            made.append({"id": one.instance_id or str(outcome.key)})
        else:
            code, message = _TAKEN if outcome.outcome is Create.EXISTS else _REPEATED
            errors.append({"index": index, "id": one.instance_id, "code": code, "message": message})
    return {"v": {"created": made, "errors": errors}}


async def _get(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    await instances.facts(caller, call.workflow, call.id)
    return {}


async def _status(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    facts = await instances.facts(caller, call.workflow, call.id)
    shown = facts.status.wire
    status: dict[str, Any] = {"status": "running" if shown == "rollingBack" else shown, "output": None}
    if facts.error is not None:
        status["error"] = Raw(facts.error.encode())
    tagged = facts.output is not None and facts.output.startswith(" ")
    if facts.output is not None:
        status["output"] = Raw(facts.output.encode("utf-8", "surrogatepass"))
    status["rollback"] = None if facts.rollback is None else Raw(facts.rollback.encode())
    return {"x" if tagged else "v": status}


async def _pause(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    with suppress(CannotPause):  # of a finished instance nothing changes
        await instances.pause(caller, call.workflow, call.id)
    return {}


async def _resume(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    with suppress(CannotResume):
        await instances.resume(caller, call.workflow, call.id)
    return {}


async def _terminate(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    await instances.terminate(caller, call.workflow, call.id, rollback=call.rollback or None)
    return {}


async def _restart(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    start = None
    if call.start is not None:
        try:
            start = msgspec.convert(msgspec.structs.asdict(call.start), RestartFrom)
        except msgspec.ValidationError as error:
            raise CallFailed("TypeError", f"from: {error}") from None
    await instances.restart(caller, call.workflow, call.id, start)
    return {}


async def _delete(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    await instances.delete(caller, call.workflow, call.id)
    return {}


async def _send_event(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    payload = None if call.payload is None else call.payload.stored()
    await instances.send_event(caller, call.workflow, call.id, call.type, payload)
    return {}


async def _delete_batch(instances: InstanceService, caller: Caller, call: _Call) -> dict[str, Any]:
    deletions = await instances.delete_batch(caller, call.workflow, call.ids)
    errors: list[dict[str, Any]] = []
    for one in deletions:
        if not one.deleted:
            code, message = _INTERNAL if one.found else _MISSING
            errors.append({"id": one.instance_id, "code": code, "message": message})
    return {"v": {"deleted": [{"id": one.instance_id} for one in deletions if one.deleted], "errors": errors}}


Feeds = dict[int, Subscription]
"""A run's subscriptions, by number."""
MAX_SUBSCRIPTIONS = 100


def _feeds(facts: RunFacts) -> Feeds:
    return facts.kept.setdefault("subscriptions", {})


async def _subscribe(instances: InstanceService, caller: Caller, call: _Call, feeds: Feeds) -> dict[str, Any]:
    if call.filter is not None and not TYPES.issuperset(call.filter):
        raise CallFailed("Error", "Invalid Workflow subscription options")
    if len(feeds) >= MAX_SUBSCRIPTIONS:
        raise CallFailed("WorkflowError", f"an instance may hold {MAX_SUBSCRIPTIONS} subscriptions")
    types = None if call.filter is None else frozenset(call.filter)
    feed = await instances.subscribe(caller, call.workflow, call.id, cursor=call.cursor, types=types)
    number = max(feeds, default=0) + 1
    feeds[number] = feed
    return {"v": {"subscription": number}}


async def _next(instances: InstanceService, caller: Caller, call: _Call, feeds: Feeds) -> dict[str, Any]:
    feed = feeds.get(call.subscription)
    told = None if feed is None else await feed.next()
    if told is None:
        feeds.pop(call.subscription, None)
        return {"v": {"done": True}}
    event, tagged = told
    return {"x" if tagged else "v": {"done": False, "value": event}}


async def _unsubscribe(instances: InstanceService, caller: Caller, call: _Call, feeds: Feeds) -> dict[str, Any]:
    feed = feeds.pop(call.subscription, None)
    if feed is not None:
        feed.close()
    return {}


_FEEDS = {"subscribe": _subscribe, "next": _next, "unsubscribe": _unsubscribe}
_METHODS = {
    "create": _create,
    "createBatch": _create_batch,
    "get": _get,
    "status": _status,
    "pause": _pause,
    "resume": _resume,
    "terminate": _terminate,
    "restart": _restart,
    "delete": _delete,
    "sendEvent": _send_event,
    "deleteBatch": _delete_batch,
}
