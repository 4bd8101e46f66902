"""Sandboxes by themselves: how long a script takes from nothing to its first step, and to be replayed.

`python -m bench.sandbox` prints the figures as JSON, those of Python as `python_…`. No database: what is measured is
the process, the engine in it and the frames between them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import uvloop

from app.cli.garbage import collect_seldom, spare_what_stands
from instances.runtimes.javascript import runtime as javascript
from instances.runtimes.protocol import Done, RunContext, Started, StepKey, StepKind, StoredVersion
from instances.runtimes.python import runtime as python
from instances.runtimes.scripts.isolate import Isolate
from instances.runtimes.scripts.loading import LoadedScript
from instances.runtimes.scripts.program import ScriptProgram, Surroundings
from instances.sandbox.host import SandboxHost
from instances.sandbox.pool import SandboxPool
from tenants.clock import Clock
from versions.compilation import JAVASCRIPT, PYTHON, Code
from versions.javascript.modules import translate

STARTS = 20
STEPS = 1_000
REPLAYS = 10
RUNS = 200
ACCOUNT = UUID(int=1)
JAVASCRIPT_SCRIPT = """
import { WorkflowEntrypoint } from "cloudflare:workers";
export class Bench extends WorkflowEntrypoint {
  async run(event, step) {
    let sum = 0;
    for (let i = 0; i < event.payload.steps; i++) sum += await step.do("add", async () => i);
    return sum;
  }
}
"""
PYTHON_SCRIPT = """
from workers import WorkflowEntrypoint

class Bench(WorkflowEntrypoint):
    async def run(self, event, step):
        total = 0
        for i in range(event["payload"]["steps"]):
            @step.do("add")
            async def add():
                return i
            total += await add()
        return total
"""


def _javascript() -> LoadedScript:
    code = [Code("main.js", translate("main.js", JAVASCRIPT_SCRIPT).text)]
    return LoadedScript(main="main.js", code=code, modules=[{"name": "main.js", "type": "js"}])


def _python() -> LoadedScript:
    code, modules = [Code("main.py", PYTHON_SCRIPT)], [{"name": "main.py", "type": "python"}]
    flags = frozenset({"python_workflows", "python_workflows_implicit_dependencies"})
    return LoadedScript(language=PYTHON, main="main.py", code=code, modules=modules, flags=flags)


LANGUAGES = {
    JAVASCRIPT: (javascript.sandbox_options, _javascript, ""),
    PYTHON: (python.sandbox_options, _python, "python_"),
}


class Sandboxes:
    """Runs of the script, each version key with a process of its own."""

    def __init__(self, pool: SandboxPool[Isolate], script: LoadedScript) -> None:
        self._script = script
        self._around = Surroundings(pool=pool, handlers={}, now=lambda: datetime.now(UTC))

    def program(self) -> ScriptProgram:
        version = StoredVersion(
            ACCOUNT,
            uuid4(),
            uuid4(),
            "bench",
            "bench",
            1,
            1,
            self._script.language,
            "Bench",
            "",
            "{}",
            25_000,
            ACCOUNT,
            uuid4(),
        )
        return ScriptProgram(version, self._script, self._around)


def _run() -> RunContext:
    return RunContext(
        account_id=ACCOUNT,
        key=uuid4(),
        instance_id="bench",
        run=1,
        workflow_key=ACCOUNT,
        workflow="bench",
        workspace_id=ACCOUNT,
        version_key=ACCOUNT,
        input=json.dumps({"steps": STEPS}),
        created_at=datetime.now(UTC),
    )


def _past(at: datetime) -> list[Any]:
    return [Done(StepKey(StepKind.DO, "add", n + 1), str(n), at) for n in range(STEPS)]


async def _first_step(program: ScriptProgram) -> float:
    """Seconds from a program that has no sandbox, or one, to a run's first step."""
    began = time.perf_counter()
    session = await program.start(_run(), lambda: None)
    commands = await session.turn([Started(datetime.now(UTC))])
    taken = time.perf_counter() - began
    assert commands
    await session.close()
    return taken


async def measure(language: str) -> dict[str, float]:
    options, script, prefix = LANGUAGES[language]
    host = SandboxHost(language, options())
    pool: SandboxPool[Isolate] = SandboxPool(host, Clock(datetime.now(UTC)))
    sandboxes = Sandboxes(pool, script())
    collect_seldom()  # as workers do
    try:
        await pool.warm()
        spare_what_stands()
        fresh = []
        for _ in range(STARTS):
            await asyncio.sleep(
                0.1
            )  # until there is a spare again: two that start at once would take each other's time
            began = time.perf_counter()
            process = await host.spawn()
            await process.ready()
            spawned = time.perf_counter() - began
            await process.close()
            fresh.append((spawned, await _first_step(sandboxes.program())))
        program = sandboxes.program()
        await _first_step(program)
        hot = [await _first_step(program) for _ in range(STARTS)]
        replays = []
        for _ in range(REPLAYS):
            session = await program.start(_run(), lambda: None)
            now = datetime.now(UTC)
            told = [Started(now), *_past(now)]  # a run that is opened has read it from the journal
            began = time.perf_counter()
            commands = await session.turn(told)
            replays.append(time.perf_counter() - began)
            assert len(commands) == STEPS + 1
            await session.close()
        memory = await _memory(sandboxes.program())
    finally:
        await pool.close()
        await host.close()
    return {
        f"{prefix}fresh_ms": 1000 * _median([spawned + first for spawned, first in fresh]),
        f"{prefix}warm_ms": 1000 * _median([first for _, first in fresh]),
        f"{prefix}hot_ms": 1000 * _median(hot),
        f"{prefix}replay_ms": 1000 * _median(replays),
        f"{prefix}memory_mb": memory / 1e6,
    }


async def _memory(program: ScriptProgram) -> float:
    """Bytes that this process and the sandbox have with many runs of one version open."""
    sessions = [await program.start(_run(), lambda: None) for _ in range(RUNS)]
    for session in sessions:
        await session.turn([Started(datetime.now(UTC))])
    isolate = sessions[0].isolate  # type: ignore[union-attr]
    here = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    there = isolate.process.memory() or 0
    for session in sessions:
        await session.close()
    return here + there


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.write(json.dumps({**runner.run(measure(JAVASCRIPT)), **runner.run(measure(PYTHON))}))
