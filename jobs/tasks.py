"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

INSIST_SECONDS = 0.1


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they are over; what they raise is dropped.

    redis-py 5.3 was seen to lose a cancellation now and then, so a task that goes on is cancelled again.
    """
    pending = {task for task in tasks if task is not None}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=INSIST_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not report it
