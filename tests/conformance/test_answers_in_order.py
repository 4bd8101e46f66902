"""A step that waits once per item of a list is answered by its name: each answer is for the first item without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import Face

EACH = {"id": "ask", "type": "external", "for_each": "{{ trigger.items }}"}

Answer = Callable[[int], Awaitable[httpx.Response]]


async def by_event(face: Face, id: str) -> Answer:
    return lambda n: face.cloud.post(f"/workflows/asks/instances/{id}/events/step:ask", json=n)


async def by_medusa(face: Face, id: str) -> Answer:
    body: dict[str, Any] = {"transaction_id": id, "step_id": "ask"}
    path = "/admin/workflows-executions/asks/steps/success"
    return lambda n: face.http.post(path, json={**body, "response": n})


async def by_task(face: Face, id: str) -> Answer:
    [task] = (await face.http.get(f"/api/executions/{id}/tasks")).json()
    return lambda n: face.http.post(f"/api/tasks/{task['id']}/complete", json={"output": n})


@pytest.mark.parametrize(
    ("answered", "refusal"), [(by_event, None), (by_medusa, 400), (by_task, 409)], ids=["event", "medusa", "task"]
)
async def test_each_answer_is_for_the_next_item(
    face: Face, answered: Callable[[Face, str], Awaitable[Answer]], refusal: int | None
) -> None:
    await face.deploy("asks", [EACH], outputs={"all": "{{ steps.ask.output }}"})
    created = await face.cloud.post("/workflows/asks/instances", json={"params": {"items": [1, 2, 3]}})
    id = created.json()["result"]["id"]
    here = f"/workflows/asks/instances/{id}"
    await face.when(lambda: face.cloud.get(here), lambda body: body["result"]["status"] == "waiting")
    answer = await answered(face, id)
    for n in (1, 2, 3):
        assert (await answer(n)).status_code == 200
    if refusal is not None:
        assert (await answer(4)).status_code == refusal
    done = await face.when(lambda: face.cloud.get(here), lambda body: body["result"]["status"] == "complete")
    assert done["result"]["output"] == {"all": [1, 2, 3]}
