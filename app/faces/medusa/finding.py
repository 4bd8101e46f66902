"""From what stands in a path to a workflow, an execution, a step."""

from __future__ import annotations

from app.faces.medusa.errors import execution_not_found, step_not_found, transaction_not_found, workflow_not_found
from instances.errors import InstanceNotFound
from instances.projections.execution import Execution
from instances.projections.execution_steps import ExecutionStep
from instances.search.store import Row
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.spellings import WORKFLOW_EXECUTION, parse_key
from versions.definitions.schemas import Named
from versions.errors import WorkflowNotFound
from versions.service import VersionService


async def find_workflow(versions: VersionService, caller: Caller, id: str) -> Named:
    """The workflow of that name or UUID. Raises :class:`NotFound`."""
    try:
        return await versions.definitions.named(caller, id)
    except WorkflowNotFound:
        raise workflow_not_found(id) from None


async def find_execution(instances: InstanceService, caller: Caller, id: str) -> Row:
    """The execution of an id: `wf_exec_…`, or its UUID. Raises :class:`NotFound`."""
    key = parse_key(id, WORKFLOW_EXECUTION)
    if key is None:
        raise execution_not_found(id)
    try:
        return await instances.searcher.one(caller, key)
    except InstanceNotFound:
        raise execution_not_found(id) from None


async def find_transaction(instances: InstanceService, caller: Caller, workflow: Named, id: str) -> Row:
    """The newest run of a transaction. Raises :class:`NotFound`."""
    try:
        return await instances.searcher.one_by_transaction(caller, workflow.workflow_key, id)
    except InstanceNotFound:
        raise transaction_not_found(id) from None


def find_step(execution: Execution, id: str) -> ExecutionStep:
    """The step of that name or path. Raises :class:`NotFound`."""
    step = execution.step(id)
    if step is None:
        raise step_not_found(id)
    return step
