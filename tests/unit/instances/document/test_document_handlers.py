"""What registered handlers are given and what becomes of what they return."""

import asyncio
import threading
from datetime import UTC, datetime
from uuid import UUID

import jsonschema
import pytest

from instances.engine.runs.failures import encode_failure
from instances.runtimes.document import (
    NonRetryableError,
    known_handlers,
    register_action_handler,
    unregister_action_handler,
)
from instances.runtimes.document.actions import Tools
from instances.runtimes.document.handlers import HandlerPool
from instances.runtimes.protocol import Do, StepKind
from tests.support.document_runs import NoTools, drive, fails, noop, sets, tools


@pytest.fixture
def pool():
    pool = HandlerPool()
    yield pool
    pool.close()


@pytest.fixture
def register():
    names = []

    def add(name, fn, schema=None):
        register_action_handler(name, fn, schema)
        names.append(name)

    yield add
    for name in names:
        unregister_action_handler(name)


async def handled(pool, config=None, *, type="greet", **fields):
    node = {"id": "h", "type": type, "config": config or {}, **fields}
    run = await drive([node], tools=tools(handlers=pool), input={"who": "Ada"}, vars={"v": 1})
    return await run.finish()


async def test_an_asynchronous_handler(pool, register):
    seen = []

    async def greet(action, context):
        seen.append((action, context))
        await asyncio.sleep(0)
        return {"success": True, "output": {"text": f"hello {action['config']['who']}"}}

    register("greet", greet)
    assert "greet" in known_handlers()
    run = await handled(pool, {"who": "{{ trigger.who }}"})
    assert run.output == {"text": "hello Ada"}
    [(action, context)] = seen
    assert action == {"id": "h", "name": "h", "type": "greet", "config": {"who": "Ada"}}
    assert (context.workspaceId, context.workflowId, context.executionId) == (str(UUID(int=5)), str(UUID(int=3)), "i-1")
    assert (context.userId, context.attempt, context.idempotencyKey) == ("user-7", 1, "test:i-1:h:invoke")
    assert (context.triggerData, context.previousStepResults, context.vars) == ({"who": "Ada"}, [], {"v": 1})
    assert (context.compensation, context.error) == (None, None)


async def test_a_synchronous_handler_runs_in_a_thread(pool, register):
    def greet(_action, context):
        context.log("from a thread", "warn")
        return threading.current_thread().name

    register("greet", greet)
    run = await handled(pool)
    await asyncio.sleep(0)
    assert run.output.startswith("millrace-handler")
    assert run.logs == [("warn", "from a thread")]


async def test_the_handler_type_names_its_handler(pool, register):
    register("greet", lambda action, _context: {"success": True, "output": action})
    run = await handled(pool, {"handler": "greet", "x": 1}, type="handler")
    assert run.output == {"id": "h", "name": "h", "type": "handler", "config": {"x": 1}}


async def test_previous_results_have_the_shape_of_steps(pool, register):
    register("greet", lambda _action, context: context.previousStepResults)
    nodes = [noop("a"), {"id": "h", "type": "greet", "depends_on": ["a"]}]
    run = await drive(nodes, tools=tools(handlers=pool))
    assert run.output == [
        {
            "actionId": "a",
            "actionType": "noop",
            "status": "success",
            "output": "success",
            "error": None,
            "startedAt": "2026-01-01T00:00:00.000Z",
            "completedAt": "2026-01-01T00:00:00.000Z",
            "durationMs": 0,
            "attempts": 1,
        }
    ]


class Permanent(Exception):
    permanent = True


@pytest.mark.parametrize(
    ("returned", "name", "message", "attempts"),
    [
        ({"success": False, "error": "not now"}, "Error", "not now", 3),
        ({"success": False}, "Error", "the handler failed", 3),
        ({"success": False, "error": {"name": "Busy", "message": "later", "code": 7}}, "Busy", "later", 3),
        ({"success": False, "error": "never", "permanent": True}, "Error", "never", 1),
        ({"success": False, "error": {"message": "never", "permanent": True}}, "Error", "never", 1),
        (ValueError("bad"), "ValueError", "bad", 3),
        (NonRetryableError("no"), "NonRetryableError", "no", 1),
        (Permanent(), "Permanent", "Permanent", 1),
        ({"success": True, "output": object()}, "TypeError", None, 1),
    ],
)
async def test_failures_of_handlers(pool, register, returned, name, message, attempts):
    async def greet(_action, _context):
        if isinstance(returned, Exception):
            raise returned
        return returned

    register("greet", greet)
    run = await handled(pool, retries={"limit": 2, "delay": 0})
    assert run.error.name == name
    assert message is None or run.error.message == message
    assert len(run.executed) == attempts


@pytest.mark.parametrize(
    ("returned", "output"),
    [(None, None), ("text", "text"), ({"success": True}, None), ({"a": 1}, {"a": 1}),
     ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, {"at": "2026-01-01T00:00:00Z"})],
)  # fmt: skip
async def test_outputs_of_handlers(pool, register, returned, output):
    async def greet(_action, _context):
        return returned

    register("greet", greet)
    assert (await handled(pool)).output == output


async def test_what_handlers_do_to_values_stays_with_them(pool, register):
    def greet(action, context):
        for value in (
            action["config"]["all"],
            context.triggerData,
            context.vars["deep"],
            context.previousStepResults[0],
        ):
            value.clear()
        assert context.triggerData == {}
        context.compensation["input"].clear() if context.compensation else None

    register("greet", greet)
    nodes = [
        sets("first", values={"a": [1]}),
        {"id": "h", "type": "greet", "depends_on": ["first"], "config": {"all": "{{ trigger }}"},
         "compensate": {"type": "greet", "config": {"all": "{{ error }}"}, "input": "{{ trigger }}"}},
        sets("seen", "h", values={"seen": "{{ [trigger, vars.deep, previousStepResults[0].output] }}"}),
    ]  # fmt: skip
    tools = Tools(NoTools(), NoTools(), pool)
    run = await drive(nodes, vars={"deep": {"b": 2}}, input={"who": "Ada"}, tools=tools)
    assert run.result("seen") == {"seen": [{"who": "Ada"}, {"b": 2}, {"a": [1]}]}
    await run.request_rollback()


async def test_a_verdict_on_a_large_value_leaves_the_value_out():
    config = {"field": "trigger", "operator": "exists"}
    run = await drive([{"id": "c", "type": "condition", "config": config}], input="x" * 1_048_500)
    assert run.output == {
        "conditionMet": True,
        "field": "trigger",
        "operator": "exists",
        "value": None,
        "actualValue": None,
    }


async def test_a_failure_says_no_more_than_anybody_reads():
    node = {"id": "f", "type": "fail", "config": {"message": "{{ trigger }}", "code": "{{ trigger }}"}}
    run = await drive([node], input="x" * 100_000)
    assert (len(run.error.message), len(run.error.name)) == (65_536, 255)


@pytest.mark.parametrize(
    "how",
    [
        lambda text: RuntimeError(text),
        lambda text: {"success": False, "error": text},
        lambda text: {"success": False, "error": {"name": text, "message": text, "code": text}},
    ],
)
async def test_what_handlers_say_can_be_stored(pool, register, how):
    def greet(_action, _context):
        answer = how("lost \ud800 and \0")
        if isinstance(answer, Exception):
            raise answer
        return answer

    register("greet", greet)
    run = await handled(pool)
    assert run.error.message == "lost ? and \ufffd"
    encode_failure(run.error)


async def test_a_schema_is_held_against_the_rendered_config(pool, register):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    register("greet", lambda _action, _context: None, schema)
    assert (await handled(pool, {"n": "{{ `1` }}"})).output is None
    run = await handled(pool, {"n": "{{ trigger.who }}"}, retries={"limit": 2})
    assert (run.error.name, run.error.message) == (
        "INVALID_CONFIG",
        "config/n of greet: 'Ada' is not of type 'integer'",
    )
    with pytest.raises(jsonschema.SchemaError):
        register_action_handler("greet", lambda _action, _context: None, {"type": "nonsense"})


def test_built_in_types_cannot_be_replaced():
    with pytest.raises(ValueError, match="built-in"):
        register_action_handler("call_api", lambda _action, _context: None)


def test_handlers_of_installed_packages(monkeypatch):
    class Entry:
        def __init__(self, name, load):
            self.name, self.load = name, load

    def good(_action, _context):
        return 1

    good.schema = {"type": "object"}

    def broken():
        raise ImportError("no such module")

    found = [Entry("packaged", lambda: good), Entry("broken", broken)]
    monkeypatch.setattr("instances.runtimes.document.handlers.entry_points", lambda group: found)
    monkeypatch.setattr("instances.runtimes.document.handlers._discovered", None)
    assert set(known_handlers()) == {"packaged"}
    assert known_handlers()["packaged"].schema == {"type": "object"}


async def test_a_handler_that_is_gone_is_a_final_failure(pool, register):
    register("greet", lambda _action, _context: None)
    run = await drive([{"id": "w", "type": "wait"}, {"id": "h", "type": "greet", "depends_on": ["w"],
                       "retries": {"limit": 3}}], tools=tools(handlers=pool))  # fmt: skip
    unregister_action_handler("greet")
    await run.finish()
    assert run.error.message == "Unknown action type: greet"
    assert run.executed == [("h-1", 1)]


async def test_handlers_compensate(pool, register):
    seen = []

    async def undo(action, context):
        seen.append((action["id"], context.compensation, context.error["message"], context.idempotencyKey))

    register("undo", undo)
    nodes = [noop("a", compensate={"type": "undo"}), fails("b", "a")]
    run = await drive(nodes, tools=tools(handlers=pool))
    assert seen == [("a", {"input": "success"}, "b broke", "test:i-1:a:compensate")]
    assert [c.key.kind for c in run.commands if isinstance(c, Do)][-1] is StepKind.ROLLBACK


async def test_a_handler_may_leave_something_else_than_its_output_to_its_compensation(pool, register):
    seen = []
    register("greet", lambda _action, _context: {"success": True, "output": 1, "compensateInput": {"undo": 2}})
    register("undo", lambda _action, context: seen.append(context.compensation))
    nodes = [{"id": "h", "type": "greet", "compensate": {"type": "undo"}}, fails("b", "h")]
    await drive(nodes, tools=tools(handlers=pool))
    assert seen == [{"input": {"undo": 2}}]


async def test_expression_errors_in_a_config_are_final(pool, register):
    register("greet", lambda _action, _context: None)
    run = await handled(pool, {"x": "{{ trigger.who > `1` }}"}, retries={"limit": 3})
    assert run.error.name == "EXPRESSION_ERROR"
    assert run.executed == [("h-1", 1)]
