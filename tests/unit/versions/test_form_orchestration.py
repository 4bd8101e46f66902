"""Tasks and synchronisation points compiled to the document, and documents shown as tasks."""

import copy
from typing import Any

import pytest

from tests.support.forms import compiled, document_of, problems, shown
from versions.document import Retries

CREATE = {
    "name": "Sample Workflow",
    "description": "A sample workflow definition",
    "tasks": [
        {"name": "Task 1", "description": "First task"},
        {"name": "Task 2", "description": "Second task", "dependencies": ["task-1"]},
    ],
    "synchronizationPoints": [
        {
            "name": "All Tasks Completed",
            "description": "Wait for all tasks to complete",
            "requiredTasks": ["task-1", "task-2"],
        }
    ],
}
ANSWERED = {
    "tasks": [
        {
            "id": "task-1",
            "name": "Task 1",
            "description": "First task",
            "resourceRequirements": None,
            "dependencies": [],
            "timeout": None,
            "retryPolicy": None,
        },
        {
            "id": "task-2",
            "name": "Task 2",
            "description": "Second task",
            "resourceRequirements": None,
            "dependencies": ["task-1"],
            "timeout": None,
            "retryPolicy": None,
        },
    ],
    "synchronizationPoints": [
        {
            "id": "sync-1",
            "name": "All Tasks Completed",
            "description": "Wait for all tasks to complete",
            "requiredTasks": ["task-1", "task-2"],
            "timeout": None,
        }
    ],
}


def tasks(*given: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": "w", "tasks": [{"name": f"Task {at}", **task} for at, task in enumerate(given, 1)], **rest}


def test_the_documented_request_gives_the_documented_answer():
    assert shown("002", compiled("002", CREATE)) == ANSWERED


def test_the_documented_request_compiles_to_this_document():
    document = document_of("002", CREATE)
    assert (document.name, document.description, document.dialect) == (CREATE["name"], CREATE["description"], "002")
    assert [(node.id, node.type, node.depends_on, node.timeout) for node in document.nodes] == [
        ("task-1", "noop", (), None),
        ("task-2", "noop", ("task-1",), None),
    ]
    assert [node.retries.limit for node in document.nodes] == [0, 0]
    assert [(point.id, point.required) for point in document.sync_points] == [("sync-1", ("task-1", "task-2"))]
    assert [each.name for each in document.milestones] == ["Initialization", "All Tasks Completed", "Completion"]


@pytest.mark.parametrize("reference", ["task-1", "Task 1", "TASK 1", "task 1"])
def test_tasks_may_be_named_in_these_ways_and_are_shown_by_id(reference: str):
    body = copy.deepcopy(CREATE)
    body["tasks"][1]["dependencies"] = [reference]
    assert shown("002", compiled("002", body)) == ANSWERED
    assert compiled("002", body).source_hash == compiled("002", CREATE).source_hash


def test_an_id_goes_before_a_name_and_a_name_before_a_slug():
    body = tasks({"name": "task-2"}, {"name": "Other"}, {"name": "Last", "dependencies": ["task-2"]})
    assert document_of("002", body).nodes[2].depends_on == ("task-2",)
    body = tasks({"name": "Build"}, {"name": "build"}, {"name": "Last", "dependencies": ["build"]})
    assert document_of("002", body).nodes[2].depends_on == ("task-2",)
    body = tasks({"name": "Prüf es"}, {"name": "Last", "dependencies": ["pruf-es"]})
    assert document_of("002", body).nodes[1].depends_on == ("task-1",)


def test_a_task_may_wait_for_a_sync_point():
    body = tasks(
        {}, {"dependencies": ["Ready"]}, synchronizationPoints=[{"name": "Ready", "requiredTasks": ["task-1"]}]
    )
    assert document_of("002", body).nodes[1].depends_on == ("sync-1",)


def test_ids_of_the_body_are_used():
    body = tasks({"id": "a"}, {"dependencies": ["a"]}, synchronizationPoints=[])
    assert [node.id for node in document_of("002", body).nodes] == ["a", "task-2"]


def test_retries_resources_and_timeouts():
    policy = {"maxRetries": 3}
    body = tasks(
        {"retryPolicy": policy, "timeout": 1500, "resourceRequirements": {"cpu": 0.5, "memory": 256}},
        {"retryPolicy": {"maxRetries": 1, "backoffMultiplier": 3, "maxBackoff": 5000}},
        synchronizationPoints=[{"name": "S", "requiredTasks": ["task-1"], "timeout": 60_000}],
    )
    document = document_of("002", body)
    assert document.nodes[0].retries == Retries(limit=3, delay=1000, multiplier=2.0, max_delay=60_000)
    assert document.nodes[1].retries == Retries(limit=1, delay=1000, multiplier=3.0, max_delay=5_000)
    assert (document.nodes[0].timeout, document.sync_points[0].timeout) == (1500, 60_000)
    first, second = shown("002", compiled("002", body))["tasks"]
    assert first["retryPolicy"] == {"maxRetries": 3, "backoffMultiplier": 2.0, "maxBackoff": 60_000}
    assert first["resourceRequirements"] == {"cpu": 0.5, "memory": 256, "storage": None, "custom": None}
    assert second["retryPolicy"] == {"maxRetries": 1, "backoffMultiplier": 3, "maxBackoff": 5000}


def test_what_is_shown_otherwise_is_another_version():
    without, empty = compiled("002", tasks({})), compiled("002", tasks({"description": ""}))
    assert without.source == empty.source
    assert without.source_hash != empty.source_hash


@pytest.mark.parametrize(
    ("name", "handlers", "type_", "config"),
    [
        ("ship_order", ("ship_order",), "ship_order", {}),
        ("Ship Order", ("ship-order",), "ship-order", {}),
        ("noop", ("noop",), "handler", {"handler": "noop"}),
        ("Other", ("ship_order",), "noop", {}),
    ],
)
def test_a_task_without_a_type_is_the_handler_of_its_name(name: str, handlers: Any, type_: str, config: Any):
    body = tasks({"name": name})
    node = document_of("002", body, handlers=handlers).nodes[0]
    assert (node.type, node.config) == (type_, config)
    assert "type" not in shown("002", compiled("002", body, handlers=handlers))["tasks"][0]


def test_an_account_may_complete_its_tasks_from_outside():
    node = document_of("002", tasks({}), untyped="external").nodes[0]
    assert (node.type, node.async_) == ("external", True)


def test_a_type_makes_a_task_do_something_and_is_shown():
    body = tasks({"type": "wait", "config": {"durationMs": 5}})
    assert document_of("002", body).nodes[0].config == {"durationMs": 5}
    task = shown("002", compiled("002", body))["tasks"][0]
    assert (task["type"], task["config"]) == ("wait", {"durationMs": 5})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"tasks": []}, ("INVALID_FIELD", "/name", "name is required")),
        ({"name": "x" * 256}, ("INVALID_FIELD", "/name", "name must have 1 to 255 characters")),
        ({"name": "w", "tasks": {}}, ("INVALID_FIELD", "/tasks", "tasks must be an array")),
        ({"name": "w", "tasks": [7]}, ("INVALID_FIELD", "/tasks/0", "tasks/0 must be an object")),
        ({"name": "w", "tasks": [{}]}, ("INVALID_FIELD", "/tasks/0/name", "tasks/0/name is required")),
        (
            tasks({}, {}, {"dependencies": ["task-9"]}),
            ("UNKNOWN_REFERENCE", "/tasks/2/dependencies/0", 'task-3 depends on unknown task "task-9"'),
        ),
        (
            tasks({}, {"dependencies": ["task-2"]}),
            ("SELF_DEPENDENCY", "/tasks/1/dependencies/0", "task-2 depends on itself"),
        ),
        (
            tasks({"dependencies": ["task-3"]}, {"dependencies": ["task-1"]}, {"dependencies": ["task-2"]}),
            ("CYCLE", "/tasks/0/dependencies", "dependency cycle: task-1 → task-3 → task-2 → task-1"),
        ),
        (
            tasks({"name": "Build"}, {}, {}, {"name": "Build"}, {"dependencies": ["Build"]}),
            ("AMBIGUOUS_REFERENCE", "/tasks/4/dependencies/0", '"Build" names tasks task-1 and task-4'),
        ),
        (
            tasks({"id": "a"}, {}, {}, {"id": "a"}),
            ("DUPLICATE_ID", "/tasks/3/id", 'task id "a" is used by tasks 0 and 3'),
        ),
        (
            tasks({"id": "a.b"}),
            (
                "INVALID_FIELD",
                "/tasks/0/id",
                None,
            ),
        ),
        (
            tasks({}, {}, {"timeout": 0}),
            ("INVALID_FIELD", "/tasks/2/timeout", "tasks/2/timeout must be an integer between 1 and 86400000"),
        ),
        (
            tasks({"retryPolicy": {}}),
            ("INVALID_FIELD", "/tasks/0/retryPolicy/maxRetries", "tasks/0/retryPolicy/maxRetries is required"),
        ),
        (
            tasks({"retryPolicy": {"maxRetries": 101}}),
            (
                "INVALID_FIELD",
                "/tasks/0/retryPolicy/maxRetries",
                "tasks/0/retryPolicy/maxRetries must be an integer between 0 and 100",
            ),
        ),
        (
            tasks({"resourceRequirements": {"cpu": "much"}}),
            (
                "INVALID_FIELD",
                "/tasks/0/resourceRequirements/cpu",
                "tasks/0/resourceRequirements/cpu must be a number between 0 and 1e+06",
            ),
        ),
        (
            tasks({"config": {"a": 1}}),
            (
                "INVALID_FIELD",
                "/tasks/0/type",
                "tasks/0/type is required with config: no handler is registered under the task's name",
            ),
        ),
        (
            tasks({"type": "call_api", "config": {}}),
            ("INVALID_CONFIG", "/tasks/0/config/url", "tasks/0/config/url is required"),
        ),
        (
            tasks({"type": "set", "config": {"values": {"a": "{{ ( }}"}}}),
            ("INVALID_EXPRESSION", "/tasks/0/config/values/a", None),
        ),
        (tasks({"type": "fly"}), ("UNKNOWN_TYPE", "/tasks/0/type", None)),
        (tasks({"dependsOn": ["task-1"]}), ("INVALID_FIELD", "/tasks/0/dependsOn", None)),
        (
            tasks({}, synchronizationPoints=[{"name": "S", "requiredTasks": []}]),
            (
                "INVALID_FIELD",
                "/synchronizationPoints/0/requiredTasks",
                "synchronizationPoints/0/requiredTasks must name a node",
            ),
        ),
        (
            tasks({}, synchronizationPoints=[{"name": "S", "requiredTasks": ["x"]}]),
            ("UNKNOWN_REFERENCE", "/synchronizationPoints/0/requiredTasks/0", 'sync-1 requires unknown task "x"'),
        ),
        (
            tasks({}, synchronizationPoints=[{"requiredTasks": ["task-1"]}]),
            ("INVALID_FIELD", "/synchronizationPoints/0/name", "synchronizationPoints/0/name is required"),
        ),
        (
            {"name": "w", "tasks": [{"name": f"t{n}"} for n in range(1001)]},
            ("LIMIT_EXCEEDED", "/tasks", "tasks must have at most 1000 elements, not 1001"),
        ),
    ],
)
def test_what_is_wrong_is_named_where_it_was_written(body: Any, expected: tuple[str, str, str | None]):
    [(kind, pointer, message)] = problems("002", body)
    assert (kind, pointer) == expected[:2]
    assert expected[2] in (None, message)


def test_all_that_is_wrong_is_reported_together():
    body = tasks(
        {"timeout": 0}, {"dependencies": ["nobody"]}, {"type": "fly"}, {"retryPolicy": {"maxRetries": -1}}, name=""
    )
    assert {pointer for _, pointer, _ in problems("002", body)} == {
        "/name",
        "/tasks/0/timeout",
        "/tasks/1/dependencies/0",
        "/tasks/2/type",
        "/tasks/3/retryPolicy/maxRetries",
    }


def test_at_most_fifty_problems():
    assert len(problems("002", tasks(*[{"timeout": 0, "type": "fly"} for _ in range(40)]))) == 50


def test_what_is_no_json_is_one_problem():
    assert [kind for kind, _, _ in problems("002", {"name": "\ud800", "tasks": [7]})] == ["INVALID_FIELD"]


def test_what_is_not_part_of_the_definition_is_left_out_of_what_is_kept():
    source = compiled("002", {**CREATE, "version": "9.9.9", "id": "4", "x": 1})
    assert source.source_hash == compiled("002", CREATE).source_hash
    assert source.original == compiled("002", CREATE).original


def test_other_workflows_are_shown_as_tasks():
    actions = compiled(
        "004",
        {
            "name": "Welcome",
            "actions": [
                {"type": "wait", "config": {"durationMs": 5}},
                {"id": "tell", "name": "Tell", "type": "send_notification", "config": {"message": "hi"},
                 "onError": "retry"},
            ],
        },
    )  # fmt: skip
    assert shown("002", actions)["tasks"] == [
        {
            "id": "action-0", "name": "action-0", "description": None, "resourceRequirements": None,
            "dependencies": [], "timeout": None, "retryPolicy": None, "type": "wait", "config": {"durationMs": 5},
        },
        {
            "id": "tell", "name": "Tell", "description": None, "resourceRequirements": None,
            "dependencies": ["action-0"], "timeout": 30_000,
            "retryPolicy": {"maxRetries": 3, "backoffMultiplier": 2.0, "maxBackoff": 3_600_000},
            "type": "send_notification", "config": {"message": "hi"},
        },
    ]  # fmt: skip


def test_the_node_that_stands_for_the_start_is_no_task():
    nodes = compiled(
        "001",
        {
            "name": "n",
            "definition": {
                "nodes": [{"id": "node_1", "type": "trigger"}, {"id": "node_2", "type": "noop"}],
                "connections": [{"from": "node_1", "to": "node_2"}],
            },
        },
    )
    assert [(task["id"], task["dependencies"]) for task in shown("002", nodes)["tasks"]] == [("node_2", [])]
