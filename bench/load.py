"""The load: one process of its own per measurement, `python -m bench.load WORKLOAD < arguments.json`.

Every workload checks what comes out: an answer that is wrong ends the measurement. Results go to standard output as
JSON. Times are milliseconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bench.http import Api

FINAL = ("complete", "errored", "terminated")
FIRST_GUESS = 0.005
SHORTEST_PAUSE = 0.001
LOOK_PAUSE = 0.02
SAMPLE = 200
"""Outputs that are checked when all are complete."""


class Arguments(msgspec.Struct):
    """What the orchestrator tells a workload."""

    host: str
    port: int
    account_id: str
    token: str
    workflow: str
    count: int
    in_flight: int = 50
    at_ms: int = 0
    paths: list[str] = []


class Wrong(Exception):
    """The server's answer is not what the workflow computes."""


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def latencies(values: list[float]) -> dict[str, float]:
    return {"p50": percentile(values, 0.5) * 1000, "p95": percentile(values, 0.95) * 1000}


class Patience:
    """When to ask whether an instance is done: about when the last ones were, then in small steps.

    Asking all the time would measure the asking.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque([FIRST_GUESS] * 20, maxlen=200)
        self._first = self._pause = FIRST_GUESS
        self._learned = 0

    async def done(self, api: Api, path: str, began: float) -> Any:
        """The instance, once it is final."""
        await asyncio.sleep(max(0.0, began + self._first - time.perf_counter()))
        while True:
            instance = await api.call("GET", path)
            if instance["status"] in FINAL:
                self._learn(time.perf_counter() - began)
                return instance
            await asyncio.sleep(self._pause)

    def _learn(self, seconds: float) -> None:
        self._recent.append(seconds)
        self._learned += 1
        if self._learned % 20 == 0:
            ordered = sorted(self._recent)
            self._first = 0.9 * ordered[len(ordered) // 4]
            self._pause = max(SHORTEST_PAUSE, 0.15 * ordered[len(ordered) // 2])


class Impatience:
    """Ask all the time: for latencies one at a time, which asking does not disturb."""

    async def done(self, api: Api, path: str, began: float) -> Any:
        """The instance, once it is final."""
        while True:
            instance = await api.call("GET", path)
            if instance["status"] in FINAL:
                return instance


async def crowd(arguments: Arguments, one: Callable[[int], Awaitable[None]]) -> float:
    """Do `one(n)` for n below `count`, `in_flight` at a time; the seconds it took."""
    numbers = iter(range(arguments.count))

    async def user() -> None:
        for number in numbers:
            await one(number)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as users:
        for _ in range(arguments.in_flight):
            users.create_task(user())
    return time.perf_counter() - began


def check(instance: Any, expected: Any) -> None:
    if instance["status"] != "complete" or (expected is not None and instance["output"] != expected):
        raise Wrong(f"{instance['status']}: {instance.get('output')!r} {instance.get('error')!r}")


def instances(arguments: Arguments) -> str:
    return f"/workflows/{arguments.workflow}/instances"


async def through(api: Api, arguments: Arguments) -> dict[str, float]:
    """Create one by one, `in_flight` at a time; from the first create until the workflow counts all as complete."""
    root, made = instances(arguments), []
    workflow = f"/workflows/{arguments.workflow}"
    before = (await api.call("GET", workflow))["instances"]["complete"]

    async def one(number: int) -> None:
        made.append((number, (await api.call("POST", root, {"params": {"n": number}}))["id"]))

    began = time.perf_counter()
    await crowd(arguments, one)
    while (counts := (await api.call("GET", workflow))["instances"])["complete"] < before + arguments.count:
        if counts["errored"] or counts["terminated"]:
            raise Wrong(f"not all are complete: {counts}")
        await asyncio.sleep(LOOK_PAUSE)
    seconds = time.perf_counter() - began
    for number, id in made[:: max(1, len(made) // SAMPLE)]:
        done = await api.call("GET", f"{root}/{id}?simple=true")
        check(done, {"hello": number} if arguments.workflow.endswith("hello") else None)
    return {"per_second": arguments.count / seconds}


async def asked(api: Api, arguments: Arguments) -> dict[str, float]:
    """Create, ask until the output is there, `in_flight` at a time."""
    root, patience, taken = instances(arguments), Patience(), []

    async def one(number: int) -> None:
        began = time.perf_counter()
        created = await api.call("POST", root, {"params": {"n": number}})
        done = await patience.done(api, f"{root}/{created['id']}?simple=true", began)
        taken.append(time.perf_counter() - began)
        check(done, {"hello": number} if arguments.workflow.endswith("hello") else None)

    seconds = await crowd(arguments, one)
    return {"per_second": arguments.count / seconds, **latencies(taken)}


async def single(api: Api, arguments: Arguments) -> dict[str, float]:
    """One at a time, asking without a pause: from create to output."""
    root, taken = instances(arguments), []
    for number in range(arguments.count + 20):
        began = time.perf_counter()
        created = await api.call("POST", root, {"params": {"n": number}})
        while True:
            done = await api.call("GET", f"{root}/{created['id']}?simple=true")
            if done["status"] in FINAL:
                break
        if number >= 20:  # the first ones warm connections and plans up
            taken.append(time.perf_counter() - began)
        check(done, {"hello": number})
    return latencies(taken)


async def create(api: Api, arguments: Arguments) -> dict[str, float]:
    """Single creates, `in_flight` at a time, without waiting for what becomes of them."""
    root, taken = instances(arguments), []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await api.call("POST", root, {"params": {"n": number}})
        taken.append(time.perf_counter() - began)

    seconds = await crowd(arguments, one)
    return {"per_second": arguments.count / seconds, **latencies(taken)}


async def batch(api: Api, arguments: Arguments) -> dict[str, float]:
    """Batches of 100 creates, `in_flight` at a time. `count` is the number of instances."""
    root, taken = f"{instances(arguments)}/batch", []
    body = msgspec.json.encode([{"params": {"n": 0, "at": arguments.at_ms}}] * 100)
    calls = msgspec.structs.replace(arguments, count=arguments.count // 100)

    async def one(_: int) -> None:
        began = time.perf_counter()
        created = await api.call("POST", root, body)
        taken.append(time.perf_counter() - began)
        if len(created) != 100:
            raise Wrong(f"{len(created)} of 100 were created")

    seconds = await crowd(calls, one)
    return {"per_second": 100 * calls.count / seconds, **latencies(taken)}


async def events(api: Api, arguments: Arguments) -> dict[str, float]:
    """An event to each of `count` waiting instances, `in_flight` at a time: from sending to the output."""
    root, taken = instances(arguments), []
    patience = Patience() if arguments.in_flight > 1 else Impatience()
    ids: list[str] = []
    for _ in range(0, arguments.count, 100):
        ids += [made["id"] for made in await api.call("POST", f"{root}/batch", [{}] * 100)]
    for instance_id in ids:
        while (await api.call("GET", f"{root}/{instance_id}?simple=true"))["status"] != "waiting":
            await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)  # until they have left memory

    async def one(number: int) -> None:
        began = time.perf_counter()
        await api.call("POST", f"{root}/{ids[number]}/events/go", {"n": number})
        done = await patience.done(api, f"{root}/{ids[number]}?simple=true", began)
        taken.append(time.perf_counter() - began)
        check(done, {"got": number})

    seconds = await crowd(arguments, one)
    return {"per_second": arguments.count / seconds, **latencies(taken)}


async def read(api: Api, arguments: Arguments) -> dict[str, float]:
    """Ask for each of `paths`, one at a time, `count` times over: the p95 of each path, by path."""
    taken: dict[str, list[float]] = {path: [] for path in arguments.paths}
    for number in range(arguments.count + 5):
        for path, seconds in taken.items():
            began = time.perf_counter()
            await api.get(path)
            if number >= 5:  # the first ones warm connections, plans and the cache up
                seconds.append(time.perf_counter() - began)
    return {path: percentile(seconds, 0.95) * 1000 for path, seconds in taken.items()}


async def once(api: Api, arguments: Arguments) -> dict[str, float]:
    """Ask for each of `paths` once, one after the other: how long each took."""
    taken: dict[str, float] = {}
    for path in arguments.paths:
        began = time.perf_counter()
        await api.get(path)
        taken[path] = (time.perf_counter() - began) * 1000
    return taken


WORKLOADS = {workload.__name__: workload for workload in (through, asked, single, create, batch, events, read, once)}


async def measure(workload: str, arguments: Arguments) -> dict[str, float]:
    api = Api(arguments.host, arguments.port, arguments.account_id, arguments.token)
    try:
        return await WORKLOADS[workload](api, arguments)
    finally:
        api.close()


def main() -> None:
    import uvloop

    arguments = msgspec.json.decode(sys.stdin.buffer.read(), type=Arguments)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure(sys.argv[1], arguments))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
