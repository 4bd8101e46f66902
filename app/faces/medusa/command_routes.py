"""Running workflows, and answering for steps that wait for somebody outside."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces.medusa import views
from app.faces.medusa.bodies import AnswerBody, answer_body, run_body
from app.faces.medusa.errors import TYPES, UNKNOWN, Refused, body_of, step_not_found
from app.faces.medusa.finding import find_step, find_transaction, find_workflow
from app.faces.medusa.states import WAITING_RESPONSE, compensate_of, invoke_of
from app.middleware.gateway import COUNTED_AS
from app.settings import Settings
from instances.creation import Wanted
from instances.engine.requests import Create
from instances.errors import StepAnsweredBefore, StepNotFound, StepNotWaiting
from instances.executions.answers import Phase
from instances.executions.waiting import Until
from instances.projections.execution import Execution
from instances.projections.execution_steps import ExecutionStep
from instances.search.query import Facet
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.ids import Ids
from tenants.spellings import WORKFLOW_EXECUTION, spell, ulid_text
from versions.service import VersionService

FACE = "000"
OUTCOME_IN_METRICS = "workflow_failed"
"""What metrics call the answer to a run whose workflow failed: the service did well."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
Instances = NamedDependency[InstanceService]
Versions = NamedDependency[VersionService]


# --- run ---------------------------------------------------------------------------------------------------------


@post("/workflows-executions/{workflow_id:str}/run", status_code=200)
async def run(
    request: AnyRequest,
    workflow_id: FromPath[str],
    body: RawBody,
    caller: Who,
    instances: Instances,
    versions: Versions,
    settings: NamedDependency[Settings],
    ids: NamedDependency[Ids],
) -> Response[bytes]:
    """Run a workflow, and wait for it: to its end, until it waits for something itself, or until the time is up."""
    caller.require("executions:write")
    asked = run_body(body)
    workflow = await find_workflow(versions, caller, workflow_id)
    transaction_id = asked.transaction_id or f"auto-{ulid_text(ids.uuid7())}"
    wanted = Wanted(transaction_id=transaction_id, input=asked.input, face=FACE)
    created = await instances.create(caller, workflow.handle, wanted)
    at_once = _responds_async(request)
    waited = await instances.executions.wait(caller, created.key, Until.REST, 0 if at_once else settings.run_wait)
    headers = {
        "x-transaction-id": quote(transaction_id, safe=" !#$&'()*+,/:;=?@[]"),
        "x-workflow-execution-id": spell(WORKFLOW_EXECUTION, created.key),
    }
    if at_once:
        headers["preference-applied"] = "respond-async"
    failed = False
    if waited.ended:
        told = (await instances.reader.one(caller, created.key)).execution
        failed = told.facet is not Facet.COMPLETE
        if failed and settings.run_throws:
            request.scope[COUNTED_AS] = OUTCOME_IN_METRICS  # type: ignore[typeddict-unknown-key]
            status, error = _error_of(told)
            return _json(error, status, headers)
    acknowledgement = {
        "transactionId": transaction_id,
        "workflowId": workflow.handle,
        "hasFinished": waited.ended,
        "hasFailed": failed,
    }
    if created.outcome is Create.REUSED:  # it may be somebody's child
        acknowledgement |= await _child_of(instances, caller, created.key)
    return _json({"acknowledgement": acknowledgement}, 200, headers)


async def _child_of(instances: InstanceService, caller: Caller, key: UUID) -> dict[str, str]:
    row = await instances.searcher.one(caller, key, with_deleted=True)
    return views.of_child((await instances.reader.parents(caller, [row])).get(key))


def _responds_async(request: AnyRequest) -> bool:
    preferences = ",".join(request.headers.getall("prefer", []))
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in preferences.split(","))


def _error_of(execution: Execution) -> tuple[int, dict[str, str]]:
    """What a failed run answers: the first failure, when it is of a type this API has, else that something failed."""
    failure = views.first_failure(execution)
    if failure is not None:
        kind = next((one for one in (failure.code, failure.error.name) if one in TYPES), None)
        if kind is not None and kind != "unknown_error":
            return TYPES[kind], body_of(kind, failure.error.message)
    return TYPES["unknown_error"], body_of("unknown_error", UNKNOWN)


def _json(body: dict[str, Any], status: int, headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(body), status_code=status, headers=headers, media_type=MediaType.JSON)


# --- steps -------------------------------------------------------------------------------------------------------


@post("/workflows-executions/{workflow_id:str}/steps/success", status_code=200)
async def succeed_step(
    workflow_id: FromPath[str], body: RawBody, caller: Who, instances: Instances, versions: Versions
) -> dict[str, bool]:
    """Complete a step that waits for it; answered when that is durable."""
    return await _answer(workflow_id, body, caller, instances, versions, success=True)


@post("/workflows-executions/{workflow_id:str}/steps/failure", status_code=200)
async def fail_step(
    workflow_id: FromPath[str], body: RawBody, caller: Who, instances: Instances, versions: Versions
) -> dict[str, bool]:
    """Fail an attempt of a step that waits to be completed; its retries are left to it."""
    return await _answer(workflow_id, body, caller, instances, versions, success=False)


async def _answer(
    workflow_id: str,
    body: bytes,
    caller: Caller,
    instances: InstanceService,
    versions: VersionService,
    *,
    success: bool,
) -> dict[str, bool]:
    caller.require("executions:write")
    asked = answer_body(body)
    workflow = await find_workflow(versions, caller, workflow_id)
    row = await find_transaction(instances, caller, workflow, asked.transaction_id)
    execution = (await instances.reader.of(caller, row)).execution
    step = find_step(execution, asked.step_id)
    name, count = _meant(step)
    give = instances.executions.complete_step if success else instances.executions.fail_step
    try:
        await give(
            caller,
            row.facts.key,
            name,
            asked.response,
            count=count,
            compensate_input=asked.compensate_input,
            phase=asked.phase,
        )
    except StepNotWaiting as error:
        told = (await instances.reader.of(caller, row)).execution
        raise _not_waiting(told, asked, success, error) from None
    except StepNotFound:
        raise step_not_found(asked.step_id) from None
    return {"success": True}


def _meant(step: ExecutionStep) -> tuple[str, int | None]:
    """Name and number of the run of a step an answer is for; None: of several, the first that waits for one."""
    if step.key is None:
        return step.id, 1
    return step.key.name, step.key.count if step.node is None else None


def _not_waiting(execution: Execution, asked: AnswerBody, success: bool, error: StepNotWaiting) -> Refused:
    step = find_step(execution, asked.step_id)
    status = (invoke_of(step) if asked.phase is Phase.INVOKE else compensate_of(step)).status
    if status == WAITING_RESPONSE and isinstance(error, StepAnsweredBefore):
        status = "temp_failure" if error.failed else "ok"  # as it is about to be
    elif status == WAITING_RESPONSE:
        status = "invoking" if asked.phase is Phase.INVOKE else "compensating"  # its action runs
    return Refused(f"Cannot set step {'success' if success else 'failure'} when status is {status}")


route_handlers = [run, succeed_step, fail_step]
