"""Any acyclic document compiles, survives storage and is drawn with every node exactly once; any JSON is answered."""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from versions.document import check_document, decode_document, encode_document, parse_document
from versions.graph import MAX_NESTING, document_graph


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Documents whose nodes depend on earlier ones, shuffled, some with conditions, verdicts and sync points."""
    count = draw(st.integers(0, 14))
    nodes: list[dict[str, Any]] = []
    for at in range(count):
        earlier = [f"n{i}" for i in range(at)]
        node: dict[str, Any] = {
            "id": f"n{at}",
            "depends_on": draw(st.lists(st.sampled_from(earlier), max_size=3)) if at else [],
        }
        kind = draw(st.sampled_from(["noop", "noop", "condition", "wait", "external", "when"]))
        later = [f"n{i}" for i in range(at + 1, count)]
        if kind == "condition":
            verdicts = {
                key: draw(st.lists(st.sampled_from(later), max_size=2)) if later else [] for key in ("then", "else")
            }
            node |= {"type": kind, "config": {"field": "a", "operator": "exists", **verdicts}}
        elif kind == "when":
            node["when"] = "a"
        else:
            node["type"] = kind
        nodes.append(node)
    definition: dict[str, Any] = {"spec": "workflow/1", "name": "p", "nodes": draw(st.permutations(nodes))}
    if count > 1:
        middle = draw(st.integers(1, count - 1))
        required = draw(st.lists(st.sampled_from([f"n{i}" for i in range(middle)]), min_size=1, max_size=3))
        definition["sync_points"] = [{"id": "s", "required": required}]
        nodes[draw(st.integers(middle, count - 1))]["depends_on"].append("s")
    return definition


def walk(drawn: Any, depth: int = 0) -> list[tuple[dict[str, Any], int]]:
    found = []
    for node in drawn:
        found.append((node, depth))
        found += walk(node.get("nodes", []), depth + 1)
        for branch in node.get("branches", []):
            found += walk(branch["nodes"], depth + 1)
    return found


@given(documents())
@settings(max_examples=300, deadline=None)
def test_acyclic_documents(definition: dict[str, Any]) -> None:
    document = parse_document(definition)
    assert decode_document(encode_document(document)) == document
    ids = [node.id for node in document.nodes]
    position = {id_: at for at, id_ in enumerate(document.order)}
    depth = {node.id: node.depth for node in document.nodes} | {s.id: s.depth for s in document.sync_points}
    for node in document.nodes:
        for need in node.depends_on:
            assert position[need] < position[node.id]
            assert depth[need] < node.depth
        assert node.parent is None or node.parent in ids
        for dependent in node.dependents:
            assert position[dependent] > position[node.id]
    graph = document_graph(document)
    assert graph == document_graph(parse_document(definition))
    seen = walk(graph["workflow"]["nodes"])
    assert Counter(node["id"] for node, _ in seen if "id" in node) == Counter(ids)
    assert max((level for _, level in seen), default=0) <= 2 * MAX_NESTING + 6
    known = {"start", "step_do", "step_sleep", "step_wait_for_event", "parallel", "block", "if", "break"}
    assert {node["type"] for node, _ in seen} <= known


@given(documents(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_back_edge_is_a_cycle(definition: dict[str, Any], data: st.DataObject) -> None:
    document = parse_document(definition)
    pairs = [(need, node.id) for node in document.nodes for need in node.depends_on if need != "s"]
    if not pairs:
        return
    early, late = data.draw(st.sampled_from(pairs))
    next(n for n in definition["nodes"] if n["id"] == early)["depends_on"].append(late)
    (problem,) = check_document(definition).problems
    assert problem.kind == "CYCLE"
    loop = problem.message.removeprefix("dependency cycle: ").split(" → ")
    assert loop[0] == loop[-1]
    assert len(set(loop)) == len(loop) - 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
KEYS = [
    "id",
    "name",
    "type",
    "config",
    "depends_on",
    "when",
    "retries",
    "timeout",
    "compensate",
    "for_each",
    "on_error",
    "outputs",
]
NODES = st.lists(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5) | JSON, max_size=4)
TOP = [
    "spec",
    "name",
    "nodes",
    "vars",
    "sync_points",
    "milestones",
    "limits",
    "triggers",
    "input_schema",
    "defaults",
    "source",
]


@given(st.one_of(JSON, st.dictionaries(st.sampled_from(TOP), JSON | NODES)), NODES)
@settings(max_examples=400, deadline=None)
def test_any_json_gets_an_answer(value: Any, nodes: Any) -> None:
    definition = {"spec": "workflow/1", **value, "nodes": nodes} if isinstance(value, dict) else value
    checked = check_document(definition)
    assert (checked.document is None) == bool(checked.problems)
    assert len(checked.problems) <= 50
    for problem in checked.problems + checked.warnings:
        assert problem.kind and problem.message and problem.pointer is not None
        msgspec.json.encode([problem.message, problem.pointer])
