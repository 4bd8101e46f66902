"""The two engines: Millrace over its API, and Cloudflare's own, which `wrangler dev` runs on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conformance.cloudflare.node_clients import NodeClients

from .scripts import Act, Script, module

FINISHED = ("complete", "errored", "terminated")
PATIENCE = 12.0
START_SECONDS = 90
WORKFLOWS = {"flow": "Flow", "other": "Other", "undone": "Undone"}
CONFIGURATION = {
    "name": "compared",
    "main": "index.js",
    "compatibility_date": "2026-11-01",
    # workerd has it on by default since 2026-05-14, the engine of wrangler 4.164.0 asks for the flag
    "compatibility_flags": ["workflows_preserve_non_retryable_error_message"],
    "workflows": [{"binding": name.upper(), "name": name, "class_name": cls} for name, cls in WORKFLOWS.items()],
}


@dataclass(frozen=True)
class Engine:
    """Instances of workflows below `url`, by the API that both have."""

    url: str
    client: httpx.AsyncClient
    headers: dict[str, str]
    id_field: str
    """What a create calls the instance's id."""

    async def run(self, number: int, script: Script, id: str) -> dict[str, Any]:
        """The details of an instance of script `number`, once callers have done what they do and it has finished."""
        await self._call("POST", "flow", json={self.id_field: id, "params": {"number": number}})
        end: str | None = None
        for act in script.acts:
            end = await self._do(id, act, end)
        details = await self._until(id, lambda shown: shown["status"] in FINISHED)
        if "globalThis[`undone" in script.body:
            await self._call("POST", "undone", json={self.id_field: id, "params": {"id": id}})
            noted = await self._until(id, lambda shown: shown["status"] in FINISHED, workflow="undone")
            details["undone"] = noted["output"]
        return details

    async def _do(self, id: str, act: Act, end: str | None) -> str | None:
        """Do it. `end`: when the instance ended that was waited for last; returns the same for the next act."""
        what, told = act
        match what:
            case "send":
                await self._call("POST", f"flow/{id}/events/go", json=told)
            case "until":
                end = (await self._until(id, lambda shown: shown["status"] == told))["end"]
            case "until wait":
                await self._until(id, lambda shown: _waits(shown, told))
            case "again":
                await self._until(id, lambda shown: shown["status"] in FINISHED and shown["end"] != end)
            case command:
                await self._call("PATCH", f"flow/{id}/status", json={"status": command, **told})
        return end

    async def _until(self, id: str, holds: Any, *, workflow: str = "flow") -> dict[str, Any]:
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds(shown := await self._call("GET", f"{workflow}/{id}")):
                    await asyncio.sleep(0.02)
                return shown
        except TimeoutError:
            raise AssertionError(f"{self.url}: {await self._call('GET', f'{workflow}/{id}')}") from None

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        workflow, _, rest = path.partition("/")
        url = f"{self.url}/workflows/{workflow}/instances" + (f"/{rest}" if rest else "")
        answer = await self.client.request(method, url, headers=self.headers, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]


def _waits(shown: dict[str, Any], step: str) -> bool:
    """Whether the step has begun, and begun to wait if it is a wait. Cloudflare's engine never says `waiting`."""
    return any(entry.get("name") == step for entry in shown["steps"])


@asynccontextmanager
async def local_engine(clients: NodeClients, folder: Path) -> AsyncIterator[Engine]:
    """Cloudflare's, in `folder`, on a free port."""
    (folder / "index.js").write_text(module() + 'export default { fetch() { return new Response("ok"); } };\n')
    (folder / "wrangler.json").write_text(json.dumps(CONFIGURATION))
    options = ("--port", "0", "--inspector-port", "0", "--ip", "127.0.0.1", "--show-interactive-dev-session=false")
    process = await asyncio.create_subprocess_exec(
        *(clients.node, str(clients.folder / "node_modules/wrangler/bin/wrangler.js"), "dev", *options),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CI": "1", "NO_COLOR": "1"}
        | {"WRANGLER_SEND_METRICS": "false", "WRANGLER_LOG_PATH": str(folder / "logs")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    reading = None
    try:
        url = await _ready(process)
        assert process.stdout is not None
        reading = asyncio.create_task(process.stdout.read())  # so that it can go on writing
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            yield Engine(f"{url}/cdn-cgi/local/explorer/api", client, {}, "id")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if reading is not None:
            reading.cancel()


async def _ready(process: asyncio.subprocess.Process) -> str:
    """Where it listens, once it does."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(START_SECONDS):
        while line := (await process.stdout.readline()).decode():
            said += line
            if found := re.search(r"Ready on (http://\S+)", line):
                return found[1]
    raise AssertionError(f"wrangler dev ended: {said}")
