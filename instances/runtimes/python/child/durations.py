"""Durations: milliseconds, or "<number> <unit>"."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

UNITS = {
    "ms": 1, "millisecond": 1, "second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000,
    "week": 604_800_000, "month": 2_592_000_000, "year": 31_557_600_000,
}  # fmt: skip
YEAR = 365 * 86_400_000
_DURATION = re.compile(
    r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(ms|millisecond|second|minute|hour|day|week|month|year)?s?\s*", re.ASCII
)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def millis(duration: Any) -> float | None:
    """Milliseconds, or None for what is no duration."""
    if is_number(duration):
        return float(duration) if 0 <= duration < float("inf") else None
    found = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    if found is None:
        return None
    count, unit = float(found[1]), found[2] or "ms"
    value = count * UNITS[unit]
    return YEAR if unit == "year" and count <= 1 and value > YEAR else value
