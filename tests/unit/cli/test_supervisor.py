"""Children that end, and starts that fail (app.cli.supervisor)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.cli import supervisor
from app.cli.supervisor import ChildFailed, Supervisor


class Child:
    """Ends at once after its first start; what its later starts do is given."""

    title = "worker"
    log = Path("worker.log")
    lifetime = 0.0

    def __init__(self, *starts: Exception | None) -> None:
        self.starts = list(starts)
        self.ended = asyncio.Event()
        self.ended.set()

    async def wait(self) -> int:
        await self.ended.wait()
        return -9

    async def start(self, _alive: int) -> None:
        outcome = self.starts.pop(0)
        if outcome is not None:
            raise outcome
        self.ended.clear()


@pytest.mark.parametrize("failure", [ChildFailed("It did not start."), OSError(11, "No more processes")])
async def test_a_start_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.001)
    said: list[str] = []
    child = Child(failure, failure, None)
    keeping = asyncio.create_task(Supervisor([], said.append)._keep(child))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while child.starts:
            await asyncio.sleep(0.001)
    keeping.cancel()
    assert said[0] == "The worker ended (signal 9) and is restarted (log: worker.log)."
    assert [line.startswith(str(failure)) for line in said[1:3]] == [True, True]
    assert said[3:] == ["The worker is back."]


@pytest.mark.parametrize(("lifetime", "pauses"), [(6.0, [0.5] * 6), (1.0, [1.0, 2.0, 4.0, 5.0, 5.0, 5.0])])
async def test_whoever_is_killed_again_and_again_is_back_soon(
    monkeypatch: pytest.MonkeyPatch, lifetime: float, pauses: list[float]
) -> None:
    """Killing is not dying of the start; and even what dies of its start is tried again within seconds."""
    slept: list[float] = []
    turn = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await turn(0)

    child = Child(*[None] * len(pauses))
    child.lifetime = lifetime
    monkeypatch.setattr(asyncio, "sleep", sleep)
    keeping = asyncio.create_task(Supervisor([], lambda _: None)._keep(child))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while child.starts:
            child.ended.set()
            await turn(0)
    keeping.cancel()
    assert slept == pauses
