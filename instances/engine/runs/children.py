"""Child instances of a step: which key they have, how they come to be, what their end means for the step."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.errors import Unavailable
from instances import parents
from instances.engine.client import EngineClient
from instances.engine.group_commit import Unstorable
from instances.engine.requests import Create, NewInstance
from instances.engine.runs.clock import millis
from instances.engine.runs.endings import RunLost
from instances.engine.runs.held import Held
from instances.lifecycle import TriggerSource
from instances.payloads import decode_stored
from instances.runtimes.protocol import Child, Failure, Raw, RunContext, StepKey, StepKind
from tenants.ids import derived_uuid7

MAX_DEPTH = 16
"""Children of children, at most."""


def child_key(run: RunContext, step: StepKey, attempt: int, started_at: datetime) -> UUID:
    """The key of a step's child: the same whenever it is asked for, and in order of time like all keys."""
    phase = "rollback/" if step.kind is StepKind.ROLLBACK else ""
    name = f"{run.key}/{run.run}/{phase}{step.name}/{step.count}/{attempt}"
    return derived_uuid7(millis(started_at), name.encode())


async def create_child(client: EngineClient, held: Held, step: StepKey, child: Child, key: UUID) -> Failure | None:
    """Create the child under `key`, which makes repeating safe; why not, when it is refused.

    Raises :class:`RunLost` when the run that makes it has ended or is somebody else's.
    """
    run = held.context
    if run.depth >= MAX_DEPTH:
        return Failure("WorkflowError", f"children may be nested {MAX_DEPTH} deep", permanent=True)
    request = NewInstance(
        account_id=run.account_id,
        key=key,
        instance_id=str(key),
        handle=child.workflow,
        workspace_id=run.workspace_id,
        input=child.input,
        trigger_source=TriggerSource.EVENT,
        parent_key=run.key if child.wait else None,
        parent_step=parents.spelled(step),
        maker_key=run.key,
        maker_epoch=held.epoch,
        depth=run.depth + 1,
    )
    while True:
        try:
            [created] = await client.create([request])
            break
        except Unavailable:
            continue
        except Unstorable:
            return Failure("WorkflowInternalError", "the child's input cannot be stored", permanent=True)
    if created.outcome is Create.ORPHAN:
        raise RunLost
    if created.outcome is Create.NO_WORKFLOW:
        message = f'there is no workflow "{child.workflow}"'
        return Failure("WorkflowNotFound", message, "WORKFLOW_NOT_FOUND", permanent=True)
    if created.outcome is Create.INACTIVE:
        message = f'the workflow "{child.workflow}" is not active'
        return Failure("WorkflowInactive", message, "WORKFLOW_INACTIVE", permanent=True)
    if created.outcome is not Create.CREATED:
        return Failure("WorkflowError", f"the child instance was refused: {created.outcome.name}")
    return None


class _ChildEnd(msgspec.Struct):
    status: str
    output: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_ChildEnd)


def outcome_of(payload: Raw | None) -> Raw | Failure:
    """What the fact of a child's end is to the step: its output, or a failure."""
    end = decode_stored(_decoder, payload or "{}")
    if end.status == "complete":
        return bytes(end.output).decode()
    error = end.error or {"name": "WorkflowTerminated", "message": "the child instance was terminated"}
    return Failure(str(error.get("name")), str(error.get("message")), "CHILD_FAILED")
