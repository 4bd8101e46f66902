"""Rows that documents leave for people; with tools that only record."""

from typing import Any
from uuid import UUID

import pytest

from tests.support.document_runs import START, drive, run_context, tools


class Store:
    def __init__(self) -> None:
        self.notifications: dict[UUID, dict[str, Any]] = {}
        self.tasks: dict[UUID, dict[str, Any]] = {}

    async def add_notification(self, account_id: UUID, id: UUID, **row: Any) -> None:
        self.notifications.setdefault(id, {"account_id": account_id, **row})

    async def add_task(self, account_id: UUID, id: UUID, **row: Any) -> None:
        self.tasks.setdefault(id, {"account_id": account_id, **row})


async def test_a_notification():
    store = Store()
    node = {"id": "n", "type": "send_notification", "config": {"message": "Hi {{ trigger.who }}\0"}}
    run = await drive([node], tools=tools(store=store), input={"who": "Ada"})
    [row] = store.notifications.values()
    assert (row["message"], row["recipient"], row["node"], row["at"]) == ("Hi Ada\ufffd", "user-7", "n", START)
    assert run.output == {
        "notificationSent": True,
        "message": "Hi Ada\ufffd",
        "recipient": "user-7",
        "timestamp": "2026-01-01T00:00:00.000Z",
    }


async def test_a_task():
    store = Store()
    node = {"id": "n", "type": "create_task", "config": {"title": "Do {{ trigger.n }}", "priority": "{{ 'HIGH' }}",
            "assignedTo": "bob", "description": "{{ trigger }}"}}  # fmt: skip
    run = await drive([node], tools=tools(store=store), input={"n": 1})
    [(id, row)] = store.tasks.items()
    assert (row["title"], row["priority"], row["assigned_to"]) == ("Do 1", "HIGH", "bob")
    assert row["description"] == '{"n":1}'
    assert run.output == {"taskId": str(id), "title": "Do 1", "status": "TODO"}


async def test_a_repeated_attempt_finds_its_row_and_another_run_makes_its_own():
    store = Store()
    nodes = [{"id": "n", "type": "create_task", "config": {"title": "x"}}]
    for number in (1, 1, 2):
        await drive(nodes, tools=tools(store=store), run=run_context(run=number))
    assert len(store.tasks) == 2


async def test_items_of_a_loop_make_a_row_each():
    store = Store()
    node = {"id": "n", "type": "send_notification", "for_each": ["a", "b"], "config": {"message": "{{ item }}"}}
    await drive([node], tools=tools(store=store))
    assert [row["message"] for row in store.notifications.values()] == ["a", "b"]


@pytest.mark.parametrize(
    "node",
    [
        {"type": "send_notification", "config": {"message": "{{ missing }}"}},
        {"type": "send_notification", "config": {"message": "{{ trigger.long }}"}},
        {"type": "create_task", "config": {"title": "{{ missing }}"}},
        {"type": "create_task", "config": {"title": "x", "priority": "{{ 'URGENT' }}"}},
        {"type": "create_task", "config": {"title": "x", "assignedTo": "{{ trigger.long }}"}},
    ],
)
async def test_rows_that_make_no_sense(node):
    run = await drive([{"id": "n", **node}], tools=tools(store=Store()), input={"long": "x" * 70_000})
    assert run.error.name == "INVALID_CONFIG"
