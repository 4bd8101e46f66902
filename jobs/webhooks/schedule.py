"""When a failed attempt is repeated, and when it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

DELAYS = tuple(
    timedelta(seconds=seconds) for seconds in (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""Before each attempt, counted from the one before: ten in all, over about 75 hours."""
SPREAD = 0.2
"""Part by which a delay is lengthened or shortened at random."""
RETRY_AFTER_MAX = timedelta(hours=24)
DISABLED_AFTER = timedelta(days=5)
DISABLED_FAILURES = 20
"""An endpoint without a success for so long, and with so many failures, is switched off."""
LANES = 8
"""Requests one endpoint gets at once."""
SLOWED_FOR = timedelta(minutes=5)
SLOWED_BY = frozenset({429, 502, 504})
"""Statuses that halve an endpoint's lanes."""
GONE = 410


def next_attempt(made: int, now: datetime, chance: float, retry_after: timedelta | None = None) -> datetime | None:
    """When to try again after `made` attempts; None when there were enough. `chance` is in [0, 1)."""
    if made >= len(DELAYS):
        return None
    delay = DELAYS[made] * (1 - SPREAD + 2 * SPREAD * chance)
    if retry_after is not None:
        delay = max(delay, min(retry_after, RETRY_AFTER_MAX))
    return now + delay


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """What a `Retry-After` asks for: seconds, or a date; None when it says nothing one could understand."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), int(RETRY_AFTER_MAX.total_seconds())))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(timedelta(), (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now)
