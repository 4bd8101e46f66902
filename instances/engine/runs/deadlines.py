"""Time limits of the attempts of one run that are answered without a task of their own.

Attempts come and go by the thousand, and hardly any takes as long as it may. So all of a run's share one timer of the
loop. It stands at the earliest limit known when it was set; whoever comes later mostly has a later limit, and leaves it
alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

Fire = Callable[[], None]


class Deadlines:
    """In seconds of the running loop."""

    __slots__ = ("_dues", "_loop", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._dues: dict[asyncio.Future[Any], tuple[float, Fire]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, work: asyncio.Future[Any], seconds: float, fire: Fire) -> None:
        """Call `fire` when that many seconds have passed, unless :meth:`clear` is called for `work` before."""
        due = self._loop.time() + seconds
        self._dues[work] = due, fire
        if self._timer is None or self._timer.when() > due:
            self._wait(due)

    def clear(self, work: asyncio.Future[Any]) -> None:
        self._dues.pop(work, None)

    def close(self) -> None:
        """Fire nothing more."""
        self._dues.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for work, (due, fire) in list(self._dues.items()):
            if due <= now:
                self.clear(work)
                fire()
        if self._dues:
            self._wait(min(due for due, _ in self._dues.values()))
