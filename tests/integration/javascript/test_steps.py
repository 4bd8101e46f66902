"""Retries, timeouts, sleeps, waits, rollback, pause and restart: the checks of Cloudflare's engine tests."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import pytest

from tests.support.javascript import Refused, Scripts

ONCE = "{ retries: { limit: 0, delay: 0 } }"
KEEPS = "workflows_preserve_non_retryable_error_message"
REPLACES = "workflows_replace_non_retryable_error_message"


def attempts(details, name):
    [step] = [step for step in details["steps"] if step.get("name") == name and step["type"] != "rollback"]
    return step["attempts"]


def of_type(details, type):
    return [step["name"] for step in details["steps"] if step["type"] == type]


@pytest.mark.parametrize("compatible", [{"flags": [REPLACES]}, {"compatibility_date": "2026-05-13"}])
async def test_e01_no_retry_after_a_non_retryable_error(js: Scripts, compatible):
    code = 'await step.do("a", async () => { throw new NonRetryableError("never"); });'
    run = await js.run(code, **compatible)
    assert await run.error() == (
        "WorkflowFatalError",
        "The execution of the Workflow instance was terminated, as a step threw an NonRetryableError and it was not"
        " handled",
    )
    [attempt] = attempts(await run.details(), "a-1")
    assert attempt["error"]["name"] == "WorkflowFatalError"
    assert attempt["error"]["message"] == 'Step threw a NonRetryableError with message "never"'


@pytest.mark.parametrize(
    "compatible", [{"flags": [KEEPS], "compatibility_date": "2026-01-01"}, {"compatibility_date": "2026-05-14"}]
)
async def test_e02_with_the_flag_it_keeps_its_name_and_message(js: Scripts, compatible):
    code = 'await step.do("a", async () => { throw new NonRetryableError("never"); });'
    run = await js.run(code, **compatible)
    assert await run.error() == ("NonRetryableError", "never")
    [attempt] = attempts(await run.details(), "a-1")
    assert attempt["error"] == {"name": "NonRetryableError", "message": "never"}


@pytest.mark.parametrize(
    "thrown",
    [
        "Object.assign(new Error('by name'), { name: 'NonRetryableError' })",
        "new Error('NonRetryableError: by message')",
        "new NonRetryableError('')",
        "new (class extends NonRetryableError {})('a class of its own')",
        "new NonRetryableError('another name', 'Mine')",
    ],
)
async def test_non_retryable_errors_are_known_by_name_message_and_class(js: Scripts, thrown):
    run = await js.run(f'try {{ await step.do("a", async () => {{ throw {thrown}; }}); }} catch {{ return "caught"; }}')
    assert await run.output() == "caught"
    assert len(attempts(await run.details(), "a-1")) == 1


async def test_e03_a_caught_failure_leaves_the_instance_successful(js: Scripts):
    run = await js.run(
        f'try {{ await step.do("a", {ONCE}, async () => {{ throw new Error("no"); }}); }} catch {{}}\nreturn 1;'
    )
    assert await run.output() == 1
    assert [attempt["success"] for attempt in attempts(await run.details(), "a-1")] == [False]


async def test_e04_d05_d06_a_delay_function_is_asked_for_each_retry(js: Scripts):
    run = await js.run(
        "const asked = [];\n"
        "const delay = async ({ ctx, error }) => { asked.push([ctx.attempt, error.message]); return 1; };\n"
        'await step.do("async", { retries: { limit: 2, delay } }, async (ctx) => { if (ctx.attempt < 3) throw new Error(`no ${ctx.attempt}`); });\n'
        'await step.do("sync", { retries: { limit: 2, delay: () => 1.5 } }, async (ctx) => { if (ctx.attempt < 2) throw new Error("no"); });\n'
        "return asked;"
    )
    assert await run.output() == [[1, "no 1"], [2, "no 2"]]
    details = await run.details()
    assert details["steps"][0]["config"]["retries"]["delay"] == "[dynamic]"


@pytest.mark.parametrize(
    ("id", "delay", "what"),
    [
        ("e05 d08", "() => { throw new Error('broken'); }", "threw an error: broken"),
        ("d09", "async () => { throw new Error('later'); }", "threw an error: later"),
        ("invalid", "() => 'soon'", "returned an invalid delay value"),
        ("negative", "() => -1", "returned an invalid delay value"),
        ("nothing", "() => undefined", "returned an invalid delay value"),
        ("thenable", "() => ({ then(_, reject) { reject(new Error('then')); } })", "threw an error: then"),
    ],
)
async def test_a_delay_function_that_fails_ends_the_step(js: Scripts, id, delay, what):
    run = await js.run(
        f'try {{ await step.do("a", {{ retries: {{ limit: 3, delay: {delay} }} }}, async () => {{ throw new Error("no"); }}); }}\n'
        "catch (error) { return [error.name, error.message]; }"
    )
    name, message = await run.output()
    assert name == "NonRetryableDelayError"
    assert message.startswith(f'The delay function for step "a-1" {what}')
    assert len(attempts(await run.details(), "a-1")) == 1


async def test_d07_a_delay_function_that_never_settles_fails_after_five_seconds(js: Scripts):
    run = await js.run(
        'try { await step.do("a", { retries: { limit: 3, delay: () => new Promise(() => {}) } }, async () => { throw new Error("no"); }); }\n'
        "catch (error) { return error.message; }"
    )
    assert await run.output() == 'The delay function for step "a-1" did not return within 5 seconds'


async def test_e04_the_delay_is_told_with_the_attempt_that_failed(js: Scripts):
    name = js.name()
    run = await js.run(
        'if (event.payload.child) return await step.do("a", { retries: { limit: 1, delay: () => 50 } }, async ({ attempt }) => { if (attempt === 1) throw new Error("no"); });\n'
        'return await step.do("ask", async () => {\n'
        '  const feed = await (await this.env.ME.create({ params: { child: true } })).subscribe({ filter: ["attempt_errored"] });\n'
        "  const { value } = await feed.next();\n"
        "  return [value.stepName, value.attempt, value.retryDelayMs, value.error, (await feed.next()).done];\n});",
        name=name,
        bindings=[{"type": "workflow", "name": "ME", "workflow_name": name, "class_name": "Flow"}],
    )
    assert await run.output() == ["a-1", 1, 50, {"name": "Error", "message": "no"}, True]


async def test_d07_d08_a_delay_function_that_failed_is_in_the_log(js: Scripts):
    run = await js.run(
        'await step.do("a", { retries: { limit: 3, delay: () => { throw new Error("broken"); } } }, async () => { throw new Error("no"); });'
    )
    await run.until("errored")
    lines = await js.call("GET", f"{run.path}/logs?per_page=1000")
    told = [line["message"] for line in lines if "delay function" in line["message"] and line.get("step") == "a-1"]
    assert len(told) == 1
    assert 'The delay function for step "a-1" threw an error: broken' in told[0]


async def test_e06_the_context_shows_fixed_delays_only(js: Scripts):
    run = await js.run(
        'const dynamic = await step.do("a", { retries: { limit: 1, delay: () => 1 } }, async (ctx) => "delay" in ctx.config.retries);\n'
        'const fixed = await step.do("b", { retries: { limit: 1, delay: 7 } }, async (ctx) => ctx.config.retries.delay);\n'
        "return [dynamic, fixed];"
    )
    assert await run.output() == [False, 7]


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


@pytest.mark.parametrize(
    ("id", "limits", "steps", "ends"),
    [("e13", {"steps": 3}, 4, "errored"), ("e14", {"steps": 3}, 3, "complete")],
)
async def test_the_limit_of_steps(js: Scripts, id, limits, steps, ends):
    handle = await js.flow(
        f'for (let i = 0; i < {steps}; i++) await step.do("s", async () => i);\nawait step.sleep("does not count", 1);',
        limits=limits,
    )
    run = await js.create(handle)
    details = await run.until(ends)
    if ends == "errored":
        assert details["error"]["message"].startswith("The limit of 3 steps has been reached.")


ENDS = {
    "e16 e19 complete": ("return 1;", "complete"),
    "e17 e20 errored": ('throw new Error("no");', "errored"),
    "e18 e21 terminated": ('await step.waitForEvent("w", { type: "never" });', "terminated"),
}


@pytest.mark.parametrize("id", ENDS)
async def test_finished_instances_cannot_be_terminated_and_can_be_restarted(js: Scripts, id):
    code, ends = ENDS[id]
    run = await js.run(f'await step.do("a", async () => 1);\n{code}')
    if ends == "terminated":
        await run.until("waiting")
        await run.command("terminate")
    first = await run.until(ends)
    with pytest.raises(Refused) as refused:
        await run.command("terminate")
    assert (refused.value.code, refused.value.message) == (10401, "workflows.api.error.instance.cannot_terminate")
    await run.command("restart")
    if ends == "terminated":
        await run.until("waiting")
        return
    again = await run.until(ends)
    assert again["start"] >= first["end"]


async def test_e22_a_running_instance_can_be_restarted(js: Scripts):
    run = await js.run('await step.do("a", () => opened("g"));\nreturn "done";')
    before = await run.has("a-1")
    await run.command("restart")
    await run.open("g")
    assert await run.output() == "done"
    assert (await run.has("a-1"))["start"] > before["start"]


async def test_e23_a_paused_instance_can_be_restarted(js: Scripts):
    run = await js.run('await step.waitForEvent("w", { type: "go" });\nreturn "done";')
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")
    await run.command("restart")
    await run.until("waiting")
    await run.send("go")
    assert await run.output() == "done"


async def test_e24_restart_from_a_step_keeps_what_came_before(js: Scripts):
    run = await js.run(
        'const a = await step.do("a", async () => crypto.randomUUID());\n'
        'const b = await step.do("b", async () => crypto.randomUUID());\nreturn [a, b];'
    )
    a, b = await run.output()
    await run.command("restart", **{"from": {"name": "b"}})

    async def again():
        details = await run.until("complete")
        return details["output"]

    result = await again()
    while result == [a, b]:
        result = await again()
    assert result[0] == a
    assert result[1] != b


async def test_e25_restart_from_a_name_shared_with_a_sleep_means_the_step(js: Scripts):
    run = await js.run(
        'const before = await step.do("before", async () => crypto.randomUUID());\n'
        'await step.sleep("x", 1);\n'
        'const x = await step.do("x", async () => crypto.randomUUID());\nreturn [before, x];'
    )
    before, x = await run.output()
    slept = (await run.details())["steps"][1]
    await run.command("restart", **{"from": {"name": "x"}})
    while (result := (await run.until("complete"))["output"]) == [before, x]:
        pass
    assert result[0] == before
    assert (await run.details())["steps"][1] == slept


async def test_e26_restart_from_a_step_that_never_ran_is_refused(js: Scripts):
    run = await js.run('await step.do("a", async () => 1);')
    await run.until("complete")
    with pytest.raises(Refused) as refused:
        await run.command("restart", **{"from": {"name": "nope"}})
    assert 'Step "nope" not found in execution history' in refused.value.message


async def test_e27_b28_b29_pause_waits_for_the_step_and_resume_goes_on(js: Scripts):
    run = await js.run(
        'const a = await step.do("a", async () => { await opened("g"); return 1; });\nreturn a + await step.do("b", async () => 1);'
    )
    await run.has("a-1")
    await run.command("pause")
    assert (await run.details())["status"] == "waitingForPause"
    await run.open("g")
    details = await run.until("paused")
    assert [(step["name"], step["success"]) for step in details["steps"]] == [("a-1", True)]
    await run.command("resume")
    assert await run.output() == 2


async def test_e28_pause_waits_for_all_parallel_steps(js: Scripts):
    run = await js.run(
        'await Promise.all([step.do("a", () => opened("g")), step.do("b", () => opened("h"))]);\n'
        'return await step.do("c", async () => "end");'
    )
    await run.has("b-1")
    await run.command("pause")
    await run.open("g")
    await run.has("a-1", success=True)
    assert (await run.details())["status"] == "waitingForPause"
    await run.open("h")
    details = await run.until("paused")
    assert [(step["name"], step["success"]) for step in details["steps"]] == [("a-1", True), ("b-1", True)]


async def test_e29_b30_resume_while_waiting_for_the_pause_takes_it_back(js: Scripts):
    run = await js.run(
        'await Promise.all([step.do("a", () => opened("g")), step.do("b", () => opened("g"))]);\n'
        'return await step.do("c", async () => "end");'
    )
    await run.has("b-1")
    await run.command("pause")
    await run.until("waitingForPause")
    await run.command("resume")
    await run.until("running")
    await run.open("g")
    assert await run.output() == "end"
    assert [step["success"] for step in (await run.details())["steps"]] == [True, True, True]


async def test_e30_a_pause_interrupts_a_sleep(js: Scripts):
    run = await js.run('await step.sleep("nap", "1 second");\nreturn await step.do("after", async () => "end");')
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")
    await run.command("resume")
    assert await run.output() == "end"


async def test_e31_a_pause_interrupts_a_wait(js: Scripts):
    run = await js.run(
        'await step.waitForEvent("w", { type: "go" });\nreturn await step.do("after", async () => "end");'
    )
    await run.until("waiting")
    await run.command("pause")
    await run.until("paused")
    await run.send("go")
    assert (await run.details())["status"] == "paused"
    await run.command("resume")
    assert await run.output() == "end"


async def test_b26_termination_ends_a_wait_and_no_later_step_begins(js: Scripts):
    run = await js.run('await step.waitForEvent("w", { type: "go" });\nawait step.do("after", async () => 1);')
    await run.until("waiting")
    await run.command("terminate")
    await run.until("terminated")
    with pytest.raises(Refused):
        await run.send("go")
    details = await run.details()
    assert [step["type"] for step in details["steps"]] == ["waitForEvent", "termination"]
    assert details["steps"][1]["trigger"] == {"source": "api"}


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


async def test_timeouts_are_per_attempt_and_can_be_caught(js: Scripts):
    run = await js.run(
        'try { await step.do("a", { timeout: 20, retries: { limit: 1, delay: 0 } }, () => new Promise((done) => setTimeout(done, 60_000))); }\n'
        "catch (error) { return [error.name, error.message, error instanceof Error]; }"
    )
    assert await run.output() == ["WorkflowTimeoutError", "Execution timed out after 20ms", True]
    assert len(attempts(await run.details(), "a-1")) == 2


@pytest.mark.parametrize(
    ("thrown", "name", "message"),
    [
        ("new TypeError('t')", "TypeError", "t"),
        ("new (class Custom extends Error { name = 'Custom'; })('c')", "Custom", "c"),
        ("'a text'", "Error", "a text"),
        ("5", "Error", "5"),
        ("undefined", "Error", "undefined"),
        ("null", "Error", "null"),
        ("{ message: 'like an error' }", "Error", "like an error"),
        ("Object.create(null)", "Error", "(a value that cannot be made a text)"),
    ],
)
async def test_what_a_step_throws_is_what_the_code_catches(js: Scripts, thrown, name, message):
    run = await js.run(
        f'try {{ await step.do("a", {ONCE}, async () => {{ throw {thrown}; }}); }}\n'
        "catch (error) { return [error.name, error.message, error instanceof Error]; }"
    )
    assert await run.output() == [name, message, True]


@pytest.mark.parametrize(
    ("thrown", "name", "message"),
    [
        ("new RangeError('r')", "RangeError", "r"),
        ("new (class Custom extends Error { name = 'Custom'; })('c')", "Error", "Custom: c"),
        ("'a text'", "Error", "a text"),
        ("new NonRetryableError('n')", "NonRetryableError", "n"),
        ("new DOMException('d', 'AbortError')", "AbortError", "d"),
    ],
)
async def test_what_run_throws_is_the_error_of_the_instance(js: Scripts, thrown, name, message):
    run = await js.run(f'await step.do("a", async () => 1);\nthrow {thrown};')
    assert await run.error() == (name, message)


async def test_parallel_steps_run_at_the_same_time(js: Scripts):
    run = await js.run(
        "let inside = 0, most = 0;\n"
        "const work = async (n) => { most = Math.max(most, ++inside); await new Promise((done) => setTimeout(done, 30)); inside--; return n; };\n"
        "const all = await Promise.all([1, 2, 3].map((n) => step.do(`s${n}`, () => work(n))));\n"
        'const settled = await Promise.allSettled([step.do("bad", ONCE, async () => { throw new Error("no"); }), step.do("good", async () => 1)]);\n'
        "return [all, most, settled.map((one) => one.status)];",
        outside=f"const ONCE = {ONCE};",
    )
    assert await run.output() == [[1, 2, 3], 3, ["rejected", "fulfilled"]]


async def test_races_are_won_by_the_first_and_the_losers_are_recorded(js: Scripts):
    run = await js.run(
        'const winner = await Promise.race([step.do("slow", async () => { await opened("g"); return "slow"; }), step.do("fast", async () => "fast")]);\n'
        'await step.waitForEvent("w", { type: "go" });\nreturn winner;'
    )
    await run.has("fast-1", success=True)
    await run.open("g")
    await run.has("slow-1", success=True)
    await run.send("go")
    assert await run.output() == "fast"


async def test_nested_steps(js: Scripts):
    run = await js.run(
        'return await step.do("outer", async () => {\n'
        '  const a = await step.do("inner", async () => 1);\n'
        '  await step.sleep("nap", 1);\n'
        '  return a + await step.do("inner", async () => 2);\n});'
    )
    assert await run.output() == 3
    assert {step["name"] for step in (await run.details())["steps"]} == {"outer-1", "inner-1", "nap-1", "inner-2"}


async def test_nested_steps_are_counted_on_when_the_outer_one_is_tried_again(js: Scripts):
    """As the n-th call of a name: those of the second attempt are other steps than those of the first."""
    run = await js.run(
        "const made = [];\n"
        'await step.do("outer", { retries: { limit: 1, delay: 0 } }, async (ctx) => {\n'
        '  await step.do("inner", async () => { made.push(ctx.attempt); });\n'
        '  if (ctx.attempt === 1) throw new Error("again");\n});\nreturn made;'
    )
    assert await run.output() == [1, 2]
    assert [step["name"] for step in (await run.details())["steps"]] == ["outer-1", "inner-1", "inner-2"]


@pytest.mark.parametrize("before", ["", "await new Promise((done) => setTimeout(done, 1));"])
async def test_nested_steps_are_not_made_twice_when_the_outer_one_is_tried_again_in_another_life(
    js: Scripts, before: str
):
    """What the first attempt had recorded before its sandbox died is handed to the second. The attempt answers for what
    it does after a nested step, too."""
    run = await js.run(
        'return await step.do("outer", { retries: { limit: 1, delay: 0 } }, async (ctx) => {\n'
        '  const inner = await step.do("inner", async () => `made in attempt ${ctx.attempt}`);\n'
        f"  {before}\n"
        "  if (ctx.attempt === 1) for (;;);\n"
        "  return [ctx.attempt, inner];\n});",
        limits={"cpu_ms": 100},
    )
    assert (await run.until("complete", seconds=20))["output"] == [2, "made in attempt 1"]
    steps = (await run.details())["steps"]
    assert [(step["name"], len(step["attempts"])) for step in steps] == [("outer-1", 2), ("inner-1", 1)]


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


@pytest.mark.parametrize(
    ("id", "call", "name", "message"),
    [
        ("v07 nul", 'step.do("a\\0b", async () => 1)', "WorkflowFatalError", "exceeds max length (256 chars) or invalid characters found"),
        ("v07 long", 'step.do("x".repeat(257), async () => 1)', "WorkflowFatalError", "exceeds max length (256 chars)"),
        ("no text", "step.do(5, async () => 1)", "WorkflowFatalError", 'Step name "5"'),
        ("no callback", 'step.do("a")', "WorkflowFatalError", 'Step "a" requires a callback function'),
        ("v09 limit", 'step.do("a", { retries: { limit: 1 } }, async () => 1)', "WorkflowFatalError", 'Step config for "a" is in a invalid format.'),
        ("v09 delay", 'step.do("a", { retries: { delay: 1 } }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("v09 backoff", 'step.do("a", { retries: { backoff: "linear" } }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("v09 unknown", 'step.do("a", { retries: { limit: 1, delay: 1, foo: 1 } }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("unknown", 'step.do("a", { foo: 1 }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("v09 unparsable", 'step.do("a", { retries: { limit: 1, delay: "soon" } }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("v09 timeout", 'step.do("a", { timeout: 0 }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("v09 sensitive all", 'step.do("a", { sensitive: "all" }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("v09 sensitive true", 'step.do("a", { sensitive: true }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("unit", 'step.do("a", { timeout: "5s" }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("space", 'step.do("a", { timeout: "5\ufeffseconds" }, async () => 1)', "WorkflowFatalError", "invalid format"),
        ("rollback nothing", 'step.do("a", async () => 1, {})', "WorkflowFatalError", 'Rollback for "a" must be a function'),
        ("rollback options", 'step.do("a", async () => 1, 5)', "WorkflowFatalError", 'Rollback options for "a" must be an object'),
        ("rollback", 'step.do("a", async () => 1, { rollback: 5 })', "WorkflowFatalError", 'Rollback for "a" must be a function'),
        ("rollback config", 'step.do("a", async () => 1, { rollback() {}, rollbackConfig: { foo: 1 } })', "WorkflowFatalError", 'Rollback config for "a" is in a invalid format.'),
        ("event type", 'step.waitForEvent("a", { type: "no spaces" })', "WorkflowError", "(workflow.invalid_event_type) Provided event type is invalid"),
        ("sleep", 'step.sleep("a", "soon")', "WorkflowFatalError", "invalid duration"),
        ("getter", 'step.do("a", { get retries() { throw new RangeError("mine"); } }, async () => 1)', "RangeError", "mine"),
    ],
)  # fmt: skip
async def test_wrong_arguments(js: Scripts, id, call, name, message):
    run = await js.run(
        f'await step.do("first", async () => 1);\ntry {{ await {call}; }} catch (error) {{ return [error.name, error.message]; }}'
    )
    got_name, got_message = await run.output()
    assert got_name == name
    assert message in got_message


async def test_v08_v10_v11_what_is_accepted(js: Scripts):
    run = await js.run(
        'for (const name of ["ordinary", "with spaces", "x".repeat(256), "ü/☃", ""]) await step.do(name, async () => 1);\n'
        'for (const config of [{ retries: { limit: 0, delay: 100000 } }, { retries: { limit: 1, delay: 0 } }, { sensitive: "output" },\n'
        '  { retries: { limit: 1, delay: () => 1 } }, { retries: { limit: Infinity, delay: 1 } }, { timeout: "30.5 seconds" }, undefined, null, {}])\n'
        '  await step.do("configured", config, async () => 1);\nreturn "all";'
    )
    assert await run.output() == "all"


async def test_a_callback_need_not_be_async(js: Scripts):
    assert await (await js.run('return await step.do("a", () => 5);')).output() == 5


async def test_functions_given_to_a_step_have_no_this(js: Scripts):
    """They would find what the run keeps of the step."""
    run = await js.run(
        "const seen = [];\n"
        "const config = { retries: { limit: 1, delay() { seen.push(this); return 0; } } };\n"
        'await step.do("a", config, function ({ attempt }) { seen.push(this); if (attempt === 1) throw new Error("no"); },\n'
        "  { rollback: function () { console.log(this === undefined); } });\n"
        'await step.do("b", async () => { console.log(seen.length, seen.every((one) => one === undefined)); });\n'
        'throw new Error("undo");'
    )
    await run.until("errored")
    assert await run.logs() == ["3 true", "true"]


async def test_a_run_that_can_never_go_on_says_so(js: Scripts):
    run = await js.run('await step.do("a", async () => 1);\nawait new Promise(() => {});')
    _, message = await run.error()
    assert message == "The run has nothing left to wait for"


async def test_the_event(js: Scripts):
    run = await js.run(
        'await step.do("a", async () => 1);\n'
        "return [event.payload, event.instanceId, event.workflowName, event.timestamp instanceof Date, Object.keys(event).sort().join()];",
        {"n": [1]},
    )
    payload, id, name, date, keys = await run.output()
    assert (payload, id, name, date) == ({"n": [1]}, run.id, run.workflow, True)
    assert keys == "instanceId,payload,timestamp,workflowName"


async def test_without_params_the_payload_is_an_empty_object(js: Scripts):
    assert await (await js.run('await step.do("a", async () => 1);\nreturn event.payload;')).output() == {}


async def test_logs_of_the_code(js: Scripts):
    run = await js.run(
        'console.log("before", { a: [1] });\nawait step.do("a", async () => { console.warn("in %s", "side"); });\nconsole.error(new Map([[1, 2]]));'
    )
    await run.until("complete")
    assert await run.logs() == ["before { a: [ 1 ] }", "in side", "Map(1) { 1 => 2 }"]
