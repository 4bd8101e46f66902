"""Retries, delays and timeouts of steps, and what their failures are to the code: the checks of Cloudflare's engine tests."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import pytest

from tests.support.javascript import ONCE, Scripts

KEEPS = "workflows_preserve_non_retryable_error_message"
REPLACES = "workflows_replace_non_retryable_error_message"


def attempts(details, name):
    [step] = [step for step in details["steps"] if step.get("name") == name and step["type"] != "rollback"]
    return step["attempts"]


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
