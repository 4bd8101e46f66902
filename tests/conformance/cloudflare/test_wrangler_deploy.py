"""wrangler, as a person deploys with it: scripts, versions, deployments, secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cloud
from .wrangler import Wrangler

pytestmark = [pytest.mark.npm, pytest.mark.timeout(400)]

SHOP = """
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep } from "cloudflare:workers";
import { double, type Params } from "./numbers";
import notes from "./notes.txt";

type Env = { GREETING: string; KEY?: string; CONF: { factor: number }; KIDS: Workflow };

export class Order extends WorkflowEntrypoint<Env, Params> {
  async run(event: WorkflowEvent<Params>, step: WorkflowStep) {
    const price = await step.do("price", async () => double(event.payload.total) * this.env.CONF.factor);
    const kid = await step.do("kid", async () => (await this.env.KIDS.create({ id: "kid-of-" + event.instanceId })).id);
    const approval = await step.waitForEvent<{ by: string }>("approval", { type: "approve", timeout: "1 hour" });
    await step.do("after", async () => price + 1);
    return { price, kid, by: approval.payload.by, greeting: this.env.GREETING, notes: notes.trim() };
  }
}

export class Kid extends WorkflowEntrypoint<Env, {}> {
  async run(_event: WorkflowEvent<{}>, step: WorkflowStep) {
    return await step.do("tell", async () => "KEY is " + (this.env.KEY ?? "not set"));
  }
}

export default { async fetch() { return new Response("never asked"); } };
"""
NUMBERS = """
export interface Params { total: number }
export const double = (n: number): number => n * 2;
"""
CONFIG: dict[str, Any] = {
    "name": "shop",
    "main": "src/index.ts",
    "compatibility_date": "2026-11-01",
    "workers_dev": False,
    "vars": {"GREETING": "grüße", "CONF": {"factor": 10}},
    "workflows": [
        {"name": "orders", "binding": "ORDERS", "class_name": "Order", "limits": {"steps": 50}},
        {"name": "kids", "binding": "KIDS", "class_name": "Kid", "schedules": "0 4 1 1 *"},
    ],
}

Project = Callable[..., None]


@pytest.fixture
def project(wrangler: Wrangler) -> Project:
    """`project(config, files)` writes what wrangler is to deploy, by default the shop."""

    def write(config: dict[str, Any] | None = None, **files: str) -> None:
        source = wrangler.folder / "src"
        source.mkdir(exist_ok=True)
        for name, text in (files or {"index.ts": SHOP, "numbers.ts": NUMBERS, "notes.txt": "a note\n"}).items():
            (source / name).write_text(text)
        _write_config(wrangler.folder, config or CONFIG)

    return write


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "wrangler.json").write_text(json.dumps(config))


def version_in(said: str, label: str) -> str:
    """The id behind `label` in what wrangler said."""
    [line] = [line for line in said.splitlines() if line.strip().startswith(label)]
    return line.split(":", 1)[1].split()[-1]


async def script(cloud: Cloud, path: str) -> Any:
    """What the API says about the shop."""
    answer = await cloud.http.get(f"/workers/scripts/shop{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


async def test_a_project_from_the_first_deploy_to_the_end(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project()
    said = await wrangler.done("deploy")
    assert "workflow: orders" in said and "workflow: kids" in said
    first = version_in(said, "Current Version ID:")
    assert [one["id"] for one in (await script(cloud, "/versions"))["items"]] == [first]
    await wrangler("trigger", "orders", '{"total": 4}', "--id", "one")
    await cloud.until("orders", "one", "waiting")
    assert "price-1" in await wrangler("instances", "describe", "orders", "one")

    await wrangler("instances", "pause", "orders", "one")
    await cloud.until("orders", "one", "paused")
    await wrangler("instances", "resume", "orders", "one")
    await wrangler("instances", "send-event", "orders", "one", "--type", "approve", "--payload", '{"by": "ann"}')
    ended = await cloud.until("orders", "one", "complete")
    expected = {"price": 80, "kid": "kid-of-one", "by": "ann", "greeting": "grüße", "notes": "a note"}
    assert ended.output == expected
    assert (await cloud.until("kids", "kid-of-one", "complete")).output == "KEY is not set"

    await wrangler("instances", "restart", "orders", "one", "--from-step-name", "after")
    again = await cloud.until("orders", "one", "complete")
    assert again.output == expected
    assert [step.start for step in again.steps[:2]] == [step.start for step in ended.steps[:2]]
    step = ("--from-step-name", "approval", "--from-step-type", "waitForEvent")
    await wrangler("instances", "restart", "orders", "one", *step)
    await cloud.until("orders", "one", "waiting")
    await wrangler("instances", "terminate", "orders", "one")
    await cloud.until("orders", "one", "terminated")


async def test_later_deploys(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project()
    await wrangler.done("deploy")
    before = await wrangler.json("describe", "kids")
    (wrangler.folder / "src" / "index.ts").write_text(SHOP.replace("KEY is", "the key is"))
    said = await wrangler.done("deploy", "--message", "say it nicely", "--tag", "v2")
    second = version_in(said, "Current Version ID:")
    after = await wrangler.json("describe", "kids")
    assert (before["id"], before["latest_version"]["id"]) != (after["id"], after["latest_version"]["id"])
    assert before["id"] == after["id"]
    [newest, oldest] = (await script(cloud, "/deployments"))["deployments"]
    assert newest["versions"] == [{"version_id": second, "percentage": 100}]
    assert newest["annotations"] == {"workers/message": "say it nicely"}
    assert oldest["annotations"] == {}
    await wrangler("trigger", "kids", "--id", "k")
    assert (await cloud.until("kids", "k", "complete")).output == "the key is not set"
    assert "say it nicely" in await wrangler.done("deployments", "list")
    assert second in await wrangler.done("deployments", "status")
    listed = await wrangler.done("versions", "list")
    assert second in listed and "v2" in listed
    viewed = await wrangler.done("versions", "view", second)
    assert "GREETING" in viewed and "Workflow" in viewed


async def test_versions_that_wait_and_going_back(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project()
    first = version_in(await wrangler.done("deploy"), "Current Version ID:")
    (wrangler.folder / "src" / "index.ts").write_text(SHOP.replace("KEY is", "the key is"))
    second = version_in(await wrangler.done("versions", "upload", "--message", "later"), "Worker Version ID:")
    assert (await script(cloud, "/deployments"))["deployments"][0]["versions"][0]["version_id"] == first

    async def told(id: str) -> Any:
        await wrangler.done("triggers", "deploy")
        await wrangler("trigger", "kids", "--id", id)
        return (await cloud.until("kids", id, "complete")).output

    assert await told("a") == "KEY is not set"
    await wrangler.done("versions", "deploy", f"{second}@100", "--yes")
    assert await told("b") == "the key is not set"
    assert first in await wrangler.done("rollback", first, "--yes", "--message", "oops")
    assert await told("c") == "KEY is not set"
    shared = await wrangler.fails("versions", "deploy", f"{first}@50", f"{second}@50", "--yes")
    assert "instances are not split between versions" in shared


async def test_secrets(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project()
    await wrangler.done("deploy")

    async def told(id: str) -> Any:
        await wrangler("trigger", "kids", "--id", id)
        return (await cloud.until("kids", id, "complete")).output

    async def names() -> list[str]:
        return [one["name"] for one in json.loads(await wrangler.done("secret", "list", "--format", "json"))]

    assert "Success" in await wrangler.done("secret", "put", "KEY", typed="hunter2")
    assert await names() == ["KEY"]
    assert await told("a") == "KEY is hunter2"
    await wrangler.done("deploy")
    assert await told("b") == "KEY is hunter2", "a deploy keeps secrets"
    (wrangler.folder / "bulk.json").write_text(json.dumps({"KEY": "swordfish", "OTHER": "x"}))
    await wrangler.done("secret", "bulk", "bulk.json")
    assert await told("c") == "KEY is swordfish"
    await wrangler.done("secret", "delete", "KEY")
    assert await names() == ["OTHER"]
    assert await told("d") == "KEY is not set"
    made = await wrangler.done("versions", "secret", "put", "KEY", typed="later")
    assert "KEY" in made and await names() == ["OTHER"]
    assert "not found" in (await wrangler.fails("secret", "list", "--name", "nobody")).lower()
    everything = json.dumps([await script(cloud, path) for path in ("/versions", "/settings", "/secrets")])
    assert not any(text in everything for text in ("hunter2", "swordfish", "later"))


async def test_workflows_declared_as_exports(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "workflows"}
    project(config | {"exports": {"Kid": {"type": "workflow", "name": "kids", "limits": {"steps": 5}}}})
    assert "workflow: kids" in await wrangler.done("deploy")
    await wrangler.done("deploy")
    await wrangler("trigger", "kids", "--id", "k")
    assert (await cloud.until("kids", "k", "complete")).output == "KEY is not set"


async def test_what_is_refused(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project()
    (wrangler.folder / "src" / "index.ts").write_text(SHOP + "export class Plain {}")
    _write_config(wrangler.folder, CONFIG | {"workflows": [{"name": "kids", "binding": "KIDS", "class_name": "Plain"}]})
    assert "exports no class 'Plain'" in await wrangler.fails("deploy")
    project(CONFIG | {"triggers": {"crons": ["0 4 * * *"]}})
    assert "give `schedules` to a workflow" in await wrangler.fails("deploy")
    project(CONFIG | {"kv_namespaces": [{"binding": "STORE", "id": "0" * 32}]})
    assert "'STORE' has type 'kv_namespace'" in await wrangler.fails("deploy")
    project(CONFIG | {"workflows": []}, **{"index.ts": "throw new Error('not today'); export default {}"})
    assert "not today" in await wrangler.fails("deploy")
    assert "millrace instances logs" in await wrangler.fails("tail", "shop")
    assert len((await script(cloud, "/versions"))["items"]) == 2, "what was refused as an upload left nothing"


async def test_delete(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project()
    await wrangler.done("deploy")
    assert "workflows run this script: kids, orders" in await wrangler.fails("delete", "shop")
    await wrangler.done("delete", "shop", "--force")
    assert (await cloud.http.get("/workers/scripts")).json()["result"] == []
    await wrangler("trigger", "kids", "--id", "k")
    assert (await cloud.until("kids", "k", "complete")).output == "KEY is not set"
    assert "workflow: kids" in await wrangler.done("deploy")
    assert [one["number"] for one in (await script(cloud, "/versions"))["items"]] == [1]
    await wrangler("delete", "orders")
    await wrangler("delete", "kids")
    await wrangler.done("delete", "shop")


PYTHON = """
from helper import double
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint


class Flow(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("double")
        async def doubled():
            return double(event["payload"]["n"])

        return [await doubled(), self.env.GREETING]


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("never asked")
"""


async def test_a_python_project(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    config = CONFIG | {
        "main": "src/entry.py",
        "compatibility_flags": ["python_workers", "python_workflows"],
        "workflows": [{"name": "flow", "binding": "FLOW", "class_name": "Flow"}],
    }
    project(config, **{"entry.py": PYTHON, "helper.py": "def double(n):\n    return n * 2\n"})
    assert "workflow: flow" in await wrangler.done("deploy")
    await wrangler("trigger", "flow", '{"n": 21}', "--id", "one")
    assert (await cloud.until("flow", "one", "complete")).output == [42, "grüße"]


async def test_workers_dev_stays_off(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project({key: value for key, value in CONFIG.items() if key != "workers_dev"})
    said = await wrangler.done("deploy")
    assert "workflow: orders" in said
    assert await script(cloud, "/subdomain") == {"enabled": False, "previews_enabled": False}


async def test_a_secret_before_the_first_deploy(wrangler: Wrangler, cloud: Cloud, project: Project) -> None:
    project()
    await wrangler.done("secret", "put", "KEY", typed="early")
    await wrangler.done("deploy")
    await wrangler("trigger", "kids", "--id", "k")
    assert (await cloud.until("kids", "k", "complete")).output == "KEY is early"
