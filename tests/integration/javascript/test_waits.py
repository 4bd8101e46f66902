"""Waits for events, and sleeps: the checks of Cloudflare's engine tests."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

from tests.support.javascript import Scripts


async def test_e07_an_event_completes_a_wait(js: Scripts):
    run = await js.run(
        'const got = await step.waitForEvent("w", { type: "go" });\nreturn [got.payload, got.type, got.timestamp instanceof Date];'
    )
    await run.until("waiting")
    await run.send("go", {"n": 1})
    assert await run.output() == [{"n": 1}, "go", True]


async def test_events_wait_for_the_wait(js: Scripts):
    run = await js.run(
        'await step.do("busy", () => opened("g"));\nreturn (await step.waitForEvent("w", { type: "go" })).payload;'
    )
    await run.send("go", 1)
    await run.open("g")
    assert await run.output() == 1


async def test_e09_the_third_wait_times_out_and_takes_no_later_event(js: Scripts):
    run = await js.run(
        "const got = [];\n"
        "for (let i = 0; i < 3; i++) {\n"
        '  try { got.push((await step.waitForEvent("w", { type: "go", timeout: i < 2 ? 60_000 : 20 })).payload); }\n'
        "  catch (error) { got.push([error.name, error.message]); }\n}\n"
        'got.push((await step.waitForEvent("last", { type: "go" })).payload);\n'
        "return got;"
    )
    await run.send("go", 1)
    await run.send("go", 2)
    await run.has("w-3", finished=True)
    await run.send("go", 3)
    assert await run.output() == [1, 2, ["WorkflowTimeoutError", "Execution timed out after 20ms"], 3]


async def test_waits_on_several_types_at_once(js: Scripts):
    run = await js.run(
        'const [a, b] = await Promise.all([step.waitForEvent("a", { type: "one" }), step.waitForEvent("b", { type: "two" })]);\n'
        "return [a.payload, b.payload];"
    )
    await run.until("waiting")
    await run.send("two", 2)
    await run.send("one", 1)
    assert await run.output() == [1, 2]


async def test_sleeps_and_sleep_until(js: Scripts):
    run = await js.run(
        'const start = Date.now();\nawait step.sleep("nap", 50);\nconst then = Date.now();\n'
        'await step.sleepUntil("date", new Date(then + 20));\nawait step.sleepUntil("number", Date.now() + 20);\n'
        "return [then - start >= 50, Date.now() - then >= 40];"
    )
    assert await run.output() == [True, True]


async def test_a_sleep_of_less_than_nothing_is_over_at_once(js: Scripts):
    run = await js.run('await step.sleep("nap", -5_000);\nreturn await step.do("a", async () => "awake");')
    assert await run.output() == "awake"
    assert (await run.details())["steps"][0]["finished"] is True


async def test_sleeping_until_the_past_is_an_error(js: Scripts):
    run = await js.run('await step.do("a", async () => 1);\nawait step.sleepUntil("nap", new Date(0));')
    assert await run.error() == ("Error", "You can't sleep until a time in the past, time-traveler")
