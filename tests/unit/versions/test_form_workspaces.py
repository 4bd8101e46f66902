"""Lists of actions compiled to the document, and documents shown as actions."""

from typing import Any

import pytest

from tests.support.forms import compiled, document_of, problems, shown
from versions.document import Retries
from versions.forms import REDACTED, redacted

NOTIFY = {"type": "send_notification", "config": {"message": "Welcome!", "recipient": "user_123"}}
TASK = {"type": "create_task", "config": {"title": "Task title", "priority": "HIGH", "assignedTo": "user_123"}}
CALL = {
    "type": "call_api",
    "config": {
        "url": "https://api.example.com",
        "method": "POST",
        "headers": {"Authorization": "Bearer token"},
        "body": {"data": "value"},
    },
}
WAIT = {"type": "wait", "config": {"durationMs": 5000}}
CONDITION = {"type": "condition", "config": {"field": "trigger.userType", "operator": "equals", "value": "premium"}}


def actions(*given: Any, **rest: Any) -> dict[str, Any]:
    return {"name": "w", "actions": list(given), **rest}


def test_the_documented_actions_compile():
    body = actions(NOTIFY, TASK, CALL, WAIT, CONDITION)
    document = document_of("004", body)
    assert [(node.id, node.type, node.config) for node in document.nodes] == [
        (f"action-{at}", action["type"], action["config"]) for at, action in enumerate(body["actions"])
    ]
    assert [node.depends_on for node in document.nodes] == [
        (), ("action-0",), ("action-1",), ("action-2",), ("action-3",)
    ]  # fmt: skip
    assert [node.timeout for node in document.nodes] == [30_000, 30_000, 30_000, None, 30_000]
    assert {node.on_error for node in document.nodes} == {"stop"}
    assert document.nodes[4].on_false == "stop"


@pytest.mark.parametrize(
    ("on_error", "compiled_to", "retries"),
    [
        (None, "stop", Retries()),
        ("stop", "stop", Retries()),
        ("continue", "continue", Retries()),
        ("retry", "stop", Retries(limit=3, delay=1000, backoff="exponential", multiplier=2.0)),
    ],
)
def test_what_becomes_of_a_failure(on_error: str | None, compiled_to: str, retries: Retries):
    node = document_of("004", actions({**NOTIFY, "onError": on_error})).nodes[0]
    assert (node.on_error, node.retries) == (compiled_to, retries)
    assert shown("004", compiled("004", actions({**NOTIFY, "onError": on_error})))["actions"][0]["onError"] == (
        on_error or "stop"
    )


@pytest.mark.parametrize(
    ("action", "timeout", "displayed"),
    [
        (NOTIFY, 30_000, 30_000),
        ({**NOTIFY, "timeout": 5}, 5, 5),
        (WAIT, None, None),
        ({**WAIT, "timeout": 5}, None, 5),
        ({"type": "wait_for_event", "config": {"event": "e"}}, None, None),
        ({"type": "external"}, None, None),
        ({"type": "external", "timeout": 5}, 5, 5),
        ({"type": "ship_order"}, 30_000, 30_000),
    ],
)
def test_an_attempt_is_limited_but_waiting_is_not(action: Any, timeout: int | None, displayed: int | None):
    source = compiled("004", actions(action), handlers=("ship_order",))
    assert document_of("004", actions(action), handlers=("ship_order",)).nodes[0].timeout == timeout
    assert shown("004", source)["actions"][0].get("timeout") == displayed


def test_conditions_decide_whether_an_action_runs():
    condition = {"field": "trigger.n", "operator": "greater_than", "value": 1}
    body = actions({**NOTIFY, "conditions": [condition]}, {**NOTIFY, "conditions": []})
    assert [node.when for node in document_of("004", body).nodes] == [{"all": [condition]}, None]
    assert shown("004", compiled("004", body))["actions"][0]["conditions"] == [condition]


def test_what_is_left_out_is_shown_with_its_default():
    assert shown("004", compiled("004", actions(NOTIFY, {**TASK, "id": "make", "name": "Make it"})))["actions"] == [
        {"id": "action-0", **NOTIFY, "onError": "stop", "timeout": 30_000},
        {"id": "make", "name": "Make it", **TASK, "onError": "stop", "timeout": 30_000},
    ]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (None, []),
        ("manual", [("manual", None, None)]),
        ({"type": "MANUAL"}, [("manual", None, None)]),
        ({"type": "scheduled", "config": {"cron": "0 9 * * *"}}, [("schedule", "0 9 * * *", None)]),
        ({"type": "schedule", "interval": 60_000}, [("schedule", None, 60_000)]),
        ({"type": "webhook", "config": {"path": "/x"}}, [("webhook", None, None)]),
        ({"type": "event", "config": {"event": "signup"}}, [("event", None, None)]),
    ],
)
def test_triggers(trigger: Any, expected: Any):
    body = actions(trigger=trigger)
    assert [(each.type, each.cron, each.interval) for each in document_of("004", body).triggers] == expected
    source = compiled("004", body)
    assert len(source.schedules) == sum(kind == "schedule" for kind, _, _ in expected)
    assert shown("004", source)["trigger"] == ({"type": trigger} if isinstance(trigger, str) else trigger)


def test_a_schedule_keeps_what_it_says():
    config = {"cron": "0 9 * * *", "timezone": "Europe/Berlin", "maxRuns": 3, "concurrency": "allow", "input": {"a": 1}}
    [schedule] = compiled("004", actions(trigger={"type": "scheduled", "config": config})).schedules
    assert (schedule.cron, schedule.timezone, schedule.max_runs) == ("0 9 * * *", "Europe/Berlin", 3)
    assert (schedule.overlap, schedule.input) == (True, '{"a":1}')


def test_variables_are_the_documents():
    document = document_of("004", actions(variables={"limit": 3}))
    assert document.vars == {"limit": 3}
    assert shown("004", compiled("004", actions(variables={"limit": 3})))["variables"] == {"limit": 3}


@pytest.mark.parametrize(
    ("body", "kind", "pointer", "message"),
    [
        (actions({}), "INVALID_FIELD", "/actions/0/type", "actions/0/type is required"),
        (actions({"config": {"x": 1}}), "INVALID_FIELD", "/actions/0/type", "actions/0/type is required"),
        (actions({"type": "fly"}), "UNKNOWN_TYPE", "/actions/0/type", None),
        (actions(7), "INVALID_FIELD", "/actions/0", "actions/0 must be an object"),
        (
            actions({**NOTIFY, "onError": "explode"}),
            "INVALID_FIELD",
            "/actions/0/onError",
            "actions/0/onError must be one of stop, continue, retry",
        ),
        (
            actions({**NOTIFY, "timeout": 86_400_001}),
            "INVALID_FIELD",
            "/actions/0/timeout",
            "actions/0/timeout must be an integer between 1 and 86400000",
        ),
        (actions({**NOTIFY, "retries": 3}), "INVALID_FIELD", "/actions/0/retries", None),
        (
            actions({**NOTIFY, "conditions": [{"field": "trigger.a", "operator": "resembles"}]}),
            "INVALID_EXPRESSION",
            "/actions/0/conditions/0/operator",
            None,
        ),
        (actions({**NOTIFY, "id": "x y"}, NOTIFY), "INVALID_FIELD", "/actions/0/id", None),
        (actions(NOTIFY, {**NOTIFY, "id": "action-0"}), "DUPLICATE_ID", "/actions/1/id", None),
        (actions({"type": "send_notification"}), "INVALID_CONFIG", "/actions/0/config/message", None),
        (actions(variables=[]), "INVALID_FIELD", "/variables", "variables must be an object"),
        (actions(trigger={}), "INVALID_FIELD", "/trigger/type", "trigger/type is required"),
        (actions(trigger={"type": "moon"}), "INVALID_FIELD", "/trigger/type", None),
        (actions(trigger={"type": "scheduled"}), "INVALID_FIELD", "/trigger/cron", None),
        (
            actions(trigger={"type": "scheduled", "config": {"cron": "often"}}),
            "INVALID_FIELD",
            "/trigger/config/cron",
            None,
        ),
        (actions(trigger={"type": "manual", "cron": "0 0 * * *"}), "INVALID_FIELD", "/trigger/cron", None),
    ],
)
def test_what_is_wrong_is_named_where_it_was_written(body: Any, kind: str, pointer: str, message: str | None):
    found = problems("004", body)
    assert [each[:2] for each in found] == [(kind, pointer)], found
    assert message in (None, found[0][2])


def test_tasks_are_shown_as_actions():
    source = compiled(
        "002",
        {"name": "t", "tasks": [{"name": "A", "retryPolicy": {"maxRetries": 2}}, {"name": "B", "timeout": 7}]},
    )
    assert shown("004", source) == {
        "trigger": None,
        "actions": [
            {"id": "task-1", "type": "noop", "name": "A", "config": {}, "onError": "retry"},
            {"id": "task-2", "type": "noop", "name": "B", "config": {}, "onError": "stop", "timeout": 7},
        ],
        "variables": {},
    }


def test_secret_headers_are_redacted_wherever_they_are():
    found = shown("004", compiled("004", actions({**CALL, "config": {**CALL["config"], "headers": {
        "AUTHORIZATION": "a", "Cookie": "b", "proxy-authorization": "c", "X-Api-Key": "d", "Accept": "e",
    }}})))  # fmt: skip
    [action] = redacted(found)["actions"]
    assert action["config"]["headers"] == {
        "AUTHORIZATION": REDACTED, "Cookie": REDACTED, "proxy-authorization": REDACTED, "X-Api-Key": REDACTED,
        "Accept": "e",
    }  # fmt: skip
    assert found["actions"][0]["config"]["headers"]["Cookie"] == "b"
