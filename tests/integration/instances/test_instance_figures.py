"""Figures: they add up, their windows are cut as asked, and a hundred thousand executions cost little."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from app.errors import InvalidRequest, NotAllowed
from instances.figures import store
from instances.figures.service import Figures
from instances.figures.windows import Granularity, bucket_of, window
from instances.search.query import Facet
from tests.support.instances import World

DAY = timedelta(days=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday
# One every ten minutes: $3 of them; of every ten 6 complete, 2 fail, 1 is terminated, 1 lives on. g seconds long.
FILL = """
with n as (
  select g, ($2::uuid[])[1 + g % 2] as workflow, g % 10 as f,
         (lpad(to_hex(1767225600000 + 1000 * (600 * g::bigint - 3600)), 12, '0') || '7000' || '8'
          || lpad(to_hex(g), 15, '0'))::uuid as key,
         timestamptz '2026-01-01 00:00:00Z' + g * interval '10 minutes' as at
  from generate_series(0, $3::int - 1) g
), hot as (
  insert into live (account_id, key, workflow_key, runtime, status, phase, epoch, seq, modified_at, started_at)
  select $1, key, workflow, 1, case when g % 20 = 9 then 0 else 2 end, 2, g, 9, at, case when g % 20 = 19 then at end
  from n where f = 9
)
insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, status,
  success_retention_ms, error_retention_ms, created_at, started_at, ended_at, deleted_at, dry_run)
select $1, key, workflow, workflow, 'i' || g, 'i' || g,
       case when f < 6 then 6 when f < 8 then 7 when f < 9 then 8 else 0 end, 1, 1, at - interval '1 hour',
       case when f < 9 then at end,
       case when f < 9 then at + (1 + g % 100) * interval '1 second' end,
       case when f = 3 then at end,
       case when f = 5 then true end
from n
"""


@pytest.fixture
def figures(db, clock) -> Figures:
    return Figures(db, clock)


async def fill(world: World, number: int):
    workflows = [await world.workflow("w0"), await world.workflow("w1")]
    await world.admin.execute(FILL, world.account, workflows, number)
    await world.count()
    return workflows


def wanted(number: int, low: int = 0) -> list[tuple[bool, int]]:
    """Whether it succeeded, and seconds, of those that count: dry runs don't, deleted ones do."""
    ended = [g for g in range(low, number) if g % 10 < 8 and g % 10 != 5]
    return [(g % 10 < 6, 1 + g % 100) for g in ended]


async def test_metrics_add_up(figures: Figures, world: World, other: World):
    await fill(world, 300)
    await fill(other, 50)
    found = await figures.timeline(world.caller, since=BEGIN, until=BEGIN + timedelta(minutes=3000))
    runs = wanted(300)
    seconds = sorted(length for _, length in runs)
    assert (found.total.count, found.total.successful) == (len(runs), sum(good for good, _ in runs))
    assert found.total.mean_ms == pytest.approx(statistics.mean(seconds) * 1000)
    assert found.total.p50_ms == pytest.approx(statistics.median(seconds) * 1000)
    for share, told in ((0.95, found.total.p95_ms), (0.99, found.total.p99_ms)):
        place = share * (len(seconds) - 1)
        low = seconds[int(place)]
        assert told == pytest.approx(1000 * (low + (seconds[int(place) + 1] - low) * (place % 1)))
    assert [bucket.started_at for bucket in found.buckets] == [BEGIN + timedelta(days=n) for n in range(3)]
    assert sum(bucket.count for bucket in found.buckets) == found.total.count
    assert found.buckets[0].count == len(wanted(144))
    assert found.buckets[1].successful == sum(good for good, _ in wanted(288, 144))


async def test_windows_are_on_the_start_and_empty_buckets_are_there(figures: Figures, world: World):
    [first, _] = await fill(world, 100)
    since = BEGIN + timedelta(minutes=100)
    found = await figures.timeline(
        world.caller, since=since, until=BEGIN + timedelta(days=2), granularity=Granularity.HOUR
    )
    assert found.total.count == len(wanted(100, 10))
    assert found.buckets[0].started_at == BEGIN + timedelta(hours=1)
    assert found.buckets[0].count == len(wanted(12, 10))
    assert len(found.buckets) == 47 and found.buckets[-1].count == found.buckets[-1].mean_ms == 0
    one = await figures.timeline(world.caller, since=since, until=BEGIN + timedelta(days=2), workflows=[first])
    assert one.total.count == sum(1 for g in range(10, 100) if g % 2 == 0 and g % 10 < 8)
    nothing = await figures.timeline(world.caller, since=BEGIN - timedelta(days=9), until=BEGIN, workflows=[first])
    assert (nothing.total.count, nothing.total.mean_ms, nothing.total.p99_ms) == (0, 0.0, 0.0)
    assert [bucket.count for bucket in nothing.buckets] == [0] * 9


async def test_statistics_count_everything_once(figures: Figures, world: World, admin):
    await fill(world, 200)
    found = await figures.statistics(world.caller)
    assert found.by_facet == {
        Facet.COMPLETE: 100,
        Facet.ERRORED: 40,
        Facet.TERMINATED: 20,
        Facet.ADMITTED: 10,
        Facet.WAITING: 10,
    }
    assert found.total == 180 and found.of(Facet.COMPLETE, Facet.ERRORED) == 140
    assert found.mean_ms == pytest.approx(statistics.mean(1000 * length for _, length in wanted(200)))
    await admin.execute("update workflow set concurrency = 0 where account_id = $1 and handle = 'w1'", world.account)
    assert (await figures.statistics(world.caller)).of(Facet.HELD_BACK) == 10
    half = await figures.statistics(world.caller, since=BEGIN + timedelta(minutes=1000))
    # What has not started counts by its creation, an hour before.
    assert (half.of(Facet.COMPLETE), half.of(Facet.WAITING)) == (50, 5)
    assert half.of(Facet.HELD_BACK) == sum(1 for g in range(9, 200, 20) if g >= 106)
    # One that was ended before it began.
    await admin.execute("update instance set started_at = null where account_id = $1 and status = 8", world.account)
    assert (await figures.statistics(world.caller)).of(Facet.TERMINATED) == 20
    assert (await figures.statistics(world.caller, until=BEGIN + timedelta(minutes=30))).of(Facet.TERMINATED) == 1


async def test_restricted_callers_count_their_workspace(figures: Figures, world: World, admin, ids):
    [first, second] = await fill(world, 100)
    workspace = ids.uuid7()
    await admin.execute("update workflow set workspace_id = $2 where workflow_key = $1", second, workspace)
    caller = replace(world.caller, workspace_id=workspace)
    assert (await figures.statistics(caller)).total == 50 - 10
    assert (await figures.statistics(caller, workflows=[first])).total == 0
    found = await figures.timeline(caller, since=BEGIN, until=BEGIN + timedelta(days=1), workflows=[first, second])
    assert found.total.count == sum(1 for g in range(1, 100, 2) if g % 10 < 8 and g % 10 != 5)
    with pytest.raises(NotAllowed):
        await figures.statistics(replace(caller, scopes=frozenset()))
    with pytest.raises(NotAllowed):
        await figures.timeline(replace(caller, scopes=frozenset()))


async def test_a_hundred_thousand_are_read_from_the_index_alone(figures: Figures, world: World, admin):
    workflows = await fill(world, 100_000)
    await admin.execute("vacuum analyze instance")
    times = BEGIN, BEGIN + timedelta(days=1000)
    await admin.execute("begin")
    await admin.execute(store.CONFINE)
    plan = await admin.fetchval(
        f"explain (analyze, buffers, format json) {store.METRICS}",
        world.account,
        workflows,
        *times,
        timedelta(days=1),
        BEGIN,
    )
    await admin.execute("rollback")
    text = json.dumps(told := json.loads(plan)[0])
    assert '"Index Only Scan"' in text and "instance_started" in text and "Seq Scan" not in text
    assert told["Plan"]["Shared Hit Blocks"] + told["Plan"]["Shared Read Blocks"] < 3_000
    found = await figures.timeline(world.caller, since=times[0], until=times[1])
    assert found.total.count == 70_000


async def test_counting_all_there_ever_were_reads_next_to_nothing(figures: Figures, world: World, admin):
    workflows = await fill(world, 20_000)
    await admin.execute("vacuum analyze instance, live")
    nothing = "00000000-0000-0000-0000-000000000000"
    await admin.execute("begin")
    await admin.execute(store.CONFINE)
    for statement, rows, bounds in (
        (store.ENDED_EVER, 2_100, ()),  # a tenth are dry runs, which are counted to be left out
        (store.UNFINISHED_EVER, 2_100, ()),
        (store.DRY_FRESH, 100, (nothing, nothing.replace("0", "f"))),
    ):
        plan = await admin.fetchval(f"explain (analyze, format json) {statement}", world.account, workflows, *bounds)
        told = json.loads(plan)[0]["Plan"]
        assert "Seq Scan" not in str(told)
        assert sum(scanned(told)) < rows, statement
    await admin.execute("rollback")
    ever, since = await figures.statistics(world.caller), await figures.statistics(world.caller, since=BEGIN - DAY)
    assert ever.by_facet == since.by_facet and ever.mean_ms == pytest.approx(since.mean_ms)


def scanned(plan: dict[str, Any]) -> Iterator[float]:
    """Rows that scans of instances and live rows gave, or threw away."""
    if plan.get("Relation Name") in ("instance", "live"):
        yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for part in plan.get("Plans", ()):
        yield from scanned(part)


@pytest.mark.parametrize("granularity", Granularity)
def test_buckets_cover_the_window(granularity: Granularity):
    for minutes in (0, 1, 59, 60, 1441, 10_080, 99_999):
        since = BEGIN + timedelta(minutes=minutes)
        asked = window(since, since + timedelta(days=17, minutes=3), granularity, BEGIN)
        starts = asked.buckets
        assert starts[0] <= since < starts[0] + granularity.length
        assert starts[-1] < asked.until <= starts[-1] + granularity.length
        assert all(later - sooner == granularity.length for sooner, later in pairwise(starts))


def test_weeks_begin_on_mondays_and_days_at_midnight():
    assert bucket_of(BEGIN + timedelta(hours=5), Granularity.WEEK) == datetime(2025, 12, 29, tzinfo=UTC)
    assert bucket_of(datetime(1969, 12, 31, 7, 5, tzinfo=UTC), Granularity.DAY) == datetime(1969, 12, 31, tzinfo=UTC)


def test_windows_without_bounds_and_refused_ones():
    now = BEGIN + timedelta(minutes=7)
    for granularity, days in ((Granularity.HOUR, 1), (Granularity.DAY, 30), (Granularity.WEEK, 84)):
        found = window(None, None, granularity, now)
        assert (found.since, found.until) == (now - timedelta(days=days), now)
    assert len(window(BEGIN, BEGIN + timedelta(hours=1000), Granularity.HOUR, now).buckets) == 1000
    for since, until in (
        (BEGIN, BEGIN + timedelta(hours=1000, seconds=1)),
        (BEGIN, BEGIN),
        (now, None),
        (None, datetime.min.replace(tzinfo=UTC)),
    ):
        with pytest.raises(InvalidRequest):
            window(since, until, Granularity.HOUR, now)
