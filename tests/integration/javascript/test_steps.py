"""Steps: how many, side by side, inside each other, with which arguments; and what `run` is given."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import pytest

from tests.support.javascript import ONCE, Scripts


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
