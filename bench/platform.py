"""A platform of its own for the measurements: `millrace dev` in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import msgspec

from bench.http import Api
from bench.load import Arguments
from bench.processes import Tree

START_SECONDS = 120
LOAD_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many processes of each kind."""

    api_processes: int = 1
    workers: int = 1


class Platform:
    """The running platform, as the orchestrator uses it."""

    def __init__(self, ready: dict[str, Any], directory: Path, admin: asyncpg.Connection) -> None:
        address = urlsplit(ready["base_url"])
        self.host, self.port = address.hostname or "", address.port or 0
        self.account_id, self.token = ready["account_id"], ready["api_token"]
        self.dsn: str = ready["postgres_dsn"]
        self.directory = directory
        self.admin = admin
        self.processes = Tree(ready["pid"])
        self.api = Api(self.host, self.port, self.account_id, self.token)

    async def deploy(self, name: str, definition: dict[str, Any]) -> None:
        await self.api.call("PUT", f"/workflows/{name}", {"definition": definition})

    async def deploy_script(self, name: str, source: str) -> None:
        """Upload a script that exports the class `Bench`, and make a workflow of it."""
        metadata = json.dumps({"main_module": "main.js"})
        files = {
            "metadata": (None, metadata, "application/json"),
            "main.js": ("main.js", source, "application/javascript+module"),
        }
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {self.token}"}) as client:
            root = f"http://{self.host}:{self.port}/client/v4/accounts/{self.account_id}"
            answer = await client.put(f"{root}/workers/scripts/{name}", files=files)  # type: ignore[arg-type]
        answer.raise_for_status()
        await self.api.call("PUT", f"/workflows/{name}", {"script_name": name, "class_name": "Bench"})

    async def load(
        self,
        workload: str,
        workflow: str,
        count: int,
        *,
        in_flight: int = 50,
        at_ms: int = 0,
        paths: Sequence[str] = (),
    ) -> dict[str, float]:
        """Run a workload of `bench.load` in a process of its own; what it measured."""
        arguments = Arguments(
            host=self.host,
            port=self.port,
            account_id=self.account_id,
            token=self.token,
            workflow=workflow,
            count=count,
            in_flight=in_flight,
            at_ms=at_ms,
            paths=list(paths),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.load",
            workload,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                out, err = await process.communicate(msgspec.json.encode(arguments))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise RuntimeError(f"the load {workload!r} failed:\n{err.decode()[-3000:]}")
        return json.loads(out)

    async def settle(self, workflow: str) -> None:
        """Wait until nothing of `workflow` is ready or held any more."""
        await self.until(workflow, "phase in (0, 1)", 0)

    async def until(self, workflow: str, condition: str, count: int, patience: float = 600) -> None:
        """Wait until as many unfinished instances of `workflow` meet a condition on `live`."""
        question = f"""select count(*) from live l join workflow w using (account_id, workflow_key)
                       where w.handle = $1 and l.{condition}"""
        async with asyncio.timeout(patience):
            while await self.admin.fetchval(question, workflow) != count:
                await asyncio.sleep(0.02)

    async def journal_rows(self) -> tuple[int, int]:
        """Rows of the journal and transactions that wrote some, so far."""
        row = await self.admin.fetchrow(
            "select (select count(*) from journal) as rows, (select count(distinct xid) from feed) as commits"
        )
        assert row is not None
        return row["rows"], row["commits"]

    def kill(self, *roles: str) -> None:
        """kill -9 every process of these roles, at once."""
        for pid in [pid for role in roles for pid in self.processes.pids(role)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def running(layout: Layout, environment: dict[str, str]) -> AsyncIterator[Platform]:
    """A fresh platform; everything of it is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    directory.chmod(0o711)
    ready_file, said = directory / "ready.json", directory / "dev.log"
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.cli.main",
            *("dev", "--port", "0", "--no-examples"),
            *("--data-dir", str(directory / "data"), "--ready-file", str(ready_file)),
            *("--api-processes", str(layout.api_processes), "--workers", str(layout.workers)),
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
    try:
        ready = await _ready(process, ready_file, said)
        admin = await asyncpg.connect(ready["postgres_dsn"])
        platform = Platform(ready, directory, admin)
        try:
            yield platform
        finally:
            platform.api.close()
            await admin.close()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        shutil.rmtree(directory, ignore_errors=True)


async def _ready(process: asyncio.subprocess.Process, ready_file: Path, said: Path) -> dict[str, Any]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                if ready_file.exists():
                    return json.loads(ready_file.read_bytes())
                await asyncio.sleep(0.05)
    raise RuntimeError(f"the platform did not start:\n{said.read_text()[-3000:]}")
