"""Documents as Cloudflare's diagram grammar draws them."""

from typing import Any

from versions.document import parse_document
from versions.graph import document_graph


def drawn(*nodes: dict[str, Any], **rest: Any) -> list[dict[str, Any]]:
    document = parse_document({"spec": "workflow/1", "name": "t", "nodes": list(nodes), **rest})
    graph = document_graph(document)
    assert graph["version"] == 1
    assert graph["workflow"]["class_name"] == "Document"
    assert graph["workflow"]["functions"] == {}
    return graph["workflow"]["nodes"]


def outline(nodes: list[dict[str, Any]]) -> list[Any]:
    """Ids of plain nodes; groups as (type, …members)."""
    found: list[Any] = []
    for node in nodes:
        match node["type"]:
            case "parallel" | "block" | "loop":
                found.append((node.get("kind", node["type"]), *outline(node["nodes"])))
            case "if":
                branches = [(b["condition"], *outline(b["nodes"])) for b in node["branches"]]
                found.append((node.get("id", "if"), *branches))
            case "break":
                found.append("break")
            case _:
                found.append(node["id"])
    return found


def test_nothing() -> None:
    assert drawn() == []


def test_a_then_b_and_c_then_sleep() -> None:
    nodes = drawn(
        {"id": "A", "retries": {"limit": 5, "delay": 10_000}, "timeout": "10 minutes"},
        {"id": "B", "depends_on": ["A"]},
        {"id": "C", "depends_on": ["A"]},
        {"id": "rest", "type": "wait", "config": {"duration": "1 hour"}, "depends_on": ["B", "C"]},
    )
    assert outline(nodes) == ["A", ("all", "B", "C"), "rest"]
    first, group, last = nodes
    assert first == {
        "type": "step_do",
        "name": "A",
        "id": "A",
        "depends_on": [],
        "nodes": [],
        "config": {"retries": {"limit": 5, "delay": 10_000, "backoff": "exponential"}, "timeout": 600_000},
    }
    assert [(n["starts"], n["resolves"]) for n in group["nodes"]] == [(1, 2), (1, 2)]
    assert last == {
        "type": "step_sleep", "name": "rest", "id": "rest", "depends_on": ["B", "C"], "duration": "1 hour"
    }  # fmt: skip


def test_branches_of_several_steps_are_blocks() -> None:
    nodes = drawn({"id": "a"}, {"id": "b"}, {"id": "c", "depends_on": ["b"]}, {"id": "d", "depends_on": ["a", "c"]})
    assert outline(nodes) == [("all", "a", ("block", "b", "c")), "d"]


def test_the_join_behind_a_group_names_its_kind() -> None:
    for join, kind in (("all", "all"), ("any", "any"), ("all_done", "all_settled")):
        nodes = drawn({"id": "a"}, {"id": "b"}, {"id": "c", "depends_on": ["a", "b"], "join": join})
        assert outline(nodes) == [(kind, "a", "b"), "c"]


def test_what_is_no_tree_is_drawn_in_layers() -> None:
    nodes = drawn({"id": "a"}, {"id": "b"}, {"id": "x", "depends_on": ["a"]}, {"id": "y", "depends_on": ["a", "b"]})
    assert outline(nodes) == [("all", "a", "b"), ("all", "x", "y")]
    assert nodes[1]["nodes"][0]["depends_on"] == ["a"]


def test_sync_points_order_what_they_stand_between() -> None:
    document = parse_document(
        {
            "spec": "workflow/1",
            "nodes": [{"id": "a"}, {"id": "b"}, {"id": "c", "depends_on": ["s"]}],
            "sync_points": [{"id": "s", "name": "Ready", "required": ["a", "b"]}],
            "input_schema": {"type": "object", "properties": {"x": {"properties": {"y": {}}}}},
        }
    )
    workflow = document_graph(document)["workflow"]
    assert outline(workflow["nodes"]) == [("all", "a", "b"), "c"]
    assert workflow["sync_points"] == [{"id": "s", "name": "Ready", "required": ["a", "b"]}]
    unknown = {"type": "unknown"}
    assert workflow["payload"] == {
        "type": "object", "fields": {"x": {"type": "object", "fields": {"y": unknown}}}
    }  # fmt: skip


def test_conditions() -> None:
    check = {"field": "trigger.a", "operator": "gt", "value": 1}
    nodes = drawn(
        {"id": "check", "type": "condition", "config": {**check, "then": ["y", "y2"], "else": ["n"]}},
        {"id": "y"},
        {"id": "y2"},
        {"id": "n", "when": {"not": {"all": ["a", {"any": ["b", check]}]}}},
        {"id": "end", "depends_on": ["y", "n"], "join": "all_done"},
    )
    assert outline(nodes) == [
        (
            "check",
            ("trigger.a gt 1", ("all", "y", "y2")),
            (None, ("if", ("not (a and (b or trigger.a gt 1))", "n"))),
        ),
        "end",
    ]


def test_a_gate_that_waits_for_more_stands_where_it_runs() -> None:
    nodes = drawn(
        {"id": "check", "type": "condition", "config": {"field": "a", "operator": "exists", "then": ["y"]}},
        {"id": "slow", "depends_on": ["check"]},
        {"id": "y", "depends_on": ["slow"]},
    )
    assert outline(nodes) == [("check", ("a exists",)), "slow", ("if", ("check is true", "y"))]


def test_a_gate_that_stops() -> None:
    nodes = drawn({"id": "c", "type": "condition", "config": {"field": "a", "operator": "exists"}})
    assert outline(nodes) == [("c", ("a exists",), (None, "break"))]


def test_types() -> None:
    nodes = drawn(
        {"id": "t", "type": "trigger"},
        {"id": "s", "type": "wait", "depends_on": ["t"]},
        {"id": "u", "type": "wait_until", "config": {"at": 5}, "depends_on": ["s"]},
        {"id": "e", "type": "wait_for_event", "config": {"event": "paid"}, "depends_on": ["u"]},
        {"id": "x", "type": "external", "depends_on": ["e"]},
        {"id": "w", "type": "workflow", "config": {"workflow": "child"}, "depends_on": ["x"]},
        {"id": "a", "async": True, "timeout": "2 days", "depends_on": ["w"]},
        {"id": "l", "for_each": "{{ trigger.items }}", "depends_on": ["a"]},
    )
    assert [n["type"] for n in nodes] == [
        "start", "step_sleep", "step_sleep_until", "step_wait_for_event", "step_wait_for_event", "function_call",
        "step_do", "loop",
    ]  # fmt: skip
    assert nodes[1]["duration"] == 1_000
    assert nodes[2]["timestamp"] == "5"
    assert nodes[3]["options"] == {"event_type": "paid", "timeout": "24 hours"}
    assert nodes[4]["options"] == {"event_type": "step:x", "timeout": "no limit"}
    assert nodes[5]["workflow"] == "child"
    assert nodes[6]["nodes"][0]["options"] == {"event_type": "step:a", "timeout": 172_800_000}
    assert nodes[7]["over"] == "{{ trigger.items }}"
    assert nodes[7]["nodes"][0]["id"] == "l"
