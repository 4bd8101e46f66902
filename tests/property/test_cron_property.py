"""`next_after` against a search minute by minute."""

import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from versions.cron import Cron, CronError, next_after, parse_cron


def field(low: int, high: int, extra: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    span = st.tuples(number, number).map("-".join)
    step = st.integers(1, high - low).map(str)
    item = st.one_of(number, span, st.tuples(st.one_of(number, span, st.just("*")), step).map("/".join))
    listed = st.lists(item, min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), listed, *([st.sampled_from(extra)] if extra else []))


EXPRESSIONS = st.tuples(
    field(0, 59),
    field(0, 23),
    field(1, 31, ("L", "LW", "L-5", "L-1W", "1W", "15W", "31W")),
    field(1, 12, ("FEB", "JAN-MAR")),
    field(1, 7, ("L", "6L", "SUNL", "2#2", "FRI#5", "MON-FRI")),
).map(" ".join)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda m: m.replace(tzinfo=UTC))


def fires_at(cron: Cron, local: datetime) -> bool:
    return local.minute in cron.minutes and local.hour in cron.hours and cron.matches(local.date())


@given(EXPRESSIONS, MOMENTS)
@settings(max_examples=300, deadline=None)
def test_first_match_in_utc(expression: str, moment: datetime) -> None:
    cron = parse_cron(expression)
    found = next_after(cron, moment)
    minute = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    limit = minute + timedelta(days=2)
    while minute < limit and not fires_at(cron, minute):
        if not cron.matches(minute.date()):
            minute = minute.replace(hour=0, minute=0) + timedelta(days=1)
        else:
            minute += timedelta(minutes=1)
    if minute < limit:
        assert found == minute
    else:
        assert found is None or (found >= limit and fires_at(cron, found))


@given(
    EXPRESSIONS,
    MOMENTS,
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca"]),
)
@settings(max_examples=300, deadline=None)
def test_in_a_zone_it_is_later_and_matches_or_stands_for_a_skipped_time(
    expression: str, moment: datetime, zone: str
) -> None:
    cron = parse_cron(expression)
    found = next_after(cron, moment, zone)
    if found is None:
        return
    assert found > moment
    info = ZoneInfo(zone)
    local = found.astimezone(info).replace(tzinfo=None)
    jumped = found.astimezone(info).utcoffset() != (found - timedelta(seconds=1)).astimezone(info).utcoffset()
    assert fires_at(cron, local) or jumped
    again = next_after(cron, found - timedelta(seconds=1), zone)
    assert again == found


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(CronError):
        parse_cron(text)
