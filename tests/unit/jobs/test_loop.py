"""Loops: pauses, wakes, failures. No test waits for a pause."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from structlog.testing import capture_logs

from jobs.loops.loop import JITTER, MAX_BACKOFF, Loop


def loop(tick: Callable[[], Awaitable[bool]], *, interval: float = 1.0, chance: float = 0.0) -> Loop:
    return Loop("test", tick, interval=interval, chance=lambda: chance)


async def idle() -> bool:
    return False


async def busy() -> bool:
    return True


async def test_an_idle_loop_pauses_for_its_interval_less_jitter() -> None:
    assert await loop(idle).turn() == 1.0
    assert await loop(idle, chance=1.0).turn() == 1.0 - JITTER


async def test_a_busy_loop_does_not_pause() -> None:
    assert await loop(busy).turn() == 0.0


async def test_what_takes_long_is_done_seldom() -> None:
    seconds = iter([0.0, 0.001, 10.0, 10.05, 20.0, 22.0])
    duty = Loop("test", idle, interval=10.0, rest=500.0, chance=lambda: 0.0, timer=lambda: next(seconds))
    assert [round(await duty.turn(), 6) for _ in range(3)] == [10.0, 25.0, 1000.0]


async def test_failures_are_logged_and_back_off_up_to_a_limit() -> None:
    broken = True

    async def tick() -> bool:
        if broken:
            raise OSError("away")
        return False

    duty = loop(tick)
    with capture_logs() as logs:
        pauses = [await duty.turn() for _ in range(30)]
    assert pauses[:4] == [1.0, 2.0, 4.0, MAX_BACKOFF]
    assert set(pauses[3:]) == {MAX_BACKOFF}
    assert [entry["event"] for entry in logs] == ["loop_failed"] * 30
    broken = False
    assert await duty.turn() == 1.0
    assert duty.failures == 0


async def test_a_failure_does_not_end_the_loop_and_a_wake_ends_its_pause() -> None:
    ticks: asyncio.Queue[int] = asyncio.Queue()
    count = 0

    async def tick() -> bool:
        nonlocal count
        count += 1
        ticks.put_nowait(count)
        if count == 1:
            raise ValueError("first")
        return False

    duty = loop(tick, interval=3600)
    await duty.start()
    async with asyncio.timeout(10):
        for expected in (1, 2, 3):
            duty.wake()
            assert await ticks.get() == expected
    await duty.stop()
    duty.wake()
    await asyncio.sleep(0)
    assert ticks.empty()


async def test_a_wake_during_a_tick_is_not_lost() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    count = 0

    async def tick() -> bool:
        nonlocal count
        count += 1
        entered.set()
        await leave.wait()
        return False

    duty = loop(tick, interval=3600)
    await duty.start()
    async with asyncio.timeout(10):
        duty.wake()
        await entered.wait()
        entered.clear()
        duty.wake()
        leave.set()
        await entered.wait()
    assert count == 2
    await duty.stop()


async def test_stopping_cancels_a_tick() -> None:
    entered = asyncio.Event()
    cancelled = False

    async def tick() -> bool:
        nonlocal cancelled
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise
        return False

    duty = loop(tick)
    await duty.start()
    await entered.wait()
    await duty.stop()
    assert cancelled
    await duty.stop()
