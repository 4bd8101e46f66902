"""Workflows that many tests of the engine run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from instances.runtimes.protocol import Broken, Child, RunContext, Sleep, StepKey, StepKind, Wait
from tests.support.engine import ScriptFailed, step

Steps = Generator[list[Any], list[Any], str | None]


def one_step(run: RunContext) -> Steps:
    """A step `a`; its output."""
    [message] = yield [step("a")]
    return outcome(message)


def awaits_go(run: RunContext) -> Steps:
    """Waits a minute for `go`; the event."""
    [message] = yield [wait("w", "go")]
    return outcome(message)


def naps(run: RunContext) -> Steps:
    """Sleeps for a minute."""
    yield [nap("nap")]
    return "1"


def calls_child(run: RunContext) -> Steps:
    """Runs the workflow `child`; its output."""
    [message] = yield [step("kid", child=Child("child", '{"n":1}'))]
    return outcome(message)


def wait(name: str, type: str, count: int = 1, *, seconds: float = 60, **options: Any) -> Wait:
    return Wait(StepKey(StepKind.WAIT, name, count), type, int(seconds * 1000), **options)


def nap(name: str, count: int = 1, *, seconds: float = 60, **options: Any) -> Sleep:
    return Sleep(StepKey(StepKind.SLEEP, name, count), duration=int(seconds * 1000), **options)


def outcome(message: Any) -> str | None:
    """A step's value; a step's failure fails the run."""
    if isinstance(message, Broken):
        raise ScriptFailed(message.failure.message)
    return message.value
