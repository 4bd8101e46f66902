"""A version of a script, ready to start runs: its sandbox is found or made, its code loaded once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from instances.runtimes.protocol import (
    Attempt,
    CommandMessage,
    Do,
    Fail,
    Failure,
    Message,
    Raw,
    RunContext,
    SessionLost,
    StepFailure,
    StoredVersion,
)
from instances.runtimes.scripts.failures import CPU
from instances.runtimes.scripts.isolate import BLAMELESS, Isolate
from instances.runtimes.scripts.loading import LoadedScript, load_parts
from instances.runtimes.scripts.operations import Handler, Operations, RunFacts
from instances.runtimes.scripts.session import ScriptSession
from instances.sandbox.errors import SandboxDied, SandboxUnavailable
from instances.sandbox.pool import SandboxPool
from instances.sandbox.process import SandboxProcess

LOADING = Failure("WorkflowInternalError", "The script ended its sandbox while it was loaded.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all scripts of a worker share."""

    pool: SandboxPool[Isolate]
    handlers: Mapping[str, Handler]
    now: Callable[[], datetime]


class ScriptProgram:
    """Shared by all runs of a version in this process."""

    def __init__(
        self,
        version: StoredVersion,
        script: LoadedScript,
        surroundings: Surroundings,
        reload: Callable[[], Awaitable[LoadedScript]] | None = None,
    ) -> None:
        """`reload` gives the script again, with its secrets as they are then, for every new sandbox."""
        self._version = version
        self._script = script
        self._around = surroundings
        self._reload = reload

    async def start(self, run: RunContext, wake: Callable[[], None]) -> ScriptSession | BrokenScript:
        script, around, version = self._script, self._around, self._version
        try:
            lease = await around.pool.lease(version.account_id, version.script_id or version.version_key, self._open)
        except (SandboxUnavailable, SandboxDied) as error:
            raise SessionLost(str(error)) from error
        except _DiedLoading as died:
            return BrokenScript(died.failure)
        isolate = lease.opened
        if isolate.loaded is not None and isolate.loaded.failure is not None:
            lease.release()
            error = isolate.loaded.failure.error
            return BrokenScript(Failure(error.name, error.message))
        limits = [limit for limit in (script.subrequests, run.request_limit) if limit is not None]
        facts = RunFacts(
            run.account_id,
            run.key,
            run.instance_id,
            run.workflow,
            run.workspace_id,
            min(limits, default=None),
            run.requests,
        )
        operations = Operations(facts, around.handlers, script.cpu_ms, around.now)
        session = ScriptSession(isolate, run, version.class_name, script.flags, operations, wake, lease.release)
        facts.requested = session.requested
        return session

    async def _open(self, process: SandboxProcess) -> Isolate:
        """Load the script into a fresh process."""
        if self._reload is not None:
            self._script = await self._reload()
        isolate = Isolate(process, self._script.cpu_ms)
        try:
            await isolate.load(load_parts(self._script))
        except SessionLost:
            if isolate.dead in BLAMELESS:
                raise
            raise _DiedLoading(CPU if isolate.dead == "cpu" else LOADING) from None
        return isolate


class _DiedLoading(Exception):
    """The script's own code outside its classes ended the sandbox."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


class BrokenScript:
    """A run of a script that cannot be loaded: it ends with what loading it came to, as would any step of it."""

    takes_past = False
    busy = False

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        return [Fail(self._failure)]

    async def execute(self, step: Do, attempt: Attempt) -> Raw | None:
        raise StepFailure(self._failure)

    async def delay(self, step: Do, attempt: int, failure: Failure) -> int:
        raise StepFailure(self._failure)

    async def close(self) -> None:
        """Nothing is held."""
