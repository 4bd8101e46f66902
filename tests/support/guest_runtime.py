"""Scripts on the engine without a sandbox: the real program and session, on the stand-in process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from instances.runtimes.protocol import StoredVersion
from instances.runtimes.scripts.isolate import Isolate
from instances.runtimes.scripts.loading import LoadedScript
from instances.runtimes.scripts.operations import Handler
from instances.runtimes.scripts.program import ScriptProgram, Surroundings
from tests.support.engine import ScriptRuntime
from tests.support.guest import GuestProcess


class _Lease:
    def __init__(self, process: GuestProcess, opened: Isolate) -> None:
        self.process, self.opened = process, opened

    def release(self) -> None:
        pass


class GuestPool:
    """One process at a time; a dead one is replaced."""

    def __init__(self, runtime: GuestRuntime) -> None:
        self._runtime = runtime
        self._current: _Lease | None = None

    async def lease(self, account_id: UUID, key: UUID, open: Callable[[Any], Awaitable[Isolate]]) -> _Lease:
        if self._current is None or not self._current.process.alive:
            process = GuestProcess({"Script": self._runtime.current})
            process.die_on = self._runtime.die_on
            self._runtime.processes.append(process)
            self._current = _Lease(process, await open(process))
        return self._current


class GuestRuntime(ScriptRuntime):
    """Every version is a script for the stand-in: `Engine.define(handle, script)`; one script per test."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__()
        self.handlers: dict[str, Handler] = {}
        self.processes: list[GuestProcess] = []
        self.die_on: Callable[[dict[str, Any]], str | None] = lambda _: None
        self.current: Any = None
        self._pool = GuestPool(self)
        self._now = now

    async def open(self, version: StoredVersion) -> Any:
        self.current = self.scripts[version.source][0]
        script = LoadedScript(main="main")
        around = Surroundings(
            pool=self._pool,  # type: ignore[arg-type]
            handlers=self.handlers,
            now=self._now,
        )
        return ScriptProgram(version, script, around)
