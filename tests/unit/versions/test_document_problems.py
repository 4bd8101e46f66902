"""What is wrong with a definition document: every code, the pointer, the words; and hostile input."""

import time
import tracemalloc
from typing import Any

import pytest

from app.errors import Problem
from versions.document import check_document, parse_document
from versions.errors import DocumentInvalid


def doc(*nodes: Any, **rest: Any) -> dict[str, Any]:
    return {"spec": "workflow/1", "name": "test", "nodes": list(nodes), **rest}


def problems(definition: Any, **options: Any) -> list[Problem]:
    checked = check_document(definition, **options)
    assert (checked.document is None) == bool(checked.problems)
    return list(checked.problems)


def found(definition: Any, **options: Any) -> list[tuple[str | None, str | None]]:
    return [(p.kind, p.pointer) for p in problems(definition, **options)]


def only(definition: Any, **options: Any) -> Problem:
    (problem,) = problems(definition, **options)
    return problem


@pytest.mark.parametrize(
    ("definition", "pointer"),
    [
        ([], ""),
        ("text", ""),
        (None, ""),
        ({}, "/spec"),
        ({"spec": "workflow/2"}, "/spec"),
        (doc(name=7), "/name"),
        (doc(name=""), "/name"),
        (doc(name="x" * 256), "/name"),
        (doc(name="a\0b"), "/name"),
        (doc(description="x" * 4097), "/description"),
        (doc(dependsOn=[]), "/dependsOn"),
        (doc(vars=[]), "/vars"),
        (doc(rollback="maybe"), "/rollback"),
        (doc(idempotent=1), "/idempotent"),
        (doc(retention="soon"), "/retention"),
        (doc(outputs=[]), "/outputs"),
        (doc(nodes={}), "/nodes"),
        (doc(limits={"timeout": 0}), "/limits/timeout"),
        (doc(limits={"timeout": "366 days"}), "/limits/timeout"),
        (doc(limits={"max_parallel": 257}), "/limits/max_parallel"),
        (doc(limits={"max_parallel": True}), "/limits/max_parallel"),
        (doc(limits={"max_steps": 0}), "/limits/max_steps"),
        (doc(limits={"maxSteps": 1}), "/limits/maxSteps"),
        (doc(defaults={"on_error": "explode"}), "/defaults/on_error"),
        (doc(defaults={"timeout": "25 hours"}), "/defaults/timeout"),
        (doc(source={"original": {}}), "/source/dialect"),
        (doc(7), "/nodes/0"),
        (doc({"name": "no id"}), "/nodes/0/id"),
        (doc({"id": "a.b"}), "/nodes/0/id"),
        (doc({"id": "a:b"}), "/nodes/0/id"),
        (doc({"id": "-a"}), "/nodes/0/id"),
        (doc({"id": "a" * 129}), "/nodes/0/id"),
        (doc({"id": "_root"}), "/nodes/0/id"),
        (doc({"id": "a", "dependsOn": []}), "/nodes/0/dependsOn"),
        (doc({"id": "a", "depends_on": "b"}), "/nodes/0/depends_on"),
        (doc({"id": "a", "depends_on": [1]}), "/nodes/0/depends_on/0"),
        (doc({"id": "a", "join": "some"}), "/nodes/0/join"),
        (doc({"id": "a", "timeout": 0}), "/nodes/0/timeout"),
        (doc({"id": "a", "timeout": 86_400_001}), "/nodes/0/timeout"),
        (doc({"id": "a", "timeout": 10**30}), "/nodes/0/timeout"),
        (doc({"id": "a", "timeout": 1.5}), "/nodes/0/timeout"),
        (doc({"id": "a", "total_timeout": "2 years"}), "/nodes/0/total_timeout"),
        (doc({"id": "a", "async": "yes"}), "/nodes/0/async"),
        (doc({"id": "a", "save_output": None, "outputs": 1}), "/nodes/0/outputs"),
        (doc({"id": "a", "on_error": "ignore"}), "/nodes/0/on_error"),
        (doc({"id": "a", "on_error": {"skip": "b"}}), "/nodes/0/on_error"),
        (doc({"id": "a", "on_error": {"skip_to": "b"}}, {"id": "b"}), "/nodes/0/on_error/skip_to"),
        (doc({"id": "a", "type": "set", "config": []}), "/nodes/0/config"),
        (doc({"id": "a", "compensate": {"type": "call_api", "config": 3}}), "/nodes/0/compensate/config"),
        (doc({"id": "a", "retries": 3}), "/nodes/0/retries"),
        (doc({"id": "a", "retries": {"limit": 10_001}}), "/nodes/0/retries/limit"),
        (doc({"id": "a", "retries": {"limit": -1}}), "/nodes/0/retries/limit"),
        (doc({"id": "a", "retries": {"backoff": "random"}}), "/nodes/0/retries/backoff"),
        (doc({"id": "a", "retries": {"multiplier": 0.5}}), "/nodes/0/retries/multiplier"),
        (doc({"id": "a", "retries": {"jitter": 2}}), "/nodes/0/retries/jitter"),
        (doc({"id": "a", "retries": {"max": 2}}), "/nodes/0/retries/max"),
        (doc({"id": "a", "compensate": {"type": "wait"}}), "/nodes/0/compensate/type"),
        (doc({"id": "a", "compensate": {"depends_on": []}}), "/nodes/0/compensate/depends_on"),
        (doc({"id": "a", "for_each": 3}), "/nodes/0/for_each"),
        (doc({"id": "a", "for_each": "items"}), "/nodes/0/for_each"),
        (doc({"id": "a", "for_each": "{{ trigger.a }}\n"}), "/nodes/0/for_each"),
        (doc({"id": "a", "for_each": "{{ trigger.a }}{{ trigger.b }}"}), "/nodes/0/for_each"),
        (doc({"id": "a", "for_each": "\\{{ trigger.a }}"}), "/nodes/0/for_each"),
        (doc({"id": "a", "type": "trigger", "async": True}), "/nodes/0/async"),
        (doc({"id": "a", "type": "set", "config": {"values": {}}, "async": True}), "/nodes/0/async"),
        (doc({"id": "a", "type": "fail", "async": True}), "/nodes/0/async"),
        (doc({"id": "a", "type": "wait", "async": True}), "/nodes/0/async"),
        (doc({"id": "a", "type": "workflow", "config": {"workflow": "w"}, "async": True}), "/nodes/0/async"),
        (doc({"id": "a", "compensate": {"type": "fail", "async": True}}), "/nodes/0/compensate/async"),
        (doc({"id": "a", "type": "trigger", "for_each": [1]}), "/nodes/0/for_each"),
        (doc({"id": "a", "resources": {"cpu": -1}}), "/nodes/0/resources/cpu"),
        (doc({"id": "a", "resources": {"custom": [{}]}}), "/nodes/0/resources/custom/0/name"),
        (doc(sync_points=[{"id": "s"}]), "/sync_points/0/required"),
        (doc(sync_points=[{"id": "s", "required": 3}]), "/sync_points/0/required"),
        (
            doc({"id": "a"}, sync_points=[{"id": "s", "required": ["a"], "on_timeout": "x"}]),
            "/sync_points/0/on_timeout",
        ),
        (doc({"id": "a"}, milestones=[{"id": "m", "after": []}]), "/milestones/0/after"),
        (doc(triggers=[{}]), "/triggers/0/type"),
        (doc(triggers=[{"type": "schedule"}]), "/triggers/0/cron"),
        (doc(triggers=[{"type": "schedule", "cron": "* * * * *", "interval": 5000}]), "/triggers/0/cron"),
        (doc(triggers=[{"type": "schedule", "cron": "* * * * 0"}]), "/triggers/0/cron"),
        (doc(triggers=[{"type": "schedule", "interval": 10}]), "/triggers/0/interval"),
        (doc(triggers=[{"type": "schedule", "interval": 5000, "max_runs": 0}]), "/triggers/0/max_runs"),
        (doc(triggers=[{"type": "schedule", "interval": 5000, "timezone": "Mars/Base"}]), "/triggers/0/timezone"),
        (
            doc(triggers=[{"type": "schedule", "interval": 5000, "timezone": "../etc/passwd"}]),
            "/triggers/0/timezone",
        ),
        (doc(triggers=[{"type": "schedule", "interval": 5000, "timezone": "Europe"}]), "/triggers/0/timezone"),
        (doc(triggers=[{"type": "event"}]), "/triggers/0/event"),
    ],
)
def test_invalid_field(definition: Any, pointer: str) -> None:
    assert found(definition) == [("INVALID_FIELD", pointer)]


@pytest.mark.parametrize(
    ("type_", "config", "pointer"),
    [
        ("noop", {"x": 1}, "x"),
        ("send_notification", {}, "message"),
        ("send_notification", {"message": 1}, "message"),
        ("send_notification", {"message": ""}, "message"),
        ("send_notification", {"message": "m", "recipient": ""}, "recipient"),
        ("send_notification", {"message": "a", "to": "b"}, "to"),
        ("create_task", {"title": "t", "priority": "high"}, "priority"),
        ("create_task", {"description": "d"}, "title"),
        ("call_api", {}, "url"),
        ("call_api", {"url": "/relative"}, "url"),
        ("call_api", {"url": "file:///etc/passwd"}, "url"),
        ("call_api", {"url": "http://[::1"}, "url"),
        ("call_api", {"url": "http://a:99999/"}, "url"),
        ("call_api", {"url": "http://a/ b"}, "url"),
        ("call_api", {"url": "http://a", "method": "TRACE"}, "method"),
        ("call_api", {"url": "http://a", "headers": []}, "headers"),
        ("call_api", {"url": "http://a", "headers": {"a b": "c"}}, "headers/a b"),
        ("call_api", {"url": "http://a", "headers": {"a": "c\r\nd: e"}}, "headers/a"),
        ("call_api", {"url": "http://a", "headers": {"a": None}}, "headers/a"),
        ("call_api", {"url": "http://a", "query": "x=1"}, "query"),
        ("call_api", {"url": "http://a", "expect": [200, 99]}, "expect/1"),
        ("wait", {"durationMs": 0}, "durationMs"),
        ("wait", {"durationMs": 1, "duration": "1 hour"}, "duration"),
        ("wait", {"duration": "1 fortnight"}, "duration"),
        ("wait_until", {}, "at"),
        ("wait_until", {"at": "tomorrow"}, "at"),
        ("wait_until", {"at": -1}, "at"),
        ("wait_until", {"at": "20260101T10"}, "at"),
        ("wait_until", {"at": "2026-01-01T00:00:00Z" + " " * 50}, "at"),
        ("wait_for_event", {}, "event"),
        ("wait_for_event", {"event": "order.paid"}, "event"),
        ("wait_for_event", {"event": "paid", "timeout": 0}, "timeout"),
        ("condition", {"onFalse": "stop"}, "field"),
        ("condition", {"field": "a", "operator": "eq", "onFalse": "explode"}, "onFalse"),
        ("condition", {"field": "a", "operator": "exists", "onFalse": "stop", "else": ["b"]}, "else"),
        ("set", {}, "values"),
        ("set", {"values": 3}, "values"),
        ("fail", {"message": 1}, "message"),
        ("workflow", {}, "workflow"),
        ("workflow", {"workflow": "w", "wait": "yes"}, "wait"),
        ("handler", {}, "handler"),
        ("handler", {"handler": "nobody"}, "handler"),
        ("external", {"x": 1}, "x"),
    ],
)
def test_invalid_config(type_: str, config: dict[str, Any], pointer: str) -> None:
    assert found(doc({"id": "a", "type": type_, "config": config}, {"id": "b"})) == [
        ("INVALID_CONFIG", f"/nodes/0/config/{pointer}")
    ]


@pytest.mark.parametrize(
    ("type_", "config"),
    [
        ("wait", {"durationMs": "{{ trigger.ms }}"}),
        ("wait_until", {"at": "{{ trigger.at }}"}),
        ("wait_until", {"at": "2026-01-01"}),
        ("wait_until", {"at": "2026-01-01T00:00:00+02:00"}),
        ("wait_until", {"at": 1_767_225_600_000}),
        ("wait_for_event", {"event": "{{ trigger.kind }}", "match": "total > `1`"}),
        ("wait_for_event", {"event": "step:other", "timeout": "2 days"}),
        ("call_api", {"url": "{{ vars.base }}/x", "method": "{{ vars.m }}", "headers": "{{ vars.h }}"}),
        ("call_api", {"url": "https://example.com", "headers": {"x": 1}, "query": {"a": [1]}, "expect": [201]}),
        ("create_task", {"title": "t", "priority": "{{ trigger.p }}", "assignedTo": None}),
        ("condition", {"all": [{"field": "trigger.a", "operator": "eq", "value": "{{ vars.x }}"}], "onFalse": "fail"}),
        ("trigger", {"any": "thing"}),
        ("trigger", {"any": "{{ thing"}),
        ("create_task", {"title": "t", "description": ""}),
        ("wait_for_event", {"event": "step:" + "a" * 128}),
        ("wait_for_event", {"event": "e", "match": "payload.text == '{{'"}),
        ("condition", {"any": ["trigger.text == '{{'", {"field": "a", "operator": "eq", "value": "\\{{"}]}),
        ("set", {"values": "{{ trigger }}"}),
    ],
)
def test_good_config(type_: str, config: dict[str, Any]) -> None:
    assert problems(doc({"id": "a", "type": type_, "config": config})) == []


def test_an_egress_rule_may_refuse_a_url() -> None:
    definition = doc({"id": "a", "type": "call_api", "config": {"url": "http://127.0.0.1/"}})
    assert problems(definition) == []
    problem = only(definition, check_url=lambda url: "must be public" if "127." in url else None)
    assert problem.message == "nodes/0/config/url must be public"


def test_unknown_type_lists_the_known() -> None:
    problem = only(doc({"id": "a", "type": "bill"}), known_handlers={"ship"})
    assert (problem.kind, problem.pointer) == ("UNKNOWN_TYPE", "/nodes/0/type")
    assert "call_api" in problem.message
    assert problem.message.endswith("ship")


def test_duplicate_id() -> None:
    problem = only(doc({"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "a"}))
    assert (problem.kind, problem.pointer) == ("DUPLICATE_ID", "/nodes/3/id")
    assert problem.message == 'node id "a" is used by nodes 0 and 3'


def test_duplicate_id_with_a_sync_point() -> None:
    problem = only(doc({"id": "a"}, sync_points=[{"id": "a", "required": ["a"]}]))
    assert (problem.kind, problem.pointer) == ("DUPLICATE_ID", "/sync_points/0/id")
    assert problem.message == 'node id "a" is used by node 0 and sync point 0'


def test_duplicate_milestone() -> None:
    milestones = [{"id": "m", "after": ["a"]}, {"id": "m", "after": ["a"]}, {"id": "initialization", "after": ["a"]}]
    assert found(doc({"id": "a"}, milestones=milestones)) == [
        ("DUPLICATE_ID", "/milestones/1/id"),
        ("DUPLICATE_ID", "/milestones/2/id"),
    ]


def test_ambiguous_reference() -> None:
    definition = doc(
        {"id": "task-1", "name": "Build"}, {"id": "task-4", "name": "Build"}, {"id": "c", "depends_on": ["Build"]}
    )
    problem = only(definition, noun="task")
    assert (problem.kind, problem.pointer) == ("AMBIGUOUS_REFERENCE", "/nodes/2/depends_on/0")
    assert problem.message == '"Build" names tasks task-1 and task-4'


def test_unknown_references() -> None:
    definition = doc(
        {"id": "a", "depends_on": ["x"], "on_error": {"skip_to": "y"}},
        {"id": "c", "type": "condition", "config": {"field": "a", "operator": "exists", "then": ["z"]}},
        sync_points=[{"id": "s", "required": ["a", "s"]}],
        milestones=[{"id": "m", "after": ["s", "w"]}],
    )
    assert sorted(found(definition)) == [
        ("UNKNOWN_REFERENCE", "/milestones/0/after/1"),
        ("UNKNOWN_REFERENCE", "/nodes/0/depends_on/0"),
        ("UNKNOWN_REFERENCE", "/nodes/0/on_error/skip_to"),
        ("UNKNOWN_REFERENCE", "/nodes/1/config/then/0"),
        ("UNKNOWN_REFERENCE", "/sync_points/0/required/1"),
    ]
    message = only(doc({"id": "task-3", "depends_on": ["task-9"]}), noun="task").message
    assert message == 'task-3 depends on unknown task "task-9"'


def test_self_dependency() -> None:
    problem = only(doc({"id": "task-2", "depends_on": ["task-2"]}))
    assert (problem.kind, problem.pointer) == ("SELF_DEPENDENCY", "/nodes/0/depends_on/0")
    assert problem.message == "task-2 depends on itself"


class TestCycles:
    def test_the_loop_is_reported_once_from_its_first_member(self) -> None:
        problem = only(
            doc(
                {"id": "task-0", "depends_on": ["task-3"]},  # behind the loop, not part of it
                {"id": "task-1", "depends_on": ["task-3"]},
                {"id": "task-2", "depends_on": ["task-1"]},
                {"id": "task-3", "depends_on": ["task-2"]},
            )
        )
        assert (problem.kind, problem.pointer) == ("CYCLE", "/nodes/1/depends_on")
        assert problem.message == "dependency cycle: task-1 → task-3 → task-2 → task-1"

    def test_through_a_sync_point(self) -> None:
        problem = only(doc({"id": "a", "depends_on": ["s"]}, sync_points=[{"id": "s", "required": ["a"]}]))
        assert problem.message == "dependency cycle: a → s → a"

    def test_through_a_verdict(self) -> None:
        config = {"field": "x", "operator": "exists", "then": ["a"]}
        problem = only(doc({"id": "a"}, {"id": "c", "type": "condition", "config": config, "depends_on": ["a"]}))
        assert (problem.kind, problem.pointer) == ("CYCLE", "/nodes/1/config/then")

    def test_beside_other_problems(self) -> None:
        kinds = [
            p.kind for p in problems(doc({"id": "a", "depends_on": ["b"], "x": 1}, {"id": "b", "depends_on": ["a"]}))
        ]
        assert kinds == ["INVALID_FIELD", "CYCLE"]


@pytest.mark.parametrize(
    ("definition", "pointer", "words"),
    [
        (doc({"id": "a", "when": "trigger."}), "/nodes/0/when", "character 8"),
        (doc({"id": "a", "when": {"field": "x", "operator": "matches"}}), "/nodes/0/when/operator", "unknown operator"),
        (doc({"id": "a", "when": {"all": [{"not": {"field": "x"}}]}}), "/nodes/0/when/all/0/not/operator", "operator"),
        (doc({"id": "a", "when": 3}), "/nodes/0/when", "string or an object"),
        (doc({"id": "a", "type": "set", "config": {"values": {"v": ["{{ a b }}"]}}}), "/nodes/0/config/values/v/0", ""),
        (doc({"id": "a", "type": "set", "config": {"values": {"v": "{{ a"}}}), "/nodes/0/config/values/v", "without"),
        (doc({"id": "a", "outputs": {"x": "{{ nope() }}"}}), "/nodes/0/outputs/x", "unknown function"),
        (doc({"id": "a", "retries": {"when": "("}}), "/nodes/0/retries/when", ""),
        (doc({"id": "a", "for_each": "{{ ] }}"}), "/nodes/0/for_each", ""),
        (doc({"id": "a", "compensate": {"input": "{{ ( }}"}}), "/nodes/0/compensate/input", ""),
        (
            doc({"id": "a", "type": "wait_for_event", "config": {"event": "e", "match": "("}}),
            "/nodes/0/config/match",
            "",
        ),
        (
            doc({"id": "a", "type": "condition", "config": {"field": "{{ x }}", "operator": "eq"}}),
            "/nodes/0/config/field",
            "without braces",
        ),
        (doc(outputs={"x": "{{ a[ }}"}), "/outputs/x", ""),
        (doc(triggers=[{"type": "event", "event": "e", "condition": ")"}]), "/triggers/0/condition", ""),
        (doc({"id": "a", "when": "|".join(["a"] * 30)}), "/nodes/0/when", "20 pipes"),
        (doc({"id": "a", "when": "a" * 1025}), "/nodes/0/when", "1024"),
    ],
)
def test_invalid_expression(definition: Any, pointer: str, words: str) -> None:
    problem = only(definition)
    assert (problem.kind, problem.pointer) == ("INVALID_EXPRESSION", pointer)
    assert words in problem.message


@pytest.mark.parametrize(
    ("part", "pointer"),
    [
        ({"type": "condition", "config": {"field": "a", "operator": "eq", "value": "{{ ( }}"}}, "config/value"),
        ({"type": "condition", "config": {"all": ["("]}}, "config/all/0"),
        ({"type": "wait_for_event", "config": {"event": "e", "match": {"all": ["("]}}}, "config/match/all/0"),
        ({"for_each": ["{{ ( }}"]}, "for_each/0"),
    ],
)
def test_a_mistake_is_reported_once(part: dict[str, Any], pointer: str) -> None:
    assert found(doc({"id": "a", **part})) == [("INVALID_EXPRESSION", f"/nodes/0/{pointer}")]


def test_a_comparison_names_what_it_lacks() -> None:
    assert "operator is required" in only(doc({"id": "a", "when": {"field": "x"}})).message
    assert "field is required" in only(doc({"id": "a", "when": {"operator": "eq"}})).message


def test_what_is_compared_with_mentions_nothing() -> None:
    when = {"field": "trigger.x", "operator": "eq", "value": {"field": "steps.nobody"}}
    assert check_document(doc({"id": "a", "when": when})).warnings == ()
    assert check_document(doc({"id": "a", "when": {"all": [{"not": {**when, "field": "steps.b"}}]}})).warnings[
        0
    ].pointer == ("/nodes/0/when/all/0/not/field")


def test_schedules_must_pass_the_input_schema() -> None:
    schema = {"type": "object", "required": ["full"]}

    def triggers(**fields: Any) -> list[dict[str, Any]]:
        return [{"type": "manual"}, {"type": "schedule", "cron": "0 2 * * *", **fields}]

    missing = only(doc(input_schema=schema, triggers=triggers()))
    assert (missing.kind, missing.pointer) == ("INVALID_FIELD", "/triggers/1/input")
    assert "is required, and must match input_schema" in missing.message
    wrong = only(doc(input_schema=schema, triggers=triggers(input={"fill": 1})))
    assert wrong.message == "triggers/1/input must match input_schema: 'full' is a required property"
    assert problems(doc(input_schema=schema, triggers=triggers(input={"full": 1}))) == []
    assert found(doc(input_schema={"type": 3}, triggers=triggers())) == [("INVALID_FIELD", "/input_schema/type")]


def test_answers_stay_small() -> None:
    long = "k" * 900_000
    for definition in (
        doc(outputs={long: ["{{"] * 50}),
        doc({"id": "a", "when": {"field": "x", "operator": long}}),
        doc({"id": "a", long: 1}),
        doc(*({"id": f"n{i}", "name": "same"} for i in range(900)), {"id": "z", "depends_on": ["same"] * 50}),
        doc(input_schema={"properties": {"k" * 60_000: {"pattern": "("}}}),
    ):
        answers = problems(definition)
        assert answers
        assert all(len(answer.message) <= 4_096 for answer in answers)
        assert all(len(answer.pointer or "") <= 2_048 for answer in answers)
    assert problems(doc(outputs={long: ["{{"]}))[0].pointer == "/outputs"


def test_all_problems_at_once_up_to_fifty() -> None:
    definition = doc(*({"id": f"n{i}", "timeout": 0, "x": 1} for i in range(40)))
    assert len(problems(definition)) == 50
    with pytest.raises(DocumentInvalid) as caught:
        parse_document(definition)
    assert len(caught.value.problems) == 50
    assert caught.value.status == 400


def test_pointers_lead_into_what_the_user_sent() -> None:
    def locate(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        return ("tasks", *path[1:]) if path[:1] == ("nodes",) else path

    problem = only(doc({"id": "a", "a/b~c": 1}), pointer="/definition", locate=locate)
    assert problem.pointer == "/definition/tasks/0/a~1b~0c"
    assert problem.message.startswith("tasks/0/a/b~c is not a known key")


class TestLimits:
    @pytest.mark.parametrize(
        ("definition", "pointer"),
        [
            (doc(*({"id": f"n{i}"} for i in range(1_001))), "/nodes"),
            (doc({"id": "a"}, sync_points=[{"id": f"s{i}", "required": ["a"]} for i in range(101)]), "/sync_points"),
            (doc({"id": "a"}, milestones=[{"id": f"m{i}", "after": ["a"]} for i in range(101)]), "/milestones"),
            (doc(triggers=[{"type": "manual"}] * 101), "/triggers"),
            (doc({"id": "a", "type": "set", "config": {"values": {"x": "y" * 131_072}}}), "/nodes/0/config"),
            (doc({"id": "a", "meta": {"x": "y" * 8_192}}), "/nodes/0/meta"),
            (doc(vars={"x": "y" * 1_048_576}), ""),
            (doc(input_schema={"title": "y" * 65_536}), "/input_schema"),
            (doc(input_schema={"allOf": [True] * 5_000}), "/input_schema"),
            (doc({"id": "a", "for_each": [1] * 10_001}), "/nodes/0/for_each"),
        ],
    )
    def test_over(self, definition: Any, pointer: str) -> None:
        assert found(definition) == [("LIMIT_EXCEEDED", pointer)]

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "set", "config": {"values": {"v": "{{a}}" * 5_200}}},
            {"when": {"any": ["a"] * 5_200}},
            {"when": {"field": "x", "operator": "eq", "value": ["{{ a }}"] * 5_200}},
        ],
    )
    def test_expressions(self, part: dict[str, Any]) -> None:
        started = time.process_time()
        nodes = [{"id": f"n{i}", **part} for i in range(10)]
        ((kind, pointer),) = found(doc(*nodes))
        assert kind == "LIMIT_EXCEEDED"
        assert pointer is not None
        assert pointer.startswith("/nodes/3/")
        assert time.process_time() - started < 2

    def test_edges(self) -> None:
        nodes = [{"id": f"n{i}", "depends_on": [f"n{j}" for j in range(max(0, i - 11), i)]} for i in range(1_000)]
        assert found(doc(*nodes)) == [("LIMIT_EXCEEDED", "/nodes")]

    @pytest.mark.parametrize("wide", [[1] * 450_000, [[]] * 300_000])
    def test_a_wide_document_takes_little_memory(self, wide: list[Any]) -> None:
        for _ in range(58):
            wide = [wide]
        tracemalloc.start()
        try:
            assert found(doc(vars={"x": wide}, y=1)) == [("INVALID_FIELD", "/y")]
            assert tracemalloc.get_traced_memory()[1] < 48 << 20
        finally:
            tracemalloc.stop()

    def test_nesting(self) -> None:
        deep: Any = 1
        for _ in range(100_000):
            deep = [deep]
        assert found(doc(vars={"x": deep})) == [("LIMIT_EXCEEDED", "")]

    def test_the_largest_graph_is_quick(self) -> None:
        nodes = [
            {
                "id": f"n{i}",
                "type": "set",
                "config": {"values": {"v": "{{ steps.n0.output.v }} and more"}},
                "depends_on": [f"n{j}" for j in range(max(0, i - 10), i)],
            }
            for i in range(1_000)
        ]
        started = time.process_time()
        assert problems(doc(*nodes)) == []
        assert time.process_time() - started < 1
        nodes[0]["depends_on"] = ["n999"]
        started = time.process_time()
        assert only(doc(*nodes)).kind == "CYCLE"
        assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"\ud800": 1}, 2**70, float("nan"), float("inf"), {1: 2}, b"bytes", {"a": {1, 2}}],
)
def test_what_is_not_json_is_refused(value: Any) -> None:
    ((kind, pointer),) = found(doc(vars={"x": value}))
    assert kind == "INVALID_FIELD"
    assert pointer is not None
    assert pointer.startswith("/vars")
