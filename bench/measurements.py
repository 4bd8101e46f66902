"""What is measured, in the order of the report. Each gives figures by name; `goals.py` says what they should be."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from bench import definitions, faces, floor, stored, streams
from bench import webhooks as delivered
from bench.platform import Platform

Figures = dict[str, float]
STEP_MS = 20
"""What a step of the recovery measurement takes."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each: the full measurement, or a quick look."""

    runs: int = 10_000
    chains: int = 2_000
    events: int = 500
    batch: int = 20_000
    singles: int = 300
    sleepers: int = 10_000
    parked: int = 10_000
    waiting: int = 100_000
    killed: int = 500
    calls: int = 20_000
    stored: int = 1_000_000
    streams: int = 1_000
    told: int = 200
    hooked: int = 200


QUICK = Sizes(
    runs=1_000,
    chains=300,
    batch=3_000,
    singles=100,
    sleepers=1_000,
    parked=2_000,
    waiting=5_000,
    killed=100,
    calls=3_000,
    stored=100_000,
    streams=100,
    told=50,
    hooked=100,
)


async def parked(platform: Platform, sizes: Sizes) -> Figures:
    """Memory of the worker with instances that wait for an event and have left memory."""
    await platform.deploy("bench-parked", definitions.WAITER)
    await platform.load("batch", "bench-parked", 100, in_flight=1)
    await platform.settle("bench-parked")
    before = platform.processes.rss("worker")
    await platform.load("batch", "bench-parked", sizes.parked, in_flight=4)
    await platform.settle("bench-parked")
    after = platform.processes.rss("worker")
    return {"worker_mb": after / 1e6, "per_instance_kb": max(0, after - before) / sizes.parked / 1e3}


async def single(platform: Platform, sizes: Sizes) -> Figures:
    """One instance at a time, from create to output."""
    await platform.deploy("bench-single-hello", definitions.HELLO)
    return await platform.load("single", "bench-single-hello", sizes.singles, in_flight=1)


async def hello(platform: Platform, sizes: Sizes) -> Figures:
    """One step that does nothing: created one by one, 50 in flight, until all are complete."""
    await platform.deploy("bench-hello", definitions.HELLO)
    return await _busy(platform, "bench-hello", sizes.runs, steps=1)


async def chain10(platform: Platform, sizes: Sizes) -> Figures:
    """Ten steps in a row, created one by one, 50 in flight, until all are complete."""
    await platform.deploy("bench-chain", definitions.CHAIN)
    return await _busy(platform, "bench-chain", sizes.chains, steps=10)


async def fanout10(platform: Platform, sizes: Sizes) -> Figures:
    """Ten steps side by side and a join, created one by one, 50 in flight, until all are complete."""
    await platform.deploy("bench-fanout", definitions.FANOUT)
    return await _busy(platform, "bench-fanout", sizes.chains, steps=11)


async def js_hello(platform: Platform, sizes: Sizes) -> Figures:
    """A JavaScript workflow of one step: created one by one, 50 in flight, until all are complete."""
    await platform.deploy_script("bench-js-hello", definitions.JS_HELLO)
    return await _busy(platform, "bench-js-hello", sizes.chains, steps=1)


async def js_chain10(platform: Platform, sizes: Sizes) -> Figures:
    """A JavaScript workflow of ten steps in a row, likewise."""
    await platform.deploy_script("bench-js-chain", definitions.JS_CHAIN)
    return await _busy(platform, "bench-js-chain", sizes.chains, steps=10)


async def sandbox(platform: Platform, sizes: Sizes) -> Figures:
    """Sandboxes by themselves: see :mod:`bench.sandbox`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.sandbox", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the sandboxes could not be measured")
    return json.loads(out)


async def asked(platform: Platform, sizes: Sizes) -> Figures:
    """One step that does nothing, 50 in flight, each asked for until its output is there."""
    await platform.deploy("bench-asked-hello", definitions.HELLO)
    return await platform.load("asked", "bench-asked-hello", sizes.chains)


async def event(platform: Platform, sizes: Sizes) -> Figures:
    """An event to each waiting instance, one at a time, from sending to output."""
    await platform.deploy("bench-event", definitions.WAITER)
    return await platform.load("events", "bench-event", sizes.events, in_flight=1)


async def events(platform: Platform, sizes: Sizes) -> Figures:
    """The same, 50 in flight."""
    await platform.deploy("bench-events", definitions.WAITER)
    return await platform.load("events", "bench-events", sizes.events)


async def create(platform: Platform, sizes: Sizes) -> Figures:
    """Single creates, 50 in flight; what is created runs meanwhile."""
    await platform.deploy("bench-create", definitions.HELLO)
    async with _cpu(platform) as cpu:
        figures = await platform.load("create", "bench-create", sizes.runs)
        await platform.settle("bench-create")
    return {**figures, **_per_instance(cpu, sizes.runs)}


async def batch(platform: Platform, sizes: Sizes) -> Figures:
    """Batches of 100 creates, 4 at a time; what is created runs meanwhile."""
    await platform.deploy("bench-batch", definitions.HELLO)
    async with _cpu(platform) as cpu:
        figures = await platform.load("batch", "bench-batch", sizes.batch, in_flight=4)
        await platform.settle("bench-batch")
    return {**figures, **_per_instance(cpu, sizes.batch)}


async def sleepers(platform: Platform, sizes: Sizes) -> Figures:
    """Instances that wake at the same moment: how late they end."""
    await platform.deploy("bench-sleeper", definitions.SLEEPER)
    due_ms = int(time.time() * 1000) + 10_000 + 2 * sizes.sleepers
    await platform.load("batch", "bench-sleeper", sizes.sleepers, in_flight=4, at_ms=due_ms)
    await platform.settle("bench-sleeper")
    if time.time() * 1000 > due_ms:
        raise RuntimeError("the sleepers were due before all of them slept")
    await asyncio.sleep(due_ms / 1000 - time.time())
    async with asyncio.timeout(600):
        while await _finished(platform, "bench-sleeper") < sizes.sleepers:
            await asyncio.sleep(0.05)
    rows = await platform.admin.fetch(
        "select extract(epoch from i.ended_at) * 1000 - $2::bigint as late from instance i"
        " join workflow w using (account_id, workflow_key) where w.handle = $1 order by 1",
        "bench-sleeper",
        due_ms,
    )
    late = [float(row["late"]) for row in rows]
    return {"p50": late[len(late) // 2], "p95": late[int(len(late) * 0.95)], "max": late[-1]}


async def recovery(platform: Platform, sizes: Sizes) -> Figures:
    """kill -9 of all workers and API processes while instances are in the middle of ten steps of 20 ms each.

    A run has resumed when it has written to its journal again.
    """
    async with _callee() as (url, calls):
        await platform.deploy("bench-spared", definitions.calling(url))
        await platform.deploy("bench-killed", definitions.calling(url))
        began = time.perf_counter()
        await _create(platform, "bench-spared", sizes.killed)
        await _all_finished(platform, "bench-spared", sizes.killed)
        undisturbed = time.perf_counter() - began
        calls.clear()
        await _create(platform, "bench-killed", sizes.killed)
        while sum(calls.values()) < 3 * sizes.killed:
            await asyncio.sleep(0.005)
        platform.kill("worker", "api")
        began = time.perf_counter()
        await _all_resumed(platform, "bench-killed")
        resumed = time.perf_counter() - began
        await _all_finished(platform, "bench-killed", sizes.killed)
        seconds = time.perf_counter() - began
    platform.api.close()
    lost = sizes.killed - await _finished(platform, "bench-killed", "= 6")
    repeated = sum(calls.values()) - len(calls)
    return {
        "resumed": resumed,
        "seconds": seconds,
        "undisturbed_seconds": undisturbed,
        "lost": lost,
        "repeated_steps": repeated,
    }


async def egress(_platform: Platform, sizes: Sizes) -> Figures:
    """Calls of a local server by the client workflows call with, 50 in flight; no workflow takes part."""
    command = (sys.executable, "-m", "bench.egress", str(sizes.calls))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the calls out failed")
    return json.loads(out)


async def idle(platform: Platform, sizes: Sizes) -> Figures:
    """CPU while nothing happens and very many instances wait for an event."""
    await platform.deploy("bench-idle", definitions.WAITER)
    await platform.load("batch", "bench-idle", sizes.waiting, in_flight=4)
    await platform.settle("bench-idle")
    await asyncio.sleep(5)
    async with _cpu(platform) as cpu:
        await asyncio.sleep(15)
    percent = {f"{role}_percent": 100 * seconds / 15 for role, seconds in cpu.items() if seconds}
    return {"percent": sum(percent.values()), **percent}


async def sse(platform: Platform, sizes: Sizes) -> Figures:
    """Live streams: from the commit of an event to the client, and what very many cost that have nothing to tell."""
    return await streams.measure(platform, sizes.told, sizes.streams)


async def webhooks(platform: Platform, sizes: Sizes) -> Figures:
    """Deliveries to eight endpoints that answer at once. See :mod:`bench.webhooks`."""
    return await delivered.measure(platform, sizes.hooked)


async def face_list(platform: Platform, sizes: Sizes) -> Figures:
    """Lists of 100 instances of ten steps, of an account with very many of them. See :mod:`bench.faces`."""
    return await faces.measure_lists(platform, await stored.fill(platform, sizes.stored))


async def metrics(platform: Platform, sizes: Sizes) -> Figures:
    """Metrics over 100,000 executions of the same account."""
    await stored.fill(platform, sizes.stored)
    return await faces.measure_metrics(platform)


MEASUREMENTS: dict[str, Callable[[Platform, Sizes], Awaitable[Figures]]] = {
    measurement.__name__: measurement
    for measurement in (
        parked,
        single,
        hello,
        chain10,
        fanout10,
        js_hello,
        js_chain10,
        sandbox,
        asked,
        event,
        events,
        create,
        batch,
        sleepers,
        egress,
        recovery,
        idle,
        sse,
        webhooks,
        face_list,
        metrics,
    )
}
ONCE = {"parked", "sandbox", "recovery", "idle", "sleepers", "sse", "face_list", "metrics"}
"""Measured in one round only: they take long, or leave the platform full."""


# --- how it is measured -----------------------------------------------------------------------------------------


async def _busy(platform: Platform, workflow: str, count: int, steps: int) -> Figures:
    """From the first create to the last end, with CPU per instance, and the journal's pace against the floor."""
    await platform.load("through", workflow, 100)
    rows_before, commits_before = await platform.journal_rows()
    async with _cpu(platform) as cpu:
        figures = await platform.load("through", workflow, count)
    rows, commits = await platform.journal_rows()
    rows, commits = rows - rows_before, max(1, commits - commits_before)
    rows_per_second = figures["per_second"] * rows / count
    bare = await floor.rows_per_second(platform.dsn, max(1, round(rows / commits)))
    return {
        **figures,
        "steps_per_second": steps * figures["per_second"],
        **_per_instance(cpu, count),
        "rows_per_second": rows_per_second,
        "rows_per_commit": rows / commits,
        "of_floor": rows_per_second / bare,
    }


@asynccontextmanager
async def _cpu(platform: Platform) -> AsyncIterator[dict[str, float]]:
    """CPU seconds by role used inside the context."""
    used: dict[str, float] = {}
    before = platform.processes.cpu()
    yield used
    used.update({role: seconds - before[role] for role, seconds in platform.processes.cpu().items()})


def _per_instance(cpu: dict[str, float], count: int) -> Figures:
    each = {f"cpu_ms_{role}": 1000 * seconds / count for role, seconds in cpu.items() if seconds}
    return {"cpu_ms": sum(each.values()), **each}


async def _finished(platform: Platform, workflow: str, status: str = ">= 6") -> int:
    """How many instances of `workflow` are finished, or finished so (6 complete, 7 errored, 8 terminated)."""
    finished: int = await platform.admin.fetchval(  # type: ignore[assignment]
        "select count(*) from instance i join workflow w using (account_id, workflow_key)"
        f" where w.handle = $1 and i.status {status}",
        workflow,
    )
    return finished


async def _create(platform: Platform, workflow: str, count: int) -> None:
    for first in range(0, count, 100):
        body = [{"params": {"n": n}} for n in range(first, min(first + 100, count))]
        await platform.api.call("POST", f"/workflows/{workflow}/instances/batch", body)


async def _all_finished(platform: Platform, workflow: str, count: int) -> None:
    async with asyncio.timeout(300):
        while await _finished(platform, workflow) < count:
            await asyncio.sleep(0.02)


async def _all_resumed(platform: Platform, workflow: str) -> None:
    """Wait until every instance that is unfinished now has written to its journal, or has ended."""
    rows = await platform.admin.fetch(
        "select l.key, l.seq from live l join workflow w using (account_id, workflow_key) where w.handle = $1", workflow
    )
    untouched = """select count(*) from unnest($1::uuid[], $2::bigint[]) as before(key, seq)
                   join live l on l.key = before.key and l.seq = before.seq"""
    async with asyncio.timeout(300):
        while await platform.admin.fetchval(untouched, [row["key"] for row in rows], [row["seq"] for row in rows]):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _callee() -> AsyncIterator[tuple[str, Counter[tuple[int, str]]]]:
    """A server that takes 20 ms for every request: its URL, and how often each instance's steps called it."""
    calls: Counter[tuple[int, str]] = Counter()
    callers: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers[writer] = asyncio.current_task()
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                body: dict[str, Any] = msgspec.json.decode(await reader.readexactly(int(length)))
                calls[body["of"], body["step"]] += 1
                await asyncio.sleep(STEP_MS / 1000)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            callers.pop(writer, None)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", calls
    finally:
        server.close()
        serving = [task for task in callers.values() if task is not None]
        for caller in list(callers):
            caller.close()
        if serving:
            await asyncio.wait(serving, timeout=5)
