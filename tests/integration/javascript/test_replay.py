"""What a run finds when its worker is gone and another one replays it."""

# ruff: noqa: E501 - lines of JavaScript

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from app.settings import Settings
from tests.support.api import new_tenant
from tests.support.javascript import Scripts
from tests.support.live import Live, live, working


@pytest.fixture(scope="module")
async def served(databases, valkey) -> AsyncIterator[Live]:
    """A Millrace without workers: tests start and stop their own."""
    name = await databases.create()
    redis = valkey.url(await databases.redis_number())
    settings = Settings(
        database_url=databases.dsn(name), redis_url=redis, secret="of the replay tests, long enough", metrics_bind=""
    )
    async with live(settings, workers=0) as running:
        yield running
    databases.drop(name)


@pytest.fixture
async def scripts(served: Live) -> AsyncIterator[Scripts]:
    async with httpx.AsyncClient(timeout=60) as client:
        yield Scripts(served, await new_tenant(served.platform), client)


@pytest.fixture
async def restart(served: Live) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Stops the worker, if there is one, and starts another."""
    stack = AsyncExitStack()

    async def restart() -> None:
        await stack.aclose()
        await stack.enter_async_context(working(served.platform))

    yield restart
    await stack.aclose()


async def test_clock_and_chance_outside_steps_are_the_same_in_every_life(scripts: Scripts, restart):
    await restart()
    run = await scripts.run(
        "const said = () => [Date.now(), new Date().getTime(), Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(4))], performance.now()];\n"
        "const first = said();\n"
        'const inside = await step.do("a", async () => [said(), first]);\n'
        "const second = said();\n"
        'await step.waitForEvent("w", { type: "go" });\n'
        'return [inside[1], first, await step.do("b", async () => second), second, inside[0][3] === first[3]];'
    )
    before = await run.until("waiting")
    await restart()
    await run.send("go")
    recorded, first, kept, second, same = await run.output()
    assert recorded == first
    assert kept == second
    assert same is False
    assert (await run.details())["steps"][0] == before["steps"][0], "the step did not run again"


async def test_e10_status_and_log_are_there_after_a_restart(scripts: Scripts, restart):
    await restart()
    run = await scripts.run(
        'console.log("before");\nawait step.do("a", async () => { console.log("inside"); });\n'
        'await step.do("b", { retries: { limit: 9, delay: 0 } }, () => opened("g"));\nreturn "end";'
    )
    await run.has("b-1")
    before = await run.details()
    await restart()
    after = await run.until("running")
    assert after["steps"][0] == before["steps"][0]
    assert await run.logs() == ["before", "inside"]
    await run.open("g")
    assert await run.output() == "end"
    assert await run.logs() == ["before", "inside"]


async def test_e08_an_event_finds_an_instance_no_worker_holds(scripts: Scripts, restart):
    await restart()
    run = await scripts.run('return (await step.waitForEvent("w", { type: "go" })).payload;')
    await run.until("waiting")
    await restart()
    await run.send("go", {"at": [1]})
    assert await run.output() == {"at": [1]}


async def test_e10_steps_parallel_and_in_loops_are_replayed_in_order(scripts: Scripts, restart):
    await restart()
    run = await scripts.run(
        "const all = await Promise.all([3, 1, 2].map((n) => step.do(`p${n}`, async () => { await new Promise((done) => setTimeout(done, n * 5)); return n; })));\n"
        'for (let i = 0; i < 20; i++) all.push(await step.do("loop", async ({ step }) => step.count));\n'
        'try { await step.do("bad", { retries: { limit: 0, delay: 0 } }, async () => { throw new RangeError("no"); }); } catch (error) { all.push(error.name, error instanceof RangeError); }\n'
        'await step.waitForEvent("w", { type: "go" });\nconsole.log("after");\nreturn all;'
    )
    await run.until("waiting")
    await restart()
    await run.send("go")
    assert await run.output() == [3, 1, 2, *range(1, 21), "RangeError", True]
    assert await run.logs() == ["after"]


async def test_code_that_calls_other_steps_than_before_says_so(scripts: Scripts, restart):
    await restart()
    run = await scripts.run(
        'globalThis.lives = (globalThis.lives ?? 0) + 1;\nif (globalThis.lives === 1) await step.do("only the first time", async () => 1);\nelse await step.do("another", async () => 2);\n'
        'await step.waitForEvent("w", { type: "go" });'
    )
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")
    await run.command("resume")
    name, message = await run.error()
    assert name == "NonDeterministicError"
    assert "only the first time-1" in message


async def test_a_sleep_goes_on_after_a_restart(scripts: Scripts, restart):
    await restart()
    run = await scripts.run('await step.sleep("nap", "1 second");\nreturn await step.do("a", async () => "awake");')
    await run.until("waiting")
    await restart()
    assert await run.output() == "awake"


async def test_e32_a_pause_asked_for_before_the_worker_left_is_settled(scripts: Scripts, restart):
    await restart()
    run = await scripts.run(
        'await step.do("a", { retries: { limit: 9, delay: 0 } }, () => opened("g"));\nreturn "end";'
    )
    await run.has("a-1")
    await run.command("pause")
    assert (await run.details())["status"] == "waitingForPause"
    await restart()
    await run.until("paused")
    await run.command("resume")
    await run.until("running")
    await run.open("g")
    assert await run.output() == "end"
