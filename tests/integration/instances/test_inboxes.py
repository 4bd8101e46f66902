"""Notifications and tasks that actions left: listed, read, done."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.errors import InvalidRequest, NotAllowed
from instances.errors import NotificationNotFound, TaskNotFound
from instances.inboxes import store
from instances.inboxes.service import InboxService
from instances.runtimes.document.store import ActionStore
from tenants.auth import expand

HERE, THERE = UUID(int=1), UUID(int=2)


@pytest.fixture
def inboxes(db, clock, tenants) -> InboxService:
    return InboxService(db, clock, tenants)


@pytest.fixture
def add(db, clock, ids) -> Any:
    actions = ActionStore(db)

    async def add(world, kind: str, number: int, workspace: UUID | None = HERE, to: str | None = "ada") -> UUID:
        id = ids.uuid7()
        common = {"workspace_id": workspace, "instance_key": UUID(int=9), "node": "n"}
        at = clock.now() + timedelta(seconds=number)
        if kind == "task":
            texts = {"title": f"t{number}", "description": "", "priority": "HIGH", "assigned_to": to}
            await actions.add_task(world.account, id, **common, **texts, at=at)
        else:
            await actions.add_notification(world.account, id, **common, recipient=to, message=f"m{number}", at=at)
        return id

    return add


async def test_notifications_are_listed_newest_first(world, other, inboxes, add):
    for number in range(5):
        await add(world, "notification", number)
    await add(other, "notification", 9)
    rows, total = await inboxes.notifications(world.caller, limit=2, offset=1)
    assert ([row.message for row in rows], total) == (["m3", "m2"], 5)
    assert {(row.recipient, row.node, row.read_at) for row in rows} == {("ada", "n", None)}


async def test_notifications_are_read_once(world, inboxes, add, clock):
    id = await add(world, "notification", 0)
    await add(world, "notification", 1, to="bob")
    first = await inboxes.mark(world.caller, str(id))
    clock.advance(60)
    assert (await inboxes.mark(world.caller, str(id))).read_at == first.read_at == clock.now() - timedelta(seconds=60)
    for unread, recipient, expected in (
        (True, None, ["m1"]), (False, None, ["m0"]), (None, "ada", ["m0"]), (True, "ada", [])
    ):  # fmt: skip
        rows, total = await inboxes.notifications(world.caller, limit=9, offset=0, unread=unread, recipient=recipient)
        assert ([row.message for row in rows], total) == (expected, len(expected))
    assert (await inboxes.mark(world.caller, id.hex, read=False)).read_at is None


async def test_tasks_are_done_and_taken_up_again(world, inboxes, add, clock, tenants):
    id = await add(world, "task", 0)
    await add(world, "task", 1, to="bob")
    done = await inboxes.set_task(world.caller, str(id), "DONE")
    assert (done.status, done.done_at) == ("DONE", clock.now())
    rows, total = await inboxes.tasks(world.caller, limit=9, offset=0, status="TODO")
    assert ([row.title for row in rows], total) == (["t1"], 1)
    rows, total = await inboxes.tasks(world.caller, limit=9, offset=0, assigned_to="ada")
    assert ([(row.title, row.priority) for row in rows], total) == ([("t0", "HIGH")], 1)
    again = await inboxes.set_task(world.caller, str(id), "IN_PROGRESS")
    assert (again.status, again.done_at) == ("IN_PROGRESS", None)
    assert (await tenants.accounts.audit_lines(world.account))[0].action == "task.status"
    with pytest.raises(InvalidRequest):
        await inboxes.set_task(world.caller, str(id), "LATER")
    with pytest.raises(InvalidRequest):
        await inboxes.tasks(world.caller, limit=9, offset=0, status="LATER")


async def test_what_is_elsewhere_is_not_there(world, other, inboxes, add):
    note, task = await add(world, "notification", 0), await add(world, "task", 0)
    restricted = dataclasses.replace(world.caller, workspace_id=THERE)
    for caller, workspace in ((other.caller, None), (restricted, None), (restricted, HERE), (world.caller, THERE)):
        with pytest.raises(NotificationNotFound):
            await inboxes.mark(caller, str(note), workspace_id=workspace)
        with pytest.raises(TaskNotFound):
            await inboxes.set_task(caller, str(task), "DONE", workspace_id=workspace)
        for rows in (inboxes.notifications, inboxes.tasks):
            assert await rows(caller, limit=9, offset=0, workspace_id=workspace) == ([], 0)
    assert (await inboxes.notifications(world.caller, limit=9, offset=0, workspace_id=HERE))[1] == 1
    for id in ("", "x", str(UUID(int=0))):
        with pytest.raises(NotificationNotFound):
            await inboxes.mark(world.caller, id)
        with pytest.raises(TaskNotFound):
            await inboxes.set_task(world.caller, id, "DONE")


async def test_scopes(world, inboxes, add):
    id = str(await add(world, "task", 0))
    reader = dataclasses.replace(world.caller, scopes=expand(["executions:read"]))
    assert (await inboxes.tasks(reader, limit=1, offset=0))[1] == 1
    for attempt in (inboxes.set_task(reader, id, "DONE"), inboxes.mark(reader, id)):
        with pytest.raises(NotAllowed):
            await attempt
    nobody = dataclasses.replace(world.caller, scopes=frozenset())
    for attempt in (inboxes.tasks(nobody, limit=1, offset=0), inboxes.notifications(nobody, limit=1, offset=0)):
        with pytest.raises(NotAllowed):
            await attempt


async def test_walls_hold_behind_every_statement(db, world, other, inboxes, add, clock):
    note, task = await add(world, "notification", 0), await add(world, "task", 0)
    async with db.scope(other.account) as connection:
        ours, now = world.account, clock.now()
        assert await store.notifications(connection, ours, None, None, None, 9, 0, 9) == ([], 0)
        assert await store.tasks(connection, ours, None, None, None, 9, 0, 9) == ([], 0)
        assert await store.mark_notification(connection, ours, None, note, True, now) is None
        assert await store.set_task(connection, ours, None, task, "DONE", now) is None
