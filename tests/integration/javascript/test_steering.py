"""Terminate, restart, pause and resume: the checks of Cloudflare's engine tests."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import pytest

from tests.support.javascript import Refused, Scripts

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
