"""What the background tells Prometheus about unfinished instances."""

from __future__ import annotations

from prometheus_client import REGISTRY

from instances.lifecycle import Status
from jobs.figures.backlog import ReportBacklog


def unfinished() -> dict[str, float | None]:
    return {
        status.wire: REGISTRY.get_sample_value("millrace_instances_unfinished", {"status": status.wire})
        for status in Status
        if not status.finished
    }


def age() -> float | None:
    return REGISTRY.get_sample_value("millrace_queue_age_seconds")


async def test_unfinished_instances_by_status_and_the_age_of_the_queue(world, neighbour, db, clock) -> None:
    first, held, done = await world.create(3)
    clock.advance(10)
    await neighbour.create(2)
    await world.hold([held], 1)
    await world.end([done])
    await ReportBacklog(db, clock).tick()
    assert unfinished() == dict.fromkeys(unfinished(), 0.0) | {"queued": 3.0, "running": 1.0}
    assert age() == 10.0

    await world.end([first, held])
    await ReportBacklog(db, clock).tick()
    assert unfinished() == dict.fromkeys(unfinished(), 0.0) | {"queued": 2.0}
    assert age() == 0.0


async def test_nothing_is_unfinished(db, clock) -> None:
    await ReportBacklog(db, clock).tick()
    assert set(unfinished().values()) == {0.0}
    assert age() == 0.0
