"""Runs that workers died with.

A worker that dies takes all its runs along, and of which one it died, if of any, nobody can tell. So a run with which
workers died again and again before it wrote an entry is opened alone: one at a time in each worker, and not before its
journal says so. With whom a worker dies then is guilty if it happens twice; everybody else is cleared and goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from instances.engine.runs.endings import CLEARED, MAX_DEATHS_ALONE, SUSPECT_AFTER, SUSPECTED
from instances.engine.runs.held import Held
from instances.engine.runs.recorded import Recorded
from instances.engine.runs.unit_of_work import UnitOfWork
from instances.lifecycle import Kind


class Suspicion:
    """Whether a run is under suspicion, and what is done about it."""

    def __init__(self, held: Held, past: Recorded, work: UnitOfWork, gate: asyncio.Lock) -> None:
        """`gate`: the worker's, which lets one suspect through at a time."""
        self._deaths_alone = past.deaths_alone
        self._suspected = past.deaths_alone > 0 or held.takeovers >= SUSPECT_AFTER
        self._work = work
        self._gate = gate
        self._alone = False

    @property
    def proved(self) -> bool:
        """The run is guilty: it must not be opened again."""
        return self._deaths_alone >= MAX_DEATHS_ALONE

    async def stand_alone(self, commit: Callable[[], Awaitable[Any]]) -> None:
        """Of a suspect: returns when no other one is being opened here, and its journal says that this one is."""
        if not self._suspected:
            return
        await self._gate.acquire()
        self._alone = True
        self._work.write(Kind.NOTE, SUSPECTED, self._deaths_alone + 1)
        await commit()

    def clear(self) -> None:
        """The run's code has run and the worker lives. The next commit, which must follow at once, says so."""
        if self._alone:
            self._work.write(Kind.NOTE, CLEARED, 1)
            self.leave()

    def leave(self) -> None:
        """Let the next suspect through, if this one stands in the way."""
        if self._alone:
            self._alone = False
            self._gate.release()
