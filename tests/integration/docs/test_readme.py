"""README, done as it says: every command of its walk-through, against a `millrace dev` of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.installation import Ready
from tests.support.dev_server import DevServer
from tests.support.docs import ROOT
from tests.support.servers import scratch_home

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("pgrep")), reason="README uses curl and pgrep"),
]

README = (ROOT / "README.md").read_text(encoding="utf-8")
WALK, KILL = "Your first workflow, in three minutes", "Kill it"


def section(title: str) -> list[tuple[str, str]]:
    """The fenced blocks below a heading: language and text."""
    text = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder() -> Iterator[Path]:
    home = scratch_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def server(folder, dsn, redis_url) -> Iterator[DevServer]:
    services = {"MILLRACE_DATABASE_URL": dsn, "MILLRACE_REDIS_URL": redis_url}
    server = DevServer(folder / ".millrace", "--no-examples", environment=services)
    yield server.start()
    server.clean_up()


def follow(title: str, folder: Path, ready: Ready) -> str:
    """Do what a section says, in its order; what the commands said."""
    script: list[str] = []
    for language, text in section(title):
        if language == "yaml":
            (folder / f"{re.search(r'^name: (.*)$', text, re.MULTILINE)[1]}.yaml").write_text(text)  # type: ignore[index]
        elif language == "python":
            (folder / "sdk.py").write_text(text)
            script.append(f"{sys.executable} sdk.py")
        else:
            script.append(text.replace("http://127.0.0.1:8484", ready.base_url))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script)],
        cwd=folder,
        env={"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder), "NO_PROXY": "127.0.0.1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_first_workflow(server: DevServer, folder: Path) -> None:
    said = await asyncio.to_thread(follow, WALK, folder, await server.ready())
    assert "deployed order" in said
    assert re.search(r"decision-1\s+waitForEvent\s+waiting", said)
    assert re.search(r"order-7\s+complete", said)
    assert '"output":{"reservation":"res-8","approved_by":"ada"}' in said
    assert "{'reservation': 'res-9', 'approved_by': 'alan'}" in said


@pytest.mark.crash
async def test_killing_the_worker(server: DevServer, folder: Path, admin) -> None:
    said = await asyncio.to_thread(follow, KILL, folder, await server.ready())
    before = re.findall(r"^instances\s+(.*)$", said, re.MULTILINE)[0]
    assert before != "500 complete"
    async with asyncio.timeout(60):  # README waits ten seconds, which a busy machine may not keep
        while await admin.fetchval("select count(*) from instance where status = 6") < 500:
            await asyncio.sleep(0.1)
    made = await admin.fetchrow("select count(*), count(distinct (instance_key, node)) from notification")
    assert tuple(made) == (1000, 1000)
