"""One clock for the whole platform: monotonic time plus the offset to the database's clock.

The wall clock of a host is never read: a skewed host would wake its timers early or spin on timers the database
already calls due. Every flush and claim answer carries the database's time and feeds :meth:`Clock.observe`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import msgspec

TOLERANCE = timedelta(milliseconds=250)
"""Answers on their way are older than the database's clock; less than this is nothing to correct."""


class Clock:
    """Time as the database tells it, advanced by the local monotonic clock between observations.

    >>> clock = Clock(datetime(2026, 1, 1, tzinfo=UTC), monotonic=lambda: 5.0)
    >>> clock.now().isoformat()
    '2026-01-01T00:00:00+00:00'
    """

    def __init__(self, now: datetime, monotonic=time.monotonic) -> None:
        self._monotonic = monotonic
        self._base = now
        self._mark = monotonic()
        self._rate = 1.0

    def now(self) -> datetime:
        """Current time, timezone-aware UTC."""
        return self._base + timedelta(seconds=(self._monotonic() - self._mark) * self._rate)

    def observe(self, database_now: datetime) -> None:
        """Take over the database's time from an answer that just arrived. Never steps back.

        A clock that is ahead (the database's was set back, or the answer is old) goes at half its pace until an
        answer says that it is right.
        """
        current = self.now()
        self._rate = 0.5 if current - database_now > TOLERANCE else 1.0
        self._base, self._mark = max(current, database_now), self._monotonic()


class ManualClock(Clock):
    """A clock that only moves when told to; tests inject it wherever a :class:`Clock` goes."""

    def __init__(self, now: datetime | None = None) -> None:
        super().__init__(now or datetime(2026, 1, 1, tzinfo=UTC), monotonic=lambda: 0.0)

    def advance(self, seconds: float) -> None:
        self._base += timedelta(seconds=seconds)

    def observe(self, database_now: datetime) -> None:
        """A manual clock follows nobody."""


def iso(moment: datetime) -> str:
    """RFC 3339, UTC, milliseconds, `Z`: the one timestamp format all faces send.

    >>> iso(datetime(2026, 1, 2, 3, 4, 5, 67_891, UTC))
    '2026-01-02T03:04:05.067Z'
    """
    # Four times as fast as `isoformat`, and a page of instances has thousands of times.
    text = _encode(moment if moment.tzinfo is UTC else moment.astimezone(UTC)).decode()
    return f"{text[1:24]}Z" if len(text) > _WHOLE_SECONDS else f"{text[1:20]}.000Z"


_encode = msgspec.json.Encoder().encode
_WHOLE_SECONDS = len('"2026-01-02T03:04:05Z"')
