"""What a valid definition document is compiled to."""

from typing import Any

import pytest

from versions.document import (
    Document,
    Gate,
    Node,
    Retries,
    check_document,
    decode_document,
    document_hash,
    encode_document,
    parse_document,
)
from versions.durations import DAY, HOUR


def doc(*nodes: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"spec": "workflow/1", "name": "test", "nodes": list(nodes), **rest}


def node(document: Document, id_: str) -> Node:
    return next(n for n in document.nodes if n.id == id_)


EXAMPLE = doc(
    {
        "id": "reserve",
        "type": "call_api",
        "timeout": "10 seconds",
        "config": {"url": "https://stock.example.com/r", "method": "POST", "body": {"sku": "{{ trigger.sku }}"}},
        "outputs": {"reservation": "{{ result.data.id }}"},
        "compensate": {
            "type": "call_api",
            "config": {"url": "https://stock.example.com/r/{{ compensation.input.reservation }}", "method": "DELETE"},
        },
    },
    {
        "id": "approve",
        "type": "send_notification",
        "async": True,
        "timeout": "2 days",
        "depends_on": ["reserve"],
        "when": "trigger.total > `500`",
        "config": {"message": "Approve {{ trigger.id }}", "recipient": "{{ vars.approver }}"},
    },
    {"id": "ship", "type": "handler", "config": {"handler": "ship_order"}, "depends_on": ["approve", "ready"]},
    defaults={"retries": {"limit": 2, "delay": "2 seconds"}},
    vars={"approver": "user_7"},
    sync_points=[{"id": "ready", "required": ["reserve", "approve"]}],
    milestones=[{"id": "paid", "name": "Approved", "after": ["approve"]}],
    limits={"timeout": "7 days"},
)


@pytest.fixture
def example() -> Document:
    checked = check_document(EXAMPLE, known_handlers={"ship_order"})
    assert checked.problems == checked.warnings == ()
    assert checked.document is not None
    return checked.document


def test_the_empty_document_is_legal() -> None:
    document = parse_document({"spec": "workflow/1"}, default_name="nothing")
    assert document.name == "nothing"
    assert document.nodes == document.order == document.sinks == ()
    assert [m.name for m in document.milestones] == ["Initialization", "Completion"]


def test_edges_run_both_ways(example: Document) -> None:
    assert node(example, "reserve").dependents == ("approve", "ready")
    assert node(example, "ship").depends_on == ("approve", "ready")
    assert example.sync_points[0].dependents == ("ship",)
    assert [node(example, i).depth for i in ("reserve", "approve", "ship")] == [1, 2, 4]
    assert example.order == ("reserve", "approve", "ready", "ship")
    assert example.sinks == ("ship",)


def test_the_tree_parent_is_the_deepest_dependency(example: Document) -> None:
    assert [node(example, i).parent for i in ("reserve", "approve", "ship")] == [None, "reserve", "approve"]
    diamond = parse_document(
        doc(
            {"id": "a"},
            {"id": "b", "depends_on": ["a"]},
            {"id": "c", "depends_on": ["a"]},
            {"id": "d", "depends_on": ["c", "b"]},
        )
    )
    assert node(diamond, "d").parent == "c"  # equal depth: the one defined last


def test_durations_are_milliseconds(example: Document) -> None:
    assert node(example, "reserve").timeout == 10_000
    assert node(example, "approve").timeout == 2 * DAY
    assert example.limits.timeout == 7 * DAY


def test_defaults_reach_nodes_and_compensations(example: Document) -> None:
    expected = Retries(limit=2, delay=2_000)
    assert node(example, "ship").retries == expected
    compensate = node(example, "reserve").compensate
    assert compensate is not None
    assert compensate.retries == expected
    assert compensate.timeout is None


def test_an_explicit_null_turns_a_default_off() -> None:
    document = parse_document(
        doc(
            {"id": "a", "retries": None, "timeout": None},
            {"id": "b"},
            {"id": "c", "type": "wait"},
            defaults={"retries": {"limit": 4}, "timeout": "1 hour"},
        )
    )
    assert node(document, "a").retries.limit == 0
    assert node(document, "a").timeout is None
    assert node(document, "b").retries.limit == 4
    assert node(document, "b").timeout == HOUR
    assert node(document, "c").timeout is None  # waiting is not work


def test_no_retries_unless_asked() -> None:
    assert node(parse_document(doc({"id": "a"})), "a").retries.limit == 0


@pytest.mark.parametrize(("given", "limit"), [({}, 3), ({"retries": {"limit": 9}}, 9)])
def test_on_error_retry_is_shorthand(given: dict[str, Any], limit: int) -> None:
    compiled = node(parse_document(doc({"id": "a", "on_error": "retry", **given})), "a")
    assert compiled.on_error == "stop"
    assert compiled.retries.limit == limit


def test_skip_to_names_a_descendant() -> None:
    document = parse_document(
        doc(
            {"id": "a", "on_error": {"skip_to": "c"}},
            {"id": "b", "depends_on": ["a"]},
            {"id": "c", "depends_on": ["b"]},
        )
    )
    assert node(document, "a").on_error == "skip_to"
    assert node(document, "a").skip_to == "c"


def test_a_long_delay_is_not_capped_by_the_standard_maximum() -> None:
    compiled = node(parse_document(doc({"id": "a", "retries": {"limit": 1, "delay": "2 hours"}})), "a")
    assert compiled.retries.max_delay == 2 * HOUR


def test_verdicts_become_gates_and_edges() -> None:
    document = parse_document(
        doc(
            {
                "id": "check",
                "type": "condition",
                "config": {"field": "trigger.a", "operator": "eq", "value": 1, "then": ["yes"], "else": ["no"]},
            },
            {"id": "yes"},
            {"id": "no", "depends_on": ["check"]},
        )
    )
    assert node(document, "yes").gates == (Gate(condition="check", verdict=True),)
    assert node(document, "yes").depends_on == ("check",)
    assert node(document, "no").gates == (Gate(condition="check", verdict=False),)
    assert node(document, "no").depends_on == ("check",)


@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, "stop"), ({"then": ["b"]}, "continue"), ({"else": ["b"], "onFalse": "fail"}, "fail")],
)
def test_what_false_means(config: dict[str, Any], expected: str) -> None:
    condition = {"id": "c", "type": "condition", "config": {"field": "trigger.a", "operator": "exists", **config}}
    document = parse_document(doc(condition, {"id": "b"}))
    assert node(document, "c").on_false == expected


def test_references_by_name_become_ids() -> None:
    document = parse_document(
        doc(
            {"id": "t1", "name": "Build It"},
            {"id": "t2", "depends_on": ["Build It"]},
            {"id": "t3", "depends_on": ["build it", "t1"]},
            {"id": "t4", "depends_on": ["build-it"]},
        )
    )
    assert [n.depends_on for n in document.nodes] == [(), ("t1",), ("t1",), ("t1",)]


def test_an_id_wins_over_a_name() -> None:
    document = parse_document(
        doc({"id": "a", "name": "b"}, {"id": "b", "name": "x"}, {"id": "c", "depends_on": ["b", "b"]})
    )
    assert node(document, "c").depends_on == ("b",)


def test_external_is_always_async() -> None:
    assert node(parse_document(doc({"id": "a", "type": "external"})), "a").async_


def test_for_each() -> None:
    document = parse_document(
        doc(
            {
                "id": "a",
                "type": "set",
                "for_each": "{{ trigger.items }}",
                "config": {"values": {"x": "{{ item.x }}"}, "parallel": 4},
            },
            {"id": "b", "for_each": [1, 2]},
            limits={"max_parallel": 7},
        )
    )
    assert node(document, "a").parallel == 4
    assert node(document, "b").parallel == 7


def test_a_registered_type_is_a_handler() -> None:
    document = parse_document(doc({"id": "a", "type": "bill", "config": {"any": "thing"}}), known_handlers=("bill",))
    assert node(document, "a").handler == "bill"


def test_schedules() -> None:
    document = parse_document(
        doc(
            triggers=[
                {
                    "type": "schedule",
                    "cron": "0 4 * * *",
                    "timezone": "Europe/Berlin",
                    "max_runs": 3,
                    "input": {"a": 1},
                },
                {"type": "schedule", "interval": 5000, "concurrency": "allow"},
                {"type": "event", "event": "paid", "condition": "payload.total > `1`"},
                {"type": "webhook", "config": {"path": "/x"}},
            ]
        )
    )
    first, second, third, fourth = document.triggers
    assert (first.cron, first.timezone, first.max_runs, first.concurrency) == (
        "0 4 * * *",
        "Europe/Berlin",
        3,
        "forbid",
    )
    assert (second.interval, second.max_runs, second.concurrency) == (5_000, None, "allow")
    assert third.event == "paid"
    assert fourth.config == {"path": "/x"}


def test_milestones_default_to_sync_points_and_the_end() -> None:
    document = parse_document(doc({"id": "a"}, sync_points=[{"id": "completion", "name": "S", "required": ["a"]}]))
    assert [(m.id, m.name, m.after, m.start, m.end) for m in document.milestones] == [
        ("initialization", "Initialization", (), True, False),
        ("completion", "S", ("completion",), False, False),
        ("completion_", "Completion", (), False, True),
    ]


def test_listed_milestones_follow_initialization(example: Document) -> None:
    assert [m.name for m in example.milestones] == ["Initialization", "Approved"]


def test_a_document_of_dialect_001_spreads_its_input() -> None:
    document = parse_document(doc(source={"dialect": "001", "original": {"nodes": []}}))
    assert document.flat_input
    assert document.dialect == "001"


def test_round_trip(example: Document) -> None:
    assert decode_document(encode_document(example)) == example


def test_the_hash_ignores_the_order_of_keys_only(example: Document) -> None:
    one = doc({"id": "a", "type": "set", "config": {"values": {"x": 1, "y": 2}}})
    other = doc({"type": "set", "config": {"values": {"y": 2, "x": 1}}, "id": "a"})
    assert document_hash(parse_document(one)) == document_hash(parse_document(other))
    assert document_hash(parse_document(one)) != document_hash(example)


def test_the_users_order_of_keys_is_kept() -> None:
    compiled = parse_document(doc({"id": "a", "type": "set", "config": {"values": {"z": 1, "a": 2}}}))
    assert list(node(decode_document(encode_document(compiled)), "a").config["values"]) == ["z", "a"]


class TestForwardReferences:
    def warnings(self, *nodes: dict[str, Any], **rest: Any) -> list[str | None]:
        checked = check_document(doc(*nodes, **rest))
        assert checked.problems == ()
        assert all(w.kind == "FORWARD_REFERENCE" for w in checked.warnings)
        return [w.pointer for w in checked.warnings]

    def test_ancestors_are_fine(self) -> None:
        assert not self.warnings(
            {"id": "task-1"},
            {"id": "b", "depends_on": ["task-1"]},
            {
                "id": "c",
                "depends_on": ["b"],
                "when": 'steps.task_1.output && steps."task-1".status',
                "outputs": {"own": "{{ steps.c.output }}"},
            },
            outputs={"x": "{{ steps.c.output }}"},
        )

    def test_others_are_not(self) -> None:
        assert self.warnings(
            {"id": "a", "type": "set", "config": {"values": {"x": "{{ steps.b.output }}"}}},
            {"id": "b"},
        ) == ["/nodes/0/config/values/x"]

    def test_missing_ones_neither(self) -> None:
        assert self.warnings(
            {
                "id": "a",
                "when": {"field": "steps.gone.output", "operator": "exists"},
                "compensate": {"config": {}, "input": "{{ steps.lost.output }}"},
            },
            outputs={"x": "{{ steps.away.output }}"},
        ) == ["/nodes/0/when/field", "/nodes/0/compensate/input", "/outputs/x"]
