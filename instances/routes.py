"""Routes of the Cloudflare face that are about instances.

The gateway has made sure that `instance_id` is the decoded remainder of the path, whatever it contains, that a body is
within its size, and that its JSON is not nested too deeply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.params import FromPath

from app.errors import InvalidRequest, MillraceError
from instances.creation import Wanted, check_batch_length
from instances.engine.requests import Create, Created
from instances.errors import DuplicateInBatch, InstanceExists, InstanceNotFound
from instances.lifecycle import BY_WIRE, Status, TriggerSource
from instances.listing import creation_time, list_query, one_of, single_values
from instances.log_routes import get_logs
from instances.payloads import Decoded, decode, json_value
from instances.projections.restarts import RESTART_TYPES
from instances.projections.step_view import STEP_TYPES
from instances.schemas import (
    LOCATION_HINTS,
    ChangedStatus,
    ChangeStatus,
    CreatedInstance,
    CreateInstance,
    DeletedInstance,
    DeletedInstances,
    DeleteInstances,
    InstanceTouched,
    ListedInstance,
    NotDeleted,
    RestartFrom,
    TerminatedInstances,
    TerminationStatus,
)
from instances.service import WRITE, Deletion, InstanceList, InstanceService
from instances.streams import ByteStream, StepStream
from tenants.auth import Caller
from tenants.clock import Clock, iso
from tenants.idempotency import HELD, HELD_REPEATABLE, Answer, Claim
from tenants.limits import STEP_NAME
from tenants.paging import whole_number
from tenants.results import Envelope, ok
from tenants.service import TenantService

INSTANCES = "/accounts/{account_id:str}/workflows/{workflow_name:str}/instances"
INSTANCE = INSTANCES + "/{instance_id:str}"
TERMINABLE = tuple(
    status.wire for status in (Status.QUEUED, Status.RUNNING, Status.PAUSED, Status.WAITING_FOR_PAUSE, Status.WAITING)
)
"""What terminate-all takes for its `status`."""
RESTART_NAME = dataclasses.replace(STEP_NAME, minimum=1)
RESTART_COUNT_MAX = 2**31 - 1

AnyRequest = Request[Any, Any, Any]
Instances = NamedDependency[InstanceService]
Tenants = NamedDependency[TenantService]
Who = NamedDependency[Caller]

_create = msgspec.json.Decoder(CreateInstance)
_batch = msgspec.json.Decoder(list[CreateInstance])
_change = msgspec.json.Decoder(ChangeStatus)
_ids = msgspec.json.Decoder(list[str])
_deletion = msgspec.json.Decoder(DeleteInstances)


# --- create ----------------------------------------------------------------------------------------------------


@post(INSTANCES, status_code=200)
async def create_instance(
    request: AnyRequest,
    workflow_name: FromPath[str],
    caller: Who,
    instances: Instances,
    tenants: Tenants,
) -> Envelope | Response[bytes]:
    """Create an instance. With an `Idempotency-Key` the same request again gives the same answer."""
    body = await request.body()
    decoded = decode(body, _create)
    wanted = _wanted(decoded, decoded.value)

    async def work(claim: Claim | None) -> Envelope:
        key_of = claim.id if claim is not None else None
        return ok(_created(await instances.create(caller, workflow_name, wanted, key_of), wanted))

    operation = f"instances.create {workflow_name}"
    return await _once(request, tenants, caller, operation, body, work, HELD_REPEATABLE)


@post(INSTANCES + "/batch", status_code=200)
async def create_instances(
    request: AnyRequest,
    workflow_name: FromPath[str],
    caller: Who,
    instances: Instances,
    tenants: Tenants,
) -> Envelope | Response[bytes]:
    """Create up to 100 instances at once. Those whose id is in use, or used before in the batch, are left out of the
    result and named in `messages`.
    """
    body = await request.body()
    decoded = decode(body, _batch)
    check_batch_length(len(decoded.value), "the batch")
    wanted = [_wanted(decoded, one, f"/{position}") for position, one in enumerate(decoded.value)]

    async def work(claim: Claim | None) -> Envelope:
        key_of = claim.id if claim is not None else None
        made = await instances.create_batch(caller, workflow_name, wanted, key_of)
        pairs = [(one, want) for one, want in zip(made, wanted, strict=True)]
        results = [_created(one, want) for one, want in pairs if one.outcome is Create.CREATED]
        return ok(results, messages=[_left_out(one, want) for one, want in pairs if one.outcome is not Create.CREATED])

    operation = f"instances.batch {workflow_name}"
    return await _once(request, tenants, caller, operation, body, work, HELD_REPEATABLE)


def _wanted(decoded: Decoded[Any], one: CreateInstance, pointer: str = "") -> Wanted:
    if one.location_hint is not None and one.location_hint not in LOCATION_HINTS:
        rule = f"location_hint must be one of {', '.join(sorted(LOCATION_HINTS))}"
        raise InvalidRequest(rule, pointer=f"{pointer}/location_hint")
    return Wanted(
        instance_id=one.instance_id,
        input=decoded.params(one.params),
        retention=one.instance_retention,
        pointer=pointer,
    )


def _created(created: Created, wanted: Wanted) -> CreatedInstance:
    assert created.workflow_key is not None and created.version_key is not None
    return CreatedInstance(
        id=wanted.instance_id or str(created.key),
        status=created.status.wire,
        version_id=created.version_key,
        workflow_id=created.workflow_key,
    )


def _left_out(created: Created, wanted: Wanted) -> dict[str, Any]:
    why = DuplicateInBatch() if created.outcome is Create.DUPLICATE else InstanceExists()
    return {"code": why.code, "message": why.message, "source": {"pointer": wanted.pointer}}


async def _once(
    request: AnyRequest,
    tenants: TenantService,
    caller: Caller,
    operation: str,
    body: bytes,
    work: Callable[[Claim | None], Awaitable[Envelope]],
    held: timedelta = HELD,
) -> Envelope | Response[bytes]:
    """Do `work(claim)`; under an `Idempotency-Key` once, and answer repeats with the first answer.

    A stored answer is for who may do the work: it takes the scope, and does not leave the workspace it was given in.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return await work(None)
    caller.require(WRITE)
    if caller.workspace_id is not None:
        operation = f"{operation} in {caller.workspace_id}"

    async def answer(claim: Claim) -> Answer:
        return Answer(200, msgspec.json.encode(await work(claim)).decode())

    answered = await tenants.idempotency.run(
        caller.account_id, operation, key, operation.encode() + b"\n" + body, answer, held
    )
    headers = {"idempotent-replayed": "true"} if answered.replayed else {}
    return Response(answered.body.encode(), status_code=answered.status, headers=headers, media_type=MediaType.JSON)


# --- read ------------------------------------------------------------------------------------------------------


@get(INSTANCES)
async def list_instances(
    request: AnyRequest, workflow_name: FromPath[str], caller: Who, instances: Instances
) -> Envelope:
    """Instances of a workflow, newest first; by cursor, or by page."""
    query = list_query(request.query_params.dict())
    page = await instances.list_page(caller, workflow_name, query)
    info: dict[str, Any]
    if query.page is not None:
        info = query.page.info(len(page.rows), page.total)
    else:
        info = {"count": len(page.rows), "per_page": query.per_page, "total_count": page.total}
        if page.next is not None:
            info["cursor"] = str(page.next)
    return ok(_listed(page), info=info)


def _listed(page: InstanceList) -> list[ListedInstance]:
    return [
        ListedInstance(
            row.instance_id,
            row.status.wire,
            page.workflow_key,
            row.version_key,
            iso(creation_time(row.key)),
            iso(row.modified_at),
            None if row.started_at is None else iso(row.started_at),
            None if row.ended_at is None else iso(row.ended_at),
            TriggerSource(row.trigger_source).wire,
        )
        for row in page.rows
    ]


@get(INSTANCE)
async def get_instance(
    request: AnyRequest,
    workflow_name: FromPath[str],
    instance_id: FromPath[str],
    caller: Who,
    instances: Instances,
) -> Envelope:
    """An instance with its steps, oldest first; `simple=true` leaves the steps out."""
    query = single_values(request.query_params.dict(), frozenset({"simple", "order"}))
    simple = one_of(query, "simple", ("false", "true")) == "true"
    newest_first = one_of(query, "order", ("asc", "desc")) == "desc"
    return ok(await instances.view(caller, workflow_name, instance_id, newest_first=newest_first, simple=simple))


@get(INSTANCE + "/step")
async def get_step(
    request: AnyRequest,
    workflow_name: FromPath[str],
    instance_id: FromPath[str],
    caller: Who,
    instances: Instances,
) -> Envelope | ByteStream:
    """One step in full, or one attempt of it; a stream is answered as bytes."""
    query = single_values(request.query_params.dict(), frozenset({"name", "type", "attempt"}))
    if "name" not in query:
        raise InvalidRequest("name is required")
    if "type" not in query:
        raise InvalidRequest("type is required")
    kind = one_of(query, "type", STEP_TYPES)
    attempt = whole_number(query, "attempt", default=0, minimum=1, maximum=None) or None
    detail = await instances.step(caller, workflow_name, instance_id, query["name"], kind, attempt)
    if isinstance(detail, StepStream):
        return ByteStream(detail)
    return ok(detail)


# --- events and commands ---------------------------------------------------------------------------------------


@post(INSTANCE + "/events/{event_type:str}", status_code=200)
async def send_event(
    request: AnyRequest,
    workflow_name: FromPath[str],
    instance_id: FromPath[str],
    event_type: FromPath[str],
    caller: Who,
    instances: Instances,
    tenants: Tenants,
    clock: NamedDependency[Clock],
) -> Envelope | Response[bytes]:
    """Send an event; the body is its payload. With an `Idempotency-Key` the same request again changes nothing."""
    body = await request.body()
    payload = json_value(body)

    async def work(claim: Claim | None) -> Envelope:
        dedupe = None if claim is None else f"key:{claim.seed}"
        first = claim is not None and claim.fresh
        await instances.send_event(caller, workflow_name, instance_id, event_type, payload, dedupe=dedupe, first=first)
        return ok(InstanceTouched(instance_id, iso(clock.now())))

    operation = f"instances.events {workflow_name}/{instance_id}/{event_type}"
    return await _once(request, tenants, caller, operation, body, work)


@patch(INSTANCE + "/status")
async def change_status(
    request: AnyRequest,
    workflow_name: FromPath[str],
    instance_id: FromPath[str],
    caller: Who,
    instances: Instances,
    clock: NamedDependency[Clock],
) -> Envelope:
    """Pause, resume, terminate or restart."""
    decoded = decode(await request.body(), _change)
    change = decoded.value
    if change.rollback is not msgspec.UNSET and change.status != "terminate":
        raise InvalidRequest("rollback goes with status terminate only", pointer="/rollback")
    if change.from_ is not msgspec.UNSET and change.status != "restart":
        raise InvalidRequest("from goes with status restart only", pointer="/from")
    if change.status == "pause":
        status = await instances.pause(caller, workflow_name, instance_id)
    elif change.status == "resume":
        status = await instances.resume(caller, workflow_name, instance_id)
    elif change.status == "terminate":
        rollback = None if isinstance(change.rollback, msgspec.UnsetType) else change.rollback
        status = await instances.terminate(caller, workflow_name, instance_id, rollback=rollback)
    elif change.status == "restart":
        status = await instances.restart(caller, workflow_name, instance_id, _restart_from(decoded))
    else:
        raise InvalidRequest("status must be pause, resume, terminate or restart", pointer="/status")
    return ok(ChangedStatus(status.wire, iso(clock.now())))


def _restart_from(decoded: Decoded[ChangeStatus]) -> RestartFrom | None:
    start = decoded.value.from_
    if isinstance(start, msgspec.UnsetType) or start is None:
        return None
    if not RESTART_NAME.holds(start.name) or not decoded.as_sent(start.name):
        raise InvalidRequest(f"from.name must be {RESTART_NAME.rule}", pointer="/from/name")
    if not 1 <= start.count <= RESTART_COUNT_MAX:
        raise InvalidRequest(f"from.count must be a whole number from 1 to {RESTART_COUNT_MAX}", pointer="/from/count")
    if start.type not in RESTART_TYPES:
        raise InvalidRequest("from.type must be do, sleep or waitForEvent", pointer="/from/type")
    return start


@delete(INSTANCE, status_code=200)
async def delete_instance(
    workflow_name: FromPath[str],
    instance_id: FromPath[str],
    caller: Who,
    instances: Instances,
    clock: NamedDependency[Clock],
) -> Envelope:
    """Delete an instance and everything it left."""
    await instances.delete(caller, workflow_name, instance_id)
    return ok(InstanceTouched(instance_id, iso(clock.now())))


# --- many at once ----------------------------------------------------------------------------------------------


@post(INSTANCES + "/batch/terminate", status_code=200)
async def terminate_instances(
    request: AnyRequest, workflow_name: FromPath[str], caller: Who, instances: Instances
) -> Envelope:
    """End up to 100 instances, given as a list of their ids."""
    ids = decode(await request.body(), _ids).value
    return ok(TerminatedInstances("ok", await instances.terminate_batch(caller, workflow_name, ids)))


@post(INSTANCES + "/batch/delete", status_code=200)
async def delete_instances(
    request: AnyRequest, workflow_name: FromPath[str], caller: Who, instances: Instances
) -> Envelope:
    """Delete up to 100 instances."""
    ids = decode(await request.body(), _deletion).value.instances
    outcomes = await instances.delete_batch(caller, workflow_name, ids)
    return ok(
        DeletedInstances(
            deleted=[DeletedInstance(one.instance_id) for one in outcomes if one.deleted],
            errors=[_not_deleted(one) for one in outcomes if not one.deleted],
        )
    )


def _not_deleted(one: Deletion) -> NotDeleted:
    why = MillraceError() if one.found else InstanceNotFound()
    return NotDeleted(one.instance_id, why.code, why.message)


@put(INSTANCES + "/terminate")
async def terminate_all(
    request: AnyRequest, workflow_name: FromPath[str], caller: Who, instances: Instances
) -> Envelope:
    """Have all unfinished instances ended in the background, or those of one `status`."""
    query = single_values(request.query_params.dict(), frozenset({"status"}))
    status = BY_WIRE[one_of(query, "status", TERMINABLE)] if "status" in query else None
    started = await instances.terminate_all(caller, workflow_name, status)
    return ok(TerminationStatus("ok" if started else "already_running"))


@get(INSTANCES + "/terminate")
async def get_termination(workflow_name: FromPath[str], caller: Who, instances: Instances) -> Envelope:
    """Whether such a job is under way."""
    running = await instances.terminating_all(caller, workflow_name)
    return ok(TerminationStatus("running" if running else "not_running"))


route_handlers = [
    create_instance,
    create_instances,
    list_instances,
    get_instance,
    get_step,
    send_event,
    change_status,
    delete_instance,
    terminate_instances,
    delete_instances,
    terminate_all,
    get_termination,
    get_logs,
]
