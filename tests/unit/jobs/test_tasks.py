"""Tasks are ended even when they lose a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

from jobs.tasks import end


async def test_a_task_that_swallows_cancellations_ends_all_the_same() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while lost < 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task, None)
    assert task.cancelled()
    assert lost == 2


async def test_what_a_task_raises_is_dropped() -> None:
    async def broken() -> None:
        raise ValueError

    await end(asyncio.create_task(broken()))
    await end()
