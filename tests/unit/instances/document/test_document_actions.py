"""What actions do and answer: calls, handlers, rows; with tools that only record."""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jsonschema
import pytest

from instances.egress import EgressFailed, EgressRefused, EgressResponse
from instances.engine.runs.failures import encode_failure
from instances.runtimes.document import (
    NonRetryableError,
    known_handlers,
    register_action_handler,
    unregister_action_handler,
)
from instances.runtimes.document.actions import Tools
from instances.runtimes.document.call_api import redact_headers
from instances.runtimes.document.handlers import HandlerPool
from instances.runtimes.protocol import Do, StepKind
from tests.support.document_runs import START, NoTools, call, drive, fails, noop, run_context, sets


class Egress:
    """Answers calls from a list and keeps them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []

    async def request(self, method: str, url: str, **options: Any) -> EgressResponse:
        self.calls.append({"method": method, "url": url, **options})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(body=b"", status=200, kind="application/json", reason="OK", **headers):
    pairs = [("content-type", kind)] if kind else []
    pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return EgressResponse(status, reason, pairs, body, "https://example.com/")


class Store:
    def __init__(self) -> None:
        self.notifications: dict[UUID, dict[str, Any]] = {}
        self.tasks: dict[UUID, dict[str, Any]] = {}

    async def add_notification(self, account_id: UUID, id: UUID, **row: Any) -> None:
        self.notifications.setdefault(id, {"account_id": account_id, **row})

    async def add_task(self, account_id: UUID, id: UUID, **row: Any) -> None:
        self.tasks.setdefault(id, {"account_id": account_id, **row})


@pytest.fixture
def pool():
    pool = HandlerPool()
    yield pool
    pool.close()


def tools(**given: Any) -> Tools:
    return Tools(**{"store": NoTools(), "egress": NoTools(), "handlers": NoTools(), **given})


# --- call_api ----------------------------------------------------------------------------------------------------


async def called(config: dict[str, Any], *answers: Any, **fields: Any):
    egress = Egress(*answers)
    node = call("a", config=config, **fields)
    run = await (await drive([node], tools=tools(egress=egress), input={"id": 7})).finish()
    return run, egress.calls


async def test_a_call_with_a_body():
    config = {
        "url": "https://example.com/orders/{{ trigger.id }}",
        "method": "POST",
        "query": {"q": "a b&c", "n": 1, "many": [1, "x"], "none": None, "yes": True},
        "headers": {"X-Id": "{{ trigger.id }}"},
        "body": {"id": "{{ trigger.id }}"},
    }
    run, [sent] = await called(config, answer(b'{"ok": true}', 201, reason="Created"))
    assert sent["url"] == "https://example.com/orders/7?q=a+b%26c&n=1&many=1&many=x&yes=true"
    assert (sent["method"], sent["body"], sent["lane"]) == ("POST", b'{"id":7}', UUID(int=1))
    assert sent["headers"] == [
        ("X-Id", "7"),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "test:i-1:a:invoke"),
    ]
    assert run.output == {"status": 201, "statusText": "Created", "data": {"ok": True}}


@pytest.mark.parametrize(("dry_run", "outgoing"), [(False, {"a"}), (True, set())])
async def test_only_calls_that_are_made_are_outgoing_requests(dry_run: bool, outgoing: set[str]):
    context = run_context(trigger={"source": "api", "dryRun": dry_run})
    run = await (await drive([noop("no"), call("a", "no")], tools=tools(egress=Egress(answer())), run=context)).finish()
    assert {step.key.name for step in run.commands if isinstance(step, Do) and step.outgoing} == outgoing


async def test_headers_of_the_user_win():
    config = {"url": "https://e.example", "method": "PUT", "body": "<a/>",
              "headers": {"content-type": "text/xml", "idempotency-key": "mine"}}  # fmt: skip
    _, [sent] = await called(config, answer())
    assert sent["headers"] == [("content-type", "text/xml"), ("idempotency-key", "mine")]
    assert sent["body"] == b"<a/>"


async def test_a_call_without_a_body():
    _, [sent] = await called({"url": "https://e.example/?a=1#top", "query": {"b": 2}}, answer())
    assert (sent["method"], sent["body"], sent["url"]) == ("GET", b"", "https://e.example/?a=1&b=2#top")
    assert [name for name, _ in sent["headers"]] == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("body", "kind", "data"),
    [
        (b'{"a":[1,null]}', "application/json; charset=utf-8", {"a": [1, None]}),
        (b'\xef\xbb\xbf {"a":1} ', "application/json", {"a": 1}),
        (b'"text"', "application/problem+json", "text"),
        (b"not json", "application/json", "not json"),
        (b"NaN", "application/json", "NaN"),
        (b"\xff{", "application/json", "\ufffd{"),
        (b'{"a":1}', "text/plain", '{"a":1}'),
        (b"\xe9", "text/plain; charset=ISO-8859-1", "é"),
        ("é\0".encode(), None, "é\0"),
        (b"", "application/json", None),
    ],
)
async def test_data_is_json_when_the_answer_says_so_and_is(body, kind, data):
    run, _ = await called({"url": "https://e.example"}, answer(body, kind=kind))
    assert run.output["data"] == data


async def test_a_head_has_no_data():
    run, _ = await called({"url": "https://e.example", "method": "HEAD"}, answer(b"", 200))
    assert run.output == {"status": 200, "statusText": "OK", "data": None}


async def test_a_status_outside_expect_fails_and_keeps_the_answer():
    run, _ = await called({"url": "https://e.example"}, answer(b'{"why":"full"}', 503))
    assert (run.error.name, run.error.message) == ("API_CALL_FAILED", "API call failed: 503")
    assert run.error.output == '{"status":503,"statusText":"OK","data":{"why":"full"}}'


async def test_expected_statuses():
    run, _ = await called({"url": "https://e.example", "expect": [404]}, answer(b"", 404))
    assert run.output["status"] == 404
    run, _ = await called({"url": "https://e.example", "expect": [404]}, answer(b"", 200))
    assert run.error.message == "API call failed: 200"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("Thu, 01 Jan 2026 00:00:09 GMT", 9), ("Wed, 31 Dec 2025 00:00:00 GMT", 1), ("soon", 1)],
)
async def test_retry_after_raises_the_wait(header, seconds):
    answers = [answer(b"", 429, retry_after=header), answer(b"1")]
    run, calls = await called({"url": "https://e.example"}, *answers, retries={"limit": 1, "delay": 1000})
    assert len(calls) == 2
    assert (run.now - START).total_seconds() == seconds
    assert run.output["data"] == 1


async def test_idempotency_key_is_the_same_for_every_attempt_and_differs_by_item():
    egress = Egress(answer(b"", 500), answer(b"1"))
    node = call(
        "a", retries={"limit": 1, "delay": 0}, for_each=[1, 2], config={"url": "https://e.example", "parallel": 1}
    )
    await (await drive([node], tools=tools(egress=egress))).finish()
    keys = [dict(sent["headers"])["Idempotency-Key"] for sent in egress.calls]
    assert keys == ["test:i-1:a:invoke:1", "test:i-1:a:invoke:1", "test:i-1:a:invoke:2"]


async def test_compensations_have_a_key_of_their_own():
    egress = Egress(answer(b"1"))
    undo = {"type": "call_api", "config": {"url": "https://e.example/{{ compensation.input.data }}"}}
    await drive([call("a", compensate=undo), fails("b", "a")], tools=tools(egress=egress))
    assert dict(egress.calls[1]["headers"])["Idempotency-Key"] == "test:i-1:a:compensate"
    assert egress.calls[1]["url"] == "https://e.example/1"


@pytest.mark.parametrize(
    ("error", "attempts"), [(EgressRefused("the URL must start with https://"), 1), (EgressFailed("gone"), 3)]
)
async def test_calls_that_get_no_answer(error, attempts):
    run, calls = await called({"url": "https://e.example"}, error, retries={"limit": 2, "delay": 0})
    assert len(calls) == attempts
    assert run.error.message == f"API call failed: {error}"


@pytest.mark.parametrize(
    "config",
    [
        {"url": "{{ missing }}"},
        {"url": "https://e.example", "query": "{{ trigger.id }}"},
        {"url": "https://e.example", "headers": "{{ trigger.id }}"},
        {"url": "https://e.example", "headers": {"x": "{{ trigger }}"}},
        {"url": "https://e.example", "query": {"x": "{{ [[`1`]] }}"}},
        {"url": "https://e.example", "expect": "{{ trigger.id }}"},
    ],
)
async def test_configs_that_only_turn_out_wrong_when_rendered(config):
    run, _ = await called(config, answer(), retries={"limit": 3})
    assert run.error.name == "INVALID_CONFIG"
    assert run.executed == [("a-1", 1)]


async def test_secrets_are_kept_out_of_logs():
    config = {"url": "https://e.example/?token=secret", "headers": {"Authorization": "secret", "X-API-Key": "secret"}}
    run, _ = await called(config, answer())
    assert run.logs == [
        (
            "debug",
            'GET https://e.example/ {"Authorization":"[REDACTED]","X-API-Key":"[REDACTED]",'
            '"Idempotency-Key":"test:i-1:a:invoke"}',
        )
    ]
    assert redact_headers({"cookie": "a", "Proxy-Authorization": "b", "Accept": 1}) == {
        "cookie": "[REDACTED]",
        "Proxy-Authorization": "[REDACTED]",
        "Accept": "1",
    }


# --- rows --------------------------------------------------------------------------------------------------------


async def test_a_notification():
    store = Store()
    node = {"id": "n", "type": "send_notification", "config": {"message": "Hi {{ trigger.who }}\0"}}
    run = await drive([node], tools=tools(store=store), input={"who": "Ada"})
    [row] = store.notifications.values()
    assert (row["message"], row["recipient"], row["node"], row["at"]) == ("Hi Ada\ufffd", "user-7", "n", START)
    assert run.output == {
        "notificationSent": True,
        "message": "Hi Ada\ufffd",
        "recipient": "user-7",
        "timestamp": "2026-01-01T00:00:00.000Z",
    }


async def test_a_task():
    store = Store()
    node = {"id": "n", "type": "create_task", "config": {"title": "Do {{ trigger.n }}", "priority": "{{ 'HIGH' }}",
            "assignedTo": "bob", "description": "{{ trigger }}"}}  # fmt: skip
    run = await drive([node], tools=tools(store=store), input={"n": 1})
    [(id, row)] = store.tasks.items()
    assert (row["title"], row["priority"], row["assigned_to"]) == ("Do 1", "HIGH", "bob")
    assert row["description"] == '{"n":1}'
    assert run.output == {"taskId": str(id), "title": "Do 1", "status": "TODO"}


async def test_a_repeated_attempt_finds_its_row_and_another_run_makes_its_own():
    store = Store()
    nodes = [{"id": "n", "type": "create_task", "config": {"title": "x"}}]
    for number in (1, 1, 2):
        await drive(nodes, tools=tools(store=store), run=run_context(run=number))
    assert len(store.tasks) == 2


async def test_items_of_a_loop_make_a_row_each():
    store = Store()
    node = {"id": "n", "type": "send_notification", "for_each": ["a", "b"], "config": {"message": "{{ item }}"}}
    await drive([node], tools=tools(store=store))
    assert [row["message"] for row in store.notifications.values()] == ["a", "b"]


@pytest.mark.parametrize(
    "node",
    [
        {"type": "send_notification", "config": {"message": "{{ missing }}"}},
        {"type": "send_notification", "config": {"message": "{{ trigger.long }}"}},
        {"type": "create_task", "config": {"title": "{{ missing }}"}},
        {"type": "create_task", "config": {"title": "x", "priority": "{{ 'URGENT' }}"}},
        {"type": "create_task", "config": {"title": "x", "assignedTo": "{{ trigger.long }}"}},
    ],
)
async def test_rows_that_make_no_sense(node):
    run = await drive([{"id": "n", **node}], tools=tools(store=Store()), input={"long": "x" * 70_000})
    assert run.error.name == "INVALID_CONFIG"


# --- handlers ----------------------------------------------------------------------------------------------------


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
    assert (context.workspaceId, context.workflowId, context.executionId) == (None, str(UUID(int=3)), "i-1")
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
