import pytest
from hypothesis import given
from hypothesis import strategies as st

from versions.durations import DAY, MAX_WAIT, UNITS, parse_duration, parse_moment


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (0, 0),
        (1500, 1500),
        (2.0, 2),
        ("1 second", 1_000),
        ("1 seconds", 1_000),
        ("2 hour", 7_200_000),
        ("5   minutes", 300_000),
        ("1 week", 7 * DAY),
        ("1 month", 30 * DAY),
        ("12 months", 360 * DAY),
        ("1 year", 365 * DAY),
    ],
)
def test_accepted(value, milliseconds):
    assert parse_duration(value) == milliseconds


def test_a_year_is_365_and_a_quarter_days_where_there_is_room():
    assert parse_duration("1 year", maximum_ms=10 * MAX_WAIT) == 365 * DAY + DAY // 4
    assert parse_duration("4 years", maximum_ms=10 * MAX_WAIT) == (4 * 365 + 1) * DAY


@pytest.mark.parametrize(
    "value",
    [
        True,
        None,
        [],
        1.5,
        float("nan"),
        float("inf"),
        "",
        "100",
        "second",
        "1second",
        "1 Second",
        "1.5 hours",
        "-1 hours",
        "1 hour 5 minutes",
        "1 fortnight",
        " 1 hour",
        "1 hour ",
        "1 hours\n",
        "١ hour",
        "9" * 5000 + " seconds",
    ],
)
def test_refused(value):
    with pytest.raises(ValueError, match="must be an integer number of milliseconds"):
        parse_duration(value)


@pytest.mark.parametrize("value", [-1, MAX_WAIT + 1, "366 days", "2 years", 10**30])
def test_out_of_range(value):
    with pytest.raises(ValueError, match=f"must be between 0 and {MAX_WAIT} milliseconds"):
        parse_duration(value)


def test_boundaries_are_inside():
    assert parse_duration(1, minimum_ms=1) == 1
    assert parse_duration(MAX_WAIT) == MAX_WAIT
    with pytest.raises(ValueError, match="between 1 and"):
        parse_duration(0, minimum_ms=1)


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [("100", 100), ("30.5 seconds", 30_500), ("20ms", 20), ("3 milliseconds", 3), (" 1 hour ", 3_600_000), (1.9, 1)],
)
def test_what_scripts_may_write_besides(value, milliseconds):
    assert parse_duration(value, loose=True) == milliseconds


@pytest.mark.parametrize("value", ["1 parsec", "1 hour 5 minutes", "-5", float("nan"), float("inf"), True])
def test_even_loose_has_limits(value):
    with pytest.raises(ValueError, match="must be"):
        parse_duration(value, loose=True)


@given(st.integers(0, 10_000), st.sampled_from(sorted(UNITS)), st.booleans())
def test_text_is_number_times_unit(number, unit, plural):
    text = f"{number} {unit}{'s' if plural else ''}"
    assert parse_duration(text, maximum_ms=10**18) == number * UNITS[unit]


@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()), st.booleans())
def test_anything_gives_milliseconds_in_range_or_value_error(value, loose):
    try:
        result = parse_duration(value, minimum_ms=1, loose=loose)
    except ValueError:
        return
    assert isinstance(result, int)
    assert 1 <= result <= MAX_WAIT


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (0, 0),
        (1.5, 1),
        ("1970-01-02", 86_400_000),
        ("1970-01-01t00:00:01.0019z", 1_001),
        ("1970-01-01 02:00+02:00", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("0001-01-01T00:00:00+23:59", 0),
        ("9999-12-31T23:59:59-23:59", 253_402_300_799_999),
    ],
)
def test_moments(value, milliseconds):
    assert parse_moment(value) == milliseconds


@pytest.mark.parametrize(
    "value", [-1, 10**15, True, None, "", "tomorrow", "2026-13-01", "2026-01-01T25:00Z", "2026-W01-1", "20260101T00Z"]
)
def test_what_is_no_moment(value):
    with pytest.raises(ValueError, match="must be an RFC 3339 timestamp, a date or epoch milliseconds"):
        parse_moment(value)
