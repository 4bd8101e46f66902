"""JavaScript workflows on a running Millrace: uploaded, bound and run as a tenant does it, over HTTP."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec

from tests.support.api import Tenant
from tests.support.live import Live

FINISHED = ("complete", "errored", "terminated")
MODULE = "application/javascript+module"
ONCE = "{ retries: { limit: 0, delay: 0 } }"
"""The configuration of a step that is tried once."""
HEAD = """
import { WorkflowEntrypoint } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";
const gates = new Set();
/** Resolves once the test has opened the gate. */
const opened = async (name) => { while (!gates.has(name)) await new Promise((done) => setTimeout(done, 4)); };
export class Gate extends WorkflowEntrypoint {
  async run(event, step) { await step.do("open", async () => { gates.add(event.payload.name); }); }
}
"""
"""What stands before the code of :meth:`Scripts.flow`. One sandbox serves all runs of a script, so that one of them
can let another go on."""


class Refused(Exception):
    """The API said no: `status` and the first of `errors`."""

    def __init__(self, status: int, errors: list[dict[str, Any]]) -> None:
        self.status, self.errors = status, errors
        self.code: int = errors[0]["code"]
        self.message: str = errors[0]["message"]
        super().__init__(f"{status} {errors}")


class Run:
    """One instance."""

    def __init__(self, scripts: Scripts, workflow: str, id: str) -> None:
        self.scripts, self.workflow, self.id = scripts, workflow, id

    @property
    def path(self) -> str:
        return f"/workflows/{self.workflow}/instances/{self.id}"

    async def details(self) -> dict[str, Any]:
        return await self.scripts.call("GET", self.path)

    async def until(self, *statuses: str, seconds: float = 8) -> dict[str, Any]:
        """The instance's details, once it has one of the statuses; a finished instance that has another fails."""
        async with asyncio.timeout(seconds):
            while True:
                details = await self.details()
                if details["status"] in statuses:
                    return details
                assert details["status"] not in FINISHED, details
                await asyncio.sleep(0.004)

    async def output(self) -> Any:
        """What run() returned."""
        return (await self.until("complete"))["output"]

    async def error(self) -> tuple[str, str]:
        """Name and message of what run() threw."""
        error = (await self.until("errored"))["error"]
        return error["name"], error["message"]

    async def has(self, name: str, **fields: Any) -> dict[str, Any]:
        """The step with this counted name, once it is in the details with these fields."""
        async with asyncio.timeout(8):
            while True:
                for step in (await self.details())["steps"]:
                    if step.get("name") == name and all(step.get(field) == value for field, value in fields.items()):
                        return step
                await asyncio.sleep(0.004)

    async def command(self, command: str, **body: Any) -> None:
        """Pause, resume, terminate or restart it."""
        await self.scripts.call("PATCH", f"{self.path}/status", json={"status": command, **body})

    async def send(self, type: str, payload: Any = None) -> None:
        await self.scripts.call("POST", f"{self.path}/events/{type}", json=payload)

    async def logs(self) -> list[str]:
        """Lines its code wrote."""
        lines = await self.scripts.call("GET", f"{self.path}/logs?per_page=1000")
        return [line["message"] for line in lines if line["source"] == "console"]

    async def open(self, gate: str) -> None:
        """Let code that awaits `opened(gate)` go on."""
        await self.scripts.create(f"{self.workflow}-gate", {"name": gate})


class Scripts:
    """What a tenant does with scripts."""

    def __init__(self, live: Live, tenant: Tenant, client: httpx.AsyncClient) -> None:
        self.live, self.tenant = live, tenant
        self._client = client
        self._numbers = itertools.count(1)

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """The `result` of a request below the account. Raises :class:`Refused`."""
        url = f"{self.live.base_url}{self.tenant.path}{path}"
        answer = await self._client.request(method, url, headers=self.tenant.headers, **options)
        body = answer.json()
        if not body["success"]:
            raise Refused(answer.status_code, body["errors"])
        return body["result"]

    async def upload(
        self,
        name: str,
        modules: Mapping[str, str | bytes | tuple[str | bytes, str]],
        *,
        main: str | None = None,
        bindings: Sequence[Mapping[str, Any]] = (),
        flags: Sequence[str] = (),
        **metadata: Any,
    ) -> Any:
        """Upload a script; the first module is the main one. A module is its text, or (content, content type)."""
        said = {"main_module": main or next(iter(modules)), "bindings": list(bindings)}
        said |= {"compatibility_date": "2026-11-01", "compatibility_flags": list(flags), **metadata}
        files: list[Any] = [("metadata", (None, msgspec.json.encode(said), "application/json"))]
        for path, module in modules.items():
            content, kind = module if isinstance(module, tuple) else (module, MODULE)
            files.append((path, (path, content, kind)))
        return await self.call("PUT", f"/workers/scripts/{name}", files=files)

    async def bind(self, workflow: str, script: str, class_name: str, **body: Any) -> None:
        """Make a class of the script a workflow."""
        await self.call("PUT", f"/workflows/{workflow}", json={"script_name": script, "class_name": class_name, **body})

    async def create(self, workflow: str, params: Any = None, **body: Any) -> Run:
        if params is not None:
            body["params"] = params
        made = await self.call("POST", f"/workflows/{workflow}/instances", json=body)
        return Run(self, workflow, made["id"])

    def name(self) -> str:
        """A name nothing has yet."""
        return f"flow-{next(self._numbers)}"

    async def deploy(self, name: str, code: str, *, head: str = HEAD, **options: Any) -> str:
        """Upload `code`, which has the class Flow, and bind it; the workflow's handle."""
        bindings = [
            {"type": "workflow", "name": "FLOW", "workflow_name": name, "class_name": "Flow"},
            *options.pop("bindings", ()),
        ]
        body = {key: options.pop(key) for key in ("limits", "concurrency") if key in options}
        if "cpu_ms" in body.get("limits", {}):  # of the script; steps are limited per workflow
            options["limits"] = body.pop("limits")
        await self.upload(name, {"index.js": head + code, **options.pop("modules", {})}, bindings=bindings, **options)
        await self.bind(name, name, "Flow", **body)
        if head == HEAD:
            await self.bind(f"{name}-gate", name, "Gate")
        return name

    async def flow(self, run: str, *, name: str | None = None, outside: str = "", **options: Any) -> str:
        """Deploy a workflow whose run(event, step) has the body `run`; its handle."""
        code = f"{outside}\nexport class Flow extends WorkflowEntrypoint {{\nasync run(event, step) {{\n{run}\n}}\n}}\n"
        return await self.deploy(name or self.name(), code, **options)

    async def run(self, run: str, params: Any = None, **options: Any) -> Run:
        """Deploy a workflow and start an instance of it."""
        return await self.create(await self.flow(run, **options), params)
