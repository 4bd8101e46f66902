"""Who may deploy code in one workspace reaches no other with it: names of workflows there are names of nothing."""

# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.api import new_tenant, outsider
from tests.support.javascript import Scripts
from tests.support.live import Live, live_for_tests
from tests.support.python_scripts import flow

CALLS = {
    "create": "OTHER.create()",
    "create with an id": 'OTHER.create({ id: "i" })',
    "createBatch": 'OTHER.createBatch([{ id: "n" }])',
    "get": 'OTHER.get("i")',
    "deleteBatch": 'OTHER.deleteBatch(["i"])',
}
"""What a binding can do by name. All else begins with `get`, which its caller may leave out."""
METHODS = ("status", "pause", "resume", "terminate", "restart", "delete", "sendEvent", "subscribe")
UNKNOWN = "(workflow.not_found)"


@pytest.fixture(scope="module")
async def running(databases, valkey) -> AsyncIterator[Live]:
    async with live_for_tests(databases, valkey) as running:
        yield running


@pytest.fixture(scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


@pytest.fixture
async def account(running: Live, http: httpx.AsyncClient) -> Scripts:
    """Whoever may do everything in the account. In its default workspace the workflow `secret` has an instance `i`."""
    account = Scripts(running, await new_tenant(running.platform), http)
    wait = {"id": "w", "type": "wait_for_event", "config": {"event": "e"}}
    await put(account, "secret", wait)
    await (await account.create("secret", instance_id="i")).until("waiting")
    return account


@pytest.fixture
async def inside(running: Live, http: httpx.AsyncClient, account: Scripts) -> Scripts:
    """Whoever may do everything, in another workspace of the account."""
    return Scripts(running, await outsider(running.platform, account.tenant.id), http)


async def put(scripts: Scripts, handle: str, *nodes: dict[str, Any], **document: Any) -> None:
    definition = {"spec": "workflow/1", "name": handle, "nodes": list(nodes), **document}
    await scripts.call("PUT", f"/workflows/{handle}", json={"definition": definition})


async def untouched(account: Scripts) -> bool:
    """Whether `secret` has its one instance, which has heard nothing and waits."""
    [instance] = await account.call("GET", "/workflows/secret/instances")
    return (instance["id"], instance["status"]) == ("i", "waiting")


@pytest.mark.parametrize("wait", [True, False], ids=["waits", "does not wait"])
async def test_nodes_start_no_workflow_of_another_workspace(account: Scripts, inside: Scripts, wait: bool) -> None:
    errors = []
    for name in ("secret", "nobodys"):
        await put(inside, "parent", {"id": "c", "type": "workflow", "config": {"workflow": name, "wait": wait}})
        run = await inside.create("parent")
        error = (await run.until("errored"))["error"]
        errors.append({key: str(value).replace(name, "X") for key, value in error.items()})
    assert errors[0] == errors[1]
    assert await untouched(account)
    await put(inside, "mine", {"id": "a"})
    await put(inside, "parent", {"id": "c", "type": "workflow", "config": {"workflow": "mine", "wait": wait}})
    await (await inside.create("parent")).until("complete")


async def test_compensations_start_no_workflow_of_another_workspace(account: Scripts, inside: Scripts) -> None:
    undo = {"type": "workflow", "config": {"workflow": "secret", "wait": False}}
    await put(
        inside,
        "parent",
        {"id": "a", "compensate": undo},
        {"id": "b", "type": "fail", "depends_on": ["a"], "config": {"message": "no"}},
    )
    run = await inside.create("parent")
    assert (await run.until("errored"))["rollback"]["outcome"] == "failed"
    assert await untouched(account)


async def test_bindings_reach_no_workflow_of_another_workspace(account: Scripts, inside: Scripts) -> None:
    """Not even an instance whose id is known: everything is answered as for a workflow that is nowhere."""
    calls = {**CALLS, **{f"{name} at once": f'raw("{name}")' for name in METHODS}}
    tried = ", ".join(f"[{name!r}, () => {call}]" for name, call in calls.items())
    said = {}
    for name in ("secret", "nobodys"):
        binding = {"type": "workflow", "name": "OTHER", "workflow_name": name}
        run = await inside.run(
            "const OTHER = this.env.OTHER, said = [];\n"
            'const raw = async (name) => (await OTHER.get("i"))[name]({ type: "e" });\n'
            f"for (const [what, call] of [{tried}])\n"
            '  said.push(await step.do(what, { retries: { limit: 0, delay: 0 } }, async () => { try { await call(); return "done"; } catch (error) { return `${error.name}: ${error.message}`; } }));\n'
            "return said;",
            bindings=[binding],
        )
        said[name] = dict(zip(calls, await run.output(), strict=True))
    assert said["secret"] == said["nobodys"]
    assert all(UNKNOWN in answer for answer in said["secret"].values()), said
    assert await untouched(account)


async def test_bindings_of_python_reach_no_workflow_of_another_workspace(account: Scripts, inside: Scripts) -> None:
    source = flow(
        """
        async def said(work):
            try:
                await work
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        @step.do("ask", config={"retries": {"limit": 0, "delay": 0}})
        async def ask(ctx):
            other = self.env.OTHER
            return [await said(other.create()), await said(other.get("i")), await said(other.delete_batch(["i"]))]
        return await ask()
        """
    )
    binding = {"type": "workflow", "name": "OTHER", "workflow_name": "secret"}
    flags = ("python_workers", "python_workflows")
    await inside.upload("p", {"entry.py": (source, "text/x-python")}, flags=flags, bindings=[binding])
    await inside.bind("python", "p", "Flow")
    said = await (await inside.create("python")).output()
    assert len(said) == 3
    assert all(UNKNOWN in one for one in said), said
    assert await untouched(account)


async def test_the_default_workspace_is_a_workspace(account: Scripts, inside: Scripts) -> None:
    """What somebody without a restriction deploys runs in the default one, and finds what is there, and nothing else."""
    await put(inside, "theirs", {"id": "a"})
    await put(account, "ours", {"id": "a"})
    for name, ends in (("theirs", "errored"), ("ours", "complete")):
        await put(account, "parent", {"id": "c", "type": "workflow", "config": {"workflow": name}})
        await (await account.create("parent")).until(ends)
