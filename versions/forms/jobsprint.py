"""Nodes and connections, the form of dialect "001".

`definition.nodes[]` are nodes whose `parameters` are their config, `definition.connections[]` lead from one to another;
a node begins when all that lead to it have ended. `settings.timeout` (seconds) is the deadline of an execution,
`retryOnFailure` gives every node `maxRetries` retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenants.limits import DOCUMENT_EDGES, DOCUMENT_NODES, DOCUMENT_TRIGGERS, SECOND_MS
from versions.document.links import Names
from versions.document.model import Document, Node
from versions.document.reading import Path, Problems, Reader
from versions.forms.form import Draft, Form, Installation, Translation, given, members, optional_integer
from versions.forms.triggers import read_trigger, show_trigger

TIMEOUT_MAX_S = 31_536_000
RETRIES = 3
"""Retries where `retryOnFailure` says no number."""
RETRIES_MAX = 100
_DELAY_MS = 1_000
_NODES, _CONNECTIONS = "nodes", "connections"


def translate(body: Mapping[str, Any], _installation: Installation) -> Translation:
    """The document of a workflow `{name, description?, definition?, settings?, triggers?}`."""
    draft = Draft("001", body)
    if not draft.readable:
        return draft.translation(None)
    reader = draft.reader
    triggers: list[dict[str, Any]] = []
    for at, value in enumerate(reader.array("triggers", DOCUMENT_TRIGGERS)):
        if (trigger := read_trigger(draft, value, ("triggers", at), len(triggers))) is not None:
            triggers.append(trigger)
    definition = {
        **draft.head(),
        **_settings(draft, reader.take("settings")),
        "triggers": triggers,
        "nodes": _graph(draft, reader.take("definition")),
    }
    return draft.translation(definition)


def _settings(draft: Draft, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    reader = Reader(draft.problems, value, ("settings",))
    timeout = optional_integer(reader, "timeout", 1, TIMEOUT_MAX_S)
    retried = reader.flag("retryOnFailure", False)
    retries = reader.integer("maxRetries", RETRIES, 0, RETRIES_MAX)
    reader.done()
    parts: dict[str, Any] = {}
    if timeout is not None:
        parts["limits"] = {"timeout": timeout * SECOND_MS}
    if retried:
        parts["defaults"] = {"retries": {"limit": retries, "delay": _DELAY_MS, "backoff": "exponential"}}
    return parts


def _graph(draft: Draft, value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    reader = Reader(draft.problems, value, ("definition",))
    draft.place((_NODES,), reader.at(_NODES))
    nodes = [_node(draft, each, reader.at(_NODES), at) for at, each in enumerate(reader.array(_NODES, DOCUMENT_NODES))]
    _connect(draft, nodes, reader.array(_CONNECTIONS, DOCUMENT_EDGES), reader.at(_CONNECTIONS))
    reader.done()
    return nodes


def _node(draft: Draft, value: Any, path: Path, at: int) -> dict[str, Any]:
    reader = Reader(draft.problems, value, (*path, at))
    inside = (_NODES, at)
    draft.place((*inside, "config"), reader.at("parameters"))
    if reader.readable:
        reader.required("type")
    node = {
        "id": reader.take("id") if reader.readable else f"unreadable-{at}",
        "type": reader.take("type"),
        "name": reader.text("name") or None,
        "description": reader.text("description", most=4096),
        "config": reader.take("parameters"),
        "depends_on": [],
    }
    if node["type"] is None:
        node["config"] = None  # said already; no type is there to say more
    if (position := reader.take("position")) is not None:
        node["meta"] = {"position": position}  # where an editor draws it
        draft.place((*inside, "meta"), reader.path)
    reader.done()
    return {key: value for key, value in node.items() if value is not None}


def _connect(draft: Draft, nodes: list[dict[str, Any]], connections: list[Any], path: Path) -> None:
    """Give each node what leads to it."""
    entries = [(node["id"], node.get("name") or node["id"]) for node in nodes if isinstance(node.get("id"), str)]
    names = Names(draft.problems, entries, "node")
    place = {id_: at for at, node in reversed(list(enumerate(nodes))) if isinstance(id_ := node.get("id"), str)}
    for position in range(len(nodes)):
        draft.place((_NODES, position, "depends_on"), path)
    for at, value in enumerate(connections):
        reader = Reader(draft.problems, value, (*path, at))
        if not reader.readable:
            continue
        ends = {}
        for key in ("from", "to"):
            if reader.required(key) and (text := reader.text(key, least=1)):
                ends[key] = names.find(text, reader.at(key), f"connection {at} names")
        reader.done()
        if ends.get("from") is not None and ends.get("to") is not None:
            target = place[ends["to"]]
            needs = nodes[target]["depends_on"]
            draft.place((_NODES, target, "depends_on", len(needs)), reader.path)
            needs.append(ends["from"])


def show(document: Document, original: Mapping[str, Any] | None) -> dict[str, Any]:
    """`{definition: {nodes, connections}, settings: {timeout, retryOnFailure, maxRetries}, triggers}`."""
    said = members(None if original is None else original.get("definition"), _NODES)
    retries = document.defaults.retries
    settings = {
        "timeout": None if document.limits.timeout is None else -(-document.limits.timeout // SECOND_MS),
        "retryOnFailure": retries is not None and retries.limit > 0,
        "maxRetries": 0 if retries is None else retries.limit,
    }
    if original is not None:
        settings |= given(original.get("settings") or {}, *settings)
    return {
        "definition": {
            _NODES: [_shown(node, said[node.position] if said else None) for node in document.nodes],
            _CONNECTIONS: _connections(document, original),
        },
        "settings": settings,
        "triggers": [show_trigger(each) for each in document.triggers]
        if original is None
        else [{"type": each} if isinstance(each, str) else each for each in members(original, "triggers")],
    }


def _shown(node: Node, said: Mapping[str, Any] | None) -> dict[str, Any]:
    described = {"description": node.description or None} if said is None else said
    return {
        "id": node.id,
        "type": node.type,
        "name": node.name,
        **given(described, "description", "position"),
        "parameters": node.config,
    }


def _connections(document: Document, original: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """In the order they were written in, else by the node they lead to; a sync point stands for what it requires."""
    required = {point.id: point.required for point in document.sync_points}
    edges = [
        (source, node.id)
        for node in document.nodes
        for need in node.depends_on
        for source in required.get(need, (need,))
    ]
    if original is not None:
        names = Names(Problems(), [(node.id, node.name) for node in document.nodes], "node")
        listed = members(original.get("definition"), _CONNECTIONS)
        # They were all found when the definition was compiled.
        edges = [(names.find(each["from"], (), "") or "", names.find(each["to"], (), "") or "") for each in listed]
    return [{"from": source, "to": target} for source, target in dict.fromkeys(edges)]


FORM = Form("001", "node", "definition", ("definition", "settings", "triggers"), translate, show)
