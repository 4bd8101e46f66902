"""Durations and moments as callers write them: integer milliseconds, or `"<number> <unit>"`; RFC 3339 or a date.

Units are second, minute, hour, day, week (7 days), month (30 days) and year (365.25 days), with or without an `s`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
MONTH = 30 * DAY
YEAR = 365 * DAY + 6 * HOUR
MAX_WAIT = 365 * DAY
"""Longest sleep, wait, total timeout and instance limit."""
MAX_ATTEMPT = DAY
"""Longest timeout of one attempt of a step that runs code."""

UNITS = {"second": SECOND, "minute": MINUTE, "hour": HOUR, "day": DAY, "week": WEEK, "month": MONTH, "year": YEAR}

_STRICT = re.compile(r"([0-9]{1,15})\s+(second|minute|hour|day|week|month|year)s?")
_LOOSE = re.compile(
    r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(?:(ms|millisecond|second|minute|hour|day|week|month|year)s?)?\s*"
)


def parse_duration(value: int | str, *, minimum_ms: int = 0, maximum_ms: int = MAX_WAIT, loose: bool = False) -> int:
    """Milliseconds of `value`. Raises ValueError whose text is the rule that was broken (`must be ...`).

    `loose` is what scripts may write besides: decimals, numbers as text, `ms`, and any spacing; it rounds down.
    A text in years that passes the maximum only because of leap days means the maximum: "1 year" is a legal wait.

    >>> parse_duration("2 hours")
    7200000
    >>> parse_duration("1.5 seconds", loose=True)
    1500
    """
    if isinstance(value, str):
        amount, unit = _split(value, loose)
    elif _is_number(value, loose):
        amount, unit = value, 1
    else:
        raise ValueError(_form(loose))
    exact = amount * unit
    if exact > maximum_ms and unit == YEAR and amount * 365 * DAY <= maximum_ms:
        exact = maximum_ms
    if not minimum_ms <= exact <= maximum_ms:
        raise ValueError(f"must be between {minimum_ms} and {maximum_ms} milliseconds")
    return int(exact)


def _is_number(value: object, loose: bool) -> bool:
    if isinstance(value, float):
        return loose or value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _split(text: str, loose: bool) -> tuple[float, int]:
    if loose:
        match = _LOOSE.fullmatch(text)
        if match is None:
            raise ValueError(_form(loose))
        number, unit = match.groups()
        amount = float(number) if "." in number else int(number)
        return amount, UNITS.get(unit or "", 1)
    match = _STRICT.fullmatch(text)
    if match is None:
        raise ValueError(_form(loose))
    return int(match[1]), UNITS[match[2]]


def _form(loose: bool) -> str:
    number = "a number of milliseconds" if loose else "an integer number of milliseconds"
    return f'must be {number} or "<number> <unit>" with a unit from second to year, like "30 seconds"'


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MOMENT_MS = 253_402_300_799_999
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)


def parse_moment(value: object) -> int:
    """Epoch milliseconds of a point in time: RFC 3339 text, a bare date (both UTC unless they say otherwise), or such
    a number, within 1970 to 9999. Raises ValueError whose text is the rule that was broken (`must be ...`).

    >>> parse_moment("1970-01-02")
    86400000
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LAST_MOMENT_MS:
        return int(value)
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper())
        except ValueError:
            pass
        else:
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return min(max(0, (moment - _EPOCH) // timedelta(milliseconds=1)), _LAST_MOMENT_MS)
    raise ValueError("must be an RFC 3339 timestamp, a date or epoch milliseconds")
