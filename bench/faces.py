"""How fast the translated faces read: what is asked of an account with very many instances."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import UUID

from bench.platform import Platform
from bench.stored import SECONDS_APART, WORKFLOWS

ROUNDS = 40
"""How often each list is asked for."""
METRICS_OVER = 100_000
"""Executions in the window of the metrics."""


def lists(sample: Sequence[tuple[UUID, str]]) -> dict[str, list[str]]:
    """Paths of lists of 100, by face: all, and filtered by workflow, status, id and transaction where it can."""
    key = str(sample[0][0])
    big, small = WORKFLOWS[0], WORKFLOWS[-1]
    jobsprint = [f"workflowId={name}" for name in (big, small)]
    jobsprint += [f"status={status}" for status in ("running", "success", "error", "cancelled")]
    medusa = [f"workflow_id={name}" for name in (big, small)]
    medusa += [f"state={state}" for state in ("invoking", "done", "failed")]
    medusa += [f"id={key}", f"transaction_id={key}"]
    medusa += ["&".join(f"{field}[]={one}" for one, _ in sample[:100]) for field in ("id", "transaction_id")]
    orchestration = [f"workflowDefinitionId={name}" for name in (big, small)]
    orchestration += [f"status={status}" for status in ("RUNNING", "WAITING", "COMPLETED", "FAILED", "CANCELLED")]
    workspaces = [f"status={status}" for status in ("RUNNING", "COMPLETED", "FAILED")]
    return {
        "jobsprint": _asked("/v1/executions", [*jobsprint, f"{jobsprint[0]}&status=error"]),
        "medusa": _asked("/admin/workflows-executions", [*medusa, f"{medusa[0]}&state=failed"]),
        "orchestration": _asked("/api/executions", [*orchestration, f"{orchestration[0]}&status=FAILED"]),
        "workspaces": _asked(f"/api/workspaces/default/workflows/{big}/history", workspaces),
    }


def _asked(path: str, filters: Sequence[str]) -> list[str]:
    return [f"{path}?limit=100", *(f"{path}?limit=100&{one}" for one in filters)]


async def measure_lists(platform: Platform, sample: Sequence[tuple[UUID, str]]) -> dict[str, float]:
    """The slowest list of each face and of all, by p95; on standard error the slowest by path."""
    figures: dict[str, float] = {}
    for face, paths in lists(sample).items():
        taken = await platform.load("read", "", ROUNDS, paths=paths)
        for path in sorted(paths, key=lambda path: -taken[path])[:3]:
            print(f"  {taken[path]:6.1f} ms  {path[:100]}", file=sys.stderr, flush=True)
        figures[f"{face}_p95"] = max(taken.values())
    return {"p95": max(figures.values()), **figures}


async def measure_metrics(platform: Platform) -> dict[str, float]:
    """Metrics of the JobSprint face over a window of 100,000 executions, in hours."""
    until = datetime.now(UTC)
    newest = await platform.admin.fetchval("select max(started_at) from instance")
    if isinstance(newest, datetime):
        until = newest
    since = until - timedelta(seconds=METRICS_OVER * SECONDS_APART)
    times = f"fromDate={_written(since)}&toDate={_written(until)}"
    path = f"/v1/executions/metrics?granularity=hour&{times}"
    taken = await platform.load("read", "", ROUNDS, paths=[path])
    return {"p95": taken[path]}


def _written(moment: datetime) -> str:
    return quote(moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
