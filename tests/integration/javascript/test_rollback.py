"""Rollback: the checks of Cloudflare's engine tests."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import pytest

from tests.support.javascript import ONCE, Scripts


def of_type(details, type):
    return [step["name"] for step in details["steps"] if step["type"] == type]


UNDO = "{ rollback: async ({ error, output, ctx }) => { console.log(JSON.stringify([ctx.step.name, ctx.step.count, error.name, error.message, output])); } }"


async def test_e33_e36_handlers_run_in_reverse_and_are_told_why(js: Scripts):
    run = await js.run(
        f'for (const n of [1, 2, 3]) await step.do(`s${{n}}`, async () => n, {UNDO});\nthrow new TypeError("late");'
    )
    assert await run.error() == ("TypeError", "late")
    details = await run.details()
    assert of_type(details, "rollback") == ["s3-1", "s2-1", "s1-1"]
    assert details["rollback"] == {"outcome": "complete", "error": None}
    assert await run.logs() == [f'["s{n}",1,"TypeError","late",{n}]' for n in (3, 2, 1)]


async def test_e34_of_parallel_steps_the_one_started_later_goes_first(js: Scripts):
    run = await js.run(
        f'await Promise.all([step.do("a", async () => {{ await opened("g"); }}, {UNDO}), step.do("b", async () => 1, {UNDO})]);\n'
        'throw new Error("no");'
    )
    await run.has("b-1", success=True)
    await run.open("g")
    await run.until("errored")
    assert of_type(await run.details(), "rollback") == ["b-1", "a-1"]


async def test_e35_the_configuration_of_a_handler(js: Scripts):
    run = await js.run(
        'await step.do("a", async () => 1, { rollback: async () => {}, rollbackConfig: { retries: { limit: 2, delay: 3, backoff: "linear" }, timeout: "1 minute" } });\n'
        'throw new Error("no");'
    )
    await run.until("errored")
    [undo] = [step for step in (await run.details())["steps"] if step["type"] == "rollback"]
    assert undo["config"] == {"retries": {"limit": 2, "delay": 3, "backoff": "linear"}, "timeout": "1 minute"}


async def test_e37_a_failed_step_is_rolled_back_too(js: Scripts):
    run = await js.run(f'await step.do("a", {ONCE}, async () => {{ throw new Error("no"); }}, {UNDO});')
    assert await run.error() == ("Error", "no")
    assert await run.logs() == ['["a",1,"Error","no",null]']
    forward, undone = (await run.details())["steps"]
    assert (forward["type"], forward["success"], undone["type"], undone["success"]) == ("step", False, "rollback", True)


async def test_e38_only_steps_with_handlers_are_rolled_back(js: Scripts):
    run = await js.run(
        f'await step.do("a", async () => 1);\nawait step.do("b", async () => 1, {UNDO});\nawait step.do("c", async () => 1);\nthrow new Error("no");'
    )
    await run.until("errored")
    assert of_type(await run.details(), "rollback") == ["b-1"]


async def test_e39_a_handler_that_fails_stops_the_rest(js: Scripts):
    broken = (
        '{ rollback: async () => { throw new Error("stuck"); }, rollbackConfig: { retries: { limit: 0, delay: 0 } } }'
    )
    run = await js.run(
        f'await step.do("a", async () => 1, {UNDO});\nawait step.do("b", async () => 1, {broken});\nawait step.do("c", async () => 1, {UNDO});\nthrow new Error("no");'
    )
    assert await run.error() == ("Error", "no")
    details = await run.details()
    assert of_type(details, "rollback") == ["c-1", "b-1"]
    assert details["rollback"]["outcome"] == "failed"
    assert details["rollback"]["error"]["message"] == "stuck"


TERMINATED = '["a",1,"Terminated","Instance terminated during rollback",1]'


@pytest.mark.parametrize("id", ["e40 in a sleep", "e41 e46 paused"])
async def test_terminate_with_rollback_runs_the_handlers(js: Scripts, id):
    run = await js.run(f'await step.do("a", async () => 1, {UNDO});\nawait step.sleep("nap", "1 hour");')
    await run.until("waiting")
    if "paused" in id:
        await run.command("pause")
        await run.until("paused")
    await run.command("terminate", rollback=True)
    details = await run.until("terminated")
    assert details["rollback"] == {"outcome": "complete", "error": None}
    [sleep] = [step for step in details["steps"] if step["type"] == "sleep"]
    assert sleep["finished"] is False
    assert sleep["end"] > details["end"], "it had an hour to go"
    assert of_type(details, "rollback") == ["a-1"]
    assert details["steps"][-1]["type"] == "termination"
    assert await run.logs() == [TERMINATED]


async def test_e42_a_step_that_had_not_finished_is_rolled_back(js: Scripts):
    run = await js.run(f'await step.do("a", () => new Promise(() => {{ setTimeout(() => {{}}, 60_000); }}), {UNDO});')
    await run.has("a-1")
    await run.command("terminate", rollback=True)
    details = await run.until("terminated")
    assert details["rollback"]["outcome"] == "complete"
    assert await run.logs() == [TERMINATED.replace(",1]", ",null]")]


async def test_e43_a_step_that_replay_no_longer_reaches_fails_the_rollback(js: Scripts):
    run = await js.run(
        f'if (!globalThis.ran) {{ globalThis.ran = true; await step.do("a", async () => 1, {UNDO}); }}\n'
        'await step.sleep("nap", "1 hour");'
    )
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")
    await run.command("terminate", rollback=True)
    details = await run.until("terminated")
    assert details["rollback"]["outcome"] == "failed"


async def test_e44_a_failure_that_was_caught_is_rolled_back_on_termination(js: Scripts):
    run = await js.run(
        f'try {{ await step.do("a", {ONCE}, async () => {{ throw new Error("no"); }}, {UNDO}); }} catch {{}}\n'
        'await step.sleep("nap", "1 hour");'
    )
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")
    await run.command("terminate", rollback=True)
    await run.until("terminated")
    assert await run.logs() == [TERMINATED.replace(",1]", ",null]")]


async def test_e45_handlers_see_no_dynamic_delay(js: Scripts):
    run = await js.run(
        'await step.do("a", { retries: { limit: 1, delay: () => 1 } }, async () => 1,\n'
        "  { rollback: async ({ ctx }) => { console.log(JSON.stringify(ctx.config.retries)); } });\n"
        'await step.sleep("nap", "1 hour");'
    )
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")
    await run.command("terminate", rollback=True)
    await run.until("terminated")
    assert await run.logs() == ['{"limit":1,"backoff":"exponential"}']


async def test_e47_no_rollback_on_success(js: Scripts):
    run = await js.run(f'return await step.do("a", async () => 1, {UNDO});')
    assert await run.output() == 1
    assert (await run.details())["rollback"] is None


async def test_forward_steps_are_refused_during_rollback(js: Scripts):
    run = await js.run(
        'await step.do("a", async () => 1, { rollback: async () => { try { await step.do("b", async () => 1); } catch (error) { console.log(error.message); } } });\n'
        'throw new Error("no");'
    )
    await run.until("errored")
    assert await run.logs() == ["Cannot execute steps during rollback phase"]
