"""The event loop of long-running processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from app.cli.garbage import collect_seldom


def run_async(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop, or on asyncio's own loop where there is none (Windows).

    SIGTERM and SIGINT cancel it, and it ends without an error, until it handles them itself: a process that is told to
    stop while it still starts takes down what it has started.
    """
    collect_seldom()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_told_to_stop(main))


async def _until_told_to_stop(main: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    running = loop.create_task(main)
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        if not told:
            raise
