"""A list of actions, the form of dialect "004": each begins when the one before it has ended.

`actions[k]` is the node `action-<k>`, counted from 0, unless it brings an id. An attempt may take 30 seconds unless the
action says otherwise; waiting is not limited so. A failed action stops the workflow (`onError`), after up to three
retries with `retry`, or lets the next one begin with `continue`. A `condition` that is false skips the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenants.limits import DAY_MS, DOCUMENT_NODES
from versions.document.model import Document, Node
from versions.document.reading import Reader
from versions.document.types import NODE_TYPES, node_type
from versions.forms.form import Draft, Form, Installation, Translation, given, members, optional_integer
from versions.forms.triggers import read_trigger, show_trigger
from versions.names import NODE_ID

TIMEOUT_MS = 30_000
STOP, CONTINUE, RETRY = "stop", "continue", "retry"
_ON_ERROR = (STOP, CONTINUE, RETRY)
_UNTIMED = ("wait", "wait_until", "wait_for_event")
"""Actions that nothing but their config ends."""
_ACTIONS = "actions"


def translate(body: Mapping[str, Any], _installation: Installation) -> Translation:
    """The document of a workflow `{name, description?, trigger?, actions?, variables?}`."""
    draft = Draft("004", body)
    if not draft.readable:
        return draft.translation(None)
    reader = draft.reader
    trigger = reader.take("trigger")
    started_by = None if trigger is None else read_trigger(draft, trigger, ("trigger",), 0)
    draft.place(("vars",), ("variables",))
    nodes: list[dict[str, Any]] = []
    for at, action in enumerate(reader.array(_ACTIONS, DOCUMENT_NODES)):
        nodes.append(_node(draft, action, at, nodes[-1]["id"] if nodes else None))
    definition = {
        **draft.head(),
        "vars": reader.object("variables") or {},
        "triggers": [] if started_by is None else [started_by],
        "nodes": nodes,
    }
    return draft.translation(definition)


def _node(draft: Draft, value: Any, at: int, before: Any) -> dict[str, Any]:
    reader = Reader(draft.problems, value, (_ACTIONS, at))
    inside = ("nodes", at)
    draft.place(inside, reader.path)
    draft.place((*inside, "on_error"), reader.at("onError"))
    draft.place((*inside, "when", "all"), reader.at("conditions"))
    if reader.readable:
        reader.required("type")
    type_name = reader.take("type")
    conditions = reader.array("conditions")
    timeout = optional_integer(reader, "timeout", 1, DAY_MS)
    node = {
        "id": reader.take("id") or f"action-{at}",
        "type": type_name,
        "name": reader.text("name") or None,
        "description": reader.text("description", most=4096),
        "config": reader.take("config"),
        # An id that is none is reported where it stands; naming it here again would report it twice.
        "depends_on": [before] if NODE_ID.holds(before) else [],
        "on_error": reader.choice("onError", STOP, _ON_ERROR),
        "timeout": _timeout_of(type_name, timeout),
        "when": {"all": conditions} if conditions else None,
    }
    if type_name is None:
        node["config"] = None  # said already; no type is there to say more
    reader.done()
    return {key: value for key, value in node.items() if value is not None}


def _timeout_of(type_name: Any, said: int | None) -> int | None:
    if not isinstance(type_name, str):
        return None
    if said is not None:
        return None if type_name in _UNTIMED else said
    return None if type_name in NODE_TYPES and NODE_TYPES[type_name].waits else TIMEOUT_MS


def show(document: Document, original: Mapping[str, Any] | None) -> dict[str, Any]:
    """`{trigger, actions, variables}`; actions in the order of the document."""
    actions = members(original, _ACTIONS)
    if original is not None:
        trigger = original.get("trigger")
    else:
        trigger = show_trigger(document.triggers[0]) if document.triggers else None
    return {
        "trigger": {"type": trigger} if isinstance(trigger, str) else trigger,
        _ACTIONS: [
            _action_of(node) if original is None else _action(node, actions[node.position])
            for node in document.nodes
            if node.type != "trigger"
        ],
        "variables": document.vars,
    }


def _action(node: Node, said: Mapping[str, Any]) -> dict[str, Any]:
    timed = said.get("timeout") if node.timeout is None else node.timeout
    timed = {} if timed is None and node_type(node.type).waits else {"timeout": TIMEOUT_MS if timed is None else timed}
    return {
        "id": node.id,
        "type": node.type,
        **given(said, "name", "description"),
        "config": node.config,
        "onError": said.get("onError") or STOP,
        **timed,
        **given(said, "conditions"),
    }


def _action_of(node: Node) -> dict[str, Any]:
    """A node that was written in another form."""
    on_error = RETRY if node.on_error == STOP and node.retries.limit else node.on_error
    described = {"name": node.name if node.name != node.id else None, "description": node.description or None}
    return {
        "id": node.id,
        "type": node.type,
        **given(described, "name", "description"),
        "config": node.config,
        "onError": on_error if on_error in _ON_ERROR else CONTINUE,
        **given({"timeout": node.timeout}, "timeout"),
        **({} if node.when is None else {"conditions": [node.when]}),
    }


FORM = Form("004", "action", _ACTIONS, ("trigger", _ACTIONS, "variables"), translate, show)
