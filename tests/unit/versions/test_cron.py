"""Cron expressions: the Quartz-like dialect, strictness of `next_after`, clocks that jump."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from versions.cron import CronError, next_after, parse_cron

SATURDAY_MORNING = datetime(2026, 11, 21, 9, tzinfo=UTC)
NEW_YORK = "America/New_York"


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", utc(2026, 11, 21, 9, 1)),
        ("*/30 * * * *", utc(2026, 11, 21, 9, 30)),
        ("5/20 * * * *", utc(2026, 11, 21, 9, 5)),
        ("59 23 LW * *", utc(2026, 11, 30, 23, 59)),
        ("0 18 * * 6L", utc(2026, 11, 27, 18)),
        ("0 18 * * friL", utc(2026, 11, 27, 18)),
        ("10 7 * * 2-6", utc(2026, 11, 23, 7, 10)),
        ("10 7 * * mon-Fri", utc(2026, 11, 23, 7, 10)),
        ("0 0 * * 1", utc(2026, 11, 22)),
        ("0 0 * * 7", utc(2026, 11, 28)),
        ("0 0 * * L", utc(2026, 11, 28)),
        ("0 0 * * FRI-SUN", utc(2026, 11, 22)),
        ("0 22-1 * * *", utc(2026, 11, 21, 22)),
        ("0 0 * * 2#1", utc(2026, 12, 7)),
        ("0 0 L * *", utc(2026, 11, 30)),
        ("0 0 L-3 * *", utc(2026, 11, 27)),
        ("0 0 L-2W * *", utc(2026, 11, 27)),
        ("0 0 22W * *", utc(2026, 11, 23)),
        ("0 0 1W 8 *", utc(2027, 8, 2)),
        ("0 0 1W 5 *", utc(2027, 5, 3)),
        ("0 0 31W 1 *", utc(2027, 1, 29)),
        ("0 0 29 feb *", utc(2028, 2, 29)),
        ("0 0 * 2 MON#5", utc(2044, 2, 29)),
        ("0 0 13 * 6", utc(2026, 11, 27)),
        ("0 0 25 * 6L", utc(2026, 11, 25)),
        ("0 0 */10 * *", utc(2026, 12, 1)),
        ("0 0 1 JAN,JUL *", utc(2027, 1, 1)),
        ("0 4 1 1 *", utc(2027, 1, 1, 4)),
    ],
)
def test_next_occurrence(expression: str, expected: datetime) -> None:
    assert next_after(expression, SATURDAY_MORNING) == expected


def test_strictly_after() -> None:
    first = next_after("30 9 * * *", SATURDAY_MORNING)
    assert first == utc(2026, 11, 21, 9, 30)
    assert next_after("30 9 * * *", first) == utc(2026, 11, 22, 9, 30)
    assert next_after("30 9 * * *", utc(2026, 11, 21, 9, 29, 59)) == first


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30W 2 *", "0 0 L-30 2 *"])
def test_a_date_that_never_comes_is_none(expression: str) -> None:
    assert next_after(expression, SATURDAY_MORNING) is None


def test_the_calendar_ends() -> None:
    assert next_after("0 0 1 1 *", utc(9999, 12, 31, 23, 59)) is None


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 0",
        "* * * * 8",
        "*/0 * * * *",
        "*/60 * * * *",
        "1,, * * * *",
        ",1 * * * *",
        "-5 * * * *",
        "5- * * * *",
        "*-5 * * * *",
        "1/ * * * *",
        "* * 5W,6 * *",
        "* * 32W * *",
        "* * L-0 * *",
        "* * L-31 * *",
        "* * * * 6#0",
        "* * * * 6#6",
        "* * * * 1L,2L",
        "* * ? * *",
        "* * * FOO *",
        "@daily",
        "* * \u0663 * *",
        "\u00b2 * * * *",
        "0" * 60 + " * * * *",
        "* * * * *" + " " * 300,
    ],
)
def test_invalid_expressions_are_named(expression: str) -> None:
    with pytest.raises(CronError) as caught:
        parse_cron(expression)
    assert len(expression) > 256 or not expression or f'"{expression}"' in str(caught.value)


class TestClocksThatJump:
    def test_a_skipped_time_fires_at_the_jump(self) -> None:
        assert next_after("30 2 * * *", utc(2026, 3, 8), NEW_YORK) == utc(2026, 3, 8, 7)
        assert next_after("30 2 * * *", utc(2026, 3, 8, 7), NEW_YORK) == utc(2026, 3, 9, 6, 30)

    def test_several_skipped_times_fire_once(self) -> None:
        assert next_after("*/10 2 * * *", utc(2026, 3, 8, 6, 59), NEW_YORK) == utc(2026, 3, 8, 7)
        assert next_after("*/10 2 * * *", utc(2026, 3, 8, 7), NEW_YORK) == utc(2026, 3, 9, 6)

    def test_a_repeated_time_fires_once(self) -> None:
        first = next_after("30 1 * * *", utc(2026, 11, 1, 4), NEW_YORK)
        assert first == utc(2026, 11, 1, 5, 30)
        assert next_after("30 1 * * *", first, NEW_YORK) == utc(2026, 11, 2, 6, 30)

    def test_hourly_follows_real_time(self) -> None:
        moments = [utc(2026, 11, 1, 4)]
        for _ in range(4):
            moments.append(next_after("0 * * * *", moments[-1], NEW_YORK))  # type: ignore[arg-type]
        assert [m.hour for m in moments] == [4, 5, 6, 7, 8]
        spring = next_after("0 * * * *", utc(2026, 3, 8, 6), NEW_YORK)
        assert spring == utc(2026, 3, 8, 7)

    def test_half_hour_change(self) -> None:
        zone = ZoneInfo("Australia/Lord_Howe")
        moment = datetime(2026, 10, 3, 12, tzinfo=UTC)
        fired = next_after("15 2 * * *", moment, "Australia/Lord_Howe")
        assert fired is not None
        assert fired.astimezone(zone).replace(tzinfo=None) == datetime(2026, 10, 4, 2, 30)

    def test_a_day_that_was_left_out(self) -> None:
        fired = next_after("0 12 30 12 *", datetime(2011, 12, 28, tzinfo=UTC), "Pacific/Apia")
        assert fired == datetime(2011, 12, 30, 10, tzinfo=UTC)  # the moment the 30th was skipped
