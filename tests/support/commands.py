"""Instances in a status, and commands to them."""

from __future__ import annotations

from instances.lifecycle import Status
from tests.support.instances import World


async def make(world: World, call, status: Status, instance_id: str = "i") -> str:
    """An instance in `status`."""
    assert (await call("POST", "/instances", json={"instance_id": instance_id, "params": 1})).status == 200
    if status is not Status.QUEUED:
        await world.begin(instance_id, status if not status.finished else Status.RUNNING)
    if status.finished:
        body = '{"name":"Error","message":"no"}' if status is Status.ERRORED else "1"
        await world.end([instance_id], status, body)
    return instance_id


async def command(call, status: str, **more):
    return await call("PATCH", "/instances/i/status", json={"status": status} | more)


Q, R, W, P, WP, RB = (
    Status.QUEUED,
    Status.RUNNING,
    Status.WAITING,
    Status.PAUSED,
    Status.WAITING_FOR_PAUSE,
    Status.ROLLING_BACK,
)
C, E, T = Status.COMPLETE, Status.ERRORED, Status.TERMINATED
