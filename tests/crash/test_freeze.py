"""A worker that stands still for longer than its lease, and then goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from instances.lifecycle import Kind
from tests.crash.installation import Installation, hold, mark

pytestmark = pytest.mark.crash

INSTANCES = 3


async def test_the_late_result_of_a_frozen_worker_is_not_written(site: Installation) -> None:
    await site.deploy("slow", [hold("a"), mark("b", "a")])
    await site.create("slow", INSTANCES)
    frozen = await site.start("worker")
    await site.eventually(lambda: _holds(site, frozen.pid))
    os.kill(frozen.pid, signal.SIGSTOP)
    other = await site.start("worker")
    await site.eventually(lambda: _holds(site, other.pid))

    site.let_go(frozen)
    os.kill(frozen.pid, signal.SIGCONT)

    async def knows() -> bool:
        return "the lease was lost" in frozen.said

    await site.eventually(knows)
    assert await site.completed() == []
    assert await site.statuses("slow") == {"running": INSTANCES}

    site.let_go(other)
    await site.all_are("slow", "complete")
    results = [json.loads(payload) for payload in await site.payloads(Kind.STEP_COMPLETED, "a")]
    assert results == [{"attempt": 2, "pid": other.pid}] * INSTANCES
    assert set(Counter(await site.completed()).values()) == {1}

    await other.kill()
    await site.create("slow", INSTANCES)
    await site.all_are("slow", "complete")
    assert site.executions()[-1]["pid"] == frozen.pid  # it has a lease again


async def _holds(site: Installation, pid: int) -> bool:
    """Whether a process is inside the slow step of every instance, and the journal knows."""
    inside = {ran["instance"] for ran in site.executions() if ran["pid"] == pid}
    return len(inside) == len(await site.entries(Kind.STEP_STARTED)) == INSTANCES
