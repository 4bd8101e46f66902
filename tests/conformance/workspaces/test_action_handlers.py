"""Custom action handlers: the example package, and handlers registered by code."""

from __future__ import annotations

import asyncio
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from instances.runtimes.document import handlers, register_action_handler, unregister_action_handler
from tests.conformance.conftest import Face
from tests.conformance.workspaces.support import HERE, make, problem, run, start, stream

PACKAGE = Path(__file__).parents[3] / "examples" / "action-handlers"
LEAD = [
    {"type": "score_lead", "config": {"minimum": 60}},
    {"type": "assign_lead", "config": {"hot": "ada", "cold": "bob"}},
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example package as if it were installed: importable, its entry points known."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    entries = EntryPoints(
        EntryPoint(name, value, group)
        for group, named in project["entry-points"].items()
        for name, value in named.items()
    )
    monkeypatch.syspath_prepend(str(PACKAGE / "src"))
    monkeypatch.setattr(handlers, "entry_points", lambda group: entries.select(group=group))
    monkeypatch.setattr(handlers, "_discovered", None)
    yield
    sys.modules.pop("lead_actions", None)


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    names: list[str] = []

    def register(name: str, function: Any, schema: dict[str, Any] | None = None) -> None:
        register_action_handler(name, function, schema)
        names.append(name)

    yield register
    for name in names:
        unregister_action_handler(name)


@pytest.mark.usefixtures("installed")
async def test_the_example_package(face: Face) -> None:
    for seats, hot in ((2, "ada"), (0, "bob")):
        told = await run(face, LEAD, triggerData={"plan": "enterprise", "seats": seats})
        first, second = told["execution"]["steps"]
        assert (first["actionType"], first["output"]["points"]) == ("score_lead", 50 + 10 * seats)
        assert second["output"]["assignedTo"] == hot
        assert second["output"]["by"] == told["execution"]["triggeredBy"]


@pytest.mark.usefixtures("installed")
async def test_the_example_package_says_no_for_good(face: Face) -> None:
    told = await run(face, [{**LEAD[0], "onError": "retry"}, LEAD[1]])
    assert (told["execution"]["status"], told["execution"]["error"]) == ("FAILED", "the lead has no plan")
    assert told["execution"]["steps"][0]["attempts"] == 1


@pytest.mark.usefixtures("installed")
async def test_a_config_that_breaks_the_schema_of_a_handler(face: Face) -> None:
    told = await run(face, [{"type": "score_lead", "config": {"minimum": "high"}}], triggerData={"plan": "x"})
    assert told["execution"]["status"] == "FAILED"
    assert "minimum" in told["execution"]["error"]


async def test_what_a_handler_is_told(face: Face, register: Callable[..., None]) -> None:
    seen: list[Any] = []

    async def custom(action: Any, context: Any) -> Any:
        names = ("workspaceId", "workflowId", "executionId", "triggerData", "previousStepResults", "userId")
        seen.append((action, {name: getattr(context, name) for name in names}))
        return {"success": True, "output": {"result": "data"}}

    register("custom_action", custom)
    told = await run(
        face, [{"type": "noop"}, {"type": "custom_action", "config": {"a": "{{ trigger.b }}"}}], triggerData={"b": 2}
    )
    execution = told["execution"]
    assert execution["steps"][1]["output"] == {"result": "data"}
    [(action, context)] = seen
    assert (action["id"], action["type"], action["config"]) == ("action-1", "custom_action", {"a": 2})
    assert context["triggerData"] == {"b": 2}
    assert context["userId"] == execution["triggeredBy"]
    [before] = context["previousStepResults"]
    assert (before["actionId"], before["status"]) == ("action-0", "success")


async def test_a_handler_that_is_too_slow(face: Face, register: Callable[..., None]) -> None:
    async def never(_action: Any, _context: Any) -> Any:
        await asyncio.Event().wait()

    register("never", never)
    told = await run(face, [{"type": "never", "timeout": 20, "onError": "continue"}, {"type": "noop"}])
    assert told["execution"]["status"] == "COMPLETED"
    assert (told["execution"]["steps"][0]["status"], told["execution"]["steps"][0]["error"]) == (
        "failed",
        "Action execution timeout",
    )
    told = await run(face, [{"type": "never", "timeout": 20}])
    assert (told["execution"]["status"], told["execution"]["error"]) == ("FAILED", "Action execution timeout")
    listed = await face.http.get(f"{HERE}/workflows/{told['execution']['workflowId']}/executions")
    assert listed.json()["executions"][0]["error"] == "Action execution timeout"


async def test_a_handler_that_is_gone(face: Face, register: Callable[..., None]) -> None:
    """Unknown when the workflow is written: refused. Gone when it runs: the action fails, and is not tried again."""
    answer = await face.http.post(f"{HERE}/workflows", json={"name": "W", "actions": [{"type": "custom_action"}]})
    assert problem(answer) == (400, "WORKFLOW_VALIDATION_FAILED")
    register("custom_action", lambda _action, _context: None)
    workflow = await make(face, [{"type": "custom_action", "onError": "retry"}])
    unregister_action_handler("custom_action")
    execution = await start(face, workflow, 60)
    assert (execution["status"], execution["error"]) == ("FAILED", "Unknown action type: custom_action")
    assert execution["steps"][0]["attempts"] == 1


async def test_an_action_that_is_tried_again_is_running(face: Face, register: Callable[..., None]) -> None:
    """Between two attempts: what the last one failed with is told, and the action is not over."""

    watched = asyncio.Event()

    async def broken(_action: Any, _context: Any) -> Any:
        await watched.wait()
        raise ValueError("not now")

    register("broken", broken)
    id = (await start(face, await make(face, [{"type": "broken", "onError": "retry"}])))["id"]
    async with stream(face.http, id, steps="all") as events:
        told = [await anext(events)]
        watched.set()
        while not (told[-1][0] == "step" and told[-1][2]["error"]):
            told.append(await anext(events))
        await face.http.delete(f"{HERE}/workflows/executions/{id}")
        rest = [one async for one in events]
    retried = told[-1][2]
    assert (retried["actionId"], retried["status"], retried["error"]) == ("action-0", "running", "not now")
    assert (retried["completedAt"], retried["durationMs"], retried["attempts"]) == (None, None, 1)
    assert rest[-1][2]["status"] == "CANCELLED"
