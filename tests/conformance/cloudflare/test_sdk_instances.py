"""The official SDK's instance methods."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cloudflare import APIStatusError, BadRequestError, ConflictError, NotFoundError

from .conftest import Cloud

ECHO = {"nodes": [{"id": "echo", "type": "set", "config": {"values": {"got": "{{ trigger }}"}}}]}
APPROVAL = {
    "nodes": [
        {"id": "before", "type": "set", "config": {"values": {"a": 1}}},
        {
            "id": "go",
            "type": "wait_for_event",
            "depends_on": ["before"],
            "config": {"event": "go", "timeout": "1 hour"},
        },
        {"id": "after", "type": "set", "depends_on": ["go"], "config": {"values": {"b": "{{ steps.go.output }}"}}},
    ],
    "outputs": {"approved": "{{ steps.go.output }}"},
}
BROKEN = {
    "nodes": [
        {
            "id": "book",
            "type": "set",
            "config": {"values": {"a": 1}},
            "compensate": {"type": "send_notification", "config": {"message": "undone"}},
        },
        {"id": "boom", "type": "fail", "depends_on": ["book"], "config": {"message": "no luck"}},
    ]
}


def codes(error: APIStatusError) -> list[int]:
    return [each.code for each in error.errors]  # type: ignore[attr-defined]


async def create(cloud: Cloud, workflow: str, **options: Any) -> Any:
    return await cloud.sdk.workflows.instances.create(workflow, account_id=cloud.account, **options)


async def edit(cloud: Cloud, workflow: str, instance_id: str, status: Any, **options: Any) -> Any:
    return await cloud.sdk.workflows.instances.status.edit(
        instance_id, account_id=cloud.account, workflow_name=workflow, status=status, **options
    )


async def send(cloud: Cloud, workflow: str, instance_id: str, kind: str, body: Any) -> Any:
    return await cloud.sdk.workflows.instances.events.create(
        kind, account_id=cloud.account, workflow_name=workflow, instance_id=instance_id, body=body
    )


async def test_create(cloud: Cloud) -> None:
    workflow = await cloud.deploy("echo", ECHO)
    made = await create(cloud, "echo", instance_id="first", params='{"n": 1}', location_hint="weur")
    assert (made.id, made.status, made.trigger_source) == ("first", "queued", "api")
    assert (made.workflow_id, made.version_id) == (workflow.id, workflow.version_id)
    done = await cloud.until("echo", "first", "complete")
    assert done.params == {"n": 1}
    assert done.output == {"got": {"n": 1}}
    fresh = await create(cloud, "echo")
    assert UUID(fresh.id)
    assert (await cloud.until("echo", fresh.id, "complete")).params == {}


@pytest.mark.parametrize(
    ("sent", "params"),
    [
        ('{"a":[1,2.5,null,true,"x"]}', {"a": [1, 2.5, None, True, "x"]}),
        ('"quoted"', "quoted"),
        ("not json", "not json"),
        ("7", 7),
        ("null", None),
        ({"raw": 1}, {"raw": 1}),
        ([1, 2], [1, 2]),
        (12, 12),
        ("", ""),
    ],
)
async def test_params_may_be_json_text_or_the_value(cloud: Cloud, sent: Any, params: Any) -> None:
    await cloud.deploy("echo", {"nodes": []})
    made = await create(cloud, "echo", params=sent)
    assert (await cloud.get("echo", made.id)).params == params


@pytest.mark.parametrize("instance_id", ["batch", "terminate", "-a", "a b", "a/b", "x" * 101, "", "cf_" + "0" * 64])
async def test_ids_that_are_not_allowed(cloud: Cloud, instance_id: str) -> None:
    await cloud.deploy("echo", ECHO)
    with pytest.raises(BadRequestError) as raised:
        await create(cloud, "echo", instance_id=instance_id)
    assert codes(raised.value) == [10450]


async def test_an_id_is_used_once(cloud: Cloud) -> None:
    await cloud.deploy("echo", ECHO)
    await create(cloud, "echo", instance_id="one")
    with pytest.raises(BadRequestError) as raised:
        await create(cloud, "echo", instance_id="one")
    assert codes(raised.value) == [10405]
    await cloud.deploy("other", ECHO)
    await create(cloud, "other", instance_id="one")


async def test_an_idempotency_key_creates_once(cloud: Cloud) -> None:
    await cloud.deploy("echo", ECHO)
    key = {"Idempotency-Key": "k-1"}
    first = await create(cloud, "echo", params="{}", extra_headers=key)
    again = await cloud.sdk.workflows.instances.with_raw_response.create(
        "echo", account_id=cloud.account, params="{}", extra_headers=key
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert (await again.parse()).id == first.id
    with pytest.raises(ConflictError):
        await create(cloud, "echo", params='{"other": 1}', extra_headers=key)


async def test_bulk(cloud: Cloud) -> None:
    await cloud.deploy("echo", ECHO)
    await create(cloud, "echo", instance_id="taken")
    body: Any = [{"instance_id": "a", "params": '{"n": 1}'}, {"instance_id": "taken"}, {}, {"instance_id": "a"}]
    raw = await cloud.sdk.workflows.instances.with_raw_response.bulk("echo", account_id=cloud.account, body=body)
    envelope = await raw.json()
    first, second = (each["id"] for each in envelope["result"])
    assert first == "a" and UUID(second)
    assert [(each["code"], each["source"]["pointer"]) for each in envelope["messages"]] == [
        (10405, "/1"),
        (10415, "/3"),
    ]
    hundred: Any = [{"instance_id": f"n{number}"} for number in range(100)]
    made = [
        each.id async for each in cloud.sdk.workflows.instances.bulk("echo", account_id=cloud.account, body=hundred)
    ]
    assert made == [each["instance_id"] for each in hundred]


@pytest.mark.parametrize(
    "body", [[], [{}] * 101, [{"instance_id": "ok"}, {"instance_id": "not ok"}], [{"params": "x" * 1_100_000}], [1]]
)
async def test_a_wrong_batch_creates_nothing(cloud: Cloud, body: Any) -> None:
    await cloud.deploy("echo", ECHO)
    with pytest.raises(APIStatusError) as raised:
        await cloud.sdk.workflows.instances.bulk("echo", account_id=cloud.account, body=body)
    assert raised.value.status_code in (400, 413)
    listed = await cloud.sdk.workflows.instances.list("echo", account_id=cloud.account)
    assert listed.result == []


async def test_list_by_page_and_by_cursor(cloud: Cloud) -> None:
    await cloud.deploy("idle", {"nodes": []})
    body: Any = [{"instance_id": f"n{number:02}"} for number in range(25)]
    await cloud.sdk.workflows.instances.bulk("idle", account_id=cloud.account, body=body)
    newest_first = [each["instance_id"] for each in body][::-1]
    instances = cloud.sdk.workflows.instances
    by_page = [each.id async for each in instances.list("idle", account_id=cloud.account, per_page=10)]
    assert by_page == newest_first
    by_cursor: list[str] = []
    cursor: Any = None
    while True:
        options = {"cursor": cursor} if cursor else {}
        page = await instances.list("idle", account_id=cloud.account, per_page=10, **options)
        by_cursor += [each.id for each in page.result]
        cursor = (page.result_info.to_dict() if page.result_info else {}).get("cursor")
        if not cursor:
            break
    assert by_cursor == newest_first
    oldest_first = await instances.list("idle", account_id=cloud.account, per_page=10, direction="asc")
    assert [each.id for each in oldest_first.result] == newest_first[::-1][:10]
    past = await instances.list("idle", account_id=cloud.account, page=5000)
    assert past.result == []
    with pytest.raises(BadRequestError):
        await instances.list("idle", account_id=cloud.account, page=1, cursor="x")


async def test_list_filters(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)
    for name in ("a", "b"):
        await create(cloud, "approval", instance_id=name)
    await cloud.until("approval", "a", "waiting")
    await cloud.until("approval", "b", "waiting")
    await edit(cloud, "approval", "b", "terminate")
    listed = cloud.sdk.workflows.instances
    waiting = await listed.list("approval", account_id=cloud.account, status="waiting")
    ended = await listed.list("approval", account_id=cloud.account, status="terminated")
    assert [each.id for each in waiting.result] == ["a"]
    assert [each.id for each in ended.result] == ["b"]
    assert (waiting.result[0].ended_on, waiting.result[0].trigger_source) == (None, "api")
    assert ended.result[0].ended_on and ended.result[0].started_on
    now = datetime.now(UTC)
    for start, end, count in (
        (now - timedelta(hours=1), now + timedelta(hours=1), 2),
        (now + timedelta(hours=1), None, 0),
    ):
        options = {"date_end": end} if end else {}
        found = await listed.list("approval", account_id=cloud.account, date_start=start, **options)
        assert len(found.result) == count


async def test_get_shows_every_kind_of_step(cloud: Cloud) -> None:
    version = (await cloud.deploy("approval", APPROVAL)).version_id
    await create(cloud, "approval", instance_id="i", params='{"order": 7}')
    waiting = await cloud.until("approval", "i", "waiting")
    assert (waiting.success, waiting.error, waiting.output, waiting.end, waiting.rollback) == (None,) * 5
    assert (waiting.version_id, waiting.trigger.source, waiting.step_count) == (version, "api", 2)
    before, wait = waiting.steps
    assert (before.type, before.name, before.success, before.output) == ("step", "before-1", True, '{"a":1}')
    assert before.attempts[0].success and before.attempts[0].error is None
    assert before.config.retries.limit == 0
    assert (wait.type, wait.name, wait.finished, wait.error, wait.event_type) == (
        "waitForEvent",
        "go-1",
        False,
        None,
        "go",
    )
    assert wait.end - wait.start == timedelta(hours=1)
    await send(cloud, "approval", "i", "go", {"by": "ada"})
    done = await cloud.until("approval", "i", "complete")
    assert (done.success, done.output, done.params) == (True, {"approved": {"by": "ada"}}, {"order": 7})
    assert done.queued <= done.start <= done.end
    assert [step.name for step in done.steps] == ["before-1", "go-1", "after-1"]
    assert done.steps[1].finished and "ada" in done.steps[1].output
    backwards = await cloud.get("approval", "i", order="desc")
    assert [step.name for step in backwards.steps] == ["after-1", "go-1", "before-1"]
    simple = await cloud.get("approval", "i", simple="true")
    assert (simple.steps, simple.step_count) == ([], 3)


async def test_step(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)
    await create(cloud, "approval", instance_id="i")
    await cloud.until("approval", "i", "waiting")
    step = cloud.sdk.workflows.instances.step
    where = {"account_id": cloud.account, "workflow_name": "approval"}
    before = await step("i", **where, name="before-1", type="step")
    assert (before.status, before.error, before.output) == ("complete", None, {"a": 1})
    assert (await step("i", **where, name="before-1", type="step", attempt=1)).status == "complete"
    wait = await step("i", **where, name="go-1", type="waitForEvent")
    assert (wait.status, wait.event_type) == ("waiting", "go")
    for name, kind, attempt in (("before", "step", 1), ("before-1", "waitForEvent", 1), ("before-1", "step", 2)):
        with pytest.raises(NotFoundError):
            await step("i", **where, name=name, type=kind, attempt=attempt)


async def test_a_failed_instance_and_its_rollback(cloud: Cloud) -> None:
    await cloud.deploy("broken", BROKEN)
    await create(cloud, "broken", instance_id="i")
    ended = await cloud.until("broken", "i", "errored")
    assert (ended.success, ended.output) == (False, None)
    assert "no luck" in ended.error.message
    assert (ended.rollback.outcome, ended.rollback.error) == ("complete", None)
    kinds = [(step.type, step.name) for step in ended.steps]
    assert ("rollback", "book-1") in kinds
    failed = next(step for step in ended.steps if step.name == "boom-1" and step.type == "step")
    assert (failed.success, failed.attempts[-1].success) == (False, False)
    assert failed.attempts[-1].error.message


async def test_an_event_while_paused_is_kept(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)
    await create(cloud, "approval", instance_id="i")
    await cloud.until("approval", "i", "waiting")
    assert (await edit(cloud, "approval", "i", "pause")).status == "paused"
    await send(cloud, "approval", "i", "go", 1)
    await send(cloud, "approval", "i", "go", 2)
    assert (await cloud.get("approval", "i")).status == "paused"
    resumed = await edit(cloud, "approval", "i", "resume")
    assert resumed.status in ("queued", "running", "waiting")
    assert resumed.timestamp
    assert (await cloud.until("approval", "i", "complete")).output == {"approved": 1}


async def test_commands_in_the_wrong_state_are_refused_once(cloud: Cloud) -> None:
    await cloud.deploy("idle", {"nodes": []})
    await create(cloud, "idle", instance_id="i")
    await cloud.until("idle", "i", "complete")
    cloud.requests.clear()
    for status, code in (("pause", 10451), ("resume", 10452), ("terminate", 10401)):
        with pytest.raises(ConflictError) as raised:
            await edit(cloud, "idle", "i", status)
        assert codes(raised.value) == [code]
    assert len(cloud.requests) == 3  # `x-should-retry: false` keeps the SDK from asking again
    with pytest.raises(BadRequestError) as finished:
        await send(cloud, "idle", "i", "go", {})
    assert codes(finished.value) == [10454]


async def test_terminate(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)
    await create(cloud, "approval", instance_id="i")
    await cloud.until("approval", "i", "waiting")
    assert (await edit(cloud, "approval", "i", "terminate")).status == "terminated"
    ended = await cloud.get("approval", "i")
    assert (ended.success, ended.output, ended.steps[-1].type) == (False, None, "termination")
    assert ended.steps[-1].trigger.source == "api"


async def test_terminate_with_rollback(cloud: Cloud) -> None:
    document = {"nodes": [BROKEN["nodes"][0], {**APPROVAL["nodes"][1], "depends_on": ["book"]}]}
    await cloud.deploy("cancel", document)
    await create(cloud, "cancel", instance_id="i")
    await cloud.until("cancel", "i", "waiting")
    await edit(cloud, "cancel", "i", "terminate", rollback=True)
    ended = await cloud.until("cancel", "i", "terminated")
    assert ended.rollback.outcome == "complete"
    assert ("rollback", "book-1") in [(step.type, getattr(step, "name", "")) for step in ended.steps]
    with pytest.raises(BadRequestError):
        await edit(cloud, "cancel", "i", "pause", rollback=True)


async def test_restart(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)
    await create(cloud, "approval", instance_id="i", params='{"n": 1}')
    await send(cloud, "approval", "i", "go", 1)
    first = await cloud.until("approval", "i", "complete")
    await edit(cloud, "approval", "i", "restart")
    again = await cloud.until("approval", "i", "waiting")
    assert (again.params, again.output, again.end) == ({"n": 1}, None, None)
    assert again.steps[0].start > first.steps[0].start
    await send(cloud, "approval", "i", "go", 2)
    assert (await cloud.until("approval", "i", "complete")).output == {"approved": 2}


async def test_restart_from_a_step(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)
    await create(cloud, "approval", instance_id="i")
    await send(cloud, "approval", "i", "go", 1)
    first = await cloud.until("approval", "i", "complete")
    await edit(cloud, "approval", "i", "restart", from_={"name": "go", "type": "waitForEvent"})
    again = await cloud.until("approval", "i", "waiting")
    assert again.steps[0].start == first.steps[0].start
    with pytest.raises(ConflictError) as raised:
        await edit(cloud, "approval", "i", "restart", from_={"name": "nobody"})
    assert codes(raised.value) == [10453]


async def test_list_and_get_tell_the_same_times(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)

    async def both(status: str) -> Any:
        got = await cloud.until("approval", "i", status)
        [row] = (await cloud.sdk.workflows.instances.list("approval", account_id=cloud.account)).result
        assert (row.started_on, row.ended_on) == (got.start, got.end)
        return got

    await create(cloud, "approval", instance_id="i")
    first = await both("waiting")
    await send(cloud, "approval", "i", "go", 1)
    done = await both("complete")
    assert done.queued <= done.start == first.start <= done.steps[0].start
    await edit(cloud, "approval", "i", "restart", from_={"name": "go", "type": "waitForEvent"})
    assert (await both("waiting")).start == first.start  # the steps that are kept have started since
    await edit(cloud, "approval", "i", "restart")
    assert (await both("waiting")).start > done.end


async def test_unknown_instances(cloud: Cloud) -> None:
    await cloud.deploy("idle", {"nodes": []})
    for instance_id in ("nope", "*/30 * * * *-1786001400000", "a/b"):
        with pytest.raises(NotFoundError) as raised:
            await cloud.get("idle", instance_id)
        assert codes(raised.value) == [10400]
        with pytest.raises(NotFoundError):
            await edit(cloud, "idle", instance_id, "pause")
        with pytest.raises(NotFoundError):
            await send(cloud, "idle", instance_id, "go", {})


@pytest.mark.parametrize("kind", ["a.b", "-a", "x" * 101, "a b"])
async def test_event_types_that_are_not_allowed(cloud: Cloud, kind: str) -> None:
    await cloud.deploy("approval", APPROVAL)
    await create(cloud, "approval", instance_id="i")
    with pytest.raises(BadRequestError) as raised:
        await send(cloud, "approval", "i", kind, {})
    assert codes(raised.value) == [10455]


@pytest.mark.parametrize("payload", [{}, [], 0, 1.5, "text", "", True, None, {"deep": [{"a": "ä\u0000"}]}])
async def test_an_event_is_any_json_value(cloud: Cloud, payload: Any) -> None:
    await cloud.deploy("approval", APPROVAL)
    await create(cloud, "approval", instance_id="i")
    answer = await cloud.http.post("/workflows/approval/instances/i/events/go", content=msgspec.json.encode(payload))
    assert answer.json()["result"]["instanceId"] == "i"
    assert (await cloud.until("approval", "i", "complete")).output == {"approved": payload}


async def test_many_at_once(cloud: Cloud) -> None:
    await cloud.deploy("approval", APPROVAL)
    await asyncio.gather(*[create(cloud, "approval", instance_id=f"i{number}") for number in range(40)])
    for number in range(40):
        await cloud.until("approval", f"i{number}", "waiting")
    await asyncio.gather(*[send(cloud, "approval", f"i{number}", "go", number) for number in range(40)])
    for number in range(40):
        assert (await cloud.until("approval", f"i{number}", "complete")).output == {"approved": number}
