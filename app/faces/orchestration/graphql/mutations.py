"""What can be changed. Of an id that does not exist the answer is an error."""

from __future__ import annotations

from uuid import UUID

import msgspec
import strawberry

from app.errors import InvalidRequest
from app.faces.orchestration import executions, tasks, views
from app.faces.orchestration.graphql import webhooks
from app.faces.orchestration.graphql.context import Asked, Context
from app.faces.orchestration.graphql.inputs import (
    CreateWorkflowDefinitionInput,
    StartWorkflowExecutionInput,
    UpdateWorkflowDefinitionInput,
    said,
)
from app.faces.orchestration.graphql.scalars import JSON
from app.faces.orchestration.graphql.types import (
    TaskExecution,
    Told,
    ToldExecution,
    WorkflowDefinition,
    WorkflowExecution,
    told_definition,
    told_task,
)
from app.faces.orchestration.schemas import context_in
from instances.creation import Wanted
from instances.lifecycle import TriggerSource
from tenants.idempotency import HELD_REPEATABLE, Answer, Claim

WRITE = "executions:write"
_NOT_NULL = ("name", "tasks", "synchronizationPoints")


async def _found(context: Context, scope: str, id: str) -> UUID:
    """The key of the execution of an id, for a caller with that scope. Raises :class:`InstanceNotFound`."""
    context.caller.require(scope)
    return await executions.find_key(context.platform.instances, context.caller, id)


async def _shown(context: Context, key: UUID) -> Told:
    return ToldExecution(await context.platform.instances.reader.one(context.caller, key))


async def _created(context: Context, key: UUID) -> Told:
    """An execution as it stood when it was created."""
    shown = await context.platform.instances.reader.one(context.caller, key)
    return Told(views.created(shown), shown)


async def _start(context: Context, input: StartWorkflowExecutionInput) -> UUID:
    """Start an execution, under a key once; its key."""
    caller, platform = context.caller, context.platform
    caller.require(WRITE)
    context_text = context_in(input.initial_context) if input.initial_context else "{}"
    definition = await platform.versions.definitions.get(caller, input.workflow_definition_id, decimal=True)
    wanted = Wanted(input=context_text, trigger_source=TriggerSource.API, face=executions.FACE)

    async def work(claim: Claim) -> Answer:
        made = await platform.instances.create(caller, definition.workflow.handle, wanted, claim.id)
        return Answer(200, msgspec.json.encode(made.key).decode())

    operation = "startWorkflowExecution"
    if caller.workspace_id is not None:
        operation = f"{operation} in {caller.workspace_id}"
    request = msgspec.json.encode([input.workflow_definition_id, context_text])
    done = await platform.tenants.idempotency.run(
        caller.account_id, operation, input.idempotency_key or None, request, work, HELD_REPEATABLE
    )
    return msgspec.json.decode(done.body, type=UUID)


@strawberry.type
class Mutation:
    # --- definitions ---------------------------------------------------------------------------------------------

    @strawberry.mutation
    async def create_workflow_definition(self, info: Asked, input: CreateWorkflowDefinitionInput) -> WorkflowDefinition:
        context = info.context
        made = await context.platform.versions.definitions.create(context.caller, views.DIALECT, said(input))
        return await told_definition(context, made.definition)  # type: ignore[return-value]

    @strawberry.mutation
    async def update_workflow_definition(
        self, info: Asked, id: strawberry.ID, input: UpdateWorkflowDefinitionInput
    ) -> WorkflowDefinition:
        context, body = info.context, said(input)
        for name in _NOT_NULL:
            if name in body and body[name] is None:
                raise InvalidRequest(f"{name} must not be null", pointer=f"/{name}")
        done = await context.platform.versions.definitions.update(context.caller, views.DIALECT, id, body, decimal=True)
        return await told_definition(context, done.definition)  # type: ignore[return-value]

    @strawberry.mutation(description="True when something was deleted; unknown id is a NOT_FOUND error.")
    async def delete_workflow_definition(self, info: Asked, id: strawberry.ID) -> bool:
        info.context.caller.require("workflows:delete")
        await info.context.platform.versions.definitions.delete(info.context.caller, id, decimal=True)
        return True

    # --- executions ----------------------------------------------------------------------------------------------

    @strawberry.mutation
    async def start_workflow_execution(self, info: Asked, input: StartWorkflowExecutionInput) -> WorkflowExecution:
        return await _created(info.context, await _start(info.context, input))  # type: ignore[return-value]

    @strawberry.mutation
    async def cancel_workflow_execution(self, info: Asked, id: strawberry.ID) -> WorkflowExecution:
        context = info.context
        key = await _found(context, WRITE, id)
        await executions.cancel(context.platform.instances, context.caller, key)
        return await _shown(context, key)  # type: ignore[return-value]

    @strawberry.mutation
    async def pause_workflow_execution(self, info: Asked, id: strawberry.ID) -> WorkflowExecution:
        context = info.context
        key = await _found(context, WRITE, id)
        await executions.pause(context.platform.instances, context.caller, key)
        return await _shown(context, key)  # type: ignore[return-value]

    @strawberry.mutation
    async def resume_workflow_execution(self, info: Asked, id: strawberry.ID) -> WorkflowExecution:
        context = info.context
        key = await _found(context, WRITE, id)
        await executions.resume(context.platform.instances, context.caller, key)
        return await _shown(context, key)  # type: ignore[return-value]

    @strawberry.mutation(description="A new execution of the same version with the same input.")
    async def retry_workflow_execution(
        self, info: Asked, id: strawberry.ID, from_task: strawberry.ID | None = strawberry.UNSET
    ) -> WorkflowExecution:
        context = info.context
        key = await _found(context, WRITE, id)
        made = await executions.retry(context.platform.instances, context.caller, key, from_task or None)
        return await _created(context, made)  # type: ignore[return-value]

    @strawberry.mutation
    async def delete_workflow_execution(self, info: Asked, id: strawberry.ID) -> bool:
        context = info.context
        key = await _found(context, "executions:delete", id)
        await executions.delete(context.platform.instances, context.caller, key)
        return True

    # --- tasks ---------------------------------------------------------------------------------------------------

    @strawberry.mutation
    async def retry_task_execution(self, info: Asked, id: strawberry.ID) -> TaskExecution:
        info.context.caller.require(WRITE)
        shown, step = await tasks.retry(info.context.platform.instances, info.context.caller, id)
        told = told_task(shown, step)
        return Told(views.retried(told) | {"output": None}, shown)  # type: ignore[return-value]

    @strawberry.mutation
    async def complete_task_execution(
        self, info: Asked, id: strawberry.ID, output: JSON | None = strawberry.UNSET
    ) -> TaskExecution:
        info.context.caller.require(WRITE)
        text = None if output is strawberry.UNSET else msgspec.json.encode(output).decode()
        done = await tasks.complete(info.context.platform.instances, info.context.caller, id, text)
        return told_task(*done)  # type: ignore[return-value]

    @strawberry.mutation
    async def fail_task_execution(self, info: Asked, id: strawberry.ID, error: str) -> TaskExecution:
        info.context.caller.require(WRITE)
        text = msgspec.json.encode(error).decode()
        done = await tasks.fail(info.context.platform.instances, info.context.caller, id, text)
        return told_task(*done)  # type: ignore[return-value]

    # --- webhooks ------------------------------------------------------------------------------------------------

    register_webhook = strawberry.mutation(webhooks.register_webhook)
    update_webhook = strawberry.mutation(webhooks.update_webhook)
    delete_webhook = strawberry.mutation(webhooks.delete_webhook)
    rotate_webhook_secret = strawberry.mutation(webhooks.rotate_webhook_secret)
    test_webhook = strawberry.mutation(webhooks.test_webhook)
    redeliver_webhook = strawberry.mutation(webhooks.redeliver_webhook)
