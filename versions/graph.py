"""A document drawn as the graph the API shows: the node grammar of Cloudflare's workflow diagrams.

That grammar is a tree of sequences and `parallel` groups, a document is any acyclic graph. Parts that are sequences of
parallels of sequences … are drawn as such; what is not (an N of dependencies) is drawn layer by layer. `id` and
`depends_on` on every node, and `sync_points` beside them, keep what the tree cannot say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from versions.document.model import Document, Node
from versions.document.types import condition_of
from versions.drawing import DEFAULT_EVENT_TIMEOUT, GRAPH_VERSION, Drawn

CLASS_NAME = "Document"
"""What a document-born workflow shows as its class."""
MAX_NESTING = 12
"""Groups within groups; what would nest deeper is drawn in layers."""
_NO_LIMIT = "no limit"
_SHAPE_DEPTH = 8


def document_graph(document: Document) -> dict[str, Any]:
    """`{version, workflow: {class_name, functions, nodes, payload?, sync_points?}}`.

    Every node of the document appears exactly once. Equal documents give equal graphs.
    """
    workflow: dict[str, Any] = {"class_name": CLASS_NAME, "functions": {}, "nodes": _Drawing(document).nodes()}
    if document.input_schema is not None:
        workflow["payload"] = _shape(document.input_schema)
    if document.sync_points:
        workflow["sync_points"] = [
            {"id": point.id, "name": point.name, "required": list(point.required)} for point in document.sync_points
        ]
    return {"version": GRAPH_VERSION, "workflow": workflow}


def _shape(schema: Any, depth: int = 0) -> dict[str, Any]:
    """A JSON Schema as the grammar's payload descriptor, as far as it says."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or depth >= _SHAPE_DEPTH:
        return {"type": "unknown"}
    return {"type": "object", "fields": {name: _shape(inner, depth + 1) for name, inner in properties.items()}}


class _Drawing:
    """Draws units: a node, or a condition with the nodes that run only on one of its verdicts.

    Sets of units are bit masks over positions in `_units`, which is in topological order.
    """

    def __init__(self, document: Document) -> None:
        self._by_id = {node.id: node for node in document.nodes}
        self._required = {point.id: point.required for point in document.sync_points}
        self._clock = 0
        before = self._ancestor_ids(document)
        self._branches = self._absorb(document, before)
        absorbed = {id_ for verdicts in self._branches.values() for ids in verdicts.values() for id_ in ids}
        self._units = [id_ for id_ in document.order if id_ in self._by_id and id_ not in absorbed]
        self._related = self._relations(absorbed)

    def nodes(self) -> list[Drawn]:
        return self._sequence((1 << len(self._units)) - 1, 0)

    def _ancestor_ids(self, document: Document) -> dict[str, set[str]]:
        """What each condition's node depends on, directly or not; only as far as conditions need it."""
        if not any(node.gates for node in document.nodes):
            return {}
        found: dict[str, set[str]] = {}
        for id_ in document.order:
            needs = self._by_id[id_].depends_on if id_ in self._by_id else self._required[id_]
            found[id_] = set(needs).union(*(found[need] for need in needs))
        return found

    def _absorb(self, document: Document, before: dict[str, set[str]]) -> dict[str, dict[bool, list[str]]]:
        """Nodes drawn inside a condition's branches: those with one gate that wait for nothing later than it."""
        found: dict[str, dict[bool, list[str]]] = {}
        for node in document.nodes:
            if len(node.gates) == 1 and node.type != "condition":
                gate = node.gates[0]
                if set(node.depends_on) <= before[gate.condition] | {gate.condition}:
                    found.setdefault(gate.condition, {True: [], False: []})[gate.verdict].append(node.id)
        return found

    def _relations(self, absorbed: set[str]) -> list[int]:
        """Per unit, the units that come before or after it."""
        position = {id_: at for at, id_ in enumerate(self._units)}
        for condition, verdicts in self._branches.items():
            position |= {id_: position[condition] for ids in verdicts.values() for id_ in ids}
        needs = [0] * len(self._units)
        for id_, at in position.items():
            for need in self._direct(id_):
                if position[need] != at:
                    needs[at] |= 1 << position[need]
        before = [0] * len(needs)
        related = [0] * len(needs)
        for at in range(len(needs)):
            for need in _bits(needs[at]):
                before[at] |= before[need] | 1 << need
            related[at] |= before[at]
            for earlier in _bits(before[at]):
                related[earlier] |= 1 << at
        return related

    def _direct(self, id_: str) -> Iterable[str]:
        for need in self._by_id[id_].depends_on:
            yield from self._required.get(need, (need,))

    # --- structure ---------------------------------------------------------------------------------------------

    def _sequence(self, units: int, nesting: int) -> list[Drawn]:
        """The units as steps one after the other."""
        parts = self._parts(units, lambda at: units & ~self._related[at])
        drawn: list[Drawn] = []
        for at, part in enumerate(parts):
            following = parts[at + 1] if at + 1 < len(parts) else 0
            drawn += self._part(part, following, nesting)
        return drawn

    def _part(self, part: int, following: int, nesting: int) -> list[Drawn]:
        """One step of a sequence: a unit, a group of branches, or something that can only be drawn in layers."""
        if part & (part - 1) == 0:
            return [self._unit(part.bit_length() - 1)]
        branches = self._parts(part, lambda at: part & self._related[at])
        if len(branches) == 1 or nesting >= MAX_NESTING:
            return self._layers(part, following)
        return [self._group(branches, following, nesting)]

    def _group(self, branches: Sequence[int], following: int, nesting: int) -> Drawn:
        starts = self._tick()
        drawn = [self._sequence(branch, nesting + 1) for branch in branches]
        resolves = self._tick()
        members = [steps[0] if len(steps) == 1 else {"type": "block", "nodes": steps} for steps in drawn]
        for member in members:
            if member["type"].startswith(("step_", "function_call")):
                member |= {"starts": starts, "resolves": resolves}
        return {"type": "parallel", "kind": self._kind(following), "nodes": members}

    def _layers(self, units: int, following: int) -> list[Drawn]:
        """By depth within the set: each layer waits for the one before, which is more than the document asks."""
        depth: dict[int, int] = {}
        for at in _bits(units):
            earlier = [depth[other] for other in _bits(self._related[at] & units) if other < at]
            depth[at] = 1 + max(earlier, default=0)
        layers = [
            sum(1 << at for at, found in depth.items() if found == level) for level in range(1, max(depth.values()) + 1)
        ]
        drawn: list[Drawn] = []
        for index, layer in enumerate(layers):
            after = layers[index + 1] if index + 1 < len(layers) else following
            singles = [1 << at for at in _bits(layer)]
            if len(singles) == 1:
                drawn.append(self._unit(layer.bit_length() - 1))
            else:
                drawn.append(self._group(singles, after, MAX_NESTING))
        return drawn

    def _parts(self, units: int, neighbours: Callable[[int], int]) -> list[int]:
        """The connected parts of `units`, in topological order of their first members."""
        parts: list[int] = []
        left = units
        while left:
            part = frontier = left & -left
            while frontier:
                at = (frontier & -frontier).bit_length() - 1
                frontier &= frontier - 1
                found = neighbours(at) & left & ~part
                part |= found
                frontier |= found
            parts.append(part)
            left &= ~part
        return parts

    def _kind(self, following: int) -> str:
        """How the group is awaited, which is what the single node after it says."""
        if following and following & (following - 1) == 0:
            join = self._by_id[self._units[following.bit_length() - 1]].join
            return {"all": "all", "any": "any", "all_done": "all_settled"}[join]
        return "all"

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    # --- single nodes ------------------------------------------------------------------------------------------

    def _unit(self, at: int) -> Drawn:
        return self._guarded(self._by_id[self._units[at]])

    def _guarded(self, node: Node, *, inside: bool = False) -> Drawn:
        """The node within the loop and the conditions it stands under; `inside`: its gate is drawn around it."""
        drawn = self._condition(node) if node.type == "condition" else _plain(node)
        if node.for_each is not None:
            drawn = {"type": "loop", "nodes": [drawn], "over": _text(node.for_each)}
        if node.when is not None:
            drawn = {"type": "if", "branches": [{"condition": condition_text(node.when), "nodes": [drawn]}]}
        for gate in () if inside else node.gates:
            condition = f"{gate.condition} is {'true' if gate.verdict else 'false'}"
            drawn = {"type": "if", "branches": [{"condition": condition, "nodes": [drawn]}]}
        return drawn

    def _condition(self, node: Node) -> Drawn:
        verdicts = self._branches.get(node.id, {True: [], False: []})
        branches = [
            {"condition": condition_text(condition_of(node.config)), "nodes": self._inside(verdicts[True])},
        ]
        otherwise = self._inside(verdicts[False])
        if node.on_false != "continue":
            otherwise.append({"type": "break", "kind": "return"})
        if otherwise:
            branches.append({"condition": None, "nodes": otherwise})
        return {"type": "if", **_identity(node), "branches": branches}

    def _inside(self, ids: Sequence[str]) -> list[Drawn]:
        drawn = [self._guarded(self._by_id[id_], inside=True) for id_ in ids]
        return drawn if len(drawn) < 2 else [{"type": "parallel", "kind": "all", "nodes": drawn}]


def _bits(mask: int) -> Iterable[int]:
    """Positions of the set bits, ascending."""
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


def _identity(node: Node) -> Drawn:
    return {"name": node.name, "id": node.id, "depends_on": list(node.depends_on)}


def _plain(node: Node) -> Drawn:
    """The node by itself, in the grammar's types."""
    config = node.config
    match node.type:
        case "trigger":
            head = {"type": "start", "class_name": CLASS_NAME, "functions": {}, "nodes": []}
        case "wait":
            duration = config.get("duration", config.get("durationMs"))
            head = {"type": "step_sleep", "duration": 1_000 if duration is None else duration}
        case "wait_until":
            head = {"type": "step_sleep_until", "timestamp": str(config.get("at"))}
        case "wait_for_event":
            head = _awaiting(str(config.get("event")), config.get("timeout"))
        case "external":
            head = _awaiting(f"step:{node.id}", node.timeout)
        case "workflow":
            head = {"type": "function_call", "workflow": _text(config.get("workflow"))}
        case _:
            head = _step(node)
    return {**head, **_identity(node)}


def _awaiting(event: str, timeout: Any) -> Drawn:
    timeout = _NO_LIMIT if timeout is None and event.startswith("step:") else timeout
    return {
        "type": "step_wait_for_event",
        "options": {"event_type": event, "timeout": DEFAULT_EVENT_TIMEOUT if timeout is None else timeout},
    }


def _step(node: Node) -> Drawn:
    retries = node.retries
    inner = [{**_awaiting(f"step:{node.id}", node.timeout), "name": node.name}] if node.async_ else []
    return {
        "type": "step_do",
        "nodes": inner,
        "config": {
            "retries": {"limit": retries.limit, "delay": retries.delay, "backoff": retries.backoff},
            "timeout": _NO_LIMIT if node.timeout is None else node.timeout,
        },
    }


def condition_text(condition: Any) -> str:
    """A condition as one line for people.

    >>> condition_text({"all": ["a.b", {"field": "c", "operator": "gt", "value": 1}]})
    '(a.b and c gt 1)'
    """
    if not isinstance(condition, dict):
        return _text(condition)
    for key, word in (("all", " and "), ("any", " or ")):
        if isinstance(condition.get(key), list):
            return f"({word.join(condition_text(inner) for inner in condition[key])})"
    if "not" in condition:
        return f"not {condition_text(condition['not'])}"
    words = [str(condition.get("field")), str(condition.get("operator"))]
    return " ".join([*words, _text(condition["value"])] if "value" in condition else words)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
