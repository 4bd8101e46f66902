"""Which scheduled time a late schedule fires, and the keys of firings."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobs.schedules.firing import CATCH_UP, catch_up, firing_key
from jobs.schedules.store import DueSchedule

START = datetime(2026, 1, 1, tzinfo=UTC)


def schedule(**fields: Any) -> DueSchedule:
    values: dict[str, Any] = {
        "account_id": UUID(int=1),
        "id": UUID(int=2),
        "cron": None,
        "interval_ms": None,
        "timezone": "UTC",
        "overlap": True,
        "max_runs": None,
        "runs": 0,
        "input": None,
        "next_at": START,
        "handle": "orders",
        "enabled": True,
        "busy": False,
        "shadowed": False,
    }
    return DueSchedule(**{**values, **fields})


@pytest.mark.parametrize("missed", range(14))
@pytest.mark.parametrize("fields", [{"cron": "* * * * *"}, {"interval_ms": 60_000}])
def test_the_latest_ten_are_caught_up(missed: int, fields: dict[str, Any]) -> None:
    now = START + timedelta(minutes=missed, seconds=30)
    expected = START + timedelta(minutes=max(0, missed - CATCH_UP + 1))
    assert catch_up(schedule(**fields), now) == expected


def test_a_firing_that_is_due_right_now_is_fired() -> None:
    assert catch_up(schedule(cron="* * * * *"), START) == START
    assert catch_up(schedule(interval_ms=1000), START) == START


def test_unevenly_spaced_firings_are_counted_not_guessed() -> None:
    """Twelve firings on one day of the year, a year of nothing around them."""
    due = datetime(2026, 7, 1, tzinfo=UTC)
    hourly = schedule(cron="0 0-11 1 7 *", next_at=due)
    assert catch_up(hourly, datetime(2027, 5, 1, tzinfo=UTC)) == due + timedelta(hours=2)


def test_years_of_missed_minutes_are_worked_out_quickly() -> None:
    began = time.process_time()
    now = START + timedelta(days=3650, seconds=1)
    assert catch_up(schedule(cron="* * * * *"), now) == now.replace(second=0) - timedelta(minutes=9)
    assert catch_up(schedule(interval_ms=1), now) == now - timedelta(milliseconds=9)
    assert time.process_time() - began < 0.5


def test_the_key_of_a_firing_is_a_version_7_of_its_time() -> None:
    milliseconds = 1_790_000_000_123
    key = firing_key(UUID(int=7), milliseconds)
    assert key == firing_key(UUID(int=7), milliseconds)
    assert (key.version, key.variant, key.int >> 80) == (7, "specified in RFC 4122", milliseconds)
    assert len({firing_key(UUID(int=n), milliseconds + m) for n in range(20) for m in range(20)}) == 400
