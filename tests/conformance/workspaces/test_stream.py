"""The stream of an execution: order, numbers, going on after a reconnect, the end, and who may read it."""

from __future__ import annotations

from typing import Any

import httpx

from tenants.auth import operator
from tenants.tokens import TokenGrant
from tests.conformance.conftest import Face, client
from tests.conformance.workspaces.support import (
    FAILING,
    FIVE,
    HERE,
    THREE,
    WAITS,
    at_event,
    go,
    look,
    make,
    problem,
    start,
    stream,
    whole,
)


def names(events: list[Any]) -> list[str]:
    return [name for name, _, _ in events]


async def test_a_stream_from_start_to_end(face: Face) -> None:
    """Connected, a step for each that is over, progress; then each step with progress behind it; the end; nothing."""
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    async with stream(face.http, id) as events:
        begun = [await anext(events) for _ in range(3)]
        assert names(begun) == ["connected", "step", "progress"]
        connected, step, progress = (data for _, _, data in begun)
        assert (connected["executionId"], connected["status"], connected["resumed"]) == (id, "RUNNING", False)
        assert (step["actionId"], step["status"], step["output"]) == ("action-0", "success", {"a": 1})
        assert (progress["completedSteps"], progress["runningSteps"], progress["status"]) == (1, 1, "RUNNING")
        await go(face)
        rest = [one async for one in events]
    assert [name for name in names(rest) if name != "heartbeat"] == ["step", "progress"] * 2 + ["progress", "complete"]
    assert [data["actionId"] for name, _, data in rest if name == "step"] == ["action-1", "action-2"]
    assert [data["completedSteps"] for name, _, data in rest if name == "progress"] == [2, 3, 3]
    assert [data["percentage"] for name, _, data in rest if name == "progress"] == [67, 100, 100]
    shown = await look(face, id)
    end = {key: shown["execution"][key] for key in ("status", "error", "durationMs", "completedAt")}
    assert rest[-1][2] == end
    assert rest[-2][2] == shown["progress"] | {"status": "COMPLETED"}
    steps = [data for name, _, data in [*begun, *rest] if name == "step"]
    assert steps == shown["execution"]["steps"]


async def test_only_what_tells_of_the_execution_has_a_number(face: Face) -> None:
    execution = await start(face, await make(face, THREE), 60)
    events = await whole(face.http, execution["id"])
    assert names(events) == ["connected", "step", "step", "step", "progress", "complete"]
    ids = [int(id) for _, id, _ in events if id is not None]
    assert [id is None for _, id, _ in events] == [True] + [False] * 5
    assert ids == sorted(set(ids))
    assert ids[-1] < 2**53


async def test_who_has_seen_the_end_is_told_not_to_come_back(face: Face) -> None:
    execution = await start(face, await make(face, THREE), 60)
    last = (await whole(face.http, execution["id"]))[-1][1]
    path = f"{HERE}/workflows/executions/{execution['id']}/stream"
    for seen in (last, str(int(last) + 1), str(2**63 - 1)):
        answer = await face.http.get(path, headers={"last-event-id": seen})
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await face.http.get(path, params={"lastEventId": seen})).status_code == 204


async def test_a_reconnect_in_the_middle_brings_what_was_missed(face: Face) -> None:
    """Wherever a stream was cut, the next one goes on exactly behind: nothing twice, nothing left out."""
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    async with stream(face.http, id) as events:
        seen = [await anext(events) for _ in range(3)]
        await go(face)
        seen += [one async for one in events]
    told = [one for one in seen if one[1] is not None]
    for place in range(len(told) - 1):
        again = await whole(face.http, id, told[place][1])
        assert (again[0][0], again[0][2]["resumed"]) == ("connected", True)
        behind = again[1:]
        missed = told[place + 1 :]
        # A stream begins with one progress for all that is over, which entries of the journal do not repeat.
        assert [one for one in behind if one in missed] == [one for one in missed if one[1] != told[1][1]]
        assert all(int(one[1]) > int(told[place][1]) for one in behind)


async def test_a_stream_goes_on_live_after_a_reconnect(face: Face) -> None:
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    async with stream(face.http, id) as events:
        last = [await anext(events) for _ in range(3)][-1][1]
    async with stream(face.http, id, last) as events:
        assert (await anext(events))[2]["resumed"] is True
        await go(face)
        rest = [one async for one in events]
    assert [data["actionId"] for name, _, data in rest if name == "step"] == ["action-1", "action-2"]
    assert rest[-1][0] == "complete"


async def test_numbers_that_are_none_begin_anew(face: Face) -> None:
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    for last in ("0", "1", "nonsense", str(2**62)):
        async with stream(face.http, id, last) as events:
            begun = [await anext(events) for _ in range(3)]
        assert names(begun) == ["connected", "step", "progress"]
        assert begun[0][2]["resumed"] is False


async def test_all_steps_tells_of_those_under_way(face: Face) -> None:
    id = (await start(face, await make(face, [*WAITS, {**FAILING, "onError": "continue"}])))["id"]
    await at_event(face, id)
    async with stream(face.http, id, steps="all") as events:
        begun = [await anext(events) for _ in range(3)]
        assert names(begun) == ["connected", "step", "progress"]
        await go(face)
        rest = [one async for one in events]
    steps = [(data["actionId"], data["status"]) for name, _, data in rest if name == "step"]
    assert steps == [
        ("action-1", "success"),
        ("action-2", "running"),
        ("action-2", "success"),
        ("action-3", "running"),
        ("action-3", "failed"),
    ]
    refused = await face.http.get(f"{HERE}/workflows/executions/{id}/stream?steps=some")
    assert problem(refused) == (400, "VALIDATION_ERROR")


async def test_a_cancelled_execution_ends_its_stream(face: Face) -> None:
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    async with stream(face.http, id) as events:
        [await anext(events) for _ in range(3)]
        await face.http.post(f"{HERE}/workflows/executions/{id}")
        rest = [one async for one in events]
    assert names(rest) == ["step", "step", "progress", "complete"]
    assert [(data["status"], data["error"]) for _, _, data in rest[:2]] == [("skipped", "Execution cancelled")] * 2
    assert (rest[-1][2]["status"], rest[-1][2]["error"]) == ("CANCELLED", "Cancelled by user")


async def test_actions_that_a_condition_skips(face: Face) -> None:
    gate = {"type": "condition", "config": {"field": "trigger.never", "operator": "exists"}}
    id = (await start(face, await make(face, [*WAITS[:2], gate, *THREE[:2]])))["id"]
    await at_event(face, id)
    async with stream(face.http, id) as events:
        [await anext(events) for _ in range(3)]
        await go(face)
        rest = [one async for one in events]
    steps = [(data["actionId"], data["status"]) for name, _, data in rest if name == "step"]
    assert steps == [("action-1", "success"), ("action-2", "success"), ("action-3", "skipped"), ("action-4", "skipped")]
    numbers = [(data["completedSteps"], data["skippedSteps"]) for name, _, data in rest if name == "progress"]
    assert numbers == [(2, 0), (3, 0), (4, 1), (5, 2), (5, 2)]


async def test_a_failed_execution_is_a_complete(face: Face) -> None:
    execution = await start(face, await make(face, FIVE), 60)
    events = await whole(face.http, execution["id"])
    assert names(events) == ["connected", *["step"] * 5, "progress", "complete"]
    assert (events[-1][2]["status"], events[-1][2]["error"]) == ("FAILED", "no luck")


async def test_a_deleted_execution_ends_its_stream_with_an_error(face: Face) -> None:
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    async with stream(face.http, id) as events:
        [await anext(events) for _ in range(3)]
        [instance] = (await face.cloud.get("/workflows/flow/instances")).json()["result"]
        assert (await face.cloud.delete(f"/workflows/flow/instances/{instance['id']}")).status_code == 200
        rest = [one async for one in events]
    assert rest == [
        ("error", None, {"message": "Workflow execution not found", "code": "WORKFLOW_EXECUTION_NOT_FOUND"})
    ]


async def test_a_ticket_opens_one_stream_once(face: Face) -> None:
    execution = await start(face, await make(face, THREE), 60)
    path = f"{HERE}/workflows/executions/{execution['id']}/stream"
    tenants = face.server.platform.tenants
    caller = await tenants.authenticate(face.tenant.token)
    async with client(face.server, None) as browser:
        ticket = await tenants.tickets.issue(caller, path)
        assert names(await whole(browser, execution["id"], ticket=ticket))[-1] == "complete"
        assert problem(await browser.get(path, params={"ticket": ticket})) == (401, "UNAUTHORIZED")
        ticket = await tenants.tickets.issue(caller, path)
        elsewhere = path.replace("/stream", "")
        assert problem(await browser.get(elsewhere, params={"ticket": ticket})) == (401, "UNAUTHORIZED")
        raw = await browser.get(path, params={"ticket": face.tenant.token})
        assert problem(raw) == (401, "UNAUTHORIZED")


async def test_headers_of_a_stream(face: Face) -> None:
    execution = await start(face, await make(face, THREE), 60)
    async with face.http.stream("GET", f"{HERE}/workflows/executions/{execution['id']}/stream") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        assert [line async for line in answer.aiter_lines()][:2] == ["retry: 3000", "event: connected"]


async def test_as_many_streams_as_a_credential_may_have(face: Face) -> None:
    id = (await start(face, await make(face, WAITS)))["id"]
    await at_event(face, id)
    feed = face.server.platform.instances.feed
    caller = await face.server.platform.tenants.authenticate(face.tenant.token)
    limit = (await face.server.platform.tenants.limits(caller.account_id)).streams
    held = [feed.slot(caller.token_id, limit) for _ in range(limit)]
    for one in held:
        one.__enter__()
    try:
        answer = await face.http.get(f"{HERE}/workflows/executions/{id}/stream")
        assert problem(answer) == (429, "RATE_LIMITED")
        assert answer.headers["retry-after"] == str(answer.json()["retryAfter"])
    finally:
        for one in held:
            one.__exit__(None, None, None)


async def test_streams_of_other_workspaces_are_not_found(face: Face) -> None:
    """A token restricted to one workspace, and a slug of another one of the same account."""
    tenants = face.server.platform.tenants
    id = (await start(face, await make(face, THREE), 60))["id"]
    other = await tenants.workspaces.create(operator(face.tenant.id), f"w-{face.tenant.hex[:12]}")
    answer = await face.http.get(f"/api/workspaces/{other.slug}/workflows/executions/{id}/stream")
    assert problem(answer) == (404, "WORKFLOW_EXECUTION_NOT_FOUND")
    grant = TokenGrant(name="there", scopes=["admin"], workspace_id=other.id)
    _, token = await tenants.tokens.create(operator(face.tenant.id), grant)
    async with httpx.AsyncClient(base_url=face.server.base_url, headers={"authorization": f"Bearer {token}"}) as http:
        answer = await http.get(f"{HERE}/workflows/executions/{id}/stream")
        assert problem(answer) == (404, "WORKSPACE_NOT_FOUND")
