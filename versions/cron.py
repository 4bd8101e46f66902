"""Cron expressions as Cloudflare reads them: five fields, weekdays 1-7 from Sunday, `L`, `W` and `#`.

    minute 0-59 · hour 0-23 · day of month 1-31 · month 1-12 or JAN-DEC · weekday 1-7 or SUN-SAT

`*`, lists, ranges (which may wrap: `FRI-MON`, `22-3`) and steps everywhere. Day of month also takes `L` (last day),
`L-3`, `LW` (last working day), `L-3W` and `15W` (working day nearest to the 15th, in the same month); weekday also
`L` (Saturday), `6L` (the month's last Friday) and `6#2` (its second Friday). Letters are case-insensitive. When both
day fields are restricted a day matches if either does.
"""

from __future__ import annotations

import dataclasses
import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

MAX_LENGTH = 256
# The rarest date there is, a fifth given weekday in February, comes back after 40 years at the latest.
HORIZON_YEARS = 41
# No zone sets its clock back by more than this today, so no repeated local time lies further behind.
LARGEST_FOLD = timedelta(hours=3)

_MONTHS = {
    "JAN": 1,
    "FEB": 2,
    "MAR": 3,
    "APR": 4,
    "MAY": 5,
    "JUN": 6,
    "JUL": 7,
    "AUG": 8,
    "SEP": 9,
    "OCT": 10,
    "NOV": 11,
    "DEC": 12,
}
_WEEKDAYS = {"SUN": 1, "MON": 2, "TUE": 3, "WED": 4, "THU": 5, "FRI": 6, "SAT": 7}
_SATURDAY, _SUNDAY = 7, 1
_LAST = re.compile(r"L(?:-(\d{1,2}))?(W)?")
_NEAREST = re.compile(r"(\d{1,2})W")
_LAST_WEEKDAY = re.compile(r"([0-9A-Z]+?)L")
_NTH_WEEKDAY = re.compile(r"([0-9A-Z]+)#(\d)")


class CronError(ValueError):
    """The expression is not valid; the text names it and the field at fault."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression. Sets are sorted tuples; weekdays count from 1 = Sunday."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    days: frozenset[int] | None
    """Days of the month, or None when that field does not list days."""
    last: int | None
    """`L`: days before the last one."""
    nearest: int | None
    """`15W`: the day of the month."""
    working: bool
    """`LW`: moved to the nearest working day."""
    any_day: bool
    """Day of month is `*`."""
    weekdays: frozenset[int] | None
    """None: weekday is `*`."""
    nth: int | None
    """`#n`; -1 for `L`. None: every such weekday."""

    def matches(self, day: date) -> bool:
        """Whether the expression fires on `day` at all."""
        return day.month in self.months and day.day in self._days_of(day.year, day.month)

    def _days_of(self, year: int, month: int) -> list[int]:
        """Matching days of one month, ascending."""
        count = monthrange(year, month)[1]
        if self.any_day and self.weekdays is None:
            return list(range(1, count + 1))
        chosen: set[int] = set()
        if not self.any_day:
            chosen |= self._by_date(year, month, count)
        if self.weekdays is not None:
            chosen |= self._by_weekday(year, month, count)
        return sorted(chosen)

    def _by_date(self, year: int, month: int, count: int) -> set[int]:
        if self.days is not None:
            return {day for day in self.days if day <= count}
        day = count - self.last if self.last is not None else self.nearest or 0
        if not 1 <= day <= count:
            return set()
        return {_nearest_working_day(year, month, day, count) if self.working else day}

    def _by_weekday(self, year: int, month: int, count: int) -> set[int]:
        first = _weekday(date(year, month, 1))
        chosen: set[int] = set()
        for weekday in self.weekdays or ():
            days = range(1 + (weekday - first) % 7, count + 1, 7)
            if self.nth is None:
                chosen |= set(days)
            elif self.nth == -1:
                chosen.add(days[-1])
            elif self.nth <= len(days):
                chosen.add(days[self.nth - 1])
        return chosen


def _weekday(day: date) -> int:
    return day.isoweekday() % 7 + 1


def _nearest_working_day(year: int, month: int, day: int, count: int) -> int:
    """The working day nearest to `day` without leaving the month."""
    weekday = _weekday(date(year, month, day))
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == _SUNDAY:
        return day + 1 if day < count else day - 2
    return day


# --- parsing ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron:
    """The expression `text`. Raises :class:`CronError`."""
    if not 1 <= len(text) <= MAX_LENGTH:
        raise CronError(f"a cron expression has 1 to {MAX_LENGTH} characters")
    fields = text.upper().split()
    if len(fields) != 5 or not text.isascii():
        raise CronError(f'cron expression "{text}" must have five fields: minute, hour, day of month, month, weekday')
    try:
        minutes = _values("minute", fields[0], 0, 59)
        hours = _values("hour", fields[1], 0, 23)
        days, last, nearest, working = _day_of_month(fields[2])
        months = _values("month", fields[3], 1, 12, _MONTHS)
        weekdays, nth = _day_of_week(fields[4])
    except CronError as error:
        raise CronError(f'cron expression "{text}": {error}') from None
    return Cron(
        text=text,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        months=tuple(sorted(months)),
        days=days,
        last=last,
        nearest=nearest,
        working=working,
        any_day=fields[2] == "*",
        weekdays=weekdays,
        nth=nth,
    )


def _day_of_month(field: str) -> tuple[frozenset[int] | None, int | None, int | None, bool]:
    if match := _LAST.fullmatch(field):
        offset = int(match[1] or 0)
        if match[1] and not 1 <= offset <= 30:
            raise CronError(f"the offset in day of month {field} must be between 1 and 30")
        return None, offset, None, match[2] is not None
    if match := _NEAREST.fullmatch(field):
        return None, None, _number("day of month", match[1], 1, 31, {}), True
    return frozenset(_values("day of month", field, 1, 31)), None, None, False


def _day_of_week(field: str) -> tuple[frozenset[int] | None, int | None]:
    if field == "*":
        return None, None
    if field == "L":
        return frozenset({_SATURDAY}), None
    if match := _LAST_WEEKDAY.fullmatch(field):
        return frozenset({_number("weekday", match[1], 1, 7, _WEEKDAYS)}), -1
    if match := _NTH_WEEKDAY.fullmatch(field):
        nth = int(match[2])
        if not 1 <= nth <= 5:
            raise CronError(f"the number after # in weekday {field} must be between 1 and 5")
        return frozenset({_number("weekday", match[1], 1, 7, _WEEKDAYS)}), nth
    return frozenset(_values("weekday", field, 1, 7, _WEEKDAYS)), None


def _values(what: str, field: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    """The numbers a list of values, ranges and steps stands for."""
    if field == "*":
        return set(range(low, high + 1))
    chosen: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(f"step of {what}", step_text, 1, high - low, {}) if slash else 1
        first_text, dash, last_text = span.partition("-")
        if span == "*" and slash:
            first, last = low, high
        else:
            first = _number(what, first_text, low, high, names or {})
            last = _number(what, last_text, low, high, names or {}) if dash else high if slash else first
        run = list(range(first, last + 1)) if first <= last else [*range(first, high + 1), *range(low, last + 1)]
        chosen.update(run[::step])
    return chosen


def _number(what: str, text: str, low: int, high: int, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not (text.isdigit() and len(text) <= 3 and low <= int(text) <= high):
        spelled = f" or {next(iter(names))}-{list(names)[-1]}" if names else ""
        raise CronError(f'{what} must be between {low} and {high}{spelled}, not "{text}"')
    return int(text)


# --- next occurrence -------------------------------------------------------------------------------------------


def next_after(cron: Cron | str, moment: datetime, timezone: str = "UTC") -> datetime | None:
    """The first firing strictly after `moment`, in UTC; None when there is none (`0 0 30 2 *`).

    `timezone` is an IANA name. Where a zone's clock jumps: a repeated local time fires once, the first time, and a
    time that is left out fires at the moment of the jump, so that a daily job runs exactly once each day; expressions
    for every hour (`hour` is `*` or all 24) follow real time instead and fire in both repeated hours.

    Raises :class:`CronError` for an invalid expression, `zoneinfo.ZoneInfoNotFoundError` for an unknown zone.
    """
    if isinstance(cron, str):
        cron = parse_cron(cron)
    zone: tzinfo = UTC if timezone == "UTC" else ZoneInfo(timezone)
    moment = moment.astimezone(UTC)
    every_hour = len(cron.hours) == 24
    best: datetime | None = None
    try:
        earliest = (moment.astimezone(zone)).replace(tzinfo=None) - LARGEST_FOLD
        for local in _local_times(cron, earliest):
            instants = _instants(local, zone, every_hour)
            if best is not None and (not instants or instants[0] >= best):
                break
            for instant in instants:
                if instant > moment and (best is None or instant < best):
                    best = instant
        return best
    except OverflowError:
        return None  # the calendar ends with the year 9999


def _local_times(cron: Cron, earliest: datetime) -> Iterator[datetime]:
    """Matching local times from `earliest` on, ascending, within the horizon."""
    for year in range(earliest.year, min(earliest.year + HORIZON_YEARS, 9999) + 1):
        for month in cron.months:
            if (year, month) < (earliest.year, earliest.month):
                continue
            for day in cron._days_of(year, month):
                if (year, month, day) < (earliest.year, earliest.month, earliest.day):
                    continue
                for hour in cron.hours:
                    for minute in cron.minutes:
                        local = datetime(year, month, day, hour, minute)
                        if local >= earliest:
                            yield local


def _instants(local: datetime, zone: tzinfo, every_hour: bool) -> list[datetime]:
    """The moments (UTC, ascending) at which `local` fires in `zone`."""
    if zone is UTC:
        return [local.replace(tzinfo=UTC)]
    first = local.replace(tzinfo=zone)
    second = first.replace(fold=1)
    before, after = first.utcoffset() or timedelta(), second.utcoffset() or timedelta()
    if before == after:
        return [first.astimezone(UTC)]
    if before > after:
        return [first.astimezone(UTC), second.astimezone(UTC)] if every_hour else [first.astimezone(UTC)]
    if every_hour:
        return []
    return [_end_of_gap(local, after - before, zone)]


def _end_of_gap(local: datetime, width: timedelta, zone: tzinfo) -> datetime:
    """The moment the clock jumps over `local`: the first one at which it shows more than `local`."""
    low = (local - width).replace(tzinfo=zone).astimezone(UTC)
    high = (local + width).replace(tzinfo=zone).astimezone(UTC)
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).replace(tzinfo=None) > local:
            high = middle
        else:
            low = middle
    return high.replace(microsecond=0)
