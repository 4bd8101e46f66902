"""What actions left for people: notifications to read, tasks to do."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, patch
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody

from app.faces import query_strings
from app.faces.workspaces import queries, views
from app.faces.workspaces.access import WorkspaceAccess
from app.faces.workspaces.schemas import ReadBody, TaskBody, require_json
from instances.inboxes.schemas import TASK_STATUSES
from instances.inboxes.service import COUNTED, InboxService
from tenants.bodies import decode_body

READ, WRITE = "executions:read", "executions:write"

AnyRequest = Request[Any, Any, Any]
Access = NamedDependency[WorkspaceAccess]
Inboxes = NamedDependency[InboxService]


@get("/notifications")
async def list_notifications(request: AnyRequest, access: Access, inboxes: Inboxes) -> Response[dict[str, Any]]:
    """Notifications of the workspace, the newest first."""
    entered = await access.enter(READ)
    query = query_strings.values(request, "limit", "offset", "page", "recipient", "unread")
    window = queries.window(query)
    found, total = await inboxes.notifications(
        entered.caller,
        limit=window.limit,
        offset=window.offset,
        workspace_id=entered.workspace.id,
        recipient=query.get("recipient"),
        unread=queries.flag(query, "unread"),
    )
    return _page("notifications", [views.notification(one) for one in found], window, total)


@patch("/notifications/{notification_id:str}", status_code=200)
async def update_notification(
    request: AnyRequest, notification_id: FromPath[str], body: RawBody, access: Access, inboxes: Inboxes
) -> dict[str, Any]:
    """Mark a notification as read, or with `read: false` as unread."""
    entered = await access.enter_as_member(WRITE)
    require_json(request, body)
    read = decode_body(body, ReadBody).read
    found = await inboxes.mark(entered.caller, notification_id, read=read, workspace_id=entered.workspace.id)
    return {"notification": views.notification(found)}


@get("/tasks")
async def list_tasks(request: AnyRequest, access: Access, inboxes: Inboxes) -> Response[dict[str, Any]]:
    """Tasks of the workspace, the newest first."""
    entered = await access.enter(READ)
    query = query_strings.values(request, "limit", "offset", "page", "assignedTo", "status")
    window = queries.window(query)
    found, total = await inboxes.tasks(
        entered.caller,
        limit=window.limit,
        offset=window.offset,
        workspace_id=entered.workspace.id,
        assigned_to=query.get("assignedTo"),
        status=query_strings.choice(query, "status", TASK_STATUSES) if "status" in query else None,
    )
    return _page("tasks", [views.task(one) for one in found], window, total)


@patch("/tasks/{task_id:str}", status_code=200)
async def update_task(
    request: AnyRequest, task_id: FromPath[str], body: RawBody, access: Access, inboxes: Inboxes
) -> dict[str, Any]:
    """Change the status of a task."""
    entered = await access.enter_as_member(WRITE)
    require_json(request, body)
    status = decode_body(body, TaskBody).status
    found = await inboxes.set_task(entered.caller, task_id, status, workspace_id=entered.workspace.id)
    return {"task": views.task(found)}


def _page(name: str, rows: list[dict[str, Any]], window: queries.Window, total: int) -> Response[dict[str, Any]]:
    answer = {name: rows, "pagination": window.shown(min(total, COUNTED), more=total > window.offset + len(rows))}
    return Response(answer, headers={"x-count-capped": "true"} if total > COUNTED else {})


route_handlers = [list_notifications, update_notification, list_tasks, update_task]
