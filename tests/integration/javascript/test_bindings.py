"""Workflow bindings inside scripts: the checks of Cloudflare's binding tests, on deployed scripts."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import httpx
import pytest

from tenants.auth import operator
from tests.support.api import new_tenant
from tests.support.javascript import Refused, Scripts
from tests.support.live import Live

OTHER = """
export class Other extends WorkflowEntrypoint {
  async run(event, step) {
    await step.do("a", async () => 1);
    if (event.payload.wait) return (await step.waitForEvent("w", { type: "go", timeout: "1 hour" })).payload;
    if (event.payload.name) return event.workflowName;
    if (event.payload.twice) {
      const got = [];
      for (const type of ["one", "two"]) got.push(await step.waitForEvent(type, { type, timeout: "1 hour" }));
      return got.map(({ type, payload }) => [type, payload]);
    }
    if (event.payload.fail) throw new Error("failed");
    if (event.payload.self) { await step.do("delete", async () => { await (await this.env.OTHER.get(event.instanceId)).delete(); ran = true; }); ran = true; }
    return event.payload;
  }
}
let ran = false;
const settled = async (instance, wanted) => {
  for (;;) {
    const status = await instance.status();
    if (wanted.includes(status.status)) return status;
    await new Promise((done) => setTimeout(done, 5));
  }
};
const ENDED = ["complete", "errored", "terminated"];
"""


@pytest.fixture
def ask(js: Scripts):
    """Runs code as the body of a step, with `OTHER` bound to a second workflow; what it returns."""

    async def ask(code: str):
        name = js.name()
        binding = {"type": "workflow", "name": "OTHER", "workflow_name": f"{name}-other", "class_name": "Other"}
        handle = await js.flow(
            f'const OTHER = this.env.OTHER;\nreturn await step.do("ask", {{ retries: {{ limit: 0, delay: 0 }} }}, async () => {{\n{code}\n}});',
            name=name,
            outside=OTHER,
            bindings=[binding],
        )
        await js.bind(f"{name}-other", name, "Other")
        run = await js.create(handle)
        return await run.output()

    return ask


async def test_b01_b02_b20_create_with_id_and_params(ask):
    got = await ask(
        'const made = await OTHER.create({ id: "mine", params: { n: 1, at: new Date(5) } });\n'
        "const status = await settled(made, ENDED);\n"
        "return [made.id, status.status, status.output.n, status.output.at instanceof Date, status.error, status.rollback];"
    )
    assert got[:4] == ["mine", "complete", 1, True]
    assert got[5] is None


async def test_b03_create_without_arguments(ask):
    got = await ask(
        "const made = await OTHER.create();\nreturn [made.id.length > 0, (await settled(made, ENDED)).status];"
    )
    assert got == [True, "complete"]


async def test_b02_the_workflow_s_name_is_that_of_the_bound_one(ask):
    got = await ask(
        "return [await settled(await OTHER.create({ params: { name: true } }), ENDED), this.env.FLOW !== undefined];"
    )
    assert got[0]["output"].endswith("-other")


async def test_b16_a_batch_of_three_in_order(ask):
    got = await ask(
        'const ids = ["c", "a", "b"];\n'
        "const made = await OTHER.createBatch(ids.map((id) => ({ id, params: { id } })));\n"
        "const ends = [];\n"
        "for (const id of ids) ends.push((await settled(await OTHER.get(id), ENDED)).output.id);\n"
        "return [made.map((one) => one.id), ends];"
    )
    assert got == [["c", "a", "b"], ["c", "a", "b"]]


async def test_b25_two_waits_get_each_their_own_event(ask):
    got = await ask(
        "const one = await OTHER.create({ params: { twice: true } });\n"
        'await one.sendEvent({ type: "two", payload: 2 });\nawait one.sendEvent({ type: "one", payload: 1 });\n'
        "return (await settled(one, ENDED)).output;"
    )
    assert got == [["one", 1], ["two", 2]]


CAUGHT = "const told = async (work) => { try { await work(); return 'nothing'; } catch (error) { return `${error.name}: ${error.message}`; } };\n"


@pytest.mark.parametrize(
    ("id", "call", "message"),
    [
        ("b04", 'OTHER.create({ id: "#invalid!" })', "WorkflowError: Workflow instance has invalid id"),
        ("taken", 'OTHER.create({ id: "one" }).then(() => OTHER.create({ id: "one" }))', 'WorkflowError: (instance.already_exists) Workflow instance with id "one" already exists'),
        ("get missing", 'OTHER.get("nope")', "WorkflowError: (instance.not_found) Instance does not exist"),
        ("terminate", 'OTHER.create().then(async (one) => { await settled(one, ENDED); await one.terminate(); })', "WorkflowError: (instance.cannot_terminate) Cannot terminate instance since its on a finite state"),
        ("b08", 'OTHER.get("")', "(instance.invalid_id) Instance ID is invalid"),
        ("b09", 'OTHER.get("*/30 * * * *-1786001400000")', "(instance.not_found)"),
        ("b15 empty", "OTHER.deleteBatch([])", "(body) batchDeleteInstances should have at least 1 instance"),
        ("b15 many", 'OTHER.deleteBatch(Array(101).fill("a"))', "(body) batchDeleteInstances only supports 100 instances at a time"),
        ("b08 delete", 'OTHER.deleteBatch([""])', "WorkflowError: (instance.invalid_id) Instance ID is invalid"),
        ("b15 id", 'OTHER.deleteBatch(["?"])', "(instance.invalid_id) Instance ID is invalid"),
        ("b17", "OTHER.createBatch([])", "WorkflowError: batchCreate should have at least 1 instance"),
        ("many", "OTHER.createBatch(Array(101).fill({}))", "batchCreate only supports 100 instances at a time"),
        ("count", "OTHER.createBatch({ count: 0 })", "(body) count must be a positive integer"),
        ("both", "OTHER.createBatch({ count: 1, instances: [{}] })", "(body) Provided argument is invalid"),
        ("batch empty", "OTHER.createBatch({ instances: [] })", "(body) Batch size exceeds maximum allowed"),
        ("batch many", "OTHER.createBatch({ instances: Array(101).fill({}) })", "(body) Batch size exceeds maximum allowed"),
        ("batch id", 'OTHER.createBatch({ instances: [{ id: "#" }] })', "(instance.invalid_id) Instance ID is invalid"),
        ("delete text", 'OTHER.deleteBatch("a")', "(body) Provided argument is invalid"),
        ("type", 'OTHER.create({ params: { wait: 1 } }).then((one) => one.sendEvent({ type: "not one" }))', "(workflow.invalid_event_type)"),
        ("function", "OTHER.create({ params: { f() {} } })", "cannot be stored"),
        ("large", 'OTHER.create({ params: "x".repeat(2 ** 21) })', "1 MiB"),
        ("options", "OTHER.create({ params: { wait: 1 } }).then((one) => one.subscribe({ cursor: -1 }))", "Invalid Workflow subscription options"),
        ("filter", 'OTHER.create({ params: { wait: 1 } }).then((one) => one.subscribe({ filter: ["nope"] }))', "Invalid Workflow subscription options"),
        ("retention", 'OTHER.create({ retention: { successRetention: "soon" } })', "retention"),
    ],
)  # fmt: skip
async def test_what_is_refused(ask, id, call, message):
    assert message in await ask(f"{CAUGHT}return await told(() => {call});")


TYPED = """
const told = async (work) => { try { await work(); } catch (error) { return [error.message.split(" ")[0], error.retryable ?? "unsaid"]; } };
const seen = [];
for (const id of ["a", "(rate_limit.workflow_instance_creation) b", "?"]) seen.push(await told(() => OTHER.get(id)));
for (let i = 0; i < 2; i++) seen.push(await told(() => OTHER.create()));
return seen;
"""


@pytest.mark.parametrize(("flags", "said"), [([], ["unsaid"] * 4), (["workflows_typed_errors"], [False] * 3 + [True])])
async def test_n11_errors_say_whether_another_try_may_help(running: Live, flags, said):
    tenant = await new_tenant(running.platform)
    limits = {"concurrency": 1, "queued": 1}  # the run that asks has the one, the first it creates the other
    await running.platform.tenants.accounts.set_limits(operator(tenant.id), changes=limits)
    async with httpx.AsyncClient(timeout=60) as client:
        js = Scripts(running, tenant, client)
        name = js.name()
        binding = {"type": "workflow", "name": "OTHER", "workflow_name": f"{name}-other", "class_name": "Other"}
        code = f"const OTHER = this.env.OTHER;\nreturn await step.do('ask', async () => {{{TYPED}}});"
        handle = await js.flow(code, name=name, outside=OTHER, bindings=[binding], flags=flags)
        await js.bind(f"{name}-other", name, "Other")
        seen = await (await js.create(handle)).output()
    codes = ["(instance.not_found)", "(instance.invalid_id)", "(instance.invalid_id)", "(instance.too_many_queued)"]
    assert seen == [*map(list, zip(codes[:3], said[:3], strict=True)), None, [codes[3], said[3]]]


async def test_b06_get_gives_a_handle(ask):
    got = await ask(
        'await OTHER.create({ id: "mine" });\nconst one = await OTHER.get("mine");\n'
        'return [one.id, ["status", "pause", "resume", "terminate", "restart", "delete", "sendEvent", "subscribe"].every((name) => typeof one[name] === "function")];'
    )
    assert got == ["mine", True]


async def test_b07_delete(ask):
    got = await ask(
        f'{CAUGHT}const one = await OTHER.create({{ id: "mine" }});\nawait settled(one, ENDED);\n'
        'const nothing = await one.delete();\nreturn [nothing === undefined, await told(() => OTHER.get("mine"))];'
    )
    assert got[0] is True
    assert "(instance.not_found)" in got[1]


async def test_b10_an_instance_that_deletes_itself_stops_there(ask):
    got = await ask(
        f'{CAUGHT}const one = await OTHER.create({{ id: "mine", params: {{ self: true }} }});\n'
        'for (;;) { const text = await told(() => OTHER.get("mine")); if (text !== "nothing") return [text, ran]; await new Promise((done) => setTimeout(done, 5)); }'
    )
    assert "(instance.not_found)" in got[0]
    assert got[1] is False


async def test_b11_b12_b14_delete_batch(ask):
    got = await ask(
        'for (const id of ["a", "b"]) await settled(await OTHER.create({ id }), ENDED);\n'
        'return await OTHER.deleteBatch(["a", "*/30 * * * *-1786001400000", "b", "*/30 * * * *-1786001400000"]);'
    )
    assert got["deleted"] == [{"id": "a"}, {"id": "b"}]
    missing = {"id": "*/30 * * * *-1786001400000", "code": 10400, "message": "workflows.api.error.instance.not_found"}
    assert got["errors"] == [missing, missing]


async def test_b16_create_batch_as_an_array(ask):
    got = await ask(
        'const made = await OTHER.createBatch([{ id: "a" }, { id: "b" }, { id: "a" }, { params: { n: 1 } }]);\n'
        "return [made.map((one) => one.id).slice(0, 2), made.length];"
    )
    assert got == [["a", "b"], 3]


async def test_create_batch_as_an_object(ask):
    got = await ask(
        'await OTHER.create({ id: "taken" });\n'
        'const { created, errors } = await OTHER.createBatch({ instances: [{ id: "a" }, { id: "taken" }, { id: "a" }, { id: "b", params: { n: 2 } }] });\n'
        "const counted = await OTHER.createBatch({ count: 3, params: { n: 1 } });\n"
        "return [created.map((one) => one.id), errors, counted.created.length];"
    )
    said = "workflows.api.error.instance."
    errors = [
        {"index": 1, "id": "taken", "code": 10405, "message": f"{said}already_exists"},
        {"index": 2, "id": "a", "code": 10415, "message": f"{said}duplicate_in_batch"},
    ]
    assert got == [["a", "b"], errors, 3]


async def test_b18_b24_send_event(ask):
    got = await ask(
        "const one = await OTHER.create({ params: { wait: true } });\n"
        'await one.sendEvent({ type: "go", payload: { at: new Date(5) } });\n'
        "return (await settled(one, ENDED)).output.at.getTime();"
    )
    assert got == 5


async def test_b19_b23_b26_terminate_while_waiting(ask):
    got = await ask(
        "const one = await OTHER.create({ params: { wait: true } });\nconst before = await settled(one, ['waiting']);\n"
        "await one.terminate();\nreturn [before.output, before.error === undefined, (await one.status()).status];"
    )
    assert got == [None, True, "terminated"]


async def test_b21_status_of_a_failed_instance(ask):
    got = await ask(
        "const one = await OTHER.create({ params: { fail: true } });\nconst status = await settled(one, ENDED);\n"
        "return [status.status, status.error, status.output];"
    )
    assert got == ["errored", {"name": "Error", "message": "failed"}, None]


async def test_b27_restart(ask):
    got = await ask(
        "const one = await OTHER.create({ params: { wait: true } });\n"
        'await one.sendEvent({ type: "go", payload: 1 });\nconst first = (await settled(one, ENDED)).output;\n'
        "await one.restart();\nawait settled(one, ['waiting']);\n"
        'await one.sendEvent({ type: "go", payload: 2 });\nreturn [first, (await settled(one, ENDED)).output];'
    )
    assert got == [1, 2]


async def test_restart_from_a_step(ask):
    got = await ask(
        f"{CAUGHT}const one = await OTHER.create();\nawait settled(one, ENDED);\n"
        'await one.restart({ from: { name: "a" } });\nawait settled(one, ENDED);\n'
        'return await told(() => one.restart({ from: { name: "nope" } }));'
    )
    assert "not found in execution history" in got


async def test_pause_and_resume(ask):
    got = await ask(
        "const one = await OTHER.create({ params: { wait: true } });\nawait settled(one, ['waiting']);\n"
        "await one.pause();\nconst paused = (await settled(one, ['paused'])).status;\nawait one.pause();\nawait one.resume();\nawait one.resume();\n"
        "return [paused, (await settled(one, ['waiting'])).status];"
    )
    assert got == ["paused", "waiting"]


async def test_classes_of_the_script_are_bound_by_themselves(js: Scripts):
    run = await js.run(
        'if (event.payload.child) return await step.do("a", async () => "child");\n'
        'return await step.do("ask", async () => { const { exports } = this.ctx;\n'
        "  const made = await exports.Flow.create({ params: { child: true } });\n"
        "  for (;;) { const status = await made.status(); if (status.status === 'complete') return status.output; }\n});"
    )
    assert await run.output() == "child"


async def test_bindings_outside_steps_work_and_are_asked_again_on_replay(js: Scripts):
    run = await js.run(
        "const one = await this.env.FLOW.get(event.instanceId);\n"
        'await step.waitForEvent("w", { type: "go" });\nreturn (await one.status()).status;'
    )
    await run.until("waiting")
    await run.send("go")
    assert await run.output() == "running"


async def test_a_binding_reaches_no_other_account(js: Scripts):
    """The handle names a workflow of the script's own account; there is none by that name."""
    name = js.name()
    binding = {"type": "workflow", "name": "OTHER", "workflow_name": f"{name}-nobody", "class_name": "Flow"}
    try:
        run = await js.run(
            'try { await step.do("a", { retries: { limit: 0, delay: 0 } }, () => this.env.OTHER.create()); } catch (error) { return error.message; }',
            name=name,
            bindings=[binding],
        )
    except Refused:
        return
    assert "not" in await run.output()


SUBSCRIBE = (
    "const seen = [];\nconst feed = await one.subscribe(OPTIONS);\n"
    "for (;;) { const { done, value } = await feed.next(); if (done) break; seen.push(value); }\n"
)


async def test_subscribe_replays_history_then_follows(ask):
    got = await ask(
        'const one = await OTHER.create({ id: "mine", params: { wait: true } });\nawait settled(one, ["waiting"]);\n'
        "const seen = [];\nconst feed = await one.subscribe();\n"
        "for (;;) {\n  const { done, value } = await feed.next();\n  if (done) break;\n  seen.push(value);\n"
        '  if (value.type === "wait_started") await one.sendEvent({ type: "go", payload: 5 });\n}\nreturn seen;'
    )
    types = [event["type"] for event in got]
    assert types == [
        "workflow_queued",
        "workflow_started",
        "workflow_running",
        "step_started",
        "attempt_started",
        "attempt_completed",
        "step_completed",
        "wait_started",
        "workflow_waiting",
        "workflow_running",
        "wait_completed",
        "workflow_completed",
    ]
    ids = [event["eventId"] for event in got]
    assert ids == sorted(set(ids))
    assert {event["instanceId"] for event in got} == {"mine"}
    by_type = {event["type"]: event for event in got}
    assert by_type["step_started"]["stepName"] == "a-1"
    assert by_type["step_completed"]["output"] == 1
    assert by_type["attempt_started"]["attempt"] == 1
    assert by_type["wait_started"]["eventType"] == "go"
    assert by_type["workflow_completed"]["output"] == 5


async def test_subscribe_with_cursor_and_filter(ask):
    got = await ask(
        "const one = await OTHER.create();\nawait settled(one, ENDED);\n"
        + SUBSCRIBE.replace("OPTIONS", '{ filter: ["step_started", "step_completed"] }')
        + "const first = seen.splice(0);\nconst rest = await one.subscribe({ cursor: first[0].eventId, filter: ['step_started', 'step_completed'] });\n"
        "const after = [(await rest.next()).value.type, (await rest.next()).done];\nreturn [first.map((event) => event.type), after];"
    )
    assert got == [["step_started", "step_completed"], ["step_completed", True]]


async def test_a_disposed_subscription_is_over(ask):
    got = await ask(
        "const one = await OTHER.create({ params: { wait: true } });\nconst feed = await one.subscribe();\nawait feed.next();\n"
        "feed[Symbol.dispose]();\nreturn await feed.next();"
    )
    assert got["done"] is True
