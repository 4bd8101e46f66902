"""Runs of scripts on the stand-in process, driven by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from instances.runtimes.protocol import Attempt, CommandMessage, Do, Done, Message, RunContext, Started, StepKey
from instances.runtimes.scripts.isolate import Isolate
from instances.runtimes.scripts.operations import Handler, Operations, RunFacts
from instances.runtimes.scripts.session import ScriptSession
from tests.support.attempts import no_streams
from tests.support.guest import GuestProcess, Script

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Bench:
    """A sandbox with scripts, and sessions in it."""

    def __init__(self, **scripts: Script) -> None:
        self.process = GuestProcess(scripts)
        self.isolate = Isolate(self.process, 30_000)  # type: ignore[arg-type]
        self.woken = 0
        self.released = 0
        self.handlers: dict[str, Handler] = {}
        self.logged: list[tuple[str, str]] = []

    def session(self, script: str = "run", *, input: str | None = None, flags: Sequence[str] = ()) -> ScriptSession:
        run = RunContext(
            account_id=UUID(int=1),
            key=UUID(int=2),
            instance_id="one",
            run=1,
            workflow_key=UUID(int=3),
            workflow="w",
            workspace_id=UUID(int=5),
            version_key=UUID(int=4),
            input=input,
            created_at=START,
        )
        facts = RunFacts(run.account_id, run.key, run.instance_id, run.workflow, run.workspace_id)
        operations = Operations(facts, self.handlers, 30_000, lambda: START)
        return ScriptSession(self.isolate, run, script, frozenset(flags), operations, self._wake, self._release)

    def _wake(self) -> None:
        self.woken += 1

    def _release(self) -> None:
        self.released += 1

    def attempt(self, number: int = 1) -> Attempt:
        return Attempt(
            number, lambda level, text: self.logged.append((level, text)), lambda: START, lambda: False, no_streams
        )

    async def begin(self, session: ScriptSession, *past: Message) -> list[CommandMessage]:
        return await session.turn([Started(START), *past])

    async def perform(self, session: ScriptSession, step: CommandMessage, seconds: float = 1) -> list[CommandMessage]:
        """Run a step's callback, commit, and tell."""
        assert isinstance(step, Do)
        output = await session.execute(step, self.attempt())
        return await session.turn([done(step.key, output, seconds)])


def done(key: StepKey, output: str | None, seconds: float = 1) -> Done:
    return Done(key, output, at(seconds))


def keys(commands: Sequence[Any]) -> list[str]:
    return [f"{command.key.kind}:{command.key.counted}" for command in commands]
