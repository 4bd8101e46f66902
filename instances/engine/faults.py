"""Points at which the tests kill a process, to prove that nothing is lost there.

`MILLRACE_TEST_CRASH=<point>[:n]` in a process's environment makes it send itself SIGKILL on its n-th pass of the
point (default: the first). Without the variable a point does nothing. `tests/crash` has a case for each.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

VARIABLE = "MILLRACE_TEST_CRASH"

POINTS: Mapping[str, str] = {
    "after-claim": "runs are claimed in the database; none of them is in memory or driven",
    "before-flush": "a batch of changes is complete in memory; none of it was sent",
    "after-flush": "a batch of changes is committed; its answer was not read",
    "before-acknowledgement": "a run's change is committed and answered; its session does not know",
    "step-not-journaled": "a step's work is done; its result is in memory only",
    "compensation-not-journaled": "a compensation's work is done; its result is in memory only",
    "stream-piece-kept": "a piece of a stream that an attempt returns is committed; the attempt has not completed",
    "timer-due": "the time of a parked run has come; it was not woken",
    "created-not-answered": "instances are committed; neither was the caller answered nor a worker told",
    "event-not-signalled": "an event is committed; neither was the caller answered nor a worker told",
    "command-not-told": "a command (retry, cancel, …) is committed; neither was the caller answered nor a worker told",
    "termination-chunk": "a chunk of a termination job is committed; the holders of its runs were not told",
    "webhook-events-read": "events were found in journals; neither their deliveries nor how far was read is committed",
    "webhook-events-put-up": "deliveries are committed; no sender was told",
    "webhook-claimed": "deliveries are claimed in the database; none of them was sent",
    "webhook-sent": "an endpoint has answered; what came of the attempt was not written",
    "migrations-not-committed": "all migrations are applied and recorded, in a transaction that is not committed",
    "functions-not-installed": "all migrations are committed; the engine's functions are not installed",
    "functions-half-installed": "the functions are replaced, in a transaction that is not committed",
}
"""What has happened at each point, and what has not."""


class Fuse:
    """Ends this process on the n-th pass of a point. Raises ValueError for what names no point."""

    def __init__(self, text: str) -> None:
        self._point, _, count = text.partition(":")
        if self._point not in POINTS:
            raise ValueError(f"{VARIABLE}: there is no point {self._point!r}; the points are {', '.join(POINTS)}")
        self._left = int(count or 1)

    def burn(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_FUSE = Fuse(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def point(name: str) -> None:
    """This process dies here if its environment says so. `name` is one of :data:`POINTS`."""
    if _FUSE is not None:
        _FUSE.burn(name)
