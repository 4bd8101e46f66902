"""Executions: list, look at, start, cancel, retry, hide, logs and figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.errors import InvalidRequest
from app.faces import query_strings
from app.faces.jobsprint import queries, views
from app.faces.jobsprint.errors import Conflict, NotFound
from app.faces.jobsprint.results import Pagination, ok
from app.faces.jobsprint.schemas import EXECUTION_TIMEOUT_S, ExecuteBody, ExecuteInput, ExecuteOptions, RetryBody
from app.faces.once import once, response
from app.settings import Settings
from instances.creation import Wanted
from instances.errors import CannotCancel, CannotRetry, InstanceNotFound, InvalidFirstStep, NotFinished, RolledBack
from instances.executions.waiting import Until
from instances.lifecycle import Status, TriggerSource
from instances.projections.log_lines import LogLine
from instances.search.cursors import Cursors
from instances.search.executions import Shown
from instances.search.query import Field, InFacets, Keyset, Search, between, every
from instances.service import InstanceService
from instances.store import STEPS
from tenants.auth import Caller
from tenants.bodies import decode_body
from tenants.clock import Clock, iso
from tenants.errors import IdempotencyInFlight, IdempotencyKeyReused
from tenants.idempotency import Answer, Claim
from tenants.service import TenantService
from tenants.spellings import EXECUTION, parse_key, spell
from versions.definitions.schemas import Definition
from versions.errors import WorkflowInactive, WorkflowNotFound
from versions.service import VersionService

WAIT_MAX_S = 300
"""Seconds a synchronous execute waits at most."""
AFTER_DEADLINE_S = 5
"""Seconds it waits longer than the execution may last: one that was not through in time ends a moment later."""
LOGS_SHOWN = 200
"""Log lines of an execution's detail."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Instances = NamedDependency[InstanceService]
Versions = NamedDependency[VersionService]
Tenants = NamedDependency[TenantService]
Now = NamedDependency[Clock]


def execution_key(text: str) -> UUID:
    """The key an id in a path names. Raises :class:`NotFound`."""
    key = parse_key(text, EXECUTION)
    if key is None:
        raise NotFound("execution", text)
    return key


async def shown(instances: InstanceService, caller: Caller, id: str) -> Shown:
    """The execution of an id in a path. Raises :class:`NotFound`."""
    try:
        return await instances.reader.one(caller, execution_key(id))
    except InstanceNotFound:
        raise NotFound("execution", id) from None


async def definition(versions: VersionService, caller: Caller, id: str) -> Definition:
    """The workflow an id in a path names: `wf_…`, UUID or handle. Raises :class:`NotFound`."""
    try:
        return await versions.definitions.get(caller, id)
    except WorkflowNotFound:
        raise NotFound("workflow", id) from None


# --- reading -----------------------------------------------------------------------------------------------------


@get("/executions")
async def list_executions(
    request: AnyRequest,
    caller: Who,
    instances: Instances,
    versions: Versions,
    cursors: NamedDependency[Cursors],
    clock: Now,
) -> dict[str, Any]:
    """Executions, the newest first, by cursors in both directions."""
    query = query_strings.values(request, "limit", "after", "before", "workflowId", "status", "fromDate", "toDate")
    rows = queries.limit(query)
    if "after" in query and "before" in query:
        raise InvalidRequest("after and before exclude each other", pointer="/before")
    since, until = queries.window(query)
    facets = queries.facets(query)
    workflows: list[UUID] | None = None
    if "workflowId" in query:
        try:
            workflows = [(await versions.definitions.get(caller, query["workflowId"])).workflow.workflow_key]
        except WorkflowNotFound:
            workflows = []
    named = "\0".join(f"{name}={query.get(name)}" for name in ("workflowId", "status", "fromDate", "toDate"))
    of = caller.account_id.bytes + named.encode()
    backwards = "before" in query
    start = query.get("before") if backwards else query.get("after")
    place = None
    if start is not None:
        key = cursors.read(start, of, "before" if backwards else "after")
        place = Keyset(key, backwards)
    asked = Search(
        where=every(InFacets(facets) if facets is not None else None, between(Field.STARTED_AT, since, until)),
        workflows=workflows,
        limit=rows,
        start=place,
        counted=False,
    )
    page = await instances.reader.page(caller, asked, whole=views.needs_steps, detail=STEPS)
    more = page.found.more
    keys = [one.row.facts.key for one in page.shown]
    older = bool(keys) and (more if not backwards else True)
    newer = bool(keys) and (more if backwards else place is not None)
    pagination = Pagination(
        next_cursor=cursors.write(keys[-1], of) if older else None,
        previous_cursor=cursors.write(keys[0], of) if newer else None,
        has_more=more,
    )
    return ok(clock, [views.summary(one) for one in page.shown], pagination)


@get("/executions/metrics")
async def get_metrics(
    request: AnyRequest, caller: Who, instances: Instances, versions: Versions, clock: Now
) -> dict[str, Any]:
    """Figures of executions that started in a window and ended well or by a failure."""
    query = query_strings.values(request, "workflowId", "fromDate", "toDate", "granularity")
    granularity = queries.granularity(query)
    since, until = queries.window(query)
    workflows = None
    if "workflowId" in query:
        workflows = [(await definition(versions, caller, query["workflowId"])).workflow.workflow_key]
    try:
        timeline = await instances.figures.timeline(
            caller, since=since, until=until, granularity=granularity, workflows=workflows
        )
    except InvalidRequest as error:
        raise InvalidRequest(error.message, pointer="/fromDate") from None
    return ok(clock, views.metrics(timeline))


@get("/executions/{execution_id:str}")
async def get_execution(execution_id: FromPath[str], caller: Who, instances: Instances, clock: Now) -> dict[str, Any]:
    """An execution with its steps and the end of its log."""
    found = await shown(instances, caller, execution_id)
    key = found.row.facts.key
    lines = await _last_lines(instances, caller, key)
    retries = await instances.executions.retries(caller, key)
    return ok(clock, views.detail(found, lines, retries))


async def _last_lines(instances: InstanceService, caller: Caller, key: UUID) -> list[LogLine]:
    """The last lines of the log, of level info and above."""
    lines: list[LogLine] = []
    after: int | None = 0
    while after is not None:
        page = await instances.logs.page(
            caller.account_id, key, after=after, level="info", per_page=queries.LOG_PAGE_MAX
        )
        if page is None:
            break
        lines = [*lines, *page.lines][-LOGS_SHOWN:]
        after = page.cursor
    return lines


@get("/executions/{execution_id:str}/logs")
async def get_logs(
    request: AnyRequest,
    execution_id: FromPath[str],
    caller: Who,
    instances: Instances,
    cursors: NamedDependency[Cursors],
    clock: Now,
) -> dict[str, Any]:
    """Log lines, the oldest first; of one step with `stepId`."""
    query = query_strings.values(request, "level", "stepId", "limit", "after")
    level = queries.level(query)
    rows = queries.limit(query, queries.LOG_PAGE, queries.LOG_PAGE_MAX)
    found = await shown(instances, caller, execution_id)
    key = found.row.facts.key
    of = b"logs" + key.bytes
    after: int | None = cursors.read(query["after"], of, "after").int if "after" in query else 0
    ids = views.step_ids(found.execution)
    lines: list[LogLine] = []
    while after is not None and len(lines) <= rows:
        page = await instances.logs.page(caller.account_id, key, after=after, level=level, per_page=rows + 1)
        if page is None:
            raise NotFound("execution", execution_id)
        lines += [one for one in page.lines if "stepId" not in query or _is_of(one, query["stepId"], ids)]
        after = page.cursor
    inputs = await instances.reader.inputs(caller, found, views.starts(found.execution, lines[:rows]))
    told = {"logs": [views.log_line(line, ids, inputs.get(line.id)) for line in lines[:rows]]}
    if len(lines) <= rows:
        return ok(clock, told)
    following = cursors.write(UUID(int=lines[rows - 1].id), of)
    return ok(clock, told, Pagination(next_cursor=following, previous_cursor=None, has_more=True))


def _is_of(line: LogLine, step: str, ids: dict[str, str]) -> bool:
    return line.step is not None and step in (line.step, ids.get(line.step))


# --- commands ----------------------------------------------------------------------------------------------------


@post("/workflows/{workflow_id:str}/execute", status_code=200)
async def execute(
    request: AnyRequest,
    workflow_id: FromPath[str],
    body: RawBody,
    caller: Who,
    instances: Instances,
    versions: Versions,
    tenants: Tenants,
    settings: NamedDependency[Settings],
    clock: Now,
) -> Response[bytes]:
    """Start an execution, and with `waitForCompletion` wait for its end."""
    caller.require("executions:write")
    asked = decode_body(body, ExecuteBody)
    options = asked.options or ExecuteOptions()
    given = decode_body(body, ExecuteInput).input_data
    found = await definition(versions, caller, workflow_id)
    timeout = options.timeout
    if timeout is None and not _has_deadline(found):
        timeout = EXECUTION_TIMEOUT_S
    wanted = Wanted(
        input="{}" if isinstance(given, msgspec.UnsetType) or bytes(given) == b"null" else bytes(given).decode(),
        trigger_source=TriggerSource.MANUAL,
        face="001",
        timeout_ms=None if timeout is None else timeout * 1000,
    )

    async def work(claim: Claim) -> Answer:
        try:
            created = await instances.create(caller, found.workflow.handle, wanted, claim.id)
        except WorkflowInactive:
            raise Conflict("The workflow is not active", found.workflow.status) from None
        except WorkflowNotFound:
            raise NotFound("workflow", workflow_id) from None
        if options.wait_for_completion:
            seconds = min(WAIT_MAX_S, (timeout or WAIT_MAX_S) + AFTER_DEADLINE_S)
            await instances.executions.wait(caller, created.key, Until.END, seconds)
        told = (await instances.reader.one(caller, created.key)).execution
        url = f"{base_url(settings, request)}/v1/executions/{spell(EXECUTION, created.key)}"
        ended = options.wait_for_completion and told.situation.over
        data = views.outcome(told) if ended else views.started(told, url)
        return Answer(200, msgspec.json.encode(ok(clock, data)).decode())

    return await _once(request, tenants, caller, f"POST /v1/workflows/{found.workflow.handle}/execute", body, work)


def base_url(settings: Settings, request: AnyRequest) -> str:
    """Where clients reach us: the configured address, else the one this server listens on. Never what the client says
    in `Host`.
    """
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host, port = request.scope.get("server") or ("127.0.0.1", None)
    return f"{request.scope['scheme']}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


def _has_deadline(found: Definition) -> bool:
    return found.is_document and found.document().limits.timeout is not None


@post("/executions/{execution_id:str}/retry", status_code=200)
async def retry(
    request: AnyRequest,
    execution_id: FromPath[str],
    body: RawBody,
    caller: Who,
    instances: Instances,
    tenants: Tenants,
    clock: Now,
) -> Response[bytes]:
    """Repeat a failed or cancelled execution as a new one, from the step that failed or from `fromStep`."""
    caller.require("executions:write")
    asked = decode_body(body, RetryBody)
    key = (await shown(instances, caller, execution_id)).row.facts.key

    async def work(claim: Claim) -> Answer:
        try:
            made = await instances.executions.retry(caller, key, first=asked.from_step, new_key=claim.id())
        except InvalidFirstStep as error:
            raise InvalidRequest(error.message, pointer="/fromStep") from None
        except (CannotRetry, RolledBack) as error:
            status = views.status_of((await instances.reader.one(caller, key)).row.facet)
            raise Conflict(error.message, status) from None
        told = (await instances.reader.one(caller, made.key)).execution
        data = views.started(told, "")
        del data["url"]
        data = {"executionId": data.pop("executionId"), "originalExecutionId": spell(EXECUTION, key), **data}
        return Answer(200, msgspec.json.encode(ok(clock, data)).decode())

    return await _once(request, tenants, caller, f"POST /v1/executions/{key}/retry", body, work)


async def _once(
    request: AnyRequest,
    tenants: TenantService,
    caller: Caller,
    operation: str,
    body: bytes,
    work: Callable[[Claim], Awaitable[Answer]],
) -> Response[bytes]:
    try:
        return response(await once(request, tenants, caller, operation, body, work))
    except (IdempotencyKeyReused, IdempotencyInFlight) as error:
        raise Conflict(error.message, "reused" if isinstance(error, IdempotencyKeyReused) else "in progress") from None


@post("/executions/{execution_id:str}/cancel", status_code=200)
async def cancel(execution_id: FromPath[str], caller: Who, instances: Instances, clock: Now) -> dict[str, Any]:
    """Stop an execution; one that was cancelled stays as it is."""
    key = execution_key(execution_id)
    try:
        done = await instances.executions.cancel(caller, key)
    except InstanceNotFound:
        raise NotFound("execution", execution_id) from None
    except CannotCancel:
        status = views.status_of((await shown(instances, caller, execution_id)).row.facet)
        raise Conflict(f"An execution with status {status} cannot be cancelled", status) from None
    told = {"status": "running", "cancelledAt": None}  # until what it did is undone
    if done.status is Status.TERMINATED:
        told = {"status": "cancelled", "cancelledAt": iso(done.at or clock.now())}
    return ok(clock, {"id": spell(EXECUTION, key), **told})


@delete("/executions/{execution_id:str}", status_code=200)
async def delete_execution(
    execution_id: FromPath[str], caller: Who, instances: Instances, clock: Now
) -> dict[str, Any]:
    """Hide a finished execution; it counts on in the metrics."""
    key = execution_key(execution_id)
    try:
        await instances.executions.delete(caller, key)
    except InstanceNotFound:
        raise NotFound("execution", execution_id) from None
    except NotFinished:
        status = views.status_of((await shown(instances, caller, execution_id)).row.facet)
        raise Conflict("The execution is not finished; cancel it first", status) from None
    return ok(clock, {"id": spell(EXECUTION, key), "deleted": True})


route_handlers = [
    list_executions,
    get_metrics,
    get_execution,
    get_logs,
    execute,
    retry,
    cancel,
    delete_execution,
]
