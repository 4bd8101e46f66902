"""A version of a script, ready to start runs: its sandbox is found or made, its code loaded once."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

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
    StoredVersion,
)
from instances.runtimes.scripts.failures import CPU
from instances.runtimes.scripts.isolate import BLAMELESS, Isolate, encode
from instances.runtimes.scripts.operations import Handler, Operations, RunFacts
from instances.runtimes.scripts.session import ScriptSession
from instances.sandbox.errors import SandboxDied, SandboxUnavailable
from instances.sandbox.pool import SandboxPool
from instances.sandbox.process import SandboxProcess

LOADING = Failure("WorkflowInternalError", "The script ended its sandbox while it was loaded.")
CPU_MS = 30_000
"""CPU time of one step attempt when neither the script nor the account says."""


@dataclass(frozen=True, slots=True)
class Code:
    """A module with code, as the sandbox evaluates it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedScript:
    """An upload with everything its sandbox is given. Secrets are in clear text here, and nowhere else."""

    account_id: UUID
    script_id: UUID
    main: str
    code: Sequence[Code]
    """Modules with code, in the order they are given to the sandbox."""
    modules: Sequence[Mapping[str, Any]]
    """All modules: `{name, type: js|python|text|json|data, text? | b64?}`; content only of those without code."""
    vars: Mapping[str, Any] = field(default_factory=dict)
    """Texts, JSON values and secrets, by binding."""
    workflows: Mapping[str, str] = field(default_factory=dict)
    """Workflow bindings: handle by binding."""
    exports: Mapping[str, str] = field(default_factory=dict)
    """Handle of the workflow of each class of this script (`ctx.exports`)."""
    flags: frozenset[str] = frozenset()
    cpu_ms: int = CPU_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all scripts of a worker share."""

    pool: SandboxPool[Isolate]
    handlers: Mapping[str, Handler]
    now: Callable[[], datetime]
    code_kind: bytes
    """First byte of a part with source: `S` JavaScript, `P` Python."""


class ScriptProgram:
    """Shared by all runs of a version in this process."""

    def __init__(self, version: StoredVersion, script: LoadedScript, surroundings: Surroundings) -> None:
        self._version = version
        self._script = script
        self._around = surroundings

    async def start(self, run: RunContext, wake: Callable[[], None]) -> ScriptSession | BrokenScript:
        script, around = self._script, self._around
        try:
            lease = await around.pool.lease(script.account_id, script.script_id, self._open)
        except (SandboxUnavailable, SandboxDied) as error:
            raise SessionLost(str(error)) from error
        except _DiedLoading as died:
            return BrokenScript(died.failure)
        isolate = lease.opened
        if isolate.loaded is not None and isolate.loaded.failure is not None:
            lease.release()
            error = isolate.loaded.failure.error
            return BrokenScript(Failure(error.name, error.message))
        facts = RunFacts(run.account_id, run.key, run.instance_id, run.workflow)
        operations = Operations(facts, around.handlers, script.cpu_ms, around.now)
        return ScriptSession(isolate, run, self._version.class_name, script.flags, operations, wake, lease.release)

    async def _open(self, process: SandboxProcess) -> Isolate:
        """Load the script into a fresh process."""
        script = self._script
        isolate = Isolate(process, script.cpu_ms)
        parts = [_source(self._around.code_kind, code) for code in script.code]
        load = {
            "op": "load",
            "main": script.main,
            "modules": list(script.modules),
            "vars": dict(script.vars),
            "workflows": dict(script.workflows),
            "exports": dict(script.exports),
            "flags": sorted(script.flags),
            "entropy": base64.b64encode(os.urandom(32)).decode(),
        }
        try:
            await isolate.load([*parts, encode(load)])
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


def _source(kind: bytes, code: Code) -> bytes:
    return kind + msgspec.json.encode({"module": code.name}) + b"\n" + code.text.encode("utf-8", "surrogatepass")


class BrokenScript:
    """A run of a script that cannot be loaded: it ends with what loading it came to."""

    takes_past = False
    busy = False

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        return [Fail(self._failure)]

    async def execute(self, step: Do, attempt: Attempt) -> Raw | None:
        raise NotImplementedError("a script that was not loaded has no steps")

    async def delay(self, step: Do, attempt: int, failure: Failure) -> int:
        raise NotImplementedError("a script that was not loaded has no steps")

    async def close(self) -> None:
        """Nothing is held."""
