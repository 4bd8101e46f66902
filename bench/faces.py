"""How fast the translated faces read: what is asked of an account with very many instances."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from urllib.parse import quote
from uuid import UUID

from bench.platform import Platform
from bench.stored import SECONDS_APART, WORKFLOWS

ROUNDS = 40
"""How often each list is asked for."""
PAGES = 20
"""How many pages are asked for that nobody has seen yet."""
METRICS_OVER = 100_000
"""Executions in the window of the metrics."""
BIG, SMALL = WORKFLOWS[0], WORKFLOWS[-1]
UNSEEN = ("/admin/workflows-executions", "/api/executions")
"""Lists that show every step of their instances."""
_OF_BIG = f"/api/workspaces/default/workflows/{BIG}"


def lists(sample: Sequence[tuple[UUID, str]]) -> dict[str, list[str]]:
    """Paths of lists of 100, by face: all, and filtered by workflow, status, id and transaction where it can."""
    key = str(sample[0][0])
    jobsprint = [f"workflowId={name}" for name in (BIG, SMALL)]
    jobsprint += [f"status={status}" for status in ("pending", "running", "success", "error", "cancelled")]
    medusa = [f"workflow_id={name}" for name in (BIG, SMALL)]
    medusa += [f"state={state}" for state in ("invoking", "done", "failed", "reverted")]
    medusa += [f"id={key}", f"transaction_id={key}"]
    medusa += ["&".join(f"{field}[]={one}" for one, _ in sample[:100]) for field in ("id", "transaction_id")]
    orchestration = [f"workflowDefinitionId={name}" for name in (BIG, SMALL)]
    orchestration += [f"status={status}" for status in ("RUNNING", "WAITING", "COMPLETED", "FAILED", "CANCELLED")]
    workspaces = [f"status={status}" for status in ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")]
    workspaces += [f"sortBy=startedAt&sortOrder={order}&status=RUNNING" for order in ("asc", "desc")]
    return {
        "jobsprint": _asked("/v1/executions", [*jobsprint, f"{jobsprint[0]}&status=error"]),
        "medusa": _asked("/admin/workflows-executions", [*medusa, f"{medusa[0]}&state=failed"]),
        "orchestration": _asked("/api/executions", [*orchestration, f"{orchestration[0]}&status=FAILED"]),
        "workspaces": _asked(f"{_OF_BIG}/history", workspaces),
    }


def windows(newest: datetime) -> list[str]:
    """Paths of lists of what started within an hour, and within a day, before `newest`; workspaces count all of it."""
    jobsprint = [_since(newest, hours, "fromDate", "toDate") for hours in (1, 24)]
    workspaces = [_since(newest, hours, "from", "to") for hours in (1, 24)]
    return [*_asked("/v1/executions", jobsprint)[1:], *_asked(f"{_OF_BIG}/history", workspaces)[1:]]


def statistics(newest: datetime) -> list[str]:
    """Paths of lists that come with numbers of half a million: of all of them, of a day's, of the week's."""
    asked = [f"status=RUNNING&{_since(newest, hours, 'from', 'to')}" for hours in (24, 24 * 7)]
    return _asked(f"{_OF_BIG}/executions", ["status=RUNNING", *asked])


def _since(newest: datetime, hours: int, begin: str, end: str) -> str:
    """The last hours, as parameters of these names."""
    return f"{begin}={_written(newest - timedelta(hours=hours))}&{end}={_written(newest)}"


def _asked(path: str, filters: Sequence[str]) -> list[str]:
    return [f"{path}?limit=100", *(f"{path}?limit=100&{one}" for one in filters)]


async def measure_lists(platform: Platform, sample: Sequence[tuple[UUID, str]]) -> dict[str, float]:
    """The slowest list of each face and of all, by p95; on standard error the slowest by path. `first_p50`: of pages
    with the steps of all their instances, of which the server has seen none since it began. `window_p95`: the slowest
    of a time.
    """
    first = max([await _first(platform, path) for path in UNSEEN])
    figures = {f"{face}_p95": await _slowest(platform, paths) for face, paths in lists(sample).items()}
    window = await _slowest(platform, windows(await _newest(platform)))
    return {"p95": max(figures.values()), "first_p50": first, "window_p95": window, **figures}


async def _first(platform: Platform, path: str) -> float:
    """The median of as many pages as there are to see, the first left out: `read` asks for that."""
    paths = [f"{path}?limit=100&offset={100 * page}" for page in range(1, PAGES + 1)]
    return median((await platform.load("once", "", 1, paths=paths)).values())


async def _slowest(platform: Platform, paths: Sequence[str]) -> float:
    """The highest p95 of these paths."""
    taken = await platform.load("read", "", ROUNDS, paths=paths)
    for path in sorted(paths, key=lambda path: -taken[path])[:3]:
        print(f"  {taken[path]:6.1f} ms  {path[:120]}", file=sys.stderr, flush=True)
    return max(taken.values())


async def _newest(platform: Platform) -> datetime:
    newest = await platform.admin.fetchval("select max(started_at) from instance")
    return newest if isinstance(newest, datetime) else datetime.now(UTC)


async def measure_metrics(platform: Platform) -> dict[str, float]:
    """Metrics of the JobSprint face over a window of 100,000 executions, in hours; and the numbers of a workflow with
    half a million that the workspaces face gives along with its list.
    """
    until = await _newest(platform)
    since = until - timedelta(seconds=METRICS_OVER * SECONDS_APART)
    times = f"fromDate={_written(since)}&toDate={_written(until)}"
    path = f"/v1/executions/metrics?granularity=hour&{times}"
    metrics = await _slowest(platform, [path])
    return {"p95": metrics, "statistics_p95": await _slowest(platform, statistics(until))}


def _written(moment: datetime) -> str:
    return quote(moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
