"""What starts workflows besides callers: schedules, inbound webhooks, published events; written in every form."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tenants.auth import operator
from tests.conformance.conftest import Face
from tests.support.api import new_tenant

KEEP = [{"id": "keep", "type": "set", "config": {"values": {"got": "{{ trigger }}"}}}]
ACTION = [{"type": "set", "config": {"values": {"got": "{{ trigger }}"}}}]


def hook(name: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "webhook", "name": name, **more}


def listens(event: str, **more: Any) -> dict[str, Any]:
    return {"type": "event", "event": event, **more}


async def urls(face: Face, workflow: str) -> dict[str, str]:
    answer = await face.cloud.get(f"/workflows/{workflow}/hooks")
    assert answer.status_code == 200, answer.text
    return {one["name"]: one["url"] for one in answer.json()["result"]}


async def deliver(url: str, body: Any = None, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as anybody:
        return await anybody.post(url, json=body, headers=headers)


async def instances(face: Face, workflow: str) -> list[dict[str, Any]]:
    return (await face.cloud.get(f"/workflows/{workflow}/instances")).json()["result"]


async def ended(face: Face, workflow: str, instance: str) -> dict[str, Any]:
    path = f"/workflows/{workflow}/instances/{instance}"
    body = await face.when(lambda: face.cloud.get(path), lambda body: body["result"]["status"] == "complete")
    return body["result"]


async def by_document(face: Face, trigger: dict[str, Any]) -> None:
    await face.deploy("made", KEEP, triggers=[trigger])


async def by_jobsprint(face: Face, trigger: dict[str, Any]) -> None:
    nodes = [{"id": "keep", "type": "set", "parameters": {"values": {"got": "{{ trigger }}"}}}]
    made = {"name": "made", "definition": {"nodes": nodes}, "triggers": [in_a_form(trigger)]}
    answer = await face.http.post("/v1/workflows", json=made)
    assert answer.status_code in (200, 201), answer.text


async def by_workspaces(face: Face, trigger: dict[str, Any]) -> None:
    type_name = {"schedule": "scheduled"}.get(trigger["type"], trigger["type"])
    made = {"name": "made", "trigger": in_a_form(trigger) | {"type": type_name}, "actions": ACTION}
    answer = await face.http.post("/api/workspaces/default/workflows", json=made)
    assert answer.status_code in (200, 201), answer.text


def in_a_form(trigger: dict[str, Any]) -> dict[str, Any]:
    """With what the type has of its own in `config`, and its names as these faces have them."""
    beside = {"type", "name", "condition"}
    config = {{"max_runs": "maxRuns"}.get(key, key): value for key, value in trigger.items() if key not in beside}
    return {key: value for key, value in trigger.items() if key in beside} | {"config": config}


FORMS = pytest.mark.parametrize("write", [by_document, by_jobsprint, by_workspaces], ids=lambda write: write.__name__)


# --- in every form -----------------------------------------------------------------------------------------------


@FORMS
async def test_a_schedule_fires(face: Face, write: Any) -> None:
    await write(face, {"type": "schedule", "interval": 1000, "max_runs": 1, "input": {"n": 1}})
    body = await face.when(lambda: face.cloud.get("/workflows/made/instances"), lambda body: len(body["result"]) == 1)
    done = await ended(face, "made", body["result"][0]["id"])
    assert (done["params"], done["output"], done["trigger"]["source"]) == ({"n": 1}, {"got": {"n": 1}}, "cron")


@FORMS
async def test_a_webhook_starts_an_instance(face: Face, write: Any) -> None:
    await write(face, hook("orders"))
    answer = await deliver((await urls(face, "made"))["orders"], {"order": 7})
    assert answer.status_code == 200, answer.text
    told = answer.json()["result"]
    assert (told["workflow"], told["refused"]) == ("made", None)
    done = await ended(face, "made", told["instance_id"])
    assert (done["params"], done["output"]) == ({"order": 7}, {"got": {"order": 7}})
    [execution] = (await face.http.get("/v1/executions")).json()["data"]
    assert execution["triggeredBy"] == "webhook"
    assert done["trigger"]["source"] == "event"


@FORMS
async def test_an_event_starts_an_instance(face: Face, write: Any) -> None:
    await write(face, listens("order.created"))
    answer = await face.cloud.post("/events/order.created", json={"order": 7})
    assert answer.status_code == 200, answer.text
    [told] = answer.json()["result"]
    done = await ended(face, "made", told["instance_id"])
    assert done["output"] == {"got": {"order": 7}}
    [execution] = (await face.http.get("/v1/executions")).json()["data"]
    assert execution["triggeredBy"] == "event"


# --- webhooks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["idempotency-key", "webhook-id"])
async def test_a_delivery_is_taken_once(face: Face, header: str) -> None:
    await face.deploy("once", KEEP, triggers=[hook()])
    url = (await urls(face, "once"))[""]
    first, second, other = [await deliver(url, {"n": n}, **{header: id}) for n, id in ((1, "a"), (1, "a"), (2, "b"))]
    assert first.json()["result"] == second.json()["result"]
    assert other.json()["result"] != first.json()["result"]
    assert len(await instances(face, "once")) == 2


async def test_without_an_id_each_delivery_counts(face: Face) -> None:
    await face.deploy("each", KEEP, triggers=[hook()])
    url = (await urls(face, "each"))[""]
    assert [(await deliver(url, {})).status_code for _ in range(2)] == [200, 200]
    assert len(await instances(face, "each")) == 2


@pytest.mark.parametrize(
    "condition",
    ["payload.total > `10`", "total > `10`", {"field": "trigger.total", "operator": "gt", "value": 10}],
    ids=["payload", "member", "field"],
)
async def test_a_condition_decides(face: Face, condition: Any) -> None:
    await face.deploy("some", KEEP, triggers=[hook(condition=condition)])
    url = (await urls(face, "some"))[""]
    assert (await deliver(url, {"total": 1})).json()["result"] == {
        "workflow": "some",
        "instance_id": None,
        "refused": None,
    }
    assert (await deliver(url, {"total": 11})).json()["result"]["instance_id"] is not None


async def test_webhooks_of_one_name_have_one_url(face: Face) -> None:
    """One of their conditions must hold."""
    await face.deploy("either", KEEP, triggers=[hook(condition="n == `1`"), hook("x"), hook(condition="n == `2`")])
    told = (await face.cloud.get("/workflows/either/hooks")).json()["result"]
    assert [one["name"] for one in told] == ["", "x"]
    started = [(await deliver(told[0]["url"], {"n": n})).json()["result"]["instance_id"] for n in (1, 2, 3)]
    assert [one is not None for one in started] == [True, True, False]


async def test_input_that_does_not_fit_is_refused(face: Face) -> None:
    await face.deploy("strict", KEEP, triggers=[hook()], input_schema={"type": "object", "required": ["n"]})
    url = (await urls(face, "strict"))[""]
    answer = await deliver(url, {})
    assert answer.status_code == 400
    assert (await deliver(url, {"n": 1})).status_code == 200
    async with httpx.AsyncClient(trust_env=False) as anybody:
        deep = await anybody.post(url, content="[" * 500 + "]" * 500, headers={"content-type": "text/plain"})
        broken = await anybody.post(url, content="{", headers={"content-type": "application/json"})
        large = await anybody.post(url, json="x" * (4 << 20))
    assert [deep.status_code, broken.status_code, large.status_code] == [400, 400, 413]


async def test_a_url_lasts_as_long_as_its_trigger(face: Face) -> None:
    """Another name is another URL, and a workflow that is not active has none."""
    await face.deploy("renewed", KEEP, triggers=[hook("a")])
    old = (await urls(face, "renewed"))["a"]
    id = (await face.deploy("renewed", KEEP, triggers=[hook("b")]))["id"]
    new = (await urls(face, "renewed"))["b"]
    answer = await deliver(old, {})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, 10490)
    assert (await deliver(new, {})).status_code == 200
    path = f"/api/workspaces/default/workflows/{id}"
    for status, expected in (("INACTIVE", 404), ("ACTIVE", 200)):
        changed = await face.http.patch(path, json={"status": status})
        assert changed.status_code == 200, changed.text
        assert (await deliver(new, {})).status_code == expected
    await face.deploy("renewed", KEEP)
    assert (await deliver(new, {})).status_code == 404
    assert await urls(face, "renewed") == {}


async def test_a_deleted_workflow_and_a_disabled_account_have_no_webhooks(face: Face) -> None:
    await face.deploy("gone", KEEP, triggers=[hook()])
    await face.deploy("kept", KEEP, triggers=[hook()])
    gone, kept = (await urls(face, "gone"))[""], (await urls(face, "kept"))[""]
    await face.cloud.delete("/workflows/gone")
    assert (await deliver(gone, {})).status_code == 404
    accounts = face.server.platform.tenants.accounts
    owner = operator(face.tenant.id)
    await accounts.disable(owner)
    try:
        assert (await deliver(kept, {})).status_code == 404
    finally:
        await accounts.disable(owner, disabled=False)


async def test_nobody_makes_a_url_up(face: Face, stranger: httpx.AsyncClient) -> None:
    await face.deploy("mine", KEEP, triggers=[hook()])
    base, _, token = (await urls(face, "mine"))[""].rpartition("/")
    data = bytearray(base64.urlsafe_b64decode(token + "="))
    for at in (0, 20, 35, 41, 55):  # account, workflow, trigger, and both ends of the MAC
        changed = data[:]
        changed[at] ^= 1
        made_up = base64.urlsafe_b64encode(bytes(changed)).decode().rstrip("=")
        assert (await deliver(f"{base}/{made_up}", {})).status_code == 404
    # Bits that mean nothing, padding, and characters a decoder passes over are no other spellings.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = last[last.index(token[-1]) ^ 1]
    for spelled in (f"{token[:-1]}{twin}", f"{token}=", f"{token[:10]}.{token[10:]}", token[:-1], "x", "ü" * 75):
        assert (await deliver(f"{base}/{spelled}", {})).status_code == 404, spelled
    assert await instances(face, "mine") == []


async def test_urls_are_for_those_who_may_change_the_workflow(face: Face) -> None:
    await face.deploy("guarded", KEEP, triggers=[hook()])
    for scope, status in (("workflows:read", 403), ("executions:write", 403), ("workflows:write", 200)):
        weak = await new_tenant(face.server.platform, [scope], of=face.tenant.id)
        answer = await face.cloud.get("/workflows/guarded/hooks", headers=weak.headers)
        assert answer.status_code == status


async def test_its_credential_starts_only_and_is_named_in_the_audit(face: Face) -> None:
    id = (await face.deploy("named", KEEP, triggers=[hook()]))["id"]
    await deliver((await urls(face, "named"))[""], {})
    await face.server.platform.tenants.close()  # the line is written beside the answer
    async with face.server.platform.db.scope(face.tenant.id) as connection:
        lines = await connection.fetch("select actor from audit_line where action = 'instance.create'")
    assert {line["actor"] for line in lines} == {f"hook:{id.replace('-', '')}"}


# --- events ------------------------------------------------------------------------------------------------------


async def test_an_event_starts_all_that_listen_to_it_once(face: Face) -> None:
    await face.deploy("a", KEEP, triggers=[listens("paid"), listens("refunded")])
    await face.deploy(
        "b", KEEP, triggers=[listens("paid", condition={"field": "payload.n", "operator": "gt", "value": 5})]
    )
    await face.deploy("c", KEEP, triggers=[listens("sent")])
    await face.deploy("d", KEEP, triggers=[listens("paid")], input_schema={"type": "object", "required": ["x"]})
    bad = await face.cloud.post("/events/nobody-listens", json={}, headers={"idempotency-key": "k" * 256})
    assert bad.status_code == 400, bad.text
    first = await face.cloud.post("/events/paid", json={"n": 1}, headers={"idempotency-key": "e1"})
    again = await face.cloud.post("/events/paid", json={"n": 1}, headers={"idempotency-key": "e1"})
    told = {one["workflow"]: one for one in first.json()["result"]}
    assert again.json() == first.json()
    assert told.keys() == {"a", "b", "d"}
    assert told["a"]["instance_id"] is not None
    assert told["b"] == {"workflow": "b", "instance_id": None, "refused": None}
    assert told["d"]["instance_id"] is None
    assert "x" in told["d"]["refused"]
    assert [len(await instances(face, name)) for name in "abcd"] == [1, 0, 0, 0]
    assert [one["workflow"] for one in (await face.cloud.post("/events/refunded", json={})).json()["result"]] == ["a"]


async def test_who_listens_no_more_is_not_started(face: Face) -> None:
    id = (await face.deploy("a", KEEP, triggers=[listens("paid")]))["id"]
    await face.http.patch(f"/api/workspaces/default/workflows/{id}", json={"status": "INACTIVE"})
    assert (await face.cloud.post("/events/paid", json={})).json()["result"] == []
    await face.http.patch(f"/api/workspaces/default/workflows/{id}", json={"status": "ACTIVE"})
    await face.deploy("a", KEEP)
    assert (await face.cloud.post("/events/paid", json={})).json()["result"] == []


async def test_events_stay_in_their_account(face: Face) -> None:
    await face.deploy("mine", KEEP, triggers=[listens("paid")])
    other = await new_tenant(face.server.platform)
    answer = await face.cloud.post(
        f"{face.server.base_url}/client/v4/accounts/{other.hex}/events/paid", headers=other.headers
    )
    assert answer.json()["result"] == []
    refused = await face.cloud.post("/events/paid", headers=other.headers)
    assert refused.status_code == 404
    assert await instances(face, "mine") == []


async def test_an_event_starts_so_many_workflows_and_no_more(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instances.triggers.service.EVENT_LISTENERS", 1)
    for name in ("a", "b"):
        await face.deploy(name, KEEP, triggers=[listens("paid")])
    answer = await face.cloud.post("/events/paid", json={})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, 10491)
    assert await instances(face, "a") == []


@pytest.mark.parametrize("name", ["x" * 101, "a%00b", "a%0Ab"])
async def test_a_name_that_is_none_is_refused(face: Face, name: str) -> None:
    assert (await face.cloud.post(f"/events/{name}", json={})).status_code in (400, 404)


# --- what is refused when it is written --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triggers", "pointer"),
    [
        ([{"type": "schedule", "interval": 1000, "condition": "a"}], "/definition/triggers/0/condition"),
        ([{"type": "manual", "condition": "a"}], "/definition/triggers/0/condition"),
        ([listens("a\nb")], "/definition/triggers/0/event"),
        ([listens("a", condition="a ==")], "/definition/triggers/0/condition"),
    ],
)
async def test_triggers_that_mean_nothing(face: Face, triggers: list[dict[str, Any]], pointer: str) -> None:
    definition = {"spec": "workflow/1", "name": "no", "nodes": KEEP, "triggers": triggers}
    answer = await face.cloud.put("/workflows/no", json={"definition": definition})
    assert answer.status_code == 400
    assert [error["source"]["pointer"] for error in answer.json()["errors"]] == [pointer]
