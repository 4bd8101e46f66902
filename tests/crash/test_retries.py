"""kill -9 while what failed is tried again, or what was cancelled is undone: nothing is lost, and nothing done twice.

Each case first comes to where the command is given, undisturbed. Then the worker that carries it out dies, or the API
process that was asked for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from instances.lifecycle import Kind
from tenants.auth import Caller, operator
from tests.crash.installation import Installation, Step, mark, mend

pytestmark = pytest.mark.crash

INSTANCES = 5
UNDO = {"compensate": {"type": "mark"}}


@dataclass(frozen=True)
class Case:
    """A workflow whose instances all stand the same, and a command for each of them."""

    nodes: list[dict[str, Any]]
    stands: str
    """What the instances are before the command."""
    command: Callable[[Installation, Caller, UUID], Awaitable[UUID]]
    """Gives the command for an instance; the instance that is about from then on."""
    done: Counter[str]
    """How many instances of the workflow have which status at last."""
    steps: frozenset[tuple[str, bool]]
    """What is done after the command: nodes, and whether it is their compensation."""


async def _retry(site: Installation, caller: Caller, key: UUID) -> UUID:
    return (await site.platform.instances.executions.retry(caller, key)).key


async def _retry_step(site: Installation, caller: Caller, key: UUID) -> UUID:
    await site.platform.instances.executions.retry_step(caller, key, "c")
    return key


async def _cancel(site: Installation, caller: Caller, key: UUID) -> UUID:
    await site.platform.instances.executions.cancel(caller, key, rollback=True)
    return key


FAILS = [mark("a"), mark("b", "a"), mend("c", "b"), mark("d", "c"), mark("e", "d")]
WAITS = [
    mark("a", **UNDO),
    mark("b", "a", **UNDO),
    mark("c", "b", **UNDO),
    {"id": "w", "type": "wait_for_event", "config": {"event": "go"}, "depends_on": ["c"]},
]
GOES_ON = frozenset({("c", False), ("d", False), ("e", False)})
CASES = {
    "retry-as-new": Case(FAILS, "errored", _retry, Counter(errored=INSTANCES, complete=INSTANCES), GOES_ON),
    "retry-in-place": Case(FAILS, "errored", _retry_step, Counter(complete=INSTANCES), GOES_ON),
    "cancel-with-rollback": Case(
        WAITS, "waiting", _cancel, Counter(terminated=INSTANCES), frozenset({("a", True), ("b", True), ("c", True)})
    ),
}
POINTS = ("after-claim:1", "before-flush:2", "after-flush:2", "before-acknowledgement:8", "not-journaled:7")


async def standing(site: Installation, case: Case, count: int = INSTANCES) -> list[UUID]:
    """Instances that have come to where the command is given, and no worker."""
    await site.deploy("flow", case.nodes, rollback="never" if case.stands == "errored" else "auto")
    created = await site.create("flow", count)
    worker = await site.start("worker")
    await site.all_are("flow", case.stands)
    await worker.kill()
    site.mend()
    return [UUID(key) for key in created]


async def all_are_done(site: Installation, done: Counter[str]) -> None:
    async def holds() -> bool:
        return await site.statuses("flow") == done

    try:
        await site.eventually(holds)
    except TimeoutError:
        said = "\n".join(member.said for member in site.members)
        raise AssertionError(f"{await site.statuses('flow')}; the processes said:\n{said}") from None


def ran(site: Installation, since: int) -> set[Step]:
    return {(one["instance"], one["step"], one["undo"]) for one in site.executions()[since:]}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", CASES)
async def test_a_worker_that_dies(site: Installation, name: str, point: str) -> None:
    case = CASES[name]
    keys = await standing(site, case)
    start = await site.snapshot()
    caller = operator(site.tenant.id)
    keys = [await case.command(site, caller, key) for key in keys]
    if point.startswith("not-journaled"):
        point = f"{'compensation' if name == 'cancel-with-rollback' else 'step'}-{point}"
    await (await site.start("worker", crash=point, ready=False)).killed()
    before = await site.snapshot()
    assert await site.statuses("flow") != case.done

    await site.start("worker")
    await all_are_done(site, case.done)
    await site.nothing_ran_twice(before)
    expected = {(str(key), step, undo) for key in keys for step, undo in case.steps}
    assert ran(site, start.executions) == expected
    assert expected <= set(await site.completed())
    for key in keys:
        undone = [step for one, step, undo in await site.completed() if one == str(key) and undo]
        assert undone == (["c", "b", "a"] if name == "cancel-with-rollback" else [])


# --- the API -----------------------------------------------------------------------------------------------------

Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


@pytest.mark.parametrize("name", CASES)
async def test_an_api_that_dies(site: Installation, name: str) -> None:
    """It dies between the commit and the answer: what was asked for is done once; who asks again is told so."""
    case = CASES[name]
    [key] = await standing(site, case, 1)
    api, another = await asyncio.gather(site.start("serve", crash="command-not-told"), site.start("serve"))
    async with site.client(another) as client:
        ask, repeated = await _asked(site, client, name, key)
    async with site.client(api) as client:
        with pytest.raises(httpx.TransportError):
            await ask(client)
    await api.killed()
    await site.start("worker")
    done = Counter({status: n // INSTANCES for status, n in case.done.items()})
    await all_are_done(site, done)

    await site.let_idempotency_keys_go()
    async with site.client(another) as client:
        assert (await ask(client)).status_code == repeated
    assert await site.statuses("flow") == done
    steps = [(step, undo) for _, step, undo in await site.completed() if (step, undo) in case.steps]
    assert sorted(steps) == sorted(case.steps)
    assert len(await site.entries(Kind.REOPENED)) == (name == "retry-in-place")


async def _asked(site: Installation, client: httpx.AsyncClient, name: str, key: UUID) -> tuple[Ask, int]:
    """What is asked of the API, and the status of the answer when it is asked again."""
    if name == "retry-as-new":
        headers = {"idempotency-key": "once"}
        return lambda c: c.post(f"{_host(c)}/v1/executions/{key}/retry", headers=headers, json={}), 200
    if name == "retry-in-place":
        tasks = (await client.get(f"{_host(client)}/api/executions/{key}/tasks")).json()
        [task] = [task["id"] for task in tasks if task["taskDefinitionId"] == "c"]
        return lambda c: c.post(f"{_host(c)}/api/tasks/{task}/retry"), 409
    status = f"/workflows/flow/instances/{key}/status"
    return lambda c: c.patch(status, json={"status": "terminate", "rollback": True}), 409


def _host(client: httpx.AsyncClient) -> str:
    return f"{client.base_url.scheme}://{client.base_url.host}:{client.base_url.port}"
