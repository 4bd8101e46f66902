"""Timers of scripts (`setTimeout`, `asyncio.sleep`): in memory, gone with the run. Durable waits are steps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from instances.runtimes.scripts.operations import CallFailed, Handler, RunFacts

MAX_MS = 2**31


def timer_handlers() -> Mapping[str, Handler]:
    return {"timer": _timer}


async def _timer(facts: RunFacts, args: Any) -> dict[str, Any]:
    milliseconds = args.get("ms") if isinstance(args, dict) else None
    if not isinstance(milliseconds, int | float) or not 0 <= milliseconds <= MAX_MS:
        raise CallFailed("TypeError", "a timer's delay must be a number of milliseconds")
    await asyncio.sleep(milliseconds / 1000)
    return {}
