"""Letting other runs have the worker's loop: steps that only compute are run in place, and there may be many."""

from __future__ import annotations

import asyncio
import time

import structlog

from instances.engine.runs.held import Held

log = structlog.get_logger(__name__)

BREATH = 0.02
"""Seconds for which a run may keep the worker's loop to itself."""
SLOW_TURN = 1.0
"""Seconds from which on keeping it is worth a line in the worker's log."""


class Breath:
    """How long one run has had the loop."""

    __slots__ = ("_began", "_held")

    def __init__(self, held: Held) -> None:
        self._held = held
        self._began = 0.0

    def begin(self) -> None:
        """The run has the loop from now on."""
        self._began = time.perf_counter()

    async def pause(self) -> None:
        """Let others have the loop if this run has had it for long."""
        seconds = time.perf_counter() - self._began
        if seconds < BREATH:
            return
        if seconds > SLOW_TURN:
            workflow = self._held.context.workflow
            log.warning("slow_turn", workflow=workflow, seconds=round(seconds, 3), **self._held.log_fields)
        await asyncio.sleep(0)
        self.begin()
