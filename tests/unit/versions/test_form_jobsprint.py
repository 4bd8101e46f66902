"""Nodes and connections compiled to the document, and documents shown as nodes."""

from typing import Any

import pytest

from tests.support.forms import compiled, document_of, problems, shown
from versions.document import Retries

MESSAGE = {"message": "{{ email.body }}"}


def nodes(*given: Any, connections: Any = (), **rest: Any) -> dict[str, Any]:
    return {"name": "w", "definition": {"nodes": list(given), "connections": list(connections)}, **rest}


RESPONDER = nodes(
    {"id": "node_1", "type": "trigger", "name": "Email Received", "parameters": {"source": "imap"}},
    {"id": "node_2", "type": "send_notification", "name": "Generate Response", "parameters": MESSAGE},
    connections=[{"from": "node_1", "to": "node_2"}],
    settings={"timeout": 300, "retryOnFailure": True, "maxRetries": 2},
    triggers=[{"type": "schedule", "config": {"cron": "*/5 * * * *"}}, {"type": "webhook"}],
)


def test_a_workflow_compiles():
    document = document_of("001", RESPONDER)
    assert [(node.id, node.name, node.type, node.config, node.depends_on) for node in document.nodes] == [
        ("node_1", "Email Received", "trigger", {"source": "imap"}, ()),
        ("node_2", "Generate Response", "send_notification", MESSAGE, ("node_1",)),
    ]
    assert document.limits.timeout == 300_000
    assert document.nodes[1].retries == Retries(limit=2, delay=1000, backoff="exponential")
    assert (document.flat_input, document.dialect) == (True, "001")
    assert [(each.type, each.cron) for each in document.triggers] == [("schedule", "*/5 * * * *"), ("webhook", None)]
    assert [schedule.cron for schedule in compiled("001", RESPONDER).schedules] == ["*/5 * * * *"]


def test_it_is_shown_as_it_was_written():
    source = compiled("001", RESPONDER)
    assert shown("001", source) == {key: RESPONDER[key] for key in ("definition", "settings", "triggers")}


@pytest.mark.parametrize(
    ("settings", "limit", "displayed"),
    [
        ({}, 0, {"timeout": None, "retryOnFailure": False, "maxRetries": 0}),
        ({"retryOnFailure": True}, 3, {"timeout": None, "retryOnFailure": True, "maxRetries": 3}),
        ({"maxRetries": 5}, 0, {"timeout": None, "retryOnFailure": False, "maxRetries": 5}),
    ],
)
def test_retries_are_made_only_when_they_are_asked_for(settings: Any, limit: int, displayed: Any):
    body = nodes({"id": "a", "type": "noop"}, settings=settings)
    assert document_of("001", body).nodes[0].retries.limit == limit
    assert shown("001", compiled("001", body))["settings"] == displayed


def test_connections_may_name_nodes_by_name_and_are_kept_in_order():
    body = nodes(
        {"id": "a", "type": "noop", "name": "First"},
        {"id": "b", "type": "noop"},
        {"id": "c", "type": "noop"},
        connections=[
            {"from": "b", "to": "c"},
            {"from": "First", "to": "c"},
            {"from": "a", "to": "b"},
            {"from": "a", "to": "b"},
        ],
    )
    assert [node.depends_on for node in document_of("001", body).nodes] == [(), ("a",), ("b", "a")]
    assert shown("001", compiled("001", body))["definition"]["connections"] == [
        {"from": "b", "to": "c"}, {"from": "a", "to": "c"}, {"from": "a", "to": "b"}
    ]  # fmt: skip


def test_an_editors_position_is_kept_and_is_a_change():
    here = nodes({"id": "a", "type": "noop", "position": {"x": 1, "y": 2}})
    there = nodes({"id": "a", "type": "noop", "position": {"x": 9, "y": 2}})
    assert shown("001", compiled("001", here))["definition"]["nodes"][0]["position"] == {"x": 1, "y": 2}
    assert compiled("001", here).source_hash != compiled("001", there).source_hash


def test_a_workflow_may_be_empty():
    assert document_of("001", {"name": "later"}).nodes == ()
    assert shown("001", compiled("001", {"name": "later"}))["definition"] == {"nodes": [], "connections": []}


@pytest.mark.parametrize(
    ("body", "kind", "pointer", "message"),
    [
        (nodes({"type": "noop"}), "INVALID_FIELD", "/definition/nodes/0/id", "definition/nodes/0/id is required"),
        (nodes({"id": "a", "parameters": {"x": 1}}), "INVALID_FIELD", "/definition/nodes/0/type", None),
        (nodes("a"), "INVALID_FIELD", "/definition/nodes/0", None),
        (nodes({"id": "a", "type": "fly"}), "UNKNOWN_TYPE", "/definition/nodes/0/type", None),
        (
            nodes({"id": "a", "type": "send_notification"}),
            "INVALID_CONFIG",
            "/definition/nodes/0/parameters/message",
            "definition/nodes/0/parameters/message is required",
        ),
        (
            nodes({"id": "a", "type": "noop", "dependsOn": []}),
            "INVALID_FIELD",
            "/definition/nodes/0/dependsOn",
            None,
        ),
        (
            nodes({"id": "a", "type": "noop"}, connections=[{"from": "a", "to": "b"}]),
            "UNKNOWN_REFERENCE",
            "/definition/connections/0/to",
            'connection 0 names unknown node "b"',
        ),
        (
            nodes({"id": "a", "type": "noop"}, connections=[{"to": "a"}]),
            "INVALID_FIELD",
            "/definition/connections/0/from",
            "definition/connections/0/from is required",
        ),
        (
            nodes({"id": "a", "type": "noop"}, connections=[{"from": "a", "to": "a"}]),
            "SELF_DEPENDENCY",
            "/definition/connections/0",
            "a depends on itself",
        ),
        (
            nodes(
                {"id": "a", "type": "noop"},
                {"id": "b", "type": "noop"},
                connections=[{"from": "a", "to": "b"}, {"from": "b", "to": "a"}],
            ),
            "CYCLE",
            "/definition/connections",
            "dependency cycle: a → b → a",
        ),
        (
            nodes({"id": "a", "type": "noop"}, {"id": "a", "type": "noop"}),
            "DUPLICATE_ID",
            "/definition/nodes/1/id",
            'node id "a" is used by nodes 0 and 1',
        ),
        ({"name": "w", "definition": []}, "INVALID_FIELD", "/definition", "definition must be an object"),
        ({"name": "w", "definition": {"edges": []}}, "INVALID_FIELD", "/definition/edges", None),
        (
            nodes(settings={"timeout": 0}),
            "INVALID_FIELD",
            "/settings/timeout",
            "settings/timeout must be an integer between 1 and 31536000",
        ),
        (nodes(settings={"retries": 1}), "INVALID_FIELD", "/settings/retries", None),
        (nodes(triggers=[{"type": "webhook"}, {}]), "INVALID_FIELD", "/triggers/1/type", None),
        (
            nodes(triggers=[{"type": "webhook"}, {"type": "schedule", "config": {"cron": "x"}}]),
            "INVALID_FIELD",
            "/triggers/1/config/cron",
            None,
        ),
        (nodes(triggers=[{}, {"type": "schedule", "cron": "* * * * *", "timezone": "Mars"}]), None, None, None),
    ],
)
def test_what_is_wrong_is_named_where_it_was_written(body: Any, kind: Any, pointer: Any, message: str | None):
    found = problems("001", body)
    if kind is None:
        assert [each[1] for each in found] == ["/triggers/0/type", "/triggers/1/timezone"]
        return
    assert [each[:2] for each in found] == [(kind, pointer)], found
    assert message in (None, found[0][2])


def test_other_workflows_are_shown_as_nodes():
    source = compiled(
        "002",
        {
            "name": "t",
            "tasks": [{"name": "A"}, {"name": "B", "dependencies": ["Ready"]}],
            "synchronizationPoints": [{"name": "Ready", "requiredTasks": ["A"]}],
        },
    )
    assert shown("001", source) == {
        "definition": {
            "nodes": [
                {"id": "task-1", "type": "noop", "name": "A", "parameters": {}},
                {"id": "task-2", "type": "noop", "name": "B", "parameters": {}},
            ],
            "connections": [{"from": "task-1", "to": "task-2"}],
        },
        "settings": {"timeout": None, "retryOnFailure": False, "maxRetries": 0},
        "triggers": [],
    }


@pytest.mark.parametrize("kind", ["webhook", "event"])
@pytest.mark.parametrize("inside", [True, False], ids=["config", "beside"])
def test_a_triggers_condition_may_stand_in_its_config(kind, inside):
    condition, own = {"field": "payload.n", "operator": "gt", "value": 1}, {"event": "paid"} if kind == "event" else {}
    stated = {"config": own | {"condition": condition}} if inside else {"config": own, "condition": condition}
    [trigger] = document_of("001", nodes(triggers=[{"type": kind, **stated}])).triggers
    assert (trigger.condition, trigger.config) == (condition, {})


def test_a_condition_in_the_config_is_blamed_there():
    wrong = {"type": "webhook", "config": {"condition": {"field": "a", "operator": "resembles"}}}
    found = problems("001", nodes(triggers=[wrong]))
    assert [each[1] for each in found] == ["/triggers/0/config/condition/operator"]
