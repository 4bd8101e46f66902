"""Time limits of attempts, on a loop whose time is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from instances.engine.runs.deadlines import Deadlines


class Timer:
    def __init__(self, due: float, fire: Callable[[], None]) -> None:
        self.due, self.fire = due, fire
        self.cancelled = False

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop that only has timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, fire: Callable[[], None]) -> Timer:
        self.timers.append(Timer(due, fire))
        return self.timers[-1]

    @property
    def standing(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def reach(self, now: float) -> None:
        """Time passes."""
        self.now = now
        for timer in self.standing:
            if timer.due <= now:
                timer.cancel()
                timer.fire()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


def work() -> Any:
    return object()


def test_each_limit_is_kept_when_its_time_has_come(loop: Loop) -> None:
    late: list[str] = []
    deadlines = Deadlines()
    deadlines.set(work(), 5, lambda: late.append("slow"))
    deadlines.set(work(), 2, lambda: late.append("quick"))
    loop.reach(1.9)
    assert late == []
    loop.reach(2)
    assert late == ["quick"]
    loop.reach(5)
    assert late == ["quick", "slow"]
    assert loop.standing == []


def test_what_is_over_in_time_does_not_fire(loop: Loop) -> None:
    late: list[str] = []
    deadlines, over = Deadlines(), work()
    deadlines.set(over, 2, lambda: late.append("over"))
    deadlines.set(work(), 3, lambda: late.append("open"))
    deadlines.clear(over)
    loop.reach(2)
    assert late == [] and [timer.due for timer in loop.standing] == [3]
    loop.reach(3)
    assert late == ["open"]


def test_attempts_one_after_the_other_share_one_timer(loop: Loop) -> None:
    deadlines = Deadlines()
    for number in range(1000):
        loop.now = float(number) / 1000
        attempt = work()
        deadlines.set(attempt, 600, lambda: None)
        deadlines.clear(attempt)
    assert len(loop.timers) == 1


def test_nothing_fires_after_the_end(loop: Loop) -> None:
    late: list[str] = []
    deadlines = Deadlines()
    deadlines.set(work(), 2, lambda: late.append("late"))
    deadlines.close()
    assert loop.standing == []
    loop.reach(9)
    assert late == []
