"""Tasks of executions: look at one, try it again, complete or fail it from outside."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces.orchestration import tasks, views
from app.faces.orchestration.schemas import CompleteBody, FailBody, raw_text
from instances.service import InstanceService
from tenants.auth import Caller
from tenants.bodies import decode_body

Who = NamedDependency[Caller]
Instances = NamedDependency[InstanceService]


@get("/tasks/{id:str}")
async def get_task(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """One task."""
    return views.task(*await tasks.find(instances, caller, id))


@post("/tasks/{id:str}/retry", status_code=200)
async def retry_task(id: FromPath[str], caller: Who, instances: Instances) -> dict[str, Any]:
    """Try a failed task again, in place: its execution goes on."""
    caller.require("executions:write")
    return views.retried(views.task(*await tasks.retry(instances, caller, id)))


@post("/tasks/{id:str}/complete", status_code=200)
async def complete_task(id: FromPath[str], body: RawBody, caller: Who, instances: Instances) -> dict[str, Any]:
    """Complete a task that waits for that, or for an event."""
    caller.require("executions:write")
    output = raw_text(decode_body(body, CompleteBody).output)
    return views.task(*await tasks.complete(instances, caller, id, output))


@post("/tasks/{id:str}/fail", status_code=200)
async def fail_task(id: FromPath[str], body: RawBody, caller: Who, instances: Instances) -> dict[str, Any]:
    """Fail the attempt of a task that waits to be completed; its retry policy decides what follows."""
    caller.require("executions:write")
    error = raw_text(decode_body(body, FailBody).error)
    return views.task(*await tasks.fail(instances, caller, id, error))


route_handlers = [get_task, retry_task, complete_task, fail_task]
