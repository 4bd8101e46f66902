"""The time of one run, and the two ways it is written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tenants.clock import Clock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RunClock:
    """The platform's time, but never before anything this run has written or was woken for."""

    __slots__ = ("_clock", "_latest")

    def __init__(self, clock: Clock, not_before: datetime) -> None:
        self._clock = clock
        self._latest = not_before

    def now(self) -> datetime:
        now = self._clock.now()
        if now > self._latest:
            self._latest = now
        return self._latest

    def millis(self) -> int:
        """Now, in epoch milliseconds."""
        return millis(self.now())


def millis(moment: datetime) -> int:
    """Epoch milliseconds, in which whatever is due is counted."""
    return int(moment.timestamp() * 1000)


def moment(millis: int) -> datetime:
    """The moment of epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=millis)
