"""Tasks and synchronisation points, the form of dialect "002".

`tasks[i]` is the node `task-<i+1>`, `synchronizationPoints[j]` the sync point `sync-<j+1>`, unless they bring ids. What
a task needs may be named by id, name, name in any case, or slug of the name; it is shown by id. A task without a type
is a registered handler of its name (or of the slug of it), else what the account's `untyped_tasks` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenants.limits import DAY_MS, DOCUMENT_NODES, DOCUMENT_SYNC_POINTS, SLEEP_MAX_MS
from versions.document.model import Document, Node, Retries, SyncPoint
from versions.document.reading import Reader
from versions.document.types import NODE_TYPES
from versions.forms.form import Draft, Form, Installation, Translation, given, members, optional_integer
from versions.names import slug

RETRIES_MAX = 100
MULTIPLIER = 2.0
MAX_BACKOFF_MS = 60_000
_DELAY_MS = 1_000
_RESOURCES = ("cpu", "memory", "storage", "custom")
_TASKS, _POINTS = "tasks", "synchronizationPoints"


def translate(body: Mapping[str, Any], installation: Installation) -> Translation:
    """The document of a workflow definition `{name, description?, tasks?, synchronizationPoints?}`."""
    draft = Draft("002", body)
    if not draft.readable:
        return draft.translation(None)
    tasks = draft.reader.array(_TASKS, DOCUMENT_NODES)
    points = draft.reader.array(_POINTS, DOCUMENT_SYNC_POINTS)
    definition = {
        **draft.head(),
        "nodes": [_node(draft, task, at, installation) for at, task in enumerate(tasks)],
        "sync_points": [_sync_point(draft, point, at) for at, point in enumerate(points)],
    }
    return draft.translation(definition)


def _node(draft: Draft, value: Any, at: int, installation: Installation) -> dict[str, Any]:
    reader = Reader(draft.problems, value, (_TASKS, at))
    inside = ("nodes", at)
    draft.place(inside, reader.path)
    for key, outside in (
        ("depends_on", "dependencies"),
        ("retries", "retryPolicy"),
        ("resources", "resourceRequirements"),
    ):
        draft.place((*inside, key), reader.at(outside))
    reader.required("name")
    name = reader.text("name", "", least=1)
    node = {
        "id": reader.take("id") or f"task-{at + 1}",
        **given({"name": name or None}, "name"),
        "description": reader.text("description", most=4096),
        "depends_on": reader.array("dependencies"),
        "resources": _said_of(reader.take("resourceRequirements")),
        "timeout": optional_integer(reader, "timeout", 1, DAY_MS),
        "retries": _retries(reader),
        "type": reader.take("type"),
        "config": reader.take("config"),
    }
    reader.done()
    if node["type"] is None and reader.readable:
        _choose_type(reader, node, name, installation)
    return {key: value for key, value in node.items() if value is not None}


def _said_of(resources: Any) -> Any:
    """Without what is null: it is shown so when nothing was said."""
    if not isinstance(resources, dict):
        return resources
    return {key: value for key, value in resources.items() if value is not None or key not in _RESOURCES}


def _choose_type(reader: Reader, node: dict[str, Any], name: str, installation: Installation) -> None:
    """What a task that names no type does."""
    found = next((each for each in (name, slug(name)) if each and each in installation.handlers), None)
    if found is None:
        node["type"] = installation.untyped
        if node.pop("config") is not None:
            reader.wrong("type", "is required with config: no handler is registered under the task's name")
    elif found in NODE_TYPES:
        config = node["config"] if isinstance(node["config"], dict) else {}
        node["type"], node["config"] = "handler", {**config, "handler": found}
    else:
        node["type"] = found


def _retries(reader: Reader) -> dict[str, Any] | None:
    value = reader.take("retryPolicy")
    if value is None:
        return None
    policy = Reader(reader.problems, value, reader.at("retryPolicy"))
    policy.required("maxRetries")
    retries = {
        "limit": policy.integer("maxRetries", 0, 0, RETRIES_MAX),
        "delay": _DELAY_MS,
        "backoff": "exponential",
        "multiplier": policy.number("backoffMultiplier", MULTIPLIER, 1, 100),
        "max_delay": policy.integer("maxBackoff", MAX_BACKOFF_MS, 0, DAY_MS),
    }
    policy.done()
    return retries


def _sync_point(draft: Draft, value: Any, at: int) -> dict[str, Any]:
    reader = Reader(draft.problems, value, (_POINTS, at))
    inside = ("sync_points", at)
    draft.place(inside, reader.path)
    draft.place((*inside, "required"), reader.at("requiredTasks"))
    reader.required("name")
    name = reader.text("name", "", least=1)
    point = {
        "id": reader.take("id") or f"sync-{at + 1}",
        "name": name or None,
        "description": reader.text("description", most=4096),
        "required": reader.take("requiredTasks"),
        "timeout": optional_integer(reader, "timeout", 1, SLEEP_MAX_MS),
    }
    reader.done()
    return {key: value for key, value in point.items() if value is not None}


def show(document: Document, original: Mapping[str, Any] | None) -> dict[str, Any]:
    """`{tasks, synchronizationPoints}`. Nodes that only stand for the start of a workflow are no tasks."""
    tasks, points = members(original, _TASKS), members(original, _POINTS)
    hidden = {node.id for node in document.nodes if node.type == "trigger"}
    return {
        _TASKS: [
            _task(node, tasks[node.position] if original is not None else None, hidden)
            for node in document.nodes
            if node.id not in hidden
        ],
        _POINTS: [
            _point(point, points[point.position] if original is not None else None, hidden)
            for point in document.sync_points
        ],
    }


def _task(node: Node, said: Mapping[str, Any] | None, hidden: set[str]) -> dict[str, Any]:
    if said is not None:
        description, policy = said.get("description"), said.get("retryPolicy")
        typed = given(said, "type", "config")
    else:
        description, policy = node.description or None, _policy_of(node.retries)
        typed = {"type": node.type} if node.type != "noop" else {}
        typed |= {"config": node.config} if node.config else {}
    return {
        "id": node.id,
        "name": node.name,
        "description": description,
        "resourceRequirements": _resources(node.resources),
        "dependencies": [need for need in node.depends_on if need not in hidden],
        "timeout": node.timeout,
        "retryPolicy": _policy(policy),
        **typed,
    }


def _resources(resources: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if resources is None else {key: resources.get(key) for key in _RESOURCES}


def _policy_of(retries: Retries) -> dict[str, Any] | None:
    if not retries.limit:
        return None
    multiplier = retries.multiplier if retries.backoff == "exponential" else 1.0
    return {"maxRetries": retries.limit, "backoffMultiplier": multiplier, "maxBackoff": retries.max_delay}


def _policy(policy: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    standard = {"maxRetries": 0, "backoffMultiplier": MULTIPLIER, "maxBackoff": MAX_BACKOFF_MS}
    return standard | given(policy, *standard)


def _point(point: SyncPoint, said: Mapping[str, Any] | None, hidden: set[str]) -> dict[str, Any]:
    return {
        "id": point.id,
        "name": point.name,
        "description": (point.description or None) if said is None else said.get("description"),
        "requiredTasks": [need for need in point.required if need not in hidden],
        "timeout": point.timeout,
    }


FORM = Form("002", "task", _TASKS, (_TASKS, _POINTS), translate, show)
