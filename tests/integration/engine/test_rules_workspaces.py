"""A workspace is a wall for what runs in it: names find workflows of its own workspace and no others."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from instances.engine.requests import Create, NewInstance
from instances.lifecycle import Status
from instances.runtimes.protocol import Child, RunContext
from tests.support.engine import Engine, step
from tests.support.scripts import Steps, calls_child, one_step, outcome

HERE, THERE = UUID(int=1), UUID(int=2)


def leaves_child(run: RunContext) -> Steps:
    """Starts the workflow `child` and does not wait for it."""
    [message] = yield [step("kid", child=Child("child", "{}", wait=False))]
    return outcome(message)


async def said(engine: Engine) -> Any:
    """How a new instance of `parent` failed."""
    row = await engine.until(await engine.create("parent"), Status.ERRORED)
    return msgspec.json.decode(row["error"])


@pytest.mark.parametrize("parent", [calls_child, leaves_child], ids=lambda script: script.__name__)
async def test_children_are_of_the_workspace_of_their_parent(engine: Engine, parent: Any) -> None:
    await engine.define("parent", parent, workspace=HERE)
    await engine.worker()
    unknown = await said(engine)
    await engine.define("child", one_step, workspace=THERE)
    assert await said(engine) == unknown
    assert await engine.admin.fetchval("select count(*) from instance where depth > 0") == 0


async def test_a_child_of_the_same_workspace_is_found(engine: Engine) -> None:
    await engine.define("parent", calls_child, workspace=HERE)
    await engine.define("child", one_step, workspace=HERE)
    await engine.worker()
    await engine.until(await engine.create("parent"), Status.COMPLETE)


@pytest.mark.parametrize(
    ("space", "made"), [(None, Create.CREATED), (HERE, Create.CREATED), (THERE, Create.NO_WORKFLOW)]
)
async def test_creates_of_a_workspace_stay_in_it(engine: Engine, space: UUID | None, made: Create) -> None:
    """One request after the other, whatever else is in the commit; also under a transaction id."""
    await engine.define("w", one_step, workspace=HERE)

    def wanted(space: UUID | None) -> NewInstance:
        key = engine.ids.uuid7()
        return NewInstance(
            account_id=engine.account, key=key, instance_id=str(key), handle="w", workspace_id=space, input="{}"
        )

    answers = await engine.client.create([wanted(None), wanted(space), wanted(HERE)])
    assert [one.outcome for one in answers] == [Create.CREATED, made, Create.CREATED]
    tried = await engine.client.create_transaction(wanted(space), "t", reuse_finished=False)
    assert tried.outcome is made
    await engine.client.create_transaction(wanted(HERE), "t", reuse_finished=False)
    found = await engine.client.find_transaction(engine.account, "w", "t", reuse_finished=False, workspace_id=space)
    assert (found is None) == (space is THERE)
