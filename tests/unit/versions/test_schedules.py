"""When schedules fire, and which stay when a workflow is deployed anew."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from app.errors import InvalidRequest
from versions.schedules import changes, next_occurrence, of_request
from versions.schemas import CronSchedule

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def crons(*texts: str) -> list[CronSchedule]:
    return [CronSchedule(text) for text in texts]


def test_next_occurrence() -> None:
    (row,) = of_request(crons("0 4 * * *"), NOW)
    assert row.next_at == NOW.replace(hour=4)
    assert next_occurrence(row, row.next_at) == NOW.replace(day=2, hour=4)
    every = msgspec.structs.replace(row, cron=None, interval_ms=1_500)
    assert next_occurrence(every, NOW) == NOW + timedelta(seconds=1.5)
    assert next_occurrence(msgspec.structs.replace(every, max_runs=3, runs=2), NOW) is not None
    assert next_occurrence(msgspec.structs.replace(every, max_runs=3, runs=3), NOW) is None
    assert next_occurrence(msgspec.structs.replace(row, cron="0 0 30 2 *"), NOW) is None


def test_requests_are_checked_whole() -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_request(crons("0 4 * * *", "* * * * 9"), NOW)
    assert caught.value.pointer == "/schedules/1/cron"
    assert len(of_request(crons("0 4 * * *", "0 4 * * *"), NOW)) == 1
    with pytest.raises(InvalidRequest):
        of_request(crons(*["* * * * *"] * 201), NOW)


def test_what_stays_the_same_is_left_alone() -> None:
    stored = of_request(crons("0 4 * * *", "0 5 * * *"), NOW)
    wanted = of_request(crons("0 5 * * *", "0 6 * * *"), NOW + timedelta(days=3))
    gone, new = changes(stored, wanted)
    assert [row.cron for row in gone] == ["0 4 * * *"]
    assert [row.cron for row in new] == ["0 6 * * *"]
