"""Versions, deployments, secrets and settings of scripts over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import cloudflare
import pytest

from tenants.tokens import TokenGrant
from tenants.users import UserRow
from versions.compilation import CompiledScript
from versions.schemas import WorkflowBody
from versions.service import VersionService

from .conftest import Api
from .test_script_routes import METADATA, upload, wrangler_body

NOWHERE = "00000000-0000-7000-8000-000000000000"
ROOT = "/workers/scripts/worker"


class Checker:
    """Finds one workflow in every script."""

    async def check(self, script: CompiledScript, flags: Any, variables: Any) -> dict[str, str]:
        return {"Flow": "workflow"}


FLOW = (
    b'import { WorkflowEntrypoint } from "cloudflare:workers";\n'
    b'export class Flow extends WorkflowEntrypoint { async run(e, step) { await step.do("a", async () => 1); } }\n'
)
MODULES = [("index.js", FLOW, "application/javascript+module")]


@pytest.fixture
def versions(db, clock, ids, tenants) -> VersionService:
    return VersionService(db, clock, ids, tenants, checker=Checker())


async def upload_version(api, metadata=METADATA, modules=None, query="", name="worker"):
    body, headers = wrangler_body(metadata, MODULES if modules is None else modules)
    return await api("POST", f"/workers/scripts/{name}/versions{query}", content=body, headers=headers)


async def deploy(api, version: str, **body):
    versions = [{"version_id": version, "percentage": 100}]
    return await api("POST", f"{ROOT}/deployments", json={"strategy": "percentage", "versions": versions} | body)


async def deployed(api) -> str:
    """The version that is deployed."""
    return (await api("GET", f"{ROOT}/deployments"))[1]["deployments"][0]["versions"][0]["version_id"]


async def test_every_upload_is_a_version(api, clock):
    _, first, _ = await upload(api, modules=MODULES)
    clock.advance(60)
    note = {"workers/message": "m" * 2_000, "workers/tag": "v2", "workers/other": "dropped", "workers/alias": 5}
    status, second, envelope = await upload_version(api, METADATA | {"annotations": note})
    assert (status, second["number"], envelope["messages"]) == (200, 2, [])
    assert second["annotations"] == {"workers/message": "m" * 1_000, "workers/tag": "v2"}
    assert second["metadata"]["source"] == "wrangler"
    assert second["metadata"]["created_on"] == "2026-01-01T00:01:00.000Z"
    assert second["resources"]["script_runtime"]["compatibility_date"] == "2026-11-01"
    _, listed, envelope = await api("GET", f"{ROOT}/versions")
    assert [one["number"] for one in listed["items"]] == [2, 1]
    assert [UUID(one["id"]).hex for one in listed["items"]] == [UUID(second["id"]).hex, first["deployment_id"]]
    assert envelope["result_info"]["total_count"] == 2
    _, page, _ = await api("GET", f"{ROOT}/versions?deployable=true&page=2&per_page=1")
    assert [one["number"] for one in page["items"]] == [1]
    assert (await api("GET", f"{ROOT}/versions?page=3"))[1] == {"items": []}
    assert (await api("GET", f"{ROOT}/versions/{second['id']}"))[1] == second
    assert UUID(await deployed(api)).hex == first["deployment_id"], "an uploaded version waits"


async def test_the_version_deployed_last_holds_also_when_it_is_older(api, boss, versions, clock):
    await upload(api, modules=MODULES)
    first = await deployed(api)
    await upload(api, modules=[("index.js", FLOW + b"//2", "text/javascript")])
    second = await deployed(api)
    assert second != first
    # All at the same moment of the clock: the order of deployments decides.
    status, made, _ = await deploy(api, first, annotations={"workers/message": "back", "x": 1})
    assert (status, made["annotations"], made["strategy"]) == (200, {"workers/message": "back"}, "percentage")
    assert await deployed(api) == first
    assert (await api.raw("GET", ROOT)).content == FLOW
    _, shown, _ = await api("GET", "/workers/scripts")
    assert shown[0]["tag"] == UUID(first).hex
    body = WorkflowBody(class_name="Flow", script_name="worker")
    put = await versions.put(boss, "flow", body)
    assert str((await versions.load(boss.account_id, put.workflow.current_version)).script_id) == first
    await deploy(api, second)
    put = await versions.put(boss, "flow", body)
    assert str((await versions.load(boss.account_id, put.workflow.current_version)).script_id) == second
    _, listed, _ = await api("GET", f"{ROOT}/deployments")
    assert [one["versions"][0]["version_id"] for one in listed["deployments"]] == [second, first, second, first]
    assert (await api("GET", f"{ROOT}/deployments/{made['id']}"))[1] == made


async def test_a_clock_that_goes_back_deploys_all_the_same(api, clock):
    await upload(api, modules=MODULES)
    clock.advance(-3_600)
    await upload(api, modules=[("index.js", b"export default {}", "text/javascript")])
    assert (await api.raw("GET", ROOT)).content == b"export default {}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"versions": []}, "one version with percentage 100"),
        ({"versions": [{"version_id": NOWHERE, "percentage": 50}]}, "one version with percentage 100"),
        ({"versions": [{"version_id": NOWHERE, "percentage": 50}] * 2}, "one version with percentage 100"),
        ({"versions": [{"version_id": "x", "percentage": 100}]}, "version_id"),
        ({"strategy": "gradual", "versions": [{"version_id": NOWHERE, "percentage": 100}]}, "strategy"),
        ({}, "versions"),
        ([], "object"),
    ],
)
async def test_deployments_that_are_refused(api, body, words):
    await upload(api, modules=MODULES)
    status, _, envelope = await api("POST", f"{ROOT}/deployments", json=body)
    assert (status, envelope["errors"][0]["code"]) == (400, 10002)
    assert words in envelope["errors"][0]["message"]


async def test_what_is_not_there(api):
    for method, path, body in (
        ("GET", "/versions", None), ("GET", "/deployments", None), ("GET", "/secrets", None),
        ("GET", "/settings", None),
        ("GET", "/script-settings", None), ("GET", "/schedules", None), ("GET", "/subdomain", None),
        ("GET", "/usage-model", None), ("PUT", "/usage-model", {"usage_model": "standard"}),
        ("POST", "/assets-upload-session", {}), ("DELETE", f"/deployments/{NOWHERE}", None),
        ("GET", "/references", None), ("GET", "/tails", None), ("POST", "/tails", {}), ("GET", "/content/v2", None),
        ("PUT", "/secrets", {"name": "A", "text": "a"}), ("DELETE", "/secrets/A", None), ("DELETE", "", None),
        ("PATCH", "/settings", {}), ("PATCH", "/script-settings", {}), ("POST", "/subdomain", {"enabled": False}),
    ):  # fmt: skip
        status, _, envelope = await api(method, ROOT + path, json=body)
        assert (status, envelope["errors"][0]["code"]) == (404, 10007), (method, path)
    for path in ("services/worker", "workers/worker"):
        status, _, envelope = await api("GET", f"/workers/{path}")
        assert (status, envelope["errors"][0]["code"]) == (404, 10007)
    status, _, envelope = await api("PATCH", "/workers/workers/worker/versions/latest", json={})
    assert (status, envelope["errors"][0]["code"]) == (404, 10222)
    await upload(api, modules=MODULES)
    for path in (f"versions/{NOWHERE}", "versions/latest", f"deployments/{NOWHERE}", "deployments/x"):
        status, _, envelope = await api("GET", f"{ROOT}/{path}")
        assert (status, envelope["errors"][0]["code"]) == (404, 10212)
    status, _, envelope = await deploy(api, NOWHERE)
    assert (status, envelope["errors"][0]["code"]) == (404, 10212)
    for method in ("GET", "DELETE"):
        status, _, envelope = await api(method, f"{ROOT}/secrets/A")
        assert (status, envelope["errors"][0]["code"]) == (404, 10056)


async def test_a_version_of_another_script_is_not_deployed(api):
    await upload(api, modules=MODULES)
    _, other, _ = await upload_version(api, name="other")
    assert (await deploy(api, other["id"]))[0] == 404
    status, _, envelope = await api("GET", "/workers/services/other")
    assert (status, envelope["errors"][0]["code"]) == (404, 10007), "it has only a version that waits"
    assert (await api("GET", "/workers/scripts/other/deployments"))[1] == {"deployments": []}


async def test_secrets_make_versions_and_workflows_move_on(api, boss, versions, admin):
    await upload(api, modules=MODULES)
    body = WorkflowBody(class_name="Flow", script_name="worker")
    before = await versions.put(boss, "flow", body)
    status, result, _ = await api("PUT", f"{ROOT}/secrets", json={"name": "KEY", "text": "hunter2-hunter2"})
    assert (status, result) == (200, {"name": "KEY", "type": "secret_text"})
    assert (await api("GET", f"{ROOT}/secrets"))[1] == [result]
    assert (await api("GET", f"{ROOT}/secrets/KEY"))[1] == result
    after = await versions.describe(boss, "flow")
    assert after.row.current_version != before.workflow.current_version
    moved = await versions.load(boss.account_id, after.row.current_version)
    assert (str(moved.script_id), moved.no, moved.class_name) == (await deployed(api), 2, "Flow")
    assert (await versions.scripts.runnable(boss.account_id, moved.script_id)).variables == {"KEY": "hunter2-hunter2"}
    assert (await versions.put(boss, "flow", body)).changed is False
    [newest, _] = (await api("GET", f"{ROOT}/deployments"))[1]["deployments"]
    assert newest["annotations"] == {"workers/triggered_by": "secret"}
    stored = await admin.fetch("select * from script")
    assert "hunter2" not in str([tuple(row) for row in stored])
    for path in ("versions", f"versions/{newest['versions'][0]['version_id']}", "settings"):
        assert "hunter2" not in (await api.raw("GET", f"{ROOT}/{path}")).text
    assert (await api("DELETE", f"{ROOT}/secrets/KEY?url_encoded=true"))[:2] == (200, None)
    assert (await api("GET", f"{ROOT}/secrets"))[1] == []
    gone = await versions.load(boss.account_id, (await versions.describe(boss, "flow")).row.current_version)
    assert (await versions.scripts.runnable(boss.account_id, gone.script_id)).variables == {}


async def test_a_workflow_on_another_version_stays_when_secrets_change(api, boss, versions):
    await upload(api, modules=MODULES)
    before = await versions.put(boss, "flow", WorkflowBody(class_name="Flow", script_name="worker"))
    await upload(api, modules=[("index.js", FLOW + b"//2", "text/javascript")])
    await api("PUT", f"{ROOT}/secrets", json={"name": "KEY", "text": "x"})
    assert (await versions.describe(boss, "flow")).row.current_version == before.workflow.current_version


async def test_many_secrets_at_once(api, versions, boss):
    await upload(api, modules=MODULES)
    await api("PUT", f"{ROOT}/secrets", json={"name": "OLD", "text": "x"})
    changes = {"OLD": None, "A": {"type": "secret_text", "text": "a"}, "B": {"text": "b"}}
    headers = {"content-type": "application/merge-patch+json"}
    content = json.dumps({"secrets": changes}).encode()
    status, result, _ = await api("PATCH", f"{ROOT}/secrets-bulk", content=content, headers=headers)
    assert (status, [one["name"] for one in result]) == (200, ["A", "B"])
    row = await versions.scripts.deployed(boss, "worker")
    assert versions.scripts.secrets(row) == {"A": "a", "B": "b"}
    content = json.dumps({"env": {"A": None, "C": {"text": "c"}}, "annotations": {"workers/tag": "t"}}).encode()
    path = "/workers/workers/worker/versions/latest"
    status, made, _ = await api("PATCH", path, content=content, headers=headers)
    assert [binding["name"] for binding in made["resources"]["bindings"]] == ["B", "C"]
    assert made["annotations"] == {"workers/tag": "t", "workers/triggered_by": "secret"}
    assert await deployed(api) != made["id"]
    assert [one["name"] for one in (await api("GET", f"{ROOT}/secrets"))[1]] == ["A", "B"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "MODE", "text": "x"}, 10021),
        ({"name": "K", "text": "x", "type": "secret_key"}, 10002),
        ({"name": "", "text": "x"}, 10002),
        ({"name": "a\nb", "text": "x"}, 10002),
        ({"name": "K"}, 10002),
        ({"name": "K", "text": 5}, 10002),
    ],
)
async def test_secrets_that_are_refused(api, body, code):
    mode = {"type": "plain_text", "name": "MODE", "text": "fast"}
    await upload(api, metadata=METADATA | {"bindings": [mode]}, modules=MODULES)
    status, _, envelope = await api("PUT", f"{ROOT}/secrets", json=body)
    assert (status, envelope["errors"][0]["code"]) == (400, code)
    assert len((await api("GET", f"{ROOT}/versions"))[1]["items"]) == 1


async def test_the_next_upload_keeps_secrets_that_were_put(api, versions, boss):
    await upload(api, modules=MODULES)
    await api("PUT", f"{ROOT}/secrets", json={"name": "KEY", "text": "x"})
    _, made, _ = await upload_version(api, METADATA | {"keep_bindings": ["secret_text", "secret_key"]})
    await deploy(api, made["id"])
    assert [one["name"] for one in (await api("GET", f"{ROOT}/secrets"))[1]] == ["KEY"]
    row = await versions.scripts.deployed(boss, "worker")
    assert versions.scripts.secrets(row) == {"KEY": "x"}


async def test_settings_of_a_script(api):
    await upload(api, metadata=METADATA | {"tags": ["a"], "logpush": True}, modules=MODULES)
    expected = {"logpush": True, "observability": {"enabled": False}, "tags": ["a"], "tail_consumers": []}
    assert (await api("GET", f"{ROOT}/script-settings"))[1] == expected
    change = {"observability": {"enabled": True}, "tags": ["b\0", "c"], "unknown": 1}
    expected |= {"observability": {"enabled": True}, "tags": ["b\0", "c"]}
    assert (await api("PATCH", f"{ROOT}/script-settings", json=change))[1] == expected
    await upload(api, modules=MODULES)
    assert (await api("GET", f"{ROOT}/script-settings"))[1] == expected, "an upload that says nothing changes nothing"
    assert (await api("GET", "/workers/scripts?tags=c:yes"))[1][0]["tags"] == ["b\0", "c"]
    assert (await api("PATCH", f"{ROOT}/script-settings", json={"tags": None}))[1]["tags"] == []
    assert (await api("PATCH", f"{ROOT}/script-settings", json={"tags": [1]}))[0] == 400
    assert len((await api("GET", f"{ROOT}/versions"))[1]["items"]) == 2


async def test_settings_of_a_version(api, versions, boss):
    bindings = [{"type": "secret_text", "name": "KEY", "text": "k"}, {"type": "plain_text", "name": "A", "text": "a"}]
    await upload(api, metadata=METADATA | {"bindings": bindings}, modules=MODULES)
    shown = (await api("GET", f"{ROOT}/settings"))[1]
    assert shown["bindings"] == [{"type": "secret_text", "name": "KEY"}, bindings[1]]
    plain = {"type": "plain_text", "name": "B", "text": "b"}
    change = {"bindings": [{"type": "inherit", "name": "KEY"}, plain], "compatibility_flags": ["x"], "tags": ["t"]}
    files = {"settings": (None, json.dumps(change))}
    status, shown, _ = await api("PATCH", f"{ROOT}/settings", files=files)
    assert (status, shown["bindings"]) == (200, [{"type": "secret_text", "name": "KEY"}, plain])
    assert (shown["compatibility_flags"], shown["tags"]) == (["x"], ["t"])
    row = await versions.scripts.deployed(boss, "worker")
    assert (await versions.scripts.runnable(boss.account_id, row.id)).variables == {"KEY": "k", "B": "b"}
    assert (await api("PATCH", f"{ROOT}/settings", json={"logpush": True}))[1]["logpush"] is True
    assert len((await api("GET", f"{ROOT}/versions"))[1]["items"]) == 2
    lost = {"bindings": [{"type": "inherit", "name": "GONE"}]}
    status, _, envelope = await api("PATCH", f"{ROOT}/settings", json=lost)
    assert (status, envelope["errors"][0]["code"]) == (400, 10057)
    status, _, envelope = await api("PATCH", f"{ROOT}/settings", json={"limits": {"cpu_ms": 0}})
    assert (status, envelope["errors"][0]["code"]) == (400, 10021)
    assert (await api("PATCH", f"{ROOT}/settings", files={"other": (None, "{}")}))[0] == 400


async def test_other_code_with_the_same_bindings(api, sdk, versions, boss):
    bindings = [{"type": "secret_text", "name": "KEY", "text": "k"}, {"type": "plain_text", "name": "A", "text": "a"}]
    content, headers = wrangler_body({"main_module": "new.js"}, [("new.js", FLOW, "application/javascript+module")])
    status, _, envelope = await api("PUT", f"{ROOT}/content", content=content, headers=headers)
    assert (status, envelope["errors"][0]["code"]) == (404, 10007)
    await upload(api, metadata=METADATA | {"bindings": bindings, "tags": ["t"]})
    await api("PATCH", f"{ROOT}/script-settings", json={"tags": ["later"]})
    status, result, _ = await api("PUT", f"{ROOT}/content", content=content, headers=headers)
    assert (status, result["tags"], result["compatibility_date"]) == (200, ["later"], "2026-11-01")
    row = await versions.scripts.deployed(boss, "worker")
    assert (await versions.scripts.runnable(boss.account_id, row.id)).variables == {"KEY": "k", "A": "a"}
    assert (await api.raw("GET", f"{ROOT}/content/v2")).content == FLOW
    files = [("other.js", b"export default {}", "application/javascript+module")]
    metadata = {"main_module": "other.js"}
    await sdk.workers.scripts.content.update("worker", account_id=boss.account_id.hex, metadata=metadata, files=files)
    assert (await api.raw("GET", ROOT)).content == b"export default {}"


async def test_all_at_once(api, boss, versions):
    """Whoever changes a script or its workflows waits for the others; nobody deadlocks, nothing is lost."""
    await upload(api, modules=MODULES)
    body = WorkflowBody(class_name="Flow", script_name="worker")
    await versions.put(boss, "flow", body)

    async def secret(number: int) -> int:
        return (await api("PUT", f"{ROOT}/secrets", json={"name": f"S{number}", "text": "x"}))[0]

    async def workflow() -> int:
        return (await api("PUT", "/workflows/flow", json={"class_name": "Flow", "script_name": "worker"}))[0]

    statuses = await asyncio.gather(*(secret(n) for n in range(8)), *(workflow() for _ in range(8)))
    assert set(statuses) == {200}
    assert len((await api("GET", f"{ROOT}/secrets"))[1]) == 8
    numbers = [one["number"] for one in (await api("GET", f"{ROOT}/versions"))[1]["items"]]
    assert numbers == list(range(9, 0, -1))


async def test_nothing_is_served(api, boss):
    await upload(api, modules=MODULES)
    off = {"enabled": False, "previews_enabled": False}
    for method, body, messages in (
        ("GET", None, 0), ("POST", {"enabled": False}, 0), ("POST", {"enabled": True}, 1), ("DELETE", None, 0),
        ("POST", {"enabled": False, "previews_enabled": True}, 1),
    ):  # fmt: skip
        status, result, envelope = await api(method, f"{ROOT}/subdomain", json=body)
        assert (status, result, len(envelope["messages"])) == (200, off, messages)
    _, account, _ = await api("GET", "/workers/subdomain")
    assert account == {"subdomain": f"millrace-{boss.account_id.hex[:12]}"}
    assert (await api("PUT", "/workers/subdomain", json=account))[:2] == (200, account)
    assert (await api("PUT", "/workers/subdomain", json={"subdomain": "mine"}))[0] == 400
    assert (await api("GET", f"{ROOT}/schedules"))[1] == {"schedules": []}
    assert (await api("PUT", f"{ROOT}/schedules", json=[]))[:2] == (200, {"schedules": []})
    status, _, envelope = await api("PUT", f"{ROOT}/schedules", json=[{"cron": "* * * * *"}])
    assert (status, envelope["errors"][0]["code"]) == (400, 10100)
    status, _, envelope = await api("POST", f"{ROOT}/tails", json={"filters": []})
    assert (status, envelope["errors"][0]["code"]) == (400, 10023)
    for path in ("/workers/durable_objects/namespaces", "/storage/kv/namespaces", "/workers/tails/by-consumer/worker"):
        assert (await api("GET", path))[:2] == (200, [])


async def test_a_script_as_service_and_worker(api, clock):
    await upload(api, metadata=METADATA | {"tags": ["t"]}, modules=MODULES)
    clock.advance(5)
    await upload(api, modules=MODULES)
    _, service, _ = await api("GET", "/workers/services/worker")
    script = service["default_environment"]["script"]
    assert (script["tags"], script["last_deployed_from"], service["id"]) == (["t"], "wrangler", "worker")
    assert (service["created_on"], service["modified_on"]) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:05.000Z")
    _, worker, _ = await api("GET", "/workers/workers/worker")
    assert (worker["name"], worker["subdomain"]["enabled"], worker["tags"]) == ("worker", False, ["t"])


@pytest.mark.parametrize("path", ["/workers/scripts/worker", "/workers/services/worker"])
async def test_a_script_that_workflows_run_is_deleted_with_force_only(api, boss, versions, path, admin):
    await upload(api, modules=MODULES)
    await versions.put(boss, "flow", WorkflowBody(class_name="Flow", script_name="worker"))
    await api("PATCH", f"{ROOT}/script-settings", json={"tags": ["t"]})
    assert (await api("GET", f"{ROOT}/references"))[1]["workflows"] == [{"name": "flow"}]
    for query in ("", "?force=false"):
        status, _, envelope = await api("DELETE", path + query)
        assert (status, envelope["errors"][0]["code"]) == (409, 10064)
        assert "flow" in envelope["errors"][0]["message"]
    assert (await api("DELETE", f"{path}?force=true"))[:2] == (200, None)
    assert (await versions.describe(boss, "flow")).script_deleted is True
    assert await admin.fetchval("select count(*) from script_setting") == 0
    await upload(api, modules=MODULES)
    assert len((await api("GET", f"{ROOT}/deployments"))[1]["deployments"]) == 1
    await versions.delete(boss, "flow")
    assert (await api("DELETE", path))[0] == 200


async def test_who_did_it(api, tenants, boss):
    user: UserRow = await tenants.users.create(boss, "ann", role="admin", email="ann@example.org")
    await upload(api, modules=MODULES)
    [deployment] = (await api("GET", f"{ROOT}/deployments"))[1]["deployments"]
    assert deployment["author_email"] == "", "a token of nobody"
    _, token = await tenants.tokens.create(boss, TokenGrant(name="hers", scopes=["scripts:write"], user_id=user.id))
    hers = Api(api.client, api.account_id, token)
    await hers("PUT", f"{ROOT}/secrets", json={"name": "KEY", "text": "x"})
    [newest, _] = (await api("GET", f"{ROOT}/deployments"))[1]["deployments"]
    assert (newest["author_email"], newest["source"]) == ("ann@example.org", "api")


async def test_the_sdk(sdk, api):
    account = api.account_id.hex
    await upload(api, modules=MODULES)
    scripts = sdk.workers.scripts
    made = await scripts.secrets.update("worker", account_id=account, name="KEY", text="x", type="secret_text")
    assert made.name == "KEY"
    assert [one.name async for one in scripts.secrets.list("worker", account_id=account)] == ["KEY"]
    listed = [one async for one in scripts.versions.list("worker", account_id=account)]
    assert [one.number for one in listed] == [2, 1]
    share = [{"version_id": listed[1].id, "percentage": 100}]
    done = await scripts.deployments.create("worker", account_id=account, strategy="percentage", versions=share)
    found: Any = await scripts.deployments.list("worker", account_id=account)
    assert next(iter(found.result.deployments))["id"] == done.id
    assert (await scripts.subdomain.get("worker", account_id=account)).enabled is False
    assert (await scripts.schedules.get("worker", account_id=account)).schedules == []
    settings = await scripts.settings.edit("worker", account_id=account, tags=["a"])
    assert settings.tags == ["a"]
    assert (await scripts.script_and_version_settings.get("worker", account_id=account)).tags == ["a"]
    changed = await scripts.script_and_version_settings.edit(
        "worker", account_id=account, settings={"bindings": [{"type": "plain_text", "name": "A", "text": "a"}]}
    )
    assert [binding.name for binding in changed.bindings] == ["A"]
    assert (await sdk.workers.subdomains.get(account_id=account)).subdomain.startswith("millrace-")
    with pytest.raises(cloudflare.NotFoundError):
        await scripts.secrets.delete("KEY", account_id=account, script_name="worker")
    await scripts.delete("worker", account_id=account)


async def test_walls_and_quotas(api, make_api, boss, stranger, admin):
    await admin.execute("update account set limits = $2 where account_id = $1", boss.account_id, '{"scripts": 1}')
    await upload(api, modules=MODULES)
    theirs = await make_api(stranger)
    version = await deployed(api)
    assert (await theirs("GET", f"{ROOT}/versions/{version}"))[0] == 404
    await upload(theirs, modules=MODULES)
    assert (await theirs("GET", f"{ROOT}/versions/{version}"))[0] == 404
    assert (await deploy(theirs, version))[0] == 404
    reader = await make_api(boss, "scripts:read")
    assert (await reader("GET", f"{ROOT}/deployments"))[0] == 200
    assert (await deploy(reader, version))[0] == 403
    status, _, envelope = await upload_version(api, name="two")
    assert (status, envelope["errors"][0]["code"]) == (403, 10461)


async def test_deployments_can_be_forgotten_but_for_the_one_that_holds(api, sdk, boss):
    first = (await upload_version(api))[1]["id"]
    second = (await upload_version(api))[1]["id"]
    made = [(await deploy(api, version))[1]["id"] for version in (first, second, first)]
    status, _, envelope = await api("DELETE", f"{ROOT}/deployments/{made[2]}")
    assert (status, envelope["errors"][0]["code"]) == (400, 10102)
    account = boss.account_id.hex
    await sdk.workers.scripts.deployments.delete(made[0], account_id=account, script_name="worker")
    shown = (await api("GET", f"{ROOT}/deployments"))[1]["deployments"]
    assert [each["id"] for each in shown] == [made[2], made[1]]
    for gone in (made[0], NOWHERE, "x"):
        status, _, envelope = await api("DELETE", f"{ROOT}/deployments/{gone}")
        assert (status, envelope["errors"][0]["code"]) == (404, 10212)
    assert await deployed(api) == first
    assert len((await api("GET", f"{ROOT}/versions"))[1]["items"]) == 2


async def test_what_workers_have_besides(api, sdk, boss):
    await upload(api, modules=MODULES)
    standard = {"usage_model": "standard"}
    assert (await api("GET", f"{ROOT}/usage-model"))[:2] == (200, standard)
    assert (await api("PUT", f"{ROOT}/usage-model", json=standard))[:2] == (200, standard)
    assert (await api("PUT", f"{ROOT}/usage-model", json={"usage_model": "bundled"}))[0] == 400
    settings = await sdk.workers.account_settings.get(account_id=boss.account_id.hex)
    assert settings.default_usage_model == "standard"
    changed = await sdk.workers.account_settings.update(account_id=boss.account_id.hex, default_usage_model="standard")
    assert changed.green_compute is False
    assert (await api("PUT", "/workers/account-settings", json={"default_usage_model": "unbound"}))[0] == 400
    status, _, envelope = await api("POST", f"{ROOT}/assets-upload-session", json={"manifest": {}})
    assert (status, envelope["errors"][0]["code"]) == (400, 10101)
    none = {"script_name": "worker", "triggers": []}
    path = "/triggers/worker"
    assert (await api("GET", path))[:2] == (200, none)
    assert (await api("DELETE", path))[:2] == (200, {"deleted": 0})
    wanted = [{"type": "r2", "targets": [{"type": "workflow", "script_name": "worker", "workflow_name": "w"}]}]
    for method in ("PUT", "PATCH"):
        assert (await api(method, path, json=[]))[:2] == (200, none)
        status, _, envelope = await api(method, path, json=wanted)
        assert (status, envelope["errors"][0]["code"]) == (400, 10101)
        assert "schedules" in envelope["errors"][0]["message"]
        assert (await api(method, path, json={}))[0] == 400
    assert (await api("GET", "/triggers/other"))[2]["errors"][0]["code"] == 10007
