"""The time a figure is about, and the buckets it is cut into. Times are UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from app.errors import InvalidRequest

BUCKETS_MAX = 1_000


class Granularity(Enum):
    """Length of a bucket, and of the window when none is given. Weeks begin on Mondays."""

    HOUR = timedelta(hours=1), timedelta(hours=24)
    DAY = timedelta(days=1), timedelta(days=30)
    WEEK = timedelta(weeks=1), timedelta(weeks=12)

    def __init__(self, length: timedelta, window: timedelta) -> None:
        self.length = length
        self.window = window


_A_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
"""Hours and days begin as this does, too."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `since`, included, to `until`, not included."""

    since: datetime
    until: datetime
    granularity: Granularity

    @property
    def first(self) -> datetime:
        """Start of the first bucket, which may begin before the window."""
        return bucket_of(self.since, self.granularity)

    @property
    def buckets(self) -> list[datetime]:
        """Starts of all buckets."""
        length = self.granularity.length
        return [self.first + length * number for number in range(-(-(self.until - self.first) // length))]


def bucket_of(moment: datetime, granularity: Granularity) -> datetime:
    """Start of the bucket a time is in."""
    return moment - (moment - _A_MONDAY) % granularity.length


def window(since: datetime | None, until: datetime | None, granularity: Granularity, now: datetime) -> Window:
    """The window asked for; without an end it ends now, without a beginning it has the granularity's usual length.

    Raises :class:`InvalidRequest` when it ends before it begins or has more than 1,000 buckets.
    """
    end = now if until is None else until
    try:
        begin = end - granularity.window if since is None else since
    except OverflowError:
        raise InvalidRequest("the end of the window is too early") from None
    if begin >= end:
        raise InvalidRequest("the window must begin before it ends")
    if end - bucket_of(begin, granularity) > BUCKETS_MAX * granularity.length:
        raise InvalidRequest(f"the window has more than {BUCKETS_MAX} buckets; shorten it or take larger buckets")
    return Window(begin, end, granularity)
