"""wrangler, as a person has it in a terminal: every command about workflows.

Each command is a process of a second or more, so tests run side by side what does not depend on each other.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .conftest import Cloud
from .wrangler import Wrangler

pytestmark = [pytest.mark.npm, pytest.mark.timeout(400)]

WAITS = {
    "nodes": [
        {"id": "a", "type": "set", "config": {"values": {"greeting": "hello ä"}}, "compensate": {"type": "noop"}},
        {"id": "go", "type": "wait_for_event", "depends_on": ["a"], "config": {"event": "go"}},
        {"id": "b", "type": "set", "depends_on": ["go"], "config": {"values": {"got": "{{ steps.go.output }}"}}},
    ]
}
SLEEPS = {"nodes": [{"id": "nap", "type": "wait", "config": {"duration": "1 hour"}}]}
FAILS = {
    "nodes": [
        {"id": "book", "compensate": {"type": "noop"}},
        {"id": "boom", "type": "fail", "depends_on": ["book"], "config": {"message": "no luck", "code": "BAD"}},
    ]
}
RETRIES = {
    "nodes": [
        {
            "id": "call",
            "type": "call_api",
            "retries": {"limit": 3, "delay": "1 hour"},
            "config": {"url": "https://nowhere.invalid/"},
        }
    ]
}


async def create(cloud: Cloud, workflow: str, *ids: str) -> None:
    body: Any = [{"instance_id": id} for id in ids]
    await cloud.sdk.workflows.instances.bulk(workflow, account_id=cloud.account, body=body)


async def test_whoami(wrangler: Wrangler, cloud: Cloud) -> None:
    ran = await wrangler.run("whoami")
    assert ran.code == 0, ran.out
    assert cloud.account in ran.out


async def test_workflows(wrangler: Wrangler, cloud: Cloud) -> None:
    made = [await cloud.deploy(name, WAITS) for name in ("first", "second", "third")]
    every, page, described, text, missing = await asyncio.gather(
        wrangler.json("list"),
        wrangler("list", "--page", "2", "--per-page", "2"),
        wrangler.json("describe", "third"),
        wrangler("describe", "third"),
        wrangler.refused("describe", "nope"),
    )
    assert [one["name"] for one in every] == ["third", "second", "first"]
    assert "Showing 1 workflow from page 2" in page and "first" in page
    assert described["latest_version"]["id"] == made[2].version_id
    assert made[2].version_id in text
    assert "10200" in missing
    assert "removed successfully" in await wrangler("delete", "first")
    assert "10200" in await wrangler.refused("delete", "first")


async def test_trigger(wrangler: Wrangler, cloud: Cloud) -> None:
    await cloud.deploy("waits", WAITS)
    sent = {"object": '{"n": 1}', "text": '"bare"', "number": "42", "nothing": None}
    await asyncio.gather(
        *(
            wrangler("trigger", "waits", *([] if params is None else [params]), "--id", id)
            for id, params in sent.items()
        )
    )
    seen = {id: (await cloud.get("waits", id)).params for id in sent}
    assert seen == {"object": {"n": 1}, "text": "bare", "number": 42, "nothing": {}}
    assert "10405" in await wrangler.refused("trigger", "waits", "--id", "text")


async def test_list_instances(wrangler: Wrangler, cloud: Cloud) -> None:
    await cloud.deploy("waits", WAITS)
    for id in ("a", "b", "c"):
        await create(cloud, "waits", id)
        await cloud.until("waits", id, "waiting")
    await cloud.sdk.workflows.instances.status.edit(
        "b", account_id=cloud.account, workflow_name="waits", status="terminate"
    )

    async def listed(*options: str) -> list[str]:
        return [one["id"] for one in await wrangler.json("instances", "list", "waits", *options)]

    found = await asyncio.gather(
        listed(),
        listed("--reverse"),
        listed("--per-page", "2"),
        listed("--per-page", "2", "--page", "2"),
        listed("--status", "terminated"),
        listed("--date-start", "2020-01-01", "--date-end", "2099-12-31"),
        listed("--date-end", "2020-02-01"),
    )
    newest_first = ["c", "b", "a"]
    assert found == [newest_first, newest_first[::-1], ["c", "b"], ["a"], ["b"], newest_first, []]
    beyond = await wrangler("instances", "list", "waits", "--per-page", "2", "--page", "9")
    assert "No instances found on page 9" in beyond


async def test_describe_an_instance_in_every_state(wrangler: Wrangler, cloud: Cloud) -> None:
    states = {"waits": "waiting", "sleeps": "waiting", "fails": "errored", "retries": "waiting", "ends": "waiting"}
    documents = {"waits": WAITS, "sleeps": SLEEPS, "fails": FAILS, "retries": RETRIES, "ends": RETRIES}
    for name, document in documents.items():
        await cloud.deploy(name, document)
        await create(cloud, name, "i")
        await cloud.until(name, "i", states[name])
    await cloud.sdk.workflows.instances.status.edit(
        "i", account_id=cloud.account, workflow_name="ends", status="terminate"
    )
    told = dict(
        zip(
            documents,
            await asyncio.gather(*(wrangler("instances", "describe", name) for name in documents)),
            strict=True,
        )
    )
    assert all(part in told["waits"] for part in ("Waiting", "hello ä", "Waiting for event", "1 day"))
    assert all(part in told["sleeps"] for part in ("Waiting", "Sleeping", "1 hour"))
    assert all(part in told["fails"] for part in ("Errored", "BAD: no luck", "book-1"))
    assert all(part in told["retries"] for part in ("Running", "Retries At", "API_CALL_FAILED"))
    assert all(part in told["ends"] for part in ("Terminated", "Termination", "API_CALL_FAILED"))
    assert "Running" not in told["ends"] and "Retries At" not in told["ends"]
    newest = await wrangler.json("instances", "describe", "waits", "latest")
    assert (newest["id"], newest["status"]) == ("i", "waiting")


async def test_steering(wrangler: Wrangler, cloud: Cloud) -> None:
    await cloud.deploy("waits", WAITS)
    await create(cloud, "waits", "i")
    await cloud.until("waits", "i", "waiting")
    await wrangler("instances", "pause", "waits", "i")
    payload = '{"by": "grace"}'
    await wrangler("instances", "send-event", "waits", "i", "--type", "go", "--payload", payload)
    assert (await cloud.get("waits", "i")).status == "paused"
    await wrangler("instances", "resume", "waits", "latest")
    first = await cloud.until("waits", "i", "complete")
    assert first.output == {"got": {"by": "grace"}}

    assert "10451" in await wrangler.refused("instances", "pause", "waits", "i")
    assert "10455" in await wrangler.refused("instances", "send-event", "waits", "i", "--type", "a.b")
    assert "10453" in await wrangler.refused("instances", "restart", "waits", "i", "--from-step-name", "nobody")
    step = ("--from-step-name", "go", "--from-step-count", "1", "--from-step-type", "waitForEvent")
    await wrangler("instances", "restart", "waits", "i", *step)
    again = await cloud.until("waits", "i", "waiting")
    assert again.steps[0].start == first.steps[0].start
    await wrangler("instances", "restart", "waits", "i")
    assert (await cloud.until("waits", "i", "waiting")).steps[0].start > first.steps[0].start
    await wrangler("instances", "terminate", "waits", "i", "--rollback")
    ended = await cloud.until("waits", "i", "terminated")
    assert ended.rollback.outcome == "complete"


async def test_many_at_once(wrangler: Wrangler, cloud: Cloud) -> None:
    await cloud.deploy("waits", WAITS)
    await create(cloud, "waits", "a", "b", "c", "d")
    for id in ("a", "b", "c", "d"):
        await cloud.until("waits", id, "waiting")
    assert "has been started" in await wrangler("instances", "terminate-all", "waits", "--status", "waiting")
    for id in ("a", "b", "c", "d"):
        await cloud.until("waits", id, "terminated")
    told = await wrangler.refused("instances", "delete", "waits", "a", "nobody", "b")
    assert "nobody: workflows.api.error.instance.not_found" in told
    assert "c" in await wrangler("instances", "delete", "waits", "c")
    left = await wrangler.json("instances", "list", "waits")
    assert [one["id"] for one in left] == ["d"]


async def test_ids_of_scheduled_instances(wrangler: Wrangler, cloud: Cloud) -> None:
    """They hold slashes and spaces, and wrangler puts them into paths as they are."""
    id = "*/30 * * * *-1786001400000"
    await cloud.deploy("idle", {"nodes": []})
    described, deleted = await asyncio.gather(
        wrangler.refused("instances", "describe", "idle", id), wrangler.refused("instances", "delete", "idle", id)
    )
    assert "10400" in described
    assert f"{id}: workflows.api.error.instance.not_found" in deleted
